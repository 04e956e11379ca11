"""The concurrency limiter alone: never more calls than slots, none forgotten in the queue, no slot lost."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ccroute import OpenAIBackend
from ccroute.backends import Backend, Origin
from ccroute.flow.effects import Queued
from ccroute.runtime.limiter import FULL, MAX_STALE, STUCK, ConcurrencyLimiter, Limiters, Slot


class Caller:
    """A waiter that notes when it is woken; `there` is false once nobody would take the slot."""

    def __init__(self, owner: object, blocks: Sequence[object] = (), *, there: bool = True) -> None:
        self.owner = owner
        self.blocks = blocks
        self.there = there
        self.woken = 0
        self.priority = 0

    def wake(self) -> bool:
        self.woken += 1
        return self.there


def busy(limit: int = 1, max_queue: int = 1000) -> tuple[ConcurrencyLimiter, list[Slot]]:
    """A limiter whose slots are all held by another owner."""
    limiter = ConcurrencyLimiter(limit, max_queue)
    held = [Slot(limiter, Caller("other")) for _ in range(limit)]
    assert [slot.enter(0) for slot in held] == [None] * limit
    return limiter, held


def queued(limiter: ConcurrencyLimiter, *priorities: int, **about: Any) -> list[Slot]:
    slots = [Slot(limiter, Caller(object(), **about)) for _ in priorities]
    for slot, priority in zip(slots, priorities, strict=True):
        assert isinstance(slot.enter(priority), Queued)
    return slots


def woken(*slots: Slot) -> list[int]:
    return [slot.waiter.woken for slot in slots]  # type: ignore[attr-defined]


def ask(limiter: ConcurrencyLimiter, owner: object = "me", blocks: Sequence[object] = ()) -> Any:
    """What a new call is answered; it gives up at once what it gets."""
    slot = Slot(limiter, Caller(owner, blocks))
    answer = slot.enter(0)
    slot.settle()
    return answer


def counts(limiter: ConcurrencyLimiter) -> tuple[int, int]:
    return limiter.stats()[:2]


def test_only_so_many_calls_have_a_slot_at_a_time() -> None:
    limiter = ConcurrencyLimiter(3, 10)
    slots = [Slot(limiter, Caller("me", blocks=())) for _ in range(4)]
    assert [slot.enter(0) for slot in slots] == [None, None, None, Queued(0)]
    assert limiter.stats() == (3, 1, 3)
    assert repr(limiter) == "ConcurrencyLimiter(3 of 3 held, 1 waiting)"
    slots[0].settle()
    assert woken(slots[3]) == [1]
    assert limiter.stats() == (3, 0, 3)


def test_a_slot_given_back_twice_frees_one_slot() -> None:
    limiter, (one, _two) = busy(2)
    one.settle()
    one.settle("any outcome")
    assert counts(limiter) == (1, 0)
    again = Slot(limiter, Caller("me"))
    assert again.enter(0) is None
    one.settle()
    assert counts(limiter) == (2, 0), "the slot is another call's now"


def test_a_slot_that_was_given_back_cannot_be_entered() -> None:
    limiter, (held,) = busy()
    held.settle()
    assert held.enter(0) is None
    assert counts(limiter) == (0, 0)


def test_the_queue_is_served_by_priority_and_then_in_order() -> None:
    limiter, (held,) = busy()
    slots = queued(limiter, 0, 5, 0, 5, -1, 9)
    order: list[int] = []
    held.settle()
    while len(order) < len(slots):
        (served,) = [i for i, slot in enumerate(slots) if woken(slot) == [1] and i not in order]
        order.append(served)
        slots[served].settle()
    assert order == [5, 1, 3, 0, 2, 4]
    assert counts(limiter) == (0, 0)


def test_a_new_call_does_not_pass_the_queue() -> None:
    limiter, (held,) = busy()
    (waits,) = queued(limiter, 0)
    held.settle()
    assert isinstance(ask(limiter), Queued)
    assert woken(waits) == [1]


def test_a_call_that_waits_knows_how_many_are_ahead() -> None:
    limiter, _held = busy()
    slots = [Slot(limiter, Caller(i)) for i in range(3)]
    assert [slot.enter(0) for slot in slots] == [Queued(0), Queued(1), Queued(2)]


def test_a_full_queue_refuses_every_priority() -> None:
    limiter, (held,) = busy(max_queue=2)
    first, _second = queued(limiter, 0, 0)
    assert Slot(limiter, Caller("me")).enter(99) is FULL
    held.settle()
    assert (counts(limiter), woken(first)) == ((1, 1), [1])
    assert isinstance(ask(limiter), Queued)
    none, _ = busy(max_queue=0)
    assert ask(none) is FULL


def test_a_call_that_gives_up_holds_nothing() -> None:
    limiter, (held,) = busy()
    early, late, following = queued(limiter, 0, 0, 0)
    early.settle()
    held.settle()
    assert woken(early, late) == [0, 1]
    late.settle()  # it had been given a slot meanwhile
    assert woken(following) == [1]
    following.settle()
    assert counts(limiter) == (0, 0)


def test_a_waiter_that_is_gone_passes_its_slot_on() -> None:
    limiter, (held,) = busy()
    _gone = queued(limiter, 9, 9, there=False)
    (waits,) = queued(limiter, 0)
    held.settle()
    assert woken(waits) == [1]
    waits.settle()
    assert counts(limiter) == (0, 0)


def test_thousands_of_gone_waiters_do_not_hide_the_one_that_is_there() -> None:
    limiter, (held,) = busy(max_queue=10_000)
    _gone = queued(limiter, *[0] * 3000, there=False)
    (waits,) = queued(limiter, 0)
    held.settle()
    assert woken(waits) == [1]


@pytest.mark.parametrize("waited", [False, True], ids=["at once", "after waiting"])
def test_a_slot_that_an_interrupt_drops_comes_back(waited: bool) -> None:
    limiter, held = busy()
    slots = queued(limiter, 0, 0)
    held.clear()
    if waited:
        del slots[0]
    gc.collect()
    assert woken(slots[0]) == [1]
    slots.clear()
    gc.collect()
    assert counts(limiter) == (0, 0)


def test_a_slot_whose_making_was_interrupted_can_be_dropped() -> None:
    Slot.__new__(Slot).settle()


def test_a_slot_that_a_closed_loop_held_goes_to_the_first() -> None:
    limiter, (held,) = busy()
    (waits,) = queued(limiter, 0)
    loop = asyncio.new_event_loop()
    held.waiter.owner = weakref.ref(loop)
    assert isinstance(ask(limiter), Queued)
    loop.close()
    assert isinstance(ask(limiter), Queued)
    assert woken(waits) == [1]
    held.settle()
    assert counts(limiter) == (1, 0)


def test_the_queue_does_not_grow_with_calls_that_gave_up() -> None:
    limiter, (held,) = busy()
    (stays,) = queued(limiter, 9)
    for _ in range(5000):
        assert isinstance(ask(limiter), Queued)
    assert limiter.stats().waiting == 1
    assert len(limiter._queue) <= 2 + MAX_STALE + 1
    held.settle()
    assert woken(stays) == [1]


def test_a_thread_that_blocks_a_loop_goes_before_its_tasks() -> None:
    limiter, (held,) = busy()
    task = Slot(limiter, Caller("loop"))
    other = Slot(limiter, Caller("another loop"))
    thread = Slot(limiter, Caller("thread", blocks=("thread", "loop")))
    for slot, priority in ((task, 9), (other, 5), (thread, 0)):
        assert isinstance(slot.enter(priority), Queued)
    held.settle()
    assert woken(thread, task, other) == [1, 0, 0]
    thread.settle()
    assert woken(task, other) == [1, 0], "the loop runs again, so it is its task's turn"


def test_a_wait_that_could_never_end_is_refused() -> None:
    limiter = ConcurrencyLimiter(2, 10)
    mine, loops = (Slot(limiter, Caller(owner)) for owner in ("thread", "loop"))
    assert (mine.enter(0), loops.enter(0)) == (None, None)
    assert ask(limiter, "thread", ("thread", "loop")) is STUCK
    assert counts(limiter) == (2, 0)
    assert isinstance(ask(limiter, "thread", ("thread",)), Queued), "the loop may still give one back"
    loops.waiter.owner = "another thread"
    assert isinstance(ask(limiter, "thread", ("thread", "loop")), Queued)
    assert isinstance(ask(limiter, "loop"), Queued), "a task blocks nobody"


# -- Finalisers and other threads in the middle of anything


@pytest.mark.parametrize("comes_back", ["settled", "dropped", "left the queue"])
def test_what_comes_back_while_the_lock_is_held_is_passed_on(comes_back: str) -> None:
    limiter, held = busy()
    (waits,) = queued(limiter, 0)
    if comes_back == "left the queue":
        granted = waits
        held.pop().settle()
        (waits,) = queued(limiter, 0)
    with limiter._lock:  # a finaliser in the middle of enter()
        if comes_back == "settled":
            held[0].settle()
        elif comes_back == "dropped":
            held.clear()
            gc.collect()
        else:
            granted.settle()
        assert woken(waits) == [0]
    asks = Slot(limiter, Caller("me"))
    assert isinstance(asks.enter(0), Queued)
    assert woken(waits) == [1]


class Interrupted(ConcurrencyLimiter):
    """With its lock held, something happens in another thread or a finaliser."""

    meanwhile: Callable[[], object] | None = None

    def _update(self) -> None:
        super()._update()
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()


@pytest.mark.parametrize(
    ("blocks", "max_queue", "answer"),
    [((), 1, FULL), (("other",), 9, STUCK), ((), 9, Queued(1))],
    ids=["full", "stuck", "queued"],
)
def test_a_slot_that_comes_back_during_a_refusal_wakes_the_first(
    blocks: Sequence[object], max_queue: int, answer: object
) -> None:
    limiter = Interrupted(1, max_queue)
    held = Slot(limiter, Caller("other"))
    assert held.enter(0) is None
    (waits,) = queued(limiter, 0)
    limiter.meanwhile = held.settle
    asks = Slot(limiter, Caller("me", blocks))
    assert asks.enter(0) == answer
    assert woken(waits) == [1], "it sleeps for ever beside a free slot"


def test_slots_that_come_back_at_the_same_time_are_both_passed_on() -> None:
    limiter = Interrupted(2, 9)
    one, two = (Slot(limiter, Caller("other")) for _ in range(2))
    assert (one.enter(0), two.enter(0)) == (None, None)
    waits = queued(limiter, 0, 0)
    limiter.meanwhile = two.settle
    one.settle()
    assert woken(*waits) == [1, 1]


# -- Anything in any order

THREADS = ["t1", "t2", "t3"]
LOOPS = ["l1", "l2"]


class LimiterMachine(RuleBasedStateMachine):
    """Against a model with plain lists: which calls have a slot, which wait, whose turn it is."""

    @initialize(limit=st.integers(1, 3), max_queue=st.integers(0, 6))
    def begin(self, limit: int, max_queue: int) -> None:
        self.limiter = ConcurrencyLimiter(limit, max_queue)
        self.limit, self.max_queue = limit, max_queue
        self.inside: list[tuple[Slot, Caller]] = []
        self.line: list[tuple[Slot, Caller]] = []

    # -- the model

    def turn(self) -> tuple[Slot, Caller]:
        """Whose turn it is: the first of the highest priority, unless a thread blocks its loop."""
        best = max(caller.priority for _, caller in self.line)
        first = next(entry for entry in self.line if entry[1].priority == best)
        blocking = [entry for entry in self.line if first[1].owner in entry[1].blocks]
        return blocking[0] if blocking else first

    def advance(self) -> None:
        """The model gives slots to the calls whose turn it is; the limiter must have done the same."""
        while self.line and len(self.inside) < self.limit:
            served = self.turn()
            self.line.remove(served)
            assert served[1].woken == 1, "not woken though it is its turn"
            if served[1].there:
                self.inside.append(served)
        assert not any(caller.woken for _, caller in self.line), "woken out of turn"

    # -- what happens

    @rule(
        thread=st.sampled_from([None, *THREADS]),
        loop=st.sampled_from([None, *LOOPS]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        there=st.sampled_from([True, True, True, False]),
    )
    def enter(self, thread: str | None, loop: str | None, priority: int, there: bool) -> None:
        """A task asks, or a thread, which may block the loop it runs."""
        if thread is None and loop is None:
            return
        blocks = () if thread is None else tuple(each for each in (thread, loop) if each is not None)
        if any(set(blocks) & set(caller.blocks) for _, caller in self.line):
            return  # it waits already, so it cannot ask
        caller = Caller(thread or loop, blocks, there=there)
        caller.priority = priority
        slot, full = Slot(self.limiter, caller), len(self.inside) >= self.limit
        answer = slot.enter(priority)
        if not full:
            assert answer is None
            self.inside.append((slot, caller))
        elif all(holder.owner in blocks for _, holder in self.inside):
            assert answer is STUCK
        elif len(self.line) >= self.max_queue:
            assert answer is FULL
        else:
            assert answer == Queued(len(self.line))
            self.line.append((slot, caller))

    @precondition(lambda self: self.line or self.inside)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["once", "twice", "drop"]), locked=st.booleans())
    def settle(self, which: int, how: str, locked: bool) -> None:
        """A call that has a slot, or waits, or has been given a slot and does not know it yet."""
        calls = self.inside if (which % 2 and self.inside) or not self.line else self.line
        slots = [calls.pop(which % len(calls))[0]]

        def act() -> None:
            slot = slots.pop()
            for _ in range({"once": 1, "twice": 2, "drop": 0}[how]):
                slot.settle()

        if locked:
            with self.limiter._lock:
                act()
            self.limiter._drain()  # as the thread does that had the lock
        else:
            act()
        self.advance()

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 99), owner=st.sampled_from(THREADS + LOOPS))
    def moves(self, which: int, owner: str) -> None:
        """Another thread reads the stream from now on."""
        self.inside[which % len(self.inside)][1].owner = owner

    @rule(limit=st.integers(1, 4), max_queue=st.integers(0, 6), locked=st.booleans())
    def resize(self, limit: int, max_queue: int, locked: bool) -> None:
        """A reload has other limits; a signal's handler may make it, in the middle of the lock's holder."""
        self.limit, self.max_queue = limit, max_queue
        if locked:
            with self.limiter._lock:
                self.limiter.resize(limit, max_queue)
            self.limiter._drain()  # as the thread does that had the lock
        else:
            self.limiter.resize(limit, max_queue)
        self.advance()

    @rule(times=st.integers(1, 150))
    def many_calls_give_up(self, times: int) -> None:
        if not self.line or len(self.line) >= self.max_queue:
            return
        for _ in range(times):
            assert isinstance(ask(self.limiter, "another"), Queued)

    # -- what holds always

    @invariant()
    def agrees(self) -> None:
        held, waiting, limit = self.limiter.stats()
        assert (held, waiting, limit) == (len(self.inside), len(self.line), self.limit)
        assert not self.line or held >= self.limit, "a slot is free beside a queue"
        assert len(self.limiter._queue) <= 2 * len(self.line) + MAX_STALE + 1

    def teardown(self) -> None:
        if not hasattr(self, "limiter"):
            return
        while self.line or self.inside:
            self.settle(0, "once", locked=False)
        assert counts(self.limiter) == (0, 0)
        held = [Slot(self.limiter, Caller("new")) for _ in range(self.limit)]
        assert [slot.enter(0) for slot in held] == [None] * self.limit, "a slot was lost"
        assert not self.limiter._blocked


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(max_examples=150, stateful_step_count=40)


# -- The limiters of one router


def host(limit: int | None, name: str, url: str) -> Backend:
    return OpenAIBackend(name, base_url=url, max_concurrency=limit)


def test_the_smallest_limit_of_the_backends_at_one_host_counts() -> None:
    backends = [
        host(3, "three", "http://gpu.test:1/other"),
        host(2, "two", "http://gpu.test:1/v1"),
        host(None, "free", "http://gpu.test:1/v1"),
        host(4, "four", "http://gpu.test:1"),
        host(5, "five", "http://gpu.test:2"),
        host(None, "unlimited", "http://gpu.test:3"),
    ]
    limiters = Limiters(backends, 0)
    first, second = Origin("http", "gpu.test", 1), Origin("http", "gpu.test", 2)
    slot = Slot(limiters.by_origin[second], Caller("me"))
    assert slot.enter(0) is None
    assert limiters.stats() == {first: (0, 0, 2), second: (1, 0, 5)}


def test_in_a_forked_child_all_slots_are_free() -> None:
    limiters = Limiters([host(1, "a", "http://gpu.test:1")], 9)
    (limiter,) = limiters.by_origin.values()
    held = Slot(limiter, Caller("me"))
    assert held.enter(0) is None
    with limiter._lock:
        limiters.after_fork()
        held.settle()  # the parent's lock may never be free here
    assert [tuple(each) for each in limiters.stats().values()] == [(0, 0, 1)]
