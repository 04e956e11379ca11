"""100,000 calls by threads and tasks at once on one router, to hosts that fail in every way they can.

Each call is drawn by the seed: its caller, whether it is streamed, and whether its caller cancels or abandons
it. The ledger is checked call by call: it must have what the caller saw. At the end nothing may be left: no
slot, no probe, no load, no socket, no task. The exit code is 1 if a check fails. If no call has ended for a
minute, all stacks are printed and the exit code is 3.

Memory is measured while nothing runs and no connection is kept: after two fifths of the calls, when the
number of concurrent calls has reached its maximum, and at equal distances from there. Only its trend
counts. The command runs itself again with settings under which freed memory is given back: Python's
allocator does that by the megabyte, and glibc keeps some for each of 200 threads, which grows for longer
than a run.

    python benchmarks/soak.py [--calls 100000] [--threads 200] [--tasks 200] [--loops 2] [--seed soak]
    python benchmarks/soak.py --quick     5,000 calls by 40 threads and 40 tasks; memory does not count
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import ctypes
import faulthandler
import gc
import itertools
import json
import logging
import os
import statistics
import sys
import threading
import time
import traceback
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Any, Literal, NamedTuple

import psutil

import server
import sick
from ccroute import (
    Agent,
    AnthropicBackend,
    AsyncStream,
    Completion,
    OllamaBackend,
    OpenAIBackend,
    Price,
    RetryPolicy,
    Router,
    Stream,
    Timeout,
)
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.errors import CcrouteError, StreamInterruptedError
from ccroute.http.pool import Pool
from ccroute.observe import (
    BreakerClosed,
    BreakerOpened,
    CooledDown,
    Event,
    FellBack,
    LedgerFailed,
    Queued,
    Retried,
)
from ccroute.types import Attempt
from contenders import KEY

GROWTH = 1.0
"""MB that memory may grow by in 100,000 calls."""
PATIENCE = 60.0
"""Seconds without the end of any call after which the run is given up."""
KEPT_ROWS = 1000
"""Rows that the ledger keeps as they are: all of them would look like a leak."""
ALLOCATOR = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
}
"""Nobody keeps what is free; the second does nothing where there is no glibc."""
PERMITS = 8
"""Calls that the small host serves at a time."""
WAITS = (0.02, 0.3)
"""Seconds within which impatient callers cancel: as long as a call takes by itself, and under full load."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a soak. `share` of the requests get a fault; `silence` is how long the router waits (s)."""

    calls: int = 100_000
    threads: int = 200
    tasks: int = 200
    loops: int = 2
    rounds: int = 6
    share: float = 0.05
    silence: float = 2.0
    seed: str = "soak"

    judge_memory: bool = True

    @property
    def warm(self) -> int:
        """Calls after which memory and time begin to count."""
        return self.calls * 2 // 5

    @property
    def ends(self) -> list[int]:
        """The numbers of calls between which nothing runs, from the warm-up on."""
        step = (self.calls - self.warm) // self.rounds
        return [*range(self.warm, self.calls - step + 1, step), self.calls]

    @property
    def flaps_after(self) -> int:
        """Requests after which the flapping host goes away."""
        return min(2000, self.calls // 50)


# -- the calls -----------------------------------------------------------------------------------------------

Fate = Literal["wait", "cancel", "close", "drop"]
AGENTS = {
    "worker": (Agent(model="fast", fallback=("spare",)), 60),
    "queuer": (Agent(model="spare", fallback=("fast",)), 15),
    "reviewer": (Agent(model="deep", fallback=("fast", "spare")), 15),
    "loner": (Agent(model="steady/m"), 10),
}
"""Each agent and its share of the calls, in percent."""
_NAMES, _SHARES = list(AGENTS), [share for _, share in AGENTS.values()]


class Ask(NamedTuple):
    """One call, and what its caller does: `after` is when it is cancelled, in seconds from its start."""

    number: int
    agent: str
    streamed: bool
    fate: Fate
    after: float
    priority: int

    @property
    def options(self) -> dict[str, Any]:
        return {
            "prompt": f"call {self.number:09}",
            "agent": self.agent,
            "max_tokens": 100,
            "priority": self.priority,
            "metadata": {"call": self.number},
        }


def drawn(seed: str, number: int) -> Ask:
    """The same call for the same seed in any thread or task: 2 % are cancelled and 2 % are abandoned."""
    chance = Random(f"{seed} {number}")
    fate: Fate = chance.choices(("wait", "cancel", "close", "drop"), (96, 2, 1, 1))[0]
    streamed = chance.random() < 0.5 or fate in {"close", "drop"}
    agent = chance.choices(_NAMES, _SHARES)[0]
    after = chance.uniform(0, chance.choice(WAITS))
    return Ask(number, agent, streamed, fate, after, priority=chance.choice((0, 0, 0, 1)))


def router(addresses: dict[str, str], ledger: MemoryLedger, keys: Keys, told: Told, silence: float) -> Router:
    """Two hosts behind one alias, one of them flapping; a fallback with few slots; a key that is refused."""
    backends = [
        OpenAIBackend("steady", base_url=addresses["steady"], api_key=KEY),
        OpenAIBackend("flapping", base_url=addresses["flapping"], local=True),
        OllamaBackend("small", addresses["small"], max_concurrency=PERMITS),
        AnthropicBackend("keyed", base_url=addresses["keyed"], api_key=keys.current),
    ]
    return Router(
        backends,
        {"fast": ["steady/m", "flapping/m"], "spare": "small/m", "deep": "keyed/m"},
        {name: agent for name, (agent, _) in AGENTS.items()},
        prices={"m": Price(3, 15), "small/m": Price("0.01", "0.05")},
        ledger=ledger,
        retry=RetryPolicy(base=0.02, max=0.2),
        timeout=Timeout(total=60, connect=5, first=silence, idle=silence),
        on_event=told,
    )


class Keys:
    """A key that is rotated from time to time, so that a refused one does not end its backend's use."""

    def __init__(self) -> None:
        self._number = 0

    def current(self) -> str:
        return f"sk-soak-{self._number}"

    def rotate(self) -> None:
        self._number += 1


class Told:
    """Counts events. A finaliser may emit one in the middle of anything, so there is no lock."""

    def __init__(self) -> None:
        kinds = (BreakerOpened, BreakerClosed, CooledDown, FellBack, Retried, Queued, LedgerFailed)
        self._counts: dict[type[Event], itertools.count[int]] = {kind: itertools.count() for kind in kinds}

    def __call__(self, event: Event) -> None:
        count = self._counts.get(type(event))
        if count is not None:
            next(count)

    def counts(self) -> dict[str, int]:
        """How often each kind was emitted; called once, at the end."""
        return {kind.__name__: next(count) for kind, count in self._counts.items()}


# -- their outcomes ------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What a caller saw of its call; None if it cannot know. `cost` is in USD."""

    how: Literal["answered", "failed", "cancelled", "abandoned"]
    attempts: Sequence[Attempt] | None = None
    count: int | None = None
    cost: Decimal | None = None


def from_answer(ask: Ask, answer: Completion, text: str) -> Seen:
    assert text == answer.text == sick.text(ask.number), f"was answered {text!r}, {answer!r}"
    return Seen("answered", answer.route.attempts, len(answer.route.attempts), answer.cost)


def from_error(error: CcrouteError, said: Sequence[str] = ()) -> Seen:
    cost = sum((attempt.cost or Decimal(0) for attempt in error.attempts), Decimal(0))
    if isinstance(error, StreamInterruptedError):
        assert error.partial is not None
        assert error.partial.text == "".join(said), "the partial answer is not what was heard"
        assert error.partial.cost == cost
    return Seen("failed", error.attempts, len(error.attempts), cost)


def left_early(ask: Ask, stream: Stream | AsyncStream) -> Seen:
    """After the first content. A stream that is only dropped has one attempt more than its route."""
    attempts = stream.route.attempts
    if ask.fate == "drop":
        return Seen("abandoned", count=len(attempts) + 1)
    return Seen("abandoned", attempts, len(attempts), stream.partial.cost)


class Books(MemoryLedger):
    """The router's ledger; it also holds the rows of each call until its caller has compared them."""

    def __init__(self) -> None:
        super().__init__(limit=KEPT_ROWS)
        self._pages: dict[int, list[LedgerRow]] = {}

    def record(self, row: LedgerRow) -> None:
        super().record(row)
        self._pages.setdefault(row.metadata["call"], []).append(row)

    def take(self, number: int) -> list[LedgerRow]:
        """The rows of a call that has ended."""
        return self._pages.pop(number, [])

    @property
    def unclaimed(self) -> list[int]:
        """Calls of which a row was written after their end."""
        return sorted(self._pages)


@dataclass(slots=True)
class Sums:
    """The sums of some calls. `failures` are counted by class; `unrecorded` calls have no row."""

    begun: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    rows: int = 0
    finals: int = 0
    cost: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    failures: Counter[str] = field(default_factory=Counter)
    unrecorded: list[int] = field(default_factory=list)

    def add(self, other: Sums) -> None:
        self.begun += other.begun
        self.ended += other.ended
        self.attempts += other.attempts
        self.rows += other.rows
        self.finals += other.finals
        self.cost += other.cost
        self.paid += other.paid
        self.failures += other.failures
        self.unrecorded += other.unrecorded

    def count(self, ask: Ask, seen: Seen, rows: Sequence[LedgerRow]) -> None:
        """`cost` and `attempts` are the callers', `paid` and `rows` the ledger's."""
        self.ended[seen.how] += 1
        paid = sum((row.cost or Decimal(0) for row in rows), Decimal(0))
        self.attempts += len(rows) if seen.count is None else seen.count
        self.rows += len(rows)
        self.finals += sum(row.final for row in rows)
        self.cost += paid if seen.cost is None else seen.cost
        self.paid += paid
        self.failures.update(row.failure for row in rows if row.failure is not None)
        if not rows:
            self.unrecorded.append(ask.number)


def differences(seen: Seen, rows: Sequence[LedgerRow]) -> Iterator[str]:
    """How the ledger differs from what a caller saw, and from what must hold of every call."""
    if [row.final for row in rows] != [False] * (len(rows) - 1) + [True] * bool(rows):
        yield f"rows are final: {[row.final for row in rows]}"
    if len({row.call for row in rows}) > 1:
        yield "its rows belong to several calls"
    if seen.count is not None and seen.count != len(rows):
        yield f"{seen.count} attempts were seen, {len(rows)} rows written"
    outcomes = [(row.deployment, row.outcome, row.failure, row.cost) for row in rows]
    if seen.attempts is not None:
        told = [(each.deployment, each.outcome, each.failure, each.cost) for each in seen.attempts]
        if told != outcomes:
            yield f"attempts {told} are not the rows {outcomes}"
    last = rows[-1].outcome if rows else None
    allowed = {
        "answered": {"ok"},
        "failed": {"failed", "interrupted", None},
        # A caller that cancels just when its call ends has the end recorded, and does not see it.
        "cancelled": {"cancelled", "ok", "failed", "interrupted", None},
        "abandoned": {"cancelled"},
    }
    if last not in allowed[seen.how]:
        yield f"the last row says {last}"
    if seen.cost is not None and seen.cost != sum((row.cost or Decimal(0) for row in rows), Decimal(0)):
        yield f"costs {seen.cost} and rows {outcomes} differ"


# -- the callers ---------------------------------------------------------------------------------------------


class Callers:
    """Threads, and tasks on several loops, that share the calls."""

    def __init__(self, scale: Scale, made: Router, books: Books, keys: Keys) -> None:
        self.scale = scale
        self.router = made
        self.books = books
        self.keys = keys
        self.sums = Sums()
        self.wrong: list[str] = []
        self.seconds = array("d", bytes(8 * scale.calls))
        """How long each answered call took; all of it is there before memory is measured."""
        self.ended = 0
        """About how many: two threads may count as one. `sums` has it exactly."""
        self._rotate_after = max(1, scale.calls // 100)
        self._stack = ExitStack()

    def __enter__(self) -> Callers:
        self._threads = self._stack.enter_context(ThreadPoolExecutor(self.scale.threads))
        self.loops = [self._stack.enter_context(looping()) for _ in range(self.scale.loops)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, numbers: range) -> None:
        """Make all these calls; they have ended when this returns."""
        tickets = each_once(numbers)
        share = self.scale.tasks // len(self.loops)
        running = [self._threads.submit(self._thread, tickets) for _ in range(self.scale.threads)]
        running += [
            asyncio.run_coroutine_threadsafe(self._tasks(tickets, share), loop) for loop in self.loops
        ]
        for ended in concurrent.futures.as_completed(running):
            self.sums.add(ended.result())

    def _thread(self, tickets: Iterator[int]) -> Sums:
        sums = Sums()
        for number in tickets:
            ask = drawn(self.scale.seed, number)
            sums.begun += 1
            began = time.perf_counter()
            try:
                seen = self._call(ask)
            except Exception:
                seen = self._broken(ask)
            self._audit(ask, seen, began, sums)
        return sums

    async def _tasks(self, tickets: Iterator[int], count: int) -> Sums:
        sums = Sums()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._task(tickets, sums))
        return sums

    async def _task(self, tickets: Iterator[int], sums: Sums) -> None:
        for number in tickets:
            ask = drawn(self.scale.seed, number)
            sums.begun += 1
            began = time.perf_counter()
            try:
                seen = await self._acall(ask)
            except Exception:
                seen = self._broken(ask)
            self._audit(ask, seen, began, sums)

    def _audit(self, ask: Ask, seen: Seen, began: float, sums: Sums) -> None:
        if seen.how == "answered":
            self.seconds[ask.number] = time.perf_counter() - began
        rows = self.books.take(ask.number)
        self.wrong += [f"{ask}: {difference}" for difference in differences(seen, rows)]
        sums.count(ask, seen, rows)
        self.ended += 1
        if not self.ended % self._rotate_after:
            self.keys.rotate()

    def _broken(self, ask: Ask) -> Seen:
        self.wrong.append(f"{ask}: {traceback.format_exc()}")
        return Seen("failed")

    # A function of its own per way to call, so that an iterator that it drops is gone when it returns.

    def _call(self, ask: Ask) -> Seen:
        said: list[str] = []
        try:
            if ask.streamed:
                return self._stream(ask, said)
            answer = self.router.complete(**ask.options)
            return from_answer(ask, answer, answer.text)
        except CcrouteError as error:
            return from_error(error, said)

    def _stream(self, ask: Ask, said: list[str]) -> Seen:
        stream = self.router.stream(**ask.options)
        closed = threading.Event()
        if ask.fate == "cancel":
            self._close_later(stream, closed, ask)
        for chunk in stream:
            said.append(chunk.text)
            if ask.fate == "close":
                stream.close()
            if ask.fate in {"close", "drop"}:
                return left_early(ask, stream)
        try:
            answer = stream.completion
        except RuntimeError:
            assert ask.fate == "cancel", "the stream ended without an end"
            closed.wait()
            return Seen("cancelled")
        return from_answer(ask, answer, "".join(said))

    def _close_later(self, stream: Stream, closed: threading.Event, ask: Ask) -> None:
        """A thread's call can only be cancelled from outside: by the thread of a loop."""
        loop = self.loops[ask.number % len(self.loops)]

        def close() -> None:
            stream.close()
            closed.set()

        loop.call_soon_threadsafe(loop.call_later, ask.after, close)

    async def _acall(self, ask: Ask) -> Seen:
        said: list[str] = []
        try:
            async with asyncio.timeout(ask.after if ask.fate == "cancel" else None):
                if ask.streamed:
                    return await self._astream(ask, said)
                answer = await self.router.acomplete(**ask.options)
                return from_answer(ask, answer, answer.text)
        except TimeoutError:
            return Seen("cancelled")
        except CcrouteError as error:
            return from_error(error, said)

    async def _astream(self, ask: Ask, said: list[str]) -> Seen:
        stream = self.router.astream(**ask.options)
        async for chunk in stream:
            said.append(chunk.text)
            if ask.fate == "close":
                await stream.aclose()
            if ask.fate in {"close", "drop"}:
                return left_early(ask, stream)
        return from_answer(ask, stream.completion, "".join(said))


def each_once(numbers: range) -> Iterator[int]:
    """The numbers, each given to exactly one of the threads that ask."""
    return itertools.takewhile(numbers.__contains__, itertools.count(numbers.start))


@contextlib.contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in its own thread."""
    started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
    ended = asyncio.Event()

    async def live() -> None:
        started.set_result(asyncio.get_running_loop())
        await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    loop = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@contextlib.contextmanager
def watchdog(callers: Callers) -> Iterator[None]:
    """Ends the process, with all stacks, when no call has ended for too long."""
    over = threading.Event()

    def watch() -> None:
        before = -1
        while not over.wait(PATIENCE):
            if callers.ended == before:
                print(f"no call has ended for {PATIENCE:.0f} s", file=sys.stderr)
                faulthandler.dump_traceback(all_threads=True)
                for task in itertools.chain.from_iterable(map(asyncio.all_tasks, callers.loops)):
                    task.print_stack()
                os._exit(3)
            before = callers.ended
            # This thread needs the interpreter's lock; faulthandler's does not.
            faulthandler.dump_traceback_later(3 * PATIENCE, exit=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


# -- what is left --------------------------------------------------------------------------------------------


class Check(NamedTuple):
    """Something that must hold, and what was found instead."""

    what: str
    holds: bool
    found: object = ""


def books_balance(callers: Callers, books: Books, scale: Scale) -> Iterator[Check]:
    sums = callers.sums
    tallies = books.tallies().values()
    yield Check(
        "every call that began has ended", sums.begun == sums.ended.total() == scale.calls, sums.ended
    )
    yield Check(
        "every call's rows are what its caller saw", not callers.wrong, f"{len(callers.wrong)} differ"
    )
    yield Check("no row was written after its call", not books.unclaimed, books.unclaimed[:5])
    rows = (sums.attempts, sums.rows, sum(tally.attempts for tally in tallies))
    yield Check("as many rows as attempts", len({*rows}) == 1, rows)
    finals = (sums.begun - len(sums.unrecorded), sums.finals, sum(tally.requests for tally in tallies))
    yield Check("one final row for each call that made an attempt", len({*finals}) == 1, finals)
    costs = (sums.cost, sums.paid, sum(tally.cost for tally in tallies))
    yield Check("costs add up, and are some", len({*costs}) == 1 and costs[0] > 0, costs)


def nothing_runs(made: Router) -> Iterator[Check]:
    stats = made.stats()
    hosts, deployments = stats.backends.values(), stats.deployments.values()
    slots = [(host.slots_held, host.queued) for host in hosts]
    yield Check("no slot is held, no call waits", slots == [(0, 0)] * len(slots), slots)
    in_flight = [each.in_flight for each in (*hosts, *deployments)]
    yield Check("the load is 0", not any(in_flight), in_flight)
    health = [each.health.state for each in deployments] + [host.credential.state for host in hosts]
    yield Check("no probe is out", "probing" not in health, health)
    busy = [host.busy_connections for host in hosts]
    yield Check("no connection is in use", not any(busy), busy)


def nothing_is_open(callers: Callers, addresses: dict[str, str]) -> Iterator[Check]:
    """After the router was closed, while the loops still run."""
    ports = {int(address.rpartition(":")[2]) for address in addresses.values()}
    connections = psutil.Process().net_connections(kind="tcp")
    sockets = [each for each in connections if each.raddr and each.raddr.port in ports]
    yield Check("no socket is open", not sockets, sockets[:5])
    tasks = [asyncio.run_coroutine_threadsafe(others(), loop).result() for loop in callers.loops]
    yield Check("no task is left", not any(tasks), tasks)


async def others() -> list[str]:
    """The tasks of the running loop that are neither this one nor the one that the loop lives for."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return [repr(task) for task in tasks if "looping" not in task.get_coro().__qualname__]


def hosts_agree(report: dict[str, Any], callers: Callers) -> Iterator[Check]:
    yield Check("the hosts have no connection", not any(host["open"] for host in report.values()))
    seen = {number for host in report.values() for number in host["calls"]}
    lost = seen & {*callers.sums.unrecorded}
    yield Check("every call that reached a host has a row", not lost, sorted(lost)[:5])
    known = {kind for wire in sick.WIRES.values() for on in (False, True) for kind in sick.faults(wire, on)}
    never = {*known, *dict(sick.REFUSALS)} - {kind for host in report.values() for kind in host["faults"]}
    yield Check("every fault happened", not never, never)
    flaps, refused = report["flapping"]["flaps"], callers.sums.failures["not_sent"]
    # In a short run its breaker may be open for as long as it is away.
    met = flaps > 0 and (refused > 0 or not callers.scale.judge_memory)
    yield Check("a host went away and refused connections", met, (flaps, refused))


# -- the run -------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """Memory (RSS, in MB) after so many calls, while nothing runs."""

    calls: int
    rss: float


def sampled(calls: int, callers: Callers) -> Sample:
    connections = callers.router._connections
    close_idle(connections._threads)
    for loop in callers.loops:
        asyncio.run_coroutine_threadsafe(close_idle_here(connections._loops), loop).result()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return Sample(calls, psutil.Process().memory_info().rss / 1e6)


def close_idle(pool: Pool) -> None:
    """The number of kept connections is random, and each takes some kB."""
    for stack in pool.stacks.values():
        while (connection := stack.pop()) is not None:
            connection.close()


async def close_idle_here(pools: Mapping[Any, Pool]) -> None:
    pool = pools.get(asyncio.get_running_loop())
    if pool is not None:
        close_idle(pool)
    await asyncio.sleep(0)  # their sockets go in the loop's next round


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a soak. CPU is user + system of this process, all threads, in µs per call, with the
    soak's own work; both it and calls per second are of what came after the warm-up."""

    checks: list[Check]
    wrong: list[str]
    samples: list[Sample]
    per_second: float
    cpu: float
    p50: float
    p99: float
    ended: Counter[str]
    failures: Counter[str]
    events: dict[str, int]
    faults: Counter[str]
    cost: Decimal

    @property
    def growth(self) -> float:
        """MB of memory per 100,000 calls, by least squares over the samples."""
        return statistics.linear_regression(*zip(*self.samples, strict=True)).slope * 100_000


def soak(scale: Scale) -> Result:
    """Make all calls, in rounds between which nothing runs, and check what is left."""
    books, keys, told = Books(), Keys(), Told()
    threads = {*threading.enumerate()}
    options = (scale.seed, str(scale.share), str(scale.flaps_after))
    with server.process(sick.__file__, *options) as hosts:
        assert hosts.stdin
        assert hosts.stdout
        addresses = json.loads(hosts.stdout.readline())
        made = router(addresses, books, keys, told, scale.silence)
        with Callers(scale, made, books, keys) as callers, watchdog(callers):
            callers.ask(range(scale.warm))
            samples = [sampled(scale.warm, callers)]
            wall, cpu = time.perf_counter(), time.process_time()
            for start, end in itertools.pairwise(scale.ends):
                callers.ask(range(start, end))
                samples.append(sampled(end, callers))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            checks = [*books_balance(callers, books, scale), *nothing_runs(made)]
            made.close()
            for loop in callers.loops:
                asyncio.run_coroutine_threadsafe(made.aclose(), loop).result()
            checks += nothing_is_open(callers, addresses)
        hosts.stdin.close()
        report = json.loads(hosts.stdout.readline())
    checks += hosts_agree(report, callers)
    left = {*threading.enumerate()} - threads
    checks.append(Check("no thread is left", not left, left))
    measured = scale.calls - scale.warm
    cuts = statistics.quantiles([each for each in callers.seconds[scale.warm :] if each], n=100)
    return Result(
        checks,
        callers.wrong,
        samples,
        per_second=measured / wall,
        cpu=cpu / measured * 1e6,
        p50=cuts[49] * 1e3,
        p99=cuts[98] * 1e3,
        ended=callers.sums.ended,
        failures=callers.sums.failures,
        events=told.counts(),
        faults=sum((Counter(host["faults"]) for host in report.values()), Counter()),
        cost=callers.sums.paid,
    )


def tell(result: Result) -> None:
    for sample in result.samples:
        print(f"after {sample.calls:7} calls: {sample.rss:6.1f} MB")
    for name in ("ended", "failures", "faults", "events"):
        counts = sorted(getattr(result, name).items())
        print(f"{name}: {', '.join(f'{key} {count}' for key, count in counts)}")
    print(f"spent: ${result.cost}")
    for wrong in result.wrong[:20]:
        print(f"WRONG {wrong}")
    for check in result.checks:
        print(f"ok    {check.what}" if check.holds else f"FAILS {check.what}: {check.found}")
    print(
        f"{result.per_second:.0f} calls/s, {result.cpu:.0f} µs of CPU per call, p50 {result.p50:.0f} ms, "
        f"p99 {result.p99:.0f} ms, {result.growth:+.2f} MB per 100,000 calls",
        flush=True,
    )


QUICK = Scale(calls=5000, threads=40, tasks=40, rounds=1, silence=1.0, judge_memory=False)
"""Too short for memory to have come to rest."""


def arguments() -> Scale:
    usual = QUICK if "--quick" in sys.argv else Scale()
    parser = argparse.ArgumentParser(description="many calls at once on one router, to hosts that fail")
    for name in ("calls", "threads", "tasks", "loops"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--seed", default=usual.seed)
    parser.add_argument("--quick", action="store_true", help="under 15 s: few calls; memory does not count")
    options = vars(parser.parse_args())
    del options["quick"]
    return replace(usual, **options)


def main() -> int:
    scale = arguments()
    if "PYTHONMALLOC" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | ALLOCATOR)
    server.allow_files(4096)
    logging.getLogger("ccroute").setLevel(logging.ERROR)
    result = soak(scale)
    if scale.judge_memory:
        what = f"memory grows by at most {GROWTH} MB in 100,000 calls"
        result.checks.append(Check(what, result.growth <= GROWTH, result.growth))
    tell(result)
    return 0 if all(check.holds for check in result.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
