"""Row 52: calls that are cancelled, interrupted, closed or dropped, wherever they are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import anyio
import pytest
from tests.faults.harness import row
from tests.faults.parallel import (
    ParallelHarness,
    forget,
    locks,
    program,
    settled_once,
)
from tests.faults.servers import HEALTHY, OPENAI, Wire
from tests.support import loops
from tests.support.scripted import Reply, Request, Reset, Step, Wait, answer
from tests.test_canaries import PROMPT

import ccroute.router
from ccroute import RetryPolicy
from ccroute.accounting import LedgerRow
from ccroute.flow import call
from ccroute.flow.effects import Effect

BUSY, ANSWER = answer(503, body="busy"), answer(json=OPENAI.whole)
STREAM = [*OPENAI.stream(*OPENAI.events)]
BROKEN = [*OPENAI.stream(*OPENAI.opening, Reset())]
CHUNKS = 4
"""What a whole stream has: three pieces of text, and the end."""
THRICE = RetryPolicy(attempts=3, per_deployment=2, base=0.002, max=0.002)


# -- a call and where it is stopped --------------------------------------------------------------------------


class CallScript(NamedTuple):
    """How a call goes: whether it is a stream, and what its two servers do, the last of it for ever."""

    stream: bool
    main: Sequence[Reply]
    other: Sequence[Reply] = ()


WAYS = {
    "answer": CallScript(False, [ANSWER]),
    "retry": CallScript(False, [BUSY, ANSWER]),
    "fallback": CallScript(False, [BUSY], [ANSWER]),
    "stream": CallScript(True, [STREAM]),
    "stream retried": CallScript(True, [BROKEN, STREAM]),
    "stream falls back": CallScript(True, [BROKEN], [STREAM]),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Slow(Wire):
    """Takes a millisecond before it answers, and again within its answer."""

    def answer(self, request: Request) -> Iterator[Step]:
        for step in super().answer(request):
            yield Wait(0.001)
            yield step


class StopHarness:
    """One router to two servers, for calls that go one way and are stopped, one after the other."""

    def __init__(self, parallel: ParallelHarness, way: CallScript) -> None:
        self.parallel, self.way = parallel, way
        self.main, self.other = parallel.server(), parallel.server()
        self.subject = parallel.router(self.main, self.other if way.other else None, retry=THRICE)
        self.router = self.subject.router
        self._context: Any = None
        self._recorded = 0

    def call(self, wrapped: Callable[[Any], Any] = lambda flow: flow) -> None:
        """The call, blocking; its flow is `wrapped`."""
        with self.playing(wrapped):
            if self.way.stream:
                for _ in self.router.stream(PROMPT):
                    pass
            else:
                self.router.complete(PROMPT)

    async def acall(self) -> None:
        """The call, on this loop."""
        with self.playing():
            if self.way.stream:
                async for _ in self.router.astream(PROMPT):
                    pass
            else:
                await self.router.acomplete(PROMPT)

    @contextmanager
    def playing(self, wrapped: Callable[[Any], Any] = lambda flow: flow) -> Iterator[None]:
        """The servers start again, and the next call's attempts are seen."""
        self._recorded = len(self.subject.ledger.rows())
        forget(self.router)
        self.main.plays(*self.way.main)
        self.other.plays(*self.way.other)

        def watched(context: Any, *, stream: bool) -> Any:
            self._context = context
            return wrapped(call(context, stream=stream))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ccroute.router, "call", watched)
            yield

    def rows(self) -> list[LedgerRow]:
        """What the last call left in the ledger."""
        return self.subject.ledger.rows()[self._recorded :]

    def asked(self) -> int:
        """How many requests have come to the servers."""
        return len(self.main.requests) + len(self.other.requests)

    def check(self) -> None:
        """What must hold after each stop."""
        rows = self.rows()
        attempts = () if self._context is None else self._context.record.attempts
        settled_once(rows)
        assert [row.outcome for row in rows] == [attempt.outcome for attempt in attempts]
        assert [row.cost for row in rows] == [attempt.cost for attempt in attempts]
        assert {row.outcome for row in rows[:-1]} <= {"failed"}
        assert not rows or rows[-1].outcome in {"ok", "cancelled", "failed"}
        self.parallel.check_rest(self.subject)


class StoppedFlow:
    """A flow that is stopped at its k-th effect: when it asks for it, or when it has been performed."""

    def __init__(self, flow: Any, at: int, when: str, stop: Callable[[], object]) -> None:
        self._flow, self._at, self._when, self._stop = flow, at, when, stop
        self._asked = 0

    def send(self, result: Any) -> Effect:
        self._come_to("performed", self._asked - 1)
        effect: Effect = self._flow.send(result)
        self._asked += 1
        self._come_to("asked", self._asked - 1)
        return effect

    def _come_to(self, when: str, effect: int) -> None:
        if (when, effect) == (self._when, self._at):
            self._stop()

    def throw(self, error: BaseException) -> Any:
        return self._flow.throw(error)

    def close(self) -> None:
        self._flow.close()


@contextmanager
def noting(what: str) -> Iterator[None]:
    """A failure says where the call was stopped."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"the call was stopped {what}")
        raise


# -- at every effect, every wait, every instruction ----------------------------------------------------------


@row(52, "cancel at every await")
@each_way
@pytest.mark.parametrize("when", ["asked", "performed"])
def test_a_call_interrupted_at_any_effect_leaves_nothing_behind(
    alone: ParallelHarness, way: CallScript, when: str
) -> None:
    stage = StopHarness(alone, way)
    for k in itertools.count():
        stopped = threading.Event()

        def stop(stopped: threading.Event = stopped) -> None:
            stopped.set()
            raise KeyboardInterrupt

        try:
            stage.call(lambda flow, k=k, stop=stop: StoppedFlow(flow, k, when, stop))
        except KeyboardInterrupt:
            with noting(f"at effect {k}"):
                stage.check()
        else:
            assert not stopped.is_set(), "the interrupt was swallowed"
            break
    assert k >= 2


@row(52, "cancel at every await")
@pytest.mark.parametrize("how", ["closed", "dropped"])
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.stream])
def test_a_stream_left_after_any_chunk_leaves_nothing_behind(
    parallel: ParallelHarness, name: str, how: str
) -> None:
    stage = StopHarness(parallel, WAYS[name])
    whole = 0

    async def aread(chunks: int) -> int:
        with stage.playing():
            stream, had = stage.router.astream(PROMPT), 0
            async for _ in stream:
                had += 1
                if had == chunks:
                    break
            if how == "closed":
                await stream.aclose()
            del stream
        await loops.in_thread(stage.check)
        await loops.nobody_else()
        return had

    def read(chunks: int) -> int:
        with stage.playing():
            stream, had = stage.router.stream(PROMPT), 0
            for _ in stream:
                had += 1
                if had == chunks:
                    break
            if how == "closed":
                stream.close()
            del stream
        stage.check()
        return had

    while True:
        with noting(f"after {whole} chunks"):
            had = read(whole + 1) if parallel.mode == "sync" else parallel.caller.run(aread, whole + 1)
        if had <= whole:
            break
        whole += 1
        assert stage.rows()[-1].outcome == ("cancelled" if whole < CHUNKS else "ok")
    assert whole == CHUNKS


class AtWait:
    """Awaits something, and does `stop` just when it waits for the k-th time."""

    def __init__(self, awaited: Awaitable[Any], at: int, stop: Callable[[], object]) -> None:
        self._steps: Any = awaited.__await__()
        self._at, self._stop = at, stop
        self.stopped = False

    def __await__(self) -> Generator[Any, Any, Any]:
        go_on: Callable[[], Any] = partial(next, self._steps)
        for wait in itertools.count():
            try:
                waited_for = go_on()
            except StopIteration as end:
                return end.value
            if wait == self._at:
                self.stopped = True
                self._stop()
            try:
                go_on = partial(self._steps.send, (yield waited_for))
            except BaseException as error:
                go_on = partial(self._steps.throw, error)
        return None


async def cancelled(stage: StopHarness, k: int) -> bool:
    """The call as a task, cancelled at its k-th wait; whether it came to that."""
    waits: list[AtWait] = []

    async def call() -> None:
        waits.append(AtWait(stage.acall(), k, task.cancel))
        await waits[0]

    task = asyncio.create_task(call())
    try:
        await task
    except asyncio.CancelledError:
        assert waits[0].stopped
        return True
    assert not waits[0].stopped, "the cancellation was swallowed"
    return False


async def scoped(stage: StopHarness, k: int) -> bool:
    """The call in anyio's scope."""
    with anyio.CancelScope() as scope:
        await (wait := AtWait(stage.acall(), k, scope.cancel))
    # anyio lets a task go on that has what it waited for, until it waits again; this one may not.
    assert wait.stopped or not scope.cancelled_caught
    return wait.stopped


async def timed_out(stage: StopHarness, k: int) -> bool:
    """The call under asyncio's timeout."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            await (wait := AtWait(stage.acall(), k, lambda: limit.reschedule(loop.time())))
    except TimeoutError:
        assert wait.stopped
        return True
    assert not wait.stopped, "the timeout was swallowed"
    return False


@row(52, "cancel at every await")
@pytest.mark.parametrize(
    ("mode", "way", "ways_in"),
    [
        *[pytest.param("async", way, cancelled, id=f"{name} cancelled") for name, way in WAYS.items()],
        pytest.param("async", WAYS["fallback"], scoped, id="fallback scoped"),
        pytest.param("async", WAYS["stream"], scoped, id="stream scoped"),
        pytest.param("async", WAYS["fallback"], timed_out, id="fallback timed out"),
        pytest.param("async", WAYS["stream"], timed_out, id="stream timed out"),
        *[pytest.param("trio", way, scoped, id=f"{name} on trio") for name, way in WAYS.items()],
    ],
)
@pytest.mark.parametrize("warm", [False, True], ids=["new connections", "kept connections"])
def test_a_call_cancelled_at_any_wait_leaves_nothing_behind(
    alone: ParallelHarness,
    mode: loops.Mode,
    way: CallScript,
    ways_in: Callable[[StopHarness, int], Coroutine[Any, Any, bool]],
    warm: bool,
) -> None:
    stage = StopHarness(alone, way)

    async def run(k: int) -> bool:
        if warm:
            await stage.acall()
        stopped = await ways_in(stage, k)
        await loops.in_thread(stage.check)
        await loops.nobody_else()
        return stopped

    for k in itertools.count():
        with noting(f"at wait {k}"):
            stopped = loops.run(mode, run, k)
            for host in (stage.main, stage.other):
                assert host.settles(lambda: 0), "a connection outlives its loop"
        if not stopped:
            break
        assert stage.rows()
    assert k >= 1


ROOT = os.path.dirname(ccroute.__file__)


@row(52, "cancel at every await")
@pytest.mark.parametrize(
    ("way", "step"),
    [(WAYS["answer"], 1), (WAYS["stream"], 2), (WAYS["fallback"], 7)],
    ids=["answer", "stream", "fallback"],
)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # closed, but only by its finaliser
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it came in a finaliser
def test_an_interrupt_at_any_instruction_leaves_nothing_behind(
    alone: ParallelHarness, way: CallScript, step: int
) -> None:
    # Python looks for signals where a function begins and where a call of C code ends: a profiler's events.
    stage = StopHarness(alone, way)
    for k in itertools.count(step=step):
        seen, where = itertools.count(), ""

        def interrupt(frame: Any, event: str, _: object, k: int = k, seen: Iterator[int] = seen) -> None:
            nonlocal where
            if (
                event in {"call", "c_return"}
                and frame.f_code.co_filename.startswith(ROOT)
                and next(seen) == k
            ):
                sys.setprofile(None)
                where = f"at {event} in {frame.f_code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt

        asked = stage.asked()
        with contextlib.suppress(KeyboardInterrupt), stage.playing():
            try:
                sys.setprofile(interrupt)
                stage.call()
            finally:
                sys.setprofile(None)
        if not where:
            break
        with noting(where):
            assert not [lock for lock in locks(stage.router) if lock.locked()]
            stage.parallel.check_rest(stage.subject)
            if "/accounting/" not in where:  # inside the ledger's own record() nobody knows what it did
                settled_once(stage.rows())
                assert stage.rows() or stage.asked() == asked
    assert k > 300


# A program that is interrupted again and again, and then says what is left.
INTERRUPTED = """
import gc, json, psutil, random, signal, sys
from ccroute import OpenAIBackend, Router
from ccroute.accounting import MemoryLedger

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
chance, stops, ledger = random.Random(7), 0, MemoryLedger()
backend = OpenAIBackend("main", base_url=sys.argv[1], max_concurrency=1)
router = Router([backend], default_model="main/m", timeout=10, ledger=ledger)
for call in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.006))
        if call % 2:
            router.complete("hi", session=str(call))
        else:
            list(router.stream("hi", session=str(call)))
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        stops += 1
gc.collect()
rows = ledger.rows()
finals = {sum(row.final for row in rows if row.call == call) for call in {row.call for row in rows}}
stats = router.stats().backends["main"]
held = [stats.slots_held, stats.queued, stats.in_flight]
text = router.complete("hi").text
router.close()
sockets = len(psutil.Process().net_connections())
print(json.dumps({"stops": stops, "finals": [*finals], "held": held, "text": text, "sockets": sockets}))
"""


@row(52, "cancel at every await")
def test_interrupts_at_any_moment_leave_slots_and_sockets(alone: ParallelHarness) -> None:
    host = alone.server(wire=Slow(*OPENAI))
    with program(INTERRUPTED, host.url) as running:
        out, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    left = json.loads(out)
    assert left.pop("stops") > 100
    assert left == {"finals": [1], "held": [0, 0, 0], "text": HEALTHY, "sockets": 0}
    assert host.wait_idle(1)
