"""Thousands of calls in flight at the same moment, on one event loop: what each costs in CPU and in memory.

The server answers only after the requests of all calls have arrived. Memory is read before it answers. So
no call ends before the last one is sent. Every flight has its own server, router and connections. The CPU
includes the time of Python's garbage collector, which is also shown by itself: it looks at all live
objects, again and again while they become more.

    python benchmarks/in_flight.py [--calls 1000,5000,10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

import server
from ccroute import Completion, OpenAIBackend, Price, Router, Timeout
from ccroute.accounting import MemoryLedger
from contenders import KEY, MESSAGES, MODEL

LINEAR = 1.3
"""How much more CPU a call of the largest flight may cost than one of the smallest."""
KILOBYTES = 20
"""Memory that a call in flight may take."""
SPARE_FILES = 200
"""Open files besides the connections."""
PATIENCE = 120.0
"""Seconds until all requests have to be there."""
KEPT_ROWS = 1000


# -- the server ----------------------------------------------------------------------------------------------


class Hall:
    """Where requests wait until all have arrived. A line on stdin sets `expected`, the next line opens."""

    def __init__(self) -> None:
        self.expected = 0
        self._waiting: list[asyncio.Transport] = []

    def told(self, line: str) -> None:
        if line.strip():
            self.expected = int(line)
            return
        for transport in self._waiting:
            transport.write(server.ANSWERS[b"/v1/chat/completions", False])
        self._waiting.clear()

    def arrive(self, transport: asyncio.Transport) -> None:
        self._waiting.append(transport)
        if len(self._waiting) == self.expected:
            print("all are here", flush=True)


class Guest(server.FixedAnswers):
    """One connection."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    def answer(self, head: bytes, body: bytes) -> None:
        self._hall.arrive(self.transport)


async def serve() -> None:
    loop, hall, ended = asyncio.get_running_loop(), Hall(), asyncio.Event()
    listener = await loop.create_server(lambda: Guest(hall), "127.0.0.1", 0, backlog=server.BACKLOG)
    host, port = listener.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(hall.told, line)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()


# -- a flight ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flight:
    """`calls` at once. CPU (user + system of this process), the garbage collector's part of it, and wall are
    in µs per call. `kilobytes` per call is the memory above the start's while all were in flight."""

    calls: int
    cpu: float
    collecting: float
    wall: float
    kilobytes: float


class Collecting:
    """The CPU seconds of the garbage collector while the block runs."""

    def __enter__(self) -> Collecting:
        gc.collect()
        self.seconds = 0.0
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "stop":
            self.seconds += now - self._began
        self._began = now


def fly(calls: int, base: int) -> Flight:
    """Have so many calls in flight. Memory is compared with `base`, in bytes."""
    server.allow_files(calls + SPARE_FILES)  # the server's process inherits it
    with server.process(__file__, "--serve") as process:
        assert process.stdout
        return asyncio.run(_fly(process, process.stdout.readline().strip(), calls, base))


async def _fly(process: subprocess.Popen[str], address: str, calls: int, base: int) -> Flight:
    backend = OpenAIBackend("bench", base_url=f"{address}/v1", api_key=KEY, local=True)
    async with Router(
        [backend],
        aliases={MODEL: f"bench/{MODEL}"},
        agents={"bench-agent": MODEL},
        prices={f"bench/{MODEL}": Price(3, 15)},
        ledger=MemoryLedger(limit=KEPT_ROWS),
        timeout=Timeout(connect=PATIENCE),
    ) as router:
        with Collecting() as collecting:
            wall, cpu = time.perf_counter(), time.process_time()
            tell(process, str(calls))
            tasks = [
                asyncio.create_task(router.acomplete(messages=MESSAGES, agent="bench-agent", max_tokens=100))
                for _ in range(calls)
            ]
            await all_there(process, tasks)
            memory = psutil.Process().memory_info().rss - base
            tell(process, "")
            for answer in await asyncio.gather(*tasks):
                assert answer.text == server.TEXT, "an answer is not whole"
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    micro = 1e6 / calls
    return Flight(calls, cpu * micro, collecting.seconds * micro, wall * micro, memory / calls / 1e3)


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


async def all_there(process: subprocess.Popen[str], tasks: Sequence[asyncio.Task[Completion]]) -> None:
    """Wait until the server has all requests; none is answered before that."""
    assert process.stdout
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.stdout, told.set)
    try:
        await asyncio.wait_for(told.wait(), PATIENCE)
    except TimeoutError:
        ended = [task for task in tasks if task.done()]
        raise RuntimeError(f"{len(ended)} of {len(tasks)} calls ended early: {ended[:1]}") from None
    finally:
        loop.remove_reader(process.stdout)
    process.stdout.readline()
    assert not any(task.done() for task in tasks), "a call ended before it was answered"


# -- the command ---------------------------------------------------------------------------------------------


def at_rest() -> int:
    """This process's memory in bytes, after everything that a call needs was used once."""
    fly(20, 0)
    gc.collect()
    return psutil.Process().memory_info().rss


def middle(flights: Sequence[Flight]) -> Flight:
    """Times are medians. Memory is the first flight's: later flights reuse memory."""
    times = (
        statistics.median(getattr(each, name) for each in flights) for name in ("cpu", "collecting", "wall")
    )
    return Flight(flights[0].calls, *times, flights[0].kilobytes)


def main() -> None:
    parser = argparse.ArgumentParser(description="calls in flight at the same moment, on one loop")
    parser.add_argument("--calls", default="1000,5000,10000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="be the server")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    sizes = sorted(map(int, options.calls.split(",")))
    base = at_rest()
    rounds = [[fly(size, base) for size in sizes] for _ in range(options.rounds)]
    found = [middle(flights) for flights in zip(*rounds, strict=True)]
    print("in flight   CPU µs  of it GC  wall µs     kB   (each)")
    for each in found:
        print(f"{each.calls:9}{each.cpu:9.0f}{each.collecting:10.0f}{each.wall:9.0f}{each.kilobytes:7.1f}")
    few, many = found[0], found[-1]
    ratio, bare = many.cpu / few.cpu, (many.cpu - many.collecting) / (few.cpu - few.collecting)
    print(f"CPU: × {ratio:.2f}, without GC × {bare:.2f} (goal: ≤ {LINEAR} {'✓' if ratio <= LINEAR else '✗'})")
    most = max(each.kilobytes for each in found)
    print(f"memory: {most:.0f} kB (goal: < {KILOBYTES} {'✓' if most < KILOBYTES else '✗'})")


if __name__ == "__main__":
    main()
