"""Rate limits alone, on a clock that is set: no more than the limit in a minute, and each turn comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.flow.support import FakeClock

from ccroute.routing.acquired import UNDECIDED
from ccroute.routing.rate_limits import Limit, RateLimits, Turn
from ccroute.routing.rate_limits.window import STEP, WINDOW, Step, Window
from ccroute.types import LimitStats, Usage


class Minutes:
    """The rate limits of one deployment on a clock that is set."""

    def __init__(self, rpm: int | None = None, tpm: int | None = None) -> None:
        self.clock = FakeClock()
        self.limits = RateLimits(self.clock.monotonic)
        self.limit = Limit("deployment", "id", "a/1", rpm, tpm)

    def after(self, seconds: float) -> Minutes:
        self.clock.elapsed += seconds
        return self

    def takes(self, *tokens: int) -> list[Turn]:
        """Turns that have come."""
        found = [self.limits.take(self.limit, each) for each in tokens]
        assert all(turn is not None for turn in found), "there is no room"
        return [turn for turn in found if turn is not None]

    def queues(self, *tokens: int) -> list[Turn]:
        """Turns that have to wait."""
        turns = [self.limits.queue(self.limit, each) for each in tokens]
        assert all(turn.step is None for turn in turns), "it need not wait"
        return turns

    def seconds_left(self, tokens: int = 0) -> float:
        """How long a new request would have to wait."""
        reason = self.limits.unavailable(self.limit, tokens)
        return 0.0 if reason is None else reason.until - self.clock.monotonic()

    @property
    def stats(self) -> LimitStats:
        return self.limits.stats()["deployment", "id"]


@dataclass
class Sleeper:
    """Notes that it was woken; `there` is false once its call is gone."""

    there: bool = True
    woken: int = 0

    def wake(self) -> bool:
        self.woken += 1
        return self.there


def asleep(turn: Turn, *, there: bool = True) -> Sleeper:
    sleeper = Sleeper(there)
    assert turn.wait() > 0
    assert turn.sleeps(sleeper)
    return sleeper


# -- Requests


def test_a_whole_limit_may_be_sent_at_once_and_then_nothing() -> None:
    minutes = Minutes(rpm=3)
    minutes.takes(0, 0, 0)
    assert minutes.limits.take(minutes.limit) is None
    assert minutes.seconds_left() == 60
    assert minutes.after(59.5).seconds_left() == 0.5
    minutes.after(0.5).takes(0, 0, 0)


def test_a_request_counts_for_a_minute_and_then_no_longer() -> None:
    minutes = Minutes(rpm=2)
    minutes.takes(0)
    minutes.after(30).takes(0)
    assert minutes.stats == LimitStats(rpm=2, requests=2)
    assert minutes.seconds_left() == 30
    minutes.after(30).takes(0)
    assert minutes.seconds_left() == 30
    assert minutes.after(60).stats.requests == 0


def test_asking_for_a_reason_takes_nothing() -> None:
    minutes = Minutes(rpm=1, tpm=100)
    assert [minutes.limits.unavailable(minutes.limit, 50) for _ in range(3)] == [None] * 3
    assert minutes.limits.stats() == {}
    minutes.takes(10)
    for _ in range(3):
        reason = minutes.limits.unavailable(minutes.limit, 10)
        assert reason is not None
        assert (reason.why, reason.cooling) == ("its limit rpm=1 is reached", True)
    assert minutes.stats.requests == 1


def test_requests_of_a_moment_count_until_a_minute_after_the_last() -> None:
    minutes = Minutes(rpm=2)
    minutes.takes(0)
    minutes.after(STEP / 2).takes(0)
    assert minutes.seconds_left() == 60
    minutes.after(60 - STEP / 2)
    assert minutes.seconds_left() == pytest.approx(STEP / 2)


def test_a_window_is_bounded_however_many_requests_there_are() -> None:
    minutes = Minutes(rpm=10**9)
    for _ in range(20_000):
        minutes.after(0.01).takes(0)
    [state] = minutes.limits._states.values()
    assert len(state.window.steps) <= WINDOW / STEP + 1
    assert minutes.stats.requests == pytest.approx(6000, abs=20)


# -- Tokens


def test_tokens_are_reserved_and_settled_with_what_was_used() -> None:
    minutes = Minutes(tpm=100)
    [turn] = minutes.takes(80)
    assert minutes.seconds_left(30) == 60
    turn.used(Usage(input=20))
    assert minutes.stats == LimitStats(tpm=100, requests=1, tokens=20)
    minutes.takes(80)


def test_more_tokens_than_were_reserved_count_from_their_end_on() -> None:
    minutes = Minutes(tpm=100)
    [turn] = minutes.takes(10)
    minutes.after(50)
    turn.used(Usage(input=150))
    assert minutes.stats.tokens == 150
    assert minutes.seconds_left(50) == 60
    assert minutes.after(10).stats.tokens == 140, "what was reserved counts from the start on"


def test_what_was_not_sent_gives_back_its_request_and_its_tokens() -> None:
    minutes = Minutes(rpm=1, tpm=100)
    [turn] = minutes.takes(80)
    turn.settle()
    turn.used(Usage(input=500))  # only the first counts
    assert minutes.stats == LimitStats(rpm=1, tpm=100)
    minutes.takes(80)


def test_an_attempt_that_was_made_keeps_its_request() -> None:
    minutes = Minutes(rpm=2)
    turn, _ = minutes.takes(0, 0)
    turn.settle(UNDECIDED)
    turn.used(Usage(input=0))
    assert minutes.stats.requests == 2


def test_what_is_settled_after_its_minute_changes_nothing() -> None:
    minutes = Minutes(rpm=2, tpm=100)
    unsent, answered = minutes.takes(40, 40)
    minutes.after(61)
    unsent.settle()
    answered.used(Usage(input=10))
    assert minutes.stats == LimitStats(rpm=2, tpm=100)


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    minutes = Minutes(tpm=100)
    [turn] = minutes.takes(1)
    assert minutes.seconds_left(500) == 60
    minutes.after(60).takes(500)
    assert minutes.seconds_left(1) == 60
    turn.used(Usage(input=1))
    minutes.after(60).takes(100)


def test_a_max_tokens_beyond_the_limit_is_not_reserved() -> None:
    limit = Limit("deployment", "id", "a/1", None, 100)
    assert limit.reserved(30, None) == 30
    assert limit.reserved(30, 70) == 100
    assert limit.reserved(30, 71) == 30
    assert limit.reserved(130, 10) == 130
    assert Limit("deployment", "id", "a/1", 5).reserved(30, 71) == 101


@pytest.mark.parametrize(("used", "why"), [(10, "rpm=2"), (95, "tpm=100"), (50, "rpm=2")])
def test_the_reason_names_the_limit_that_lasts_longer(used: int, why: str) -> None:
    minutes = Minutes(rpm=2, tpm=100)
    minutes.takes(1)
    minutes.after(1).takes(used - 1)
    reason = minutes.limits.unavailable(minutes.limit, 50)
    assert reason is not None
    assert reason.why == f"its limit {why} is reached"


# -- The queue


def test_turns_come_in_the_order_of_arrival() -> None:
    minutes = Minutes(rpm=1)
    minutes.takes(0)
    first, second = minutes.queues(0, 0)
    assert (first.wait(), second.wait(), minutes.seconds_left()) == (60, 120, 180)
    minutes.after(60)
    assert minutes.limits.take(minutes.limit) is None, "somebody waits"
    assert second.wait() == 60
    assert first.wait() == 0
    assert first.waited == 60


def test_a_large_request_is_not_overtaken_by_small_ones() -> None:
    minutes = Minutes(tpm=100)
    minutes.takes(40)
    minutes.after(10).takes(40)
    large, small = minutes.queues(90, 10)
    assert (large.wait(), small.wait()) == (60, 60)
    minutes.after(50)
    assert (small.wait(), large.wait()) == (10, 10)
    minutes.after(10)
    assert (small.wait(), large.wait()) == (0, 0)


def test_those_who_waited_are_not_counted_for_the_next() -> None:
    minutes = Minutes(tpm=100)
    minutes.takes(100)
    turns = minutes.queues(50, 50, 50)
    assert [turn.wait() for turn in turns] == [60, 60, 120]
    assert minutes.seconds_left(50) == 120
    turns[2].settle()
    minutes.after(60)
    assert [turn.wait() for turn in turns[:2]] == [0, 0]
    assert minutes.seconds_left(50) == 60


def test_a_turn_that_is_cancelled_gives_its_place_to_the_next() -> None:
    minutes = Minutes(rpm=1)
    minutes.takes(0)
    first, second, third = minutes.queues(0, 0, 0)
    sleeper, last = asleep(second), asleep(third)
    first.settle()
    assert (sleeper.woken, last.woken) == (1, 0)
    assert (second.wait(), third.wait()) == (60, 120)


def test_tokens_that_come_back_wake_who_waits_for_them() -> None:
    minutes = Minutes(tpm=100)
    [running] = minutes.takes(100)
    first, second, third = minutes.queues(40, 40, 40)
    sleepers = [asleep(turn) for turn in (first, second, third)]
    minutes.after(5)
    running.used(Usage(input=20))
    assert [turn.step is not None for turn in (first, second, third)] == [True, True, False]
    assert [sleeper.woken for sleeper in sleepers] == [1, 1, 1]
    assert (first.wait(), second.wait(), third.wait()) == (0, 0, 60)


def test_a_turn_that_comes_before_its_call_sleeps_is_not_missed() -> None:
    minutes = Minutes(tpm=100)
    [running] = minutes.takes(100)
    [turn] = minutes.queues(40)
    assert turn.wait() == 60
    running.used(Usage(input=20))
    assert not turn.sleeps(Sleeper())
    assert turn.wait() == 0


def test_the_turn_of_a_call_that_is_gone_goes_to_the_next() -> None:
    minutes = Minutes(rpm=1)
    minutes.takes(0)
    gone, next_one = minutes.queues(0, 0)
    asleep(gone, there=False)
    minutes.after(60)
    assert next_one.wait() == 0
    gone.settle()
    assert minutes.stats.requests == 1


def test_a_turn_counts_from_when_its_request_is_sent() -> None:
    minutes = Minutes(rpm=1)
    [turn] = minutes.takes(0)
    assert minutes.after(20).seconds_left() == 40
    assert turn.wait() == 0
    assert minutes.seconds_left() == 60


def test_a_turn_that_comes_too_late_is_the_next() -> None:
    minutes = Minutes(rpm=1)
    [late] = minutes.takes(0)
    minutes.after(60).takes(0)
    [other] = minutes.queues(0)
    minutes.after(20)
    assert late.wait() == 40
    assert other.wait() == 100
    minutes.after(40)
    assert late.wait() == 0


# -- What happens to a router


def test_a_limit_is_read_at_each_use() -> None:
    minutes = Minutes(rpm=1)
    minutes.takes(0)
    minutes.limit = minutes.limit._replace(rpm=3)
    minutes.takes(0, 0)
    minutes.limit = minutes.limit._replace(rpm=2)
    assert minutes.seconds_left() == 60
    assert minutes.stats == LimitStats(rpm=2, requests=3)


def test_an_agent_and_a_deployment_of_one_name_do_not_share_a_limit() -> None:
    minutes = Minutes(rpm=1)
    minutes.takes(0)
    assert minutes.limits.take(Limit("agent", "id", "a/1", 1)) is not None
    assert minutes.limits.stats().keys() == {("deployment", "id"), ("agent", "id")}


def test_a_forked_child_keeps_what_was_sent_and_nobody_who_waits() -> None:
    minutes = Minutes(rpm=1, tpm=100)
    minutes.takes(30)
    minutes.queues(20, 20)
    minutes.limits._inbox.lock.acquire()
    minutes.limits.after_fork()
    assert minutes.stats == LimitStats(rpm=1, requests=1, tpm=100, tokens=30)
    assert minutes.seconds_left(70) == 60


def test_a_finaliser_settles_while_the_lock_is_held() -> None:
    minutes = Minutes(rpm=1)
    [turn] = minutes.takes(0)
    [waiting] = minutes.queues(0)
    with minutes.limits._inbox.lock:
        turn.settle()
        assert waiting.step is None
    assert waiting.wait() == 0


def test_what_is_settled_while_a_turn_is_taken_is_applied_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = Minutes(rpm=2)
    [turn] = minutes.takes(0)
    other = Minutes(rpm=1)
    other.limits, other.limit = minutes.limits, minutes.limit._replace(identity="other", rpm=1)
    [running] = other.takes(0)
    [waiting] = other.queues(0)
    add = Window.add

    def finalised(window: Window, now: float, requests: int, tokens: int) -> Step:
        monkeypatch.undo()
        running.settle()  # in the thread that holds the lock
        assert waiting.step is None
        return add(window, now, requests, tokens)

    monkeypatch.setattr(Window, "add", finalised)
    minutes.takes(0)
    assert waiting.step is not None
    turn.settle()


@dataclass
class Caller:
    """A call in the machine below."""

    turn: Turn
    tokens: int
    sleeper: Sleeper = field(default_factory=Sleeper)
    until: float = math.inf
    is_stuck: bool = False
    was_stuck: bool = False
    counts: list[float] = field(default_factory=list)


class RateLimitMachine(RuleBasedStateMachine):
    """Any arrivals, cancellations, answers and stuck callers: in any minute no more than the limits is sent,
    in the order of arrival, and everybody's turn comes."""

    @initialize(
        rpm=st.none() | st.integers(1, 4),
        tpm=st.none() | st.integers(50, 200),
    )
    def begins(self, rpm: int | None, tpm: int | None) -> None:
        self.rpm, self.tpm = rpm or (None if tpm else 2), tpm
        self.clock = FakeClock()
        self.limits = RateLimits(self.clock.monotonic)
        self.limit = Limit("deployment", "id", "a/1", self.rpm, tpm)
        self.waiting: list[Caller] = []
        self.running: list[Caller] = []
        self.starts: list[float] = []
        # What counts, worked out anew and simply: the instant, and the tokens, of each start and each excess.
        self.counted: list[list[float]] = []

    @rule(tokens=st.integers(0, 120), patient=st.booleans())
    def arrives(self, tokens: int, patient: bool) -> None:
        now, may_go = self.clock.monotonic(), self.limits.unavailable(self.limit, tokens) is None
        turn = self.limits.queue(self.limit, tokens) if patient else self.limits.take(self.limit, tokens)
        assert may_go == (turn is not None and turn.step is not None)
        if turn is None:
            return
        caller = Caller(turn, tokens)
        if turn.step is not None:
            self._starts(caller, now)
        else:
            self.waiting.append(caller)
            self._looks(caller)

    @rule(seconds=st.floats(0, 90))
    def time_passes(self, seconds: float) -> None:
        self._run_until(self.clock.monotonic() + seconds)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def is_cancelled(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(caller)
        caller.turn.settle()
        self._wake_up()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), used=st.none() | st.integers(0, 250))
    def ends(self, data: st.DataObject, used: int | None) -> None:
        """A call was answered, or rejected; or it turns out that nothing was sent."""
        caller = data.draw(st.sampled_from(self.running))
        self.running.remove(caller)
        if used is None:
            self.starts.remove(caller.counts[0])
        elif used > caller.tokens:
            self.counted.append([self.clock.monotonic(), used - caller.tokens])
        caller.counts[1] = min(used or 0, caller.tokens)
        caller.turn.used(None if used is None else Usage(input=used))
        self._wake_up()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def gets_stuck(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiting))
        caller.is_stuck = caller.was_stuck = True

    @rule()
    def goes_on(self) -> None:
        for caller in self.waiting:
            if caller.is_stuck:
                caller.is_stuck = False
                caller.sleeper.woken = 1
        self._wake_up()

    @invariant()
    def is_bounded(self) -> None:
        if not hasattr(self, "starts") or self.rpm is None:
            return
        for first, after in zip(self.starts, self.starts[self.rpm :], strict=False):
            assert after >= first + WINDOW

    def teardown(self) -> None:
        if not hasattr(self, "starts"):
            return
        self.goes_on()
        waiting = len(self.waiting)
        self._run_until(self.clock.monotonic() + (waiting + 1) * WINDOW * 1.01)
        assert not self.waiting, "somebody's turn has not come"
        self.is_bounded()

    def _run_until(self, end: float) -> None:
        """Let time pass; each caller wakes at its time."""
        self._wake_up()
        while awake := [c for c in self.waiting if not c.is_stuck and c.until <= end]:
            caller = min(awake, key=lambda caller: caller.until)
            self.clock.elapsed = max(self.clock.elapsed, caller.until - 1000.0)
            self._looks(caller)
            self._wake_up()
        self.clock.elapsed = max(self.clock.elapsed, end - 1000.0)

    def _wake_up(self) -> None:
        while woken := [c for c in self.waiting if c.sleeper.woken and not c.is_stuck]:
            self._looks(woken[0])

    def _looks(self, caller: Caller) -> None:
        now = self.clock.monotonic()
        caller.sleeper.woken = 0
        seconds = caller.turn.wait()
        if not seconds:
            before = self.waiting[: self.waiting.index(caller)]
            assert caller.was_stuck or all(c.was_stuck or c.turn.step is not None for c in before)
            self.waiting.remove(caller)
            self._starts(caller, now)
            return
        caller.until = now + seconds
        if not caller.turn.sleeps(caller.sleeper):
            self._looks(caller)

    def _starts(self, caller: Caller, now: float) -> None:
        if self.tpm is not None:
            counts = sum(tokens for at, tokens in self.counted if at + WINDOW > now)
            assert not counts or counts + caller.tokens <= self.tpm
        self.starts.append(now)
        caller.counts = [now, caller.tokens]
        self.counted.append(caller.counts)
        self.running.append(caller)


RateLimitMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRateLimitMachine: Callable[[], object] = RateLimitMachine.TestCase


def test_thousands_that_wait_cost_no_more_each() -> None:
    minutes = Minutes(rpm=1)
    minutes.takes(0)
    begun = time.process_time()
    turns = minutes.queues(*[0] * 20_000)
    assert [turn.wait() for turn in turns[-2:]] == pytest.approx([19_999 * WINDOW, 20_000 * WINDOW])
    assert time.process_time() - begun < 5
