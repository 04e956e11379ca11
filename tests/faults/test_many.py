"""Rows 48, 49, 51, 57 and 58: many callers at once, on threads, tasks and loops."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from tests.conftest import Caller
from tests.faults.harness import GRACE, IN_A_ROW, ONCE, THRICE, row
from tests.faults.parallel import Host, ParallelHarness, Subject, at_rest, half_open, kept
from tests.faults.servers import HEALTHY, OPENAI, SO_FAR, Wire
from tests.support import loops
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Hang, Request, Send, Set, Step, Wait, answer, chunk, stream
from tests.support.steps import Link
from tests.test_canaries import PROMPT

from ccroute import Completion, RetryPolicy, Router
from ccroute.errors import BackendError, OverloadedError, QueueTimeoutError, ServerError
from ccroute.observe import BreakerClosed, BreakerOpened, Queued

CALLERS = 100
TOKENS, PER_CALL = 10, 0.1
"""What a backend's retry budget holds at first, and what each first attempt adds."""
BUSY, ANSWER = answer(503, body="busy"), answer(json=OPENAI.whole)
EAGER = RetryPolicy(attempts=5, per_deployment=5, base=0, max=0)


class MeetingPoint(Step):
    """Until so many have come this far."""

    def __init__(self, count: int) -> None:
        self.all_here = threading.Event()
        self._count, self._here = count, itertools.count(1)

    def play(self, link: Link) -> None:
        if next(self._here) >= self._count:
            self.all_here.set()
        link.wait(self.all_here, None)


# -- all of them fail ----------------------------------------------------------------------------------------


@row(48, "100 callers, one backend, all 503")
@pytest.mark.parametrize(
    ("status", "error", "cost", "health"),
    [(503, OverloadedError, 1, "on"), (503, OverloadedError, 1, "off"), (500, ServerError, 2, "off")],
    ids=["503", "503, health off", "500, health off"],
)
def test_a_storm_makes_no_more_retries_than_the_budget_pays(
    parallel: ParallelHarness, status: int, error: type[BackendError], cost: int, health: str
) -> None:
    faulty = parallel.server([MeetingPoint(CALLERS), *answer(status, body="busy")])
    calls = parallel.at_once(parallel.router(faulty, slots=None, retry=EAGER, health=health), CALLERS)
    assert {type(call.error) for call in calls} == {error}
    extra = len(faulty.requests) - CALLERS
    assert sum(len(call.attempts) - 1 for call in calls) == extra
    assert extra <= (TOKENS + CALLERS * PER_CALL) / cost
    if health == "off":  # nothing else holds them back
        assert extra >= TOKENS / cost


@row(48, "100 callers, one backend, all 503")
@pytest.mark.parametrize("slots", [None, 4])
def test_a_storm_is_answered_in_full_where_a_fallback_is_well(
    parallel: ParallelHarness, slots: int | None
) -> None:
    faulty, well = parallel.server([MeetingPoint(slots or CALLERS), *BUSY]), parallel.server()
    subject = parallel.router(faulty, well, slots=slots, retry=EAGER)
    calls = parallel.at_once(subject, CALLERS, model="main/m", fallback=["other/m"])
    assert [call.text for call in calls] == [HEALTHY] * CALLERS
    assert {call.answer.route.backend for call in calls} == {"other"}
    assert len(well.requests) == CALLERS
    assert len(faulty.requests) <= CALLERS


# -- one of them finds out -----------------------------------------------------------------------------------


def open_breaker(parallel: ParallelHarness, subject: Subject) -> None:
    """The breaker of `main/m` is open, for 30 s or so."""
    for _ in range(IN_A_ROW):
        with pytest.raises(OverloadedError):
            parallel.caller.complete(subject.router, PROMPT, model="main/m", fallback=False)
    assert subject.event_log.count(BreakerOpened) == 1


def after(count: int, event: threading.Event) -> Callable[[], None]:
    """Sets `event` when it was called so often."""
    called = itertools.count(1)

    def then() -> None:
        if next(called) >= count:
            event.set()

    return then


@row(49, "half-open, 100 callers")
@pytest.mark.parametrize("due", [True, False], ids=["half-open", "open"])
@pytest.mark.parametrize("cured", [True, False], ids=["cured", "still faulty"])
def test_one_probe_is_sent_while_the_others_are_turned_away(
    parallel: ParallelHarness, due: bool, cured: bool
) -> None:
    rest = threading.Event()
    probed = [Wait(rest), *(ANSWER if cured else BUSY)]
    faulty = parallel.server(*[BUSY] * IN_A_ROW, probed)
    subject = parallel.router(faulty, slots=None)
    open_breaker(parallel, subject)
    if due:
        half_open(subject.router)
    calls = parallel.at_once(subject, CALLERS, then=after(CALLERS - 1, rest))
    assert len(faulty.requests) == IN_A_ROW + 1
    [probe] = [call for call in calls if call.attempts]
    assert (probe.completion is not None) is cured
    for call in calls:
        if call is not probe:
            error = call.error
            assert type(error) is OverloadedError
            assert error.retry_after is not None
            assert 1 <= error.retry_after <= 36
            assert call.took < probe.took + GRACE
    assert subject.event_log.count(BreakerClosed) == cured
    assert subject.event_log.count(BreakerOpened) == 1 + (due and not cured), (
        "an early probe puts nothing off"
    )


@row(49, "half-open, 100 callers")
@pytest.mark.parametrize("cured", [True, False], ids=["cured", "still faulty"])
def test_one_probe_is_sent_while_others_are_answered_elsewhere(
    parallel: ParallelHarness, cured: bool
) -> None:
    rest = threading.Event()
    probed = [Wait(rest), *(ANSWER if cured else BUSY)]
    faulty, well = parallel.server(*[BUSY] * IN_A_ROW, probed), parallel.server()
    subject = parallel.router(faulty, well, slots=None, retry=RetryPolicy(attempts=2, per_deployment=1))
    open_breaker(parallel, subject)
    half_open(subject.router)
    calls = parallel.at_once(subject, CALLERS, then=after(CALLERS - 1, rest))
    assert [call.text for call in calls] == [HEALTHY] * CALLERS
    assert len(faulty.requests) == IN_A_ROW + 1
    assert len(well.requests) == CALLERS - cured


@row(49, "half-open, 100 callers")
def test_a_call_turned_away_after_its_own_attempt_is_one_call(parallel: ParallelHarness) -> None:
    probing, rest = threading.Event(), threading.Event()
    faulty = parallel.server(*[BUSY] * IN_A_ROW, [Set(probing), Wait(rest), *ANSWER])
    once_each = RetryPolicy(attempts=3, per_deployment=1)
    subject = parallel.router(faulty, parallel.server(BUSY), slots=None, retry=once_each)
    open_breaker(parallel, subject)
    with parallel.meanwhile(subject, model="main/m"):
        assert probing.wait(5)
        try:
            [call] = parallel.at_once(subject, 1, rest=False, model="other/m", fallback=["main/m"])
        finally:
            rest.set()
    assert call.tried == [("other/m", "rejected", "OverloadedError")]


# -- the host is busy ----------------------------------------------------------------------------------------


@contextmanager
def taken(parallel: ParallelHarness, other: Host | None = None, **options: Any) -> Iterator[Subject]:
    """A router to a host whose one place is taken meanwhile."""
    here, free = threading.Event(), threading.Event()
    host = parallel.server([Set(here), Wait(free), *ANSWER])
    subject = parallel.router(host, other, **options)
    with parallel.meanwhile(subject, model="main/m"):
        assert here.wait(5)
        try:
            yield subject
        finally:
            free.set()


@row(51, "gate full")
@pytest.mark.parametrize(
    ("callers", "retry"), [(1, ONCE), (1, EAGER), (50, THRICE)], ids=["one caller", "eager", "50 callers"]
)
def test_a_wait_for_a_slot_ends_by_the_deadline(
    parallel: ParallelHarness, callers: int, retry: RetryPolicy
) -> None:
    with taken(parallel, retry=retry) as subject:
        calls = parallel.at_once(subject, callers, rest=False, timeout=0.3)
    for call in calls:
        assert type(call.error) is QueueTimeoutError
        assert call.took >= 0.2
        assert [attempt.cost for attempt in call.attempts] == [0]
    assert subject.event_log.count(Queued) == callers
    assert subject.event_log.count(BreakerOpened) == 0


@row(51, "gate full")
@pytest.mark.parametrize("waiting", [0, 3])
def test_a_full_queue_falls_back_to_another_deployment_at_once(
    parallel: ParallelHarness, waiting: int
) -> None:
    with ExitStack() as queue, taken(parallel, parallel.server(), max_queue=waiting) as subject:
        for _ in range(waiting):
            queue.enter_context(parallel.meanwhile(subject, model="main/m"))
        assert subject.event_log.wait(Queued, waiting)
        [call] = parallel.at_once(subject, 1, rest=False)
        queued = subject.event_log.count(Queued)
    assert call.text == HEALTHY
    assert call.tried == [("main/m", "not_sent", "QueueTimeoutError"), ("other/m", None, None)]
    assert call.took < 1
    assert queued == waiting


@row(51, "gate full")
def test_a_full_queue_raises_at_once_where_nothing_else_is_left(parallel: ParallelHarness) -> None:
    with taken(parallel, max_queue=0) as subject:
        [call] = parallel.at_once(subject, 1, rest=False)
    assert type(call.error) is QueueTimeoutError
    assert call.took < 1


@row(51, "gate full")
def test_a_caller_does_not_wait_for_a_slot_that_it_holds_itself(parallel: ParallelHarness) -> None:
    host = parallel.server([*OPENAI.stream(*OPENAI.begun, Hang())])
    subject = parallel.router(host)

    def ask() -> None:
        began = time.monotonic()
        with pytest.raises(QueueTimeoutError, match="would never end"):
            subject.router.complete(PROMPT)
        assert time.monotonic() - began < 1

    async def on_a_loop() -> None:
        async with subject.router.astream(PROMPT) as held:
            assert (await anext(held)).text == SO_FAR
            ask()

    if parallel.mode != "sync":
        parallel.caller.run(on_a_loop)
    else:
        with subject.router.stream(PROMPT) as held:
            assert next(held).text == SO_FAR
            ask()


@row(51, "gate full")
def test_calls_in_the_queue_are_answered_in_turn(parallel: ParallelHarness) -> None:
    subject = parallel.router(parallel.server())
    calls = parallel.at_once(subject, CALLERS)
    assert [call.text for call in calls] == [HEALTHY] * CALLERS
    assert subject.event_log.count(Queued) > 0


# -- everybody at once ---------------------------------------------------------------------------------------

PLACES = 4


class Echo(Wire):
    """Answers with what it was asked; never more than `PLACES` at a time, or the script fails."""

    inside = threading.Semaphore(PLACES)

    def answer(self, request: Request) -> Iterable[Step]:
        assert self.inside.acquire(blocking=False), "the host has more callers than slots"
        asked = request.json["messages"][0]["content"]
        text = HEALTHY if asked == PROMPT else asked
        try:
            if request.json.get("stream"):
                first, *others = chat_sse([text, " again"])
                yield from stream([first, others[0]], end=False)
                rest = [Send(chunk(piece)) for piece in (*others[1:], b"")]
            else:
                rest = answer(json=chat(text))
        finally:
            self.inside.release()
        yield from rest


@row(57, "200 threads and 200 tasks on one Router")
def test_threads_and_loops_share_one_router(caplog: pytest.LogCaptureFixture) -> None:
    callers, leaves = 400, 8
    with ParallelHarness(Caller("sync"), caplog) as parallel:
        host = parallel.server(wire=Echo(*OPENAI))
        subject = parallel.router(host, slots=PLACES, timeout=60)
        router, start, out = subject.router, threading.Barrier(204), itertools.count()

        def ask(caller: int) -> None:
            asked = {"prompt": f"from {caller}", "session": str(caller)}
            assert router.complete(**asked).text == asked["prompt"]
            with router.stream(**asked) as chunks:
                assert next(chunks).text == asked["prompt"]
                if caller % leaves:
                    assert [chunk.text for chunk in chunks] == [" again", ""]
            next(out)

        async def aask(caller: int) -> None:
            asked = {"prompt": f"from {caller}", "session": str(caller)}
            assert (await router.acomplete(**asked)).text == asked["prompt"]
            async with router.astream(**asked) as chunks:
                assert (await anext(chunks)).text == asked["prompt"]
                if caller % leaves:
                    assert [chunk.text async for chunk in chunks] == [" again", ""]
            next(out)

        async def fifty(first: int) -> None:
            await loops.at_once(aask, range(first, first + 50))
            await loops.nobody_else()

        def begin(job: Callable[[int], object], number: int) -> None:
            start.wait()
            job(number)

        with ThreadPoolExecutor(204) as pool:
            jobs = [pool.submit(begin, ask, caller) for caller in range(200)]
            jobs += [pool.submit(begin, lambda n: loops.run("async", fifty, n), n) for n in (200, 250)]
            jobs += [pool.submit(begin, lambda n: loops.run("trio", fifty, n), n) for n in (300, 350)]
            for job in jobs:
                job.result()
        assert next(out) == callers
        parallel.check_rest(subject)
        rows = subject.ledger.rows()
        assert Counter(row.session for row in rows) == {str(caller): 2 for caller in range(callers)}
        left = callers // leaves
        assert Counter(row.outcome for row in rows) == {"ok": 2 * callers - left, "cancelled": left}
        assert all(row.final for row in rows)
        assert len(host.requests) == 2 * callers


@row(58, "`asyncio.run` five times on one Router")
@pytest.mark.parametrize("between", [False, True], ids=["loops", "loops and this thread"])
@pytest.mark.parametrize("kind", [["async"], ["trio"], ["async", "trio"]], ids=["asyncio", "trio", "both"])
def test_one_router_serves_one_loop_after_the_other(
    caplog: pytest.LogCaptureFixture, kind: list[loops.Mode], between: bool
) -> None:
    abandoned = []

    async def use(router: Router) -> None:
        replies = list[Completion]()

        async def ask(_: int) -> None:
            replies.append(await router.acomplete(PROMPT))

        await loops.at_once(ask, range(5))
        assert [reply.text for reply in replies] == [HEALTHY] * 5
        async with router.astream(PROMPT) as chunks:
            assert "".join([chunk.text async for chunk in chunks]) == HEALTHY
        abandoned.append(router.astream(PROMPT))
        assert (await anext(abandoned[-1])).text

    with ParallelHarness(Caller("async"), caplog) as parallel:
        host = parallel.server()
        subject = parallel.router(host, slots=2)
        for run, mode in zip(range(1, 6), itertools.cycle(kind), strict=False):
            loops.run(mode, use, subject.router)
            assert host.settles(lambda: kept(subject, host)), "a connection outlives its loop"
            assert kept(subject, host) == (between and run > 1)
            assert host.connections <= 3 * run
            if between:
                assert subject.router.complete(PROMPT).text == HEALTHY
            abandoned.pop()
            at_rest(subject.router)
