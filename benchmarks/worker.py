"""Runs one contender in a process of its own, so that its CPU, imports and garbage are nobody else's.

The parent (`compare.py`) says which case to open, when to run it, and when to close it. In between the worker
waits and costs nothing. So the contenders' runs can be interleaved.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

import server
from peers import CONTENDERS, Contender

IDLE = 4.0
"""Seconds that connections may wait between two rounds. httpx closes them after 5, then it settles again."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load. `pace`: seconds between the events of a stream; 0 writes them at once."""

    kind: Literal["chat", "stream", "chunked", "sync", "sync-stream"]
    at_once: int
    requests: int  # per run
    goal: float | None = None  # ccroute's CPU, as a ratio to tuned httpx's
    wire: str = "openai"
    pace: float = 0

    @property
    def name(self) -> str:
        return (
            f"{self.kind}-{self.at_once}"
            if self.wire == "openai"
            else f"{self.wire}-{self.kind}-{self.at_once}"
        )

    @property
    def sync(self) -> bool:
        return self.kind.startswith("sync")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender; CPU and wall in µs per request, latencies in ms."""

    cpu: float
    wall: float
    p50: float
    p99: float


class Stopwatch:
    """Measures the block it wraps, and collects the latencies of its requests."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.latencies: list[float] = []

    def __enter__(self) -> Stopwatch:
        gc.collect()  # the same start for all; collection stays on, as in real use
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu = (time.process_time() - self.cpu) / self.requests * 1e6
        self.wall = (time.perf_counter() - self.wall) / self.requests * 1e6

    def run(self) -> Run:
        cuts = statistics.quantiles(self.latencies, n=100, method="inclusive")
        return Run(self.cpu, self.wall, cuts[49] * 1e3, cuts[98] * 1e3)


async def run_async(call: Callable[[], Awaitable[int]], at_once: int, requests: int) -> Run:
    tickets = iter(range(requests))

    async def caller() -> None:
        for _ in tickets:
            start = time.perf_counter()
            check(await call())
            watch.latencies.append(time.perf_counter() - start)

    with Stopwatch(requests) as watch:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(caller())
    return watch.run()


def run_sync(call: Callable[[], int], at_once: int, requests: int) -> Run:
    tickets = itertools.count()  # one `next` is atomic, unlike a range iterator's end under threads

    def caller() -> None:
        while next(tickets) < requests:
            start = time.perf_counter()
            check(call())
            watch.latencies.append(time.perf_counter() - start)

    with ThreadPoolExecutor(at_once - 1 or 1) as pool, Stopwatch(requests) as watch:
        others = [pool.submit(caller) for _ in range(at_once - 1)]
        caller()  # one caller is the main thread: some clients stay with the thread that used them first
        for done in others:
            done.result()
    return watch.run()


def check(length: int) -> None:
    assert length == len(server.TEXT), "an answer is not whole"


# -- the worker's process ------------------------------------------------------------------------------------


class Bench:
    """One contender, its event loop, and the case it is at."""

    def __init__(self, name: str, runner: asyncio.Runner) -> None:
        self.name, self.runner = name, runner

    def open(self, case: Case, url: str) -> float:
        """Make the client and warm it up. Returns the seconds per request, pauses of the server included."""
        self.case, self.contender = case, self.runner.run(self._make(case, url))
        self._settle()
        return self._requests(case.at_once).wall / 1e6

    async def _make(self, case: Case, url: str) -> Contender:
        return CONTENDERS[self.name](case.wire, url)  # some clients have to be made on the loop

    def run(self, requests: int) -> Run:
        if time.monotonic() - self._ended > IDLE:
            self._settle()
        return self._requests(requests)

    def _settle(self) -> None:
        self._requests(self.contender.settles * self.case.at_once)

    def _requests(self, count: int) -> Run:
        case, contender = self.case, self.contender
        count = max(count, 2)  # one has no quantiles
        if case.sync:
            call = contender.complete if case.kind == "sync" else contender.stream
            run = run_sync(call, case.at_once, count)
        else:
            acall = contender.acomplete if case.kind == "chat" else contender.astream
            run = self.runner.run(run_async(acall, case.at_once, count))
        self._ended = time.monotonic()
        return run

    def close(self) -> None:
        self.runner.run(self.contender.aclose())


def work(orders: Connection, name: str) -> None:
    """Carry out orders, a method's name and its arguments, until None; each has a result or an error."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    # EOFError: the parent has ended. Ctrl-C ends both.
    with contextlib.suppress(EOFError, KeyboardInterrupt), asyncio.Runner() as runner:
        bench = Bench(name, runner)
        for method, *arguments in iter(orders.recv, None):
            try:
                orders.send((getattr(bench, method)(*arguments), None))
            except Exception as error:
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                orders.send((None, f"{type(error).__name__}: {error}"))


class WorkerError(Exception):
    """What went wrong in a worker."""


class Worker:
    """A worker, as its parent sees it."""

    def __init__(self, name: str) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy what the parent has imported
        self._orders, theirs = spawn.Pipe()
        self._process = spawn.Process(target=work, args=(theirs, name), daemon=True)
        self._process.start()
        theirs.close()

    def order(self, method: str, *arguments: object) -> Any:
        try:
            self._orders.send((method, *arguments))
            result, error = self._orders.recv()
        except (EOFError, OSError):
            raise WorkerError("the process died") from None
        if error:
            raise WorkerError(error)
        return result

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._orders.send(None)
        self._process.join(10)
        self._process.terminate()


@contextlib.contextmanager
def workers(names: list[str]) -> Iterator[dict[str, Worker]]:
    """A worker for each contender, for as long as the block runs."""
    started = {name: Worker(name) for name in names}
    try:
        yield started
    finally:
        for worker in started.values():
            worker.end()
