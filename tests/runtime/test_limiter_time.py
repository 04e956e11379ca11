"""What waiting calls do meanwhile, in virtual time: they look at what servers have loaded, and ask the
scheduler again. Nobody waits for ever, though no thread and no timer watches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.runtime.test_limiter import A, B, Caller, limited, option

from ccroute import LoadedFirst, OllamaBackend, OpenAIBackend
from ccroute.backends import Backend
from ccroute.flow.effects import Granted, Look, Queued
from ccroute.routing import Deployment
from ccroute.routing.scheduling import RECHECK, Choice, Host
from ccroute.runtime.limiter import LATE, LOOK_EVERY, OVERDUE, UNANSWERED, Limiter, Slot
from ccroute.types import LoadedModel

NEVER = float("inf")
FAR = 1e9


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Sleeper(Caller):
    """A call and its driver: it sleeps until it is woken or an instant comes, and then looks what it got."""

    def __init__(self, clock: Clock, *, hangs: bool = False) -> None:
        super().__init__(object())
        self.clock, self.hangs = clock, hangs
        self.sleeps_until = NEVER
        self.looked: list[Backend] = []
        self.answers = True  # the server, when the call looks
        self.got: Any = None

    def asks(self, limiter: Limiter, *options: Deployment, priority: int = 0) -> Sleeper:
        self.limiter, self.slot, self.options = limiter, Slot(limiter, self), options
        self.got = self.slot.enter(options, priority)
        if isinstance(self.got, Queued):
            self.sleeps_until = self.clock.now
            if not self.hangs:
                self.polls()
        return self

    @property
    def waits(self) -> bool:
        return isinstance(self.got, Queued)

    def wake(self) -> bool:
        self.sleeps_until = self.clock.now
        return super().wake()

    def polls(self) -> None:
        """As the driver does."""
        while isinstance(found := self.slot.poll(FAR), Look):
            self.looked.append(found.backend)
            if self.answers:
                loaded = self.limiter.hosts[found.backend.origin].loaded
                self.limiter.listed(found.backend, [LoadedModel(name=name) for name in loaded])
        if isinstance(found, float):
            self.sleeps_until = found
        else:
            self.got, self.sleeps_until = found, NEVER


def run(clock: Clock, calls: Sequence[Sleeper], until: float) -> None:
    """Let time pass, and wake those who sleep when it is time. A call that `hangs` never wakes."""
    while True:
        due = min(
            (call for call in calls if not call.hangs), key=lambda each: each.sleeps_until, default=None
        )
        if due is None or due.sleeps_until > until:
            break
        clock.now = max(clock.now, due.sleeps_until)
        due.polls()
    clock.now = until


def ollama(url: str = A, **about: Any) -> OllamaBackend:
    return OllamaBackend("a" if url == A else "b", base_url=url, **about)


def at(model: str, url: str = A) -> Deployment:
    return option(url, model, OllamaBackend)


def looks(calls: Sequence[Sleeper]) -> list[int]:
    return [len(call.looked) for call in calls]


# -- Looks


def test_the_call_that_came_last_looks_every_few_seconds_while_calls_wait_for_several_models() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock)
    held = Sleeper(clock).asks(limiter, at("one"))
    calls = [Sleeper(clock).asks(limiter, at(name)) for name in ("one", "two", "three")]
    run(clock, calls, clock.now + 4 * LOOK_EVERY - 1)
    assert looks(calls) == [0, 1, 3]
    late = Sleeper(clock).asks(limiter, at("one"))
    run(clock, [*calls, late], clock.now + LOOK_EVERY)
    assert looks([*calls, late]) == [0, 1, 3, 1]
    assert {each.name for call in calls for each in call.looked} == {"a"}
    held.slot.settle()


@pytest.mark.parametrize("backend", ["one model", "no list"])
def test_nobody_looks_where_it_would_tell_nothing(backend: str) -> None:
    clock = Clock()
    silent = OpenAIBackend("a", base_url=A, max_concurrency=1, memory_gb=24)
    limiter = limited(silent if backend == "no list" else ollama(), monotonic=clock)
    models = ["one", "two", "three"] if backend == "no list" else ["m"] * 3
    Sleeper(clock).asks(limiter, at("m"))
    calls = [Sleeper(clock).asks(limiter, at(name)) for name in models]
    run(clock, calls, clock.now + 100)
    assert looks(calls) == [0, 0, 0]


def test_a_call_that_may_go_to_several_hosts_looks_at_both() -> None:
    clock = Clock()
    limiter = limited(ollama(), ollama(B), monotonic=clock)
    for url in (A, B):
        Sleeper(clock).asks(limiter, at("m", url))
    call = Sleeper(clock).asks(limiter, at("m"), at("m", B))
    run(clock, [call], clock.now + 1)
    assert [each.name for each in call.looked] == ["a", "b"]


def test_another_call_looks_if_the_last_one_does_not() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock)
    Sleeper(clock).asks(limiter, at("one"))
    calls = [
        Sleeper(clock, hangs=name == "hangs").asks(limiter, at(name)) for name in ("two", "three", "hangs")
    ]
    run(clock, calls, clock.now + OVERDUE)
    assert looks(calls) == [0, 1, 0]
    run(clock, calls, clock.now + LOOK_EVERY + 1)
    assert sum(looks(calls)) == 2


def test_a_server_that_does_not_answer_is_seldom_looked_at() -> None:
    """A slot that the looking call gets meanwhile is idle until the look is over."""
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock)
    held = Sleeper(clock).asks(limiter, at("one"))
    calls = [Sleeper(clock) for _ in "ab"]
    calls[1].answers = False
    for call, name in zip(calls, ("one", "two"), strict=True):
        call.asks(limiter, at(name))
    run(clock, calls, clock.now + UNANSWERED - 1)
    assert looks(calls) == [0, 1]
    calls[1].answers = True
    run(clock, calls, clock.now + LOOK_EVERY + 2)
    assert looks(calls) == [0, 3]
    held.slot.settle()


def test_what_a_server_lists_decides_who_is_next() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock)
    held = Sleeper(clock).asks(limiter, at("one"))
    one, two = (Sleeper(clock).asks(limiter, at(name)) for name in ("one", "two"))
    clock.now += 1
    held.slot.settle()
    assert isinstance(limiter_got(one), Granted), "its model is loaded"
    limiter.listed(ollama(), [LoadedModel(name=f"{name}:latest", size=10**9) for name in ("one", "two")])
    again = Sleeper(clock).asks(limiter, at("one"))
    one.slot.settle()
    assert isinstance(limiter_got(two), Granted)
    assert not limiter_got(two).grant.loads
    two.slot.settle()
    again.slot.settle()


def limiter_got(call: Sleeper) -> Any:
    call.polls()
    return call.got


# -- A slot that is left free


class Patient:
    """A scheduler that leaves slots free until an instant."""

    def __init__(self, until: float) -> None:
        self.until, self.asked = until, 0

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        self.asked += 1
        return choices[0] if now >= self.until else None


@pytest.mark.parametrize("hangs", [False, True])
def test_a_slot_that_is_left_free_is_offered_again_though_nothing_happens(hangs: bool) -> None:
    clock = Clock()
    scheduler = Patient(clock.now + 20)
    limiter = limited(ollama(), monotonic=clock, scheduler=scheduler)
    calls = [Sleeper(clock).asks(limiter, at(name)) for name in ("one", "two")]
    assert all(call.waits for call in calls)
    calls[1].hangs = hangs
    run(clock, calls, clock.now + 21 + (OVERDUE if hangs else 0))
    assert not calls[0].waits
    assert scheduler.asked <= 2 + 21 / RECHECK
    assert isinstance(calls[0].got, Granted)


def test_a_call_that_sleeps_is_woken_when_a_slot_is_left_free_from_then_on() -> None:
    clock = Clock()
    scheduler = Patient(0)
    limiter = limited(ollama(), monotonic=clock, scheduler=scheduler)
    held = Sleeper(clock).asks(limiter, at("m"))
    calls = [Sleeper(clock).asks(limiter, at("m")) for _ in range(2)]
    assert [call.sleeps_until for call in calls] == [FAR, FAR]
    scheduler.until = clock.now + 3
    held.slot.settle()
    run(clock, calls, clock.now + 3 + RECHECK)
    assert isinstance(calls[0].got, Granted)


def test_a_waiting_call_asks_again_after_the_one_that_asked_has_left() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock, scheduler=Patient(clock.now + 20))
    first, second = (Sleeper(clock).asks(limiter, at("m")) for _ in range(2))
    run(clock, [first, second], clock.now + 3)
    second.slot.settle()
    run(clock, [first], clock.now + 18)
    assert isinstance(first.got, Granted)


def test_a_call_whose_loop_has_gone_does_not_ask_again() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock, scheduler=Patient(clock.now + 2))
    held = [Sleeper(clock).asks(limiter, at("m")) for _ in range(3)]
    run(clock, held, clock.now + 0.1)
    for gone in held[1:]:
        gone.there = False
        gone.hangs = True
    limiter.configure([ollama(max_concurrency=2)], 9)
    held[2].sleeps_until = FAR
    run(clock, held, clock.now + 20)
    assert isinstance(held[0].got, Granted)


def test_a_wait_ends_at_its_deadline_and_leaves_the_queue() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock)
    held = Sleeper(clock).asks(limiter, at("m"))
    call = Sleeper(clock).asks(limiter, at("m"))
    assert call.slot.poll(clock.now + 1) == clock.now + 1
    clock.now += 1
    assert call.slot.poll(clock.now) is LATE
    assert call.slot.poll(clock.now) is LATE
    assert limiter.stats()[held.options[0].backend.origin][:2] == (1, 0)


# -- A scheduler of the user's own


class Broken:
    """Raises, chooses what does not wait, or something that is no choice at all."""

    def __init__(self, does: str) -> None:
        self.does = does
        self.first: Choice | None = None

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Any:
        self.first = self.first or choices[0]
        if self.does == "raises":
            raise KeyError("a bug")
        return {"what waited before": self.first, "a number": 7}[self.does]


@pytest.mark.parametrize("does", ["raises", "what waited before", "a number"])
def test_a_broken_scheduler_leaves_the_order_of_arrival(does: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock, scheduler=Broken(does))
    with caplog.at_level(logging.ERROR, "ccroute"):
        calls = []
        for name in ("one", "two", "three", "two"):
            calls.append(Sleeper(clock).asks(limiter, at(name)))
            clock.now += 1
        for call in calls:
            assert isinstance(call.got if not call.waits else limiter_got(call), Granted)
            call.slot.settle()
    assert len(caplog.records) == 1
    said = "raised KeyError in " if does == "raises" else "returned neither None nor one of the choices"
    assert f"scheduler Broken {said}" in caplog.text


# -- Anything in any order: whoever waits is served, by nothing but the time


class Hesitant(LoadedFirst):
    """Leaves a slot free until somebody has waited for three seconds."""

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        waited = now - min(choice.queue.oldest for choice in choices)
        return super().choose(host, choices, now) if waited >= 3 else None


class TimeMachine(RuleBasedStateMachine):
    """Two hosts that load models, calls that come and go, and looks that find anything. At the end, only the
    calls that have a slot go on: everyone is served."""

    @initialize(
        slots=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        scheduler=st.sampled_from([LoadedFirst, Hesitant]),
    )
    def begin(self, slots: tuple[int, int], scheduler: type[LoadedFirst]) -> None:
        self.clock, self.calls = Clock(), list[Sleeper]()
        self.limiter = limited(
            ollama(A, max_concurrency=slots[0]),
            ollama(B, max_concurrency=slots[1]),
            monotonic=self.clock,
            scheduler=scheduler(),
        )
        self.slots = dict(zip((A, B), slots, strict=True))

    def inside(self) -> list[Sleeper]:
        return [call for call in self.calls if isinstance(call.got, Granted)]

    def go(self, act: Callable[[], object] = lambda: None, seconds: float = 0.0) -> None:
        act()
        run(self.clock, self.calls, self.clock.now + seconds)

    @rule(
        model=st.sampled_from(["one", "two", "three"]),
        urls=st.sampled_from([(A,), (B,), (A, B), (B, A)]),
        priority=st.sampled_from([0, 0, 1]),
    )
    def comes(self, model: str, urls: tuple[str, ...], priority: int) -> None:
        options = [at(model, url) for url in urls]
        self.calls.append(Sleeper(self.clock).asks(self.limiter, *options, priority=priority))
        self.go()

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def goes(self, which: int) -> None:
        """A call ends, or gives up waiting."""
        call = self.calls.pop(which % len(self.calls))
        if isinstance(call.got, Granted):
            self.limiter.measured(call.got.grant, 1.0, 2.0)  # type: ignore[arg-type]
        self.go(call.slot.settle)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.go(seconds=seconds)

    @rule(url=st.sampled_from([A, B]), models=st.sets(st.sampled_from(["one", "two", "other"])))
    def lists(self, url: str, models: set[str]) -> None:
        listed = [LoadedModel(name=name, size=None) for name in models]
        self.go(lambda: self.limiter.listed(ollama(url), listed))

    @invariant()
    def somebody_watches(self) -> None:
        """Beside a slot that is left free, a call sleeps no longer than the scheduler may wait."""
        if not hasattr(self, "limiter"):
            return
        for url, slots in self.slots.items():
            origin = ollama(url).origin
            held, waiting, _ = self.limiter.stats()[origin]
            inside = [call for call in self.inside() if self.place(call).host == origin]
            assert held == len(inside) <= slots
            if waiting and held < slots:
                assert min(c.sleeps_until for c in self.calls if c.waits) <= self.clock.now + RECHECK

    def place(self, call: Sleeper) -> Any:
        return call.got.grant.place

    def teardown(self) -> None:
        if not hasattr(self, "limiter"):
            return
        left = len(self.calls)
        for _ in range(400 * left):
            if not self.calls:
                break
            self.go(seconds=1.0)
            for call in self.inside():
                self.calls.remove(call)
                self.go(call.slot.settle)
        assert not self.calls, "somebody waits for ever"
        assert {each[:2] for each in self.limiter.stats().values()} == {(0, 0)}


TestTimeMachine = TimeMachine.TestCase
TestTimeMachine.settings = settings(max_examples=60, stateful_step_count=30)


def test_the_predicted_wait_is_nothing_at_a_host_without_a_limit() -> None:
    clock = Clock()
    limiter = limited(ollama(), monotonic=clock)
    here, there = at("m"), at("m", B)
    assert limiter.predicted(there, 0) == 0.0
    held = Sleeper(clock).asks(limiter, here)
    limiter.measured(held.got.grant, 4.0, 2.0)
    busy, free = limiter.predicted(here, 0), limiter.predicted(there, 0)
    assert busy > free == 0.0
    first = Sleeper(clock).asks(limiter, here)
    clock.now += 0.1
    second = Sleeper(clock).asks(limiter, here)
    assert 0 < first.got.seconds < second.got.seconds, "each is told of those before it, and not of itself"
    assert second.slot.poll(FAR, clock.now) == Queued(0, second.got.seconds)
