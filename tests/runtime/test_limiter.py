"""The limiter alone: never more calls than slots, none forgotten in the queue, no slot lost."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ccroute import Model, OllamaBackend, OpenAIBackend
from ccroute.accounting import PriceBook
from ccroute.backends import Backend, Origin
from ccroute.flow.effects import Granted, Queued
from ccroute.routing import Deployment
from ccroute.routing.scheduling import Choice, Host, HostLimits
from ccroute.routing.tables.deployments import make_deployment
from ccroute.runtime.limiter import FULL, STUCK, Limiter, Slot
from ccroute.types import LoadedModel

A = "http://gpu.test:1"
B = "http://gpu.test:2"


class Caller:
    """A waiter that notes when it is woken; `there` is false once nobody would take the slot."""

    def __init__(self, owner: object, blocks: Sequence[object] = (), *, there: bool = True) -> None:
        self.owner = owner
        self.blocks = blocks
        self.there = there
        self.woken = 0

    async def wait(self, until: float) -> bool:
        raise NotImplementedError

    def wake(self) -> bool:
        self.woken += 1
        return self.there


def host(limit: int | None, name: str = "a", url: str = A, **about: Any) -> Backend:
    return OpenAIBackend(name, base_url=url, max_concurrency=limit, **about)


def option(url: str = A, model: str = "m", kind: type[Any] = OpenAIBackend) -> Deployment:
    return make_deployment(f"x/{model}", kind("x", base_url=url), model, PriceBook())


HERE, THERE = option(A), option(B)


def limited(*backends: Backend, max_queue: int = 1000, **about: Any) -> Limiter:
    limiter = Limiter(**about)
    limiter.configure(backends, max_queue)
    return limiter


def enter(slot: Slot, *options: Deployment, priority: int = 0) -> Any:
    """What a slot is answered: the number of the option for one that is granted."""
    answer = slot.enter(options or (HERE,), priority)
    return answer.option if isinstance(answer, Granted) else answer


def busy(limit: int = 1, max_queue: int = 1000) -> tuple[Limiter, list[Slot]]:
    """A limiter of one host whose slots are all held by another owner."""
    limiter = limited(host(limit), max_queue=max_queue)
    held = [Slot(limiter, Caller("other")) for _ in range(limit)]
    assert [enter(slot) for slot in held] == [0] * limit
    return limiter, held


def queued(limiter: Limiter, *priorities: int, **about: Any) -> list[Slot]:
    slots = [Slot(limiter, Caller(object(), **about)) for _ in priorities]
    for slot, priority in zip(slots, priorities, strict=True):
        assert isinstance(enter(slot, priority=priority), Queued)
    return slots


def woken(*slots: Slot) -> list[int]:
    return [slot.waiter.woken for slot in slots]  # type: ignore[attr-defined]


def ahead(answer: Any) -> Any:
    """Of a call that waits, only how many are ahead, as a tuple."""
    return (answer.ahead,) if isinstance(answer, Queued) else answer


def ask(limiter: Limiter, owner: object = "me", blocks: Sequence[object] = (), options: Any = (HERE,)) -> Any:
    """What a new call is answered; it gives up at once what it gets."""
    slot = Slot(limiter, Caller(owner, blocks))
    answer = enter(slot, *options)
    slot.settle()
    return answer


def counts(limiter: Limiter, url: str = A) -> tuple[int, int]:
    return limiter.stats()[host(1, url=url).origin][:2]


def test_only_so_many_calls_have_a_slot_at_a_time() -> None:
    limiter = limited(host(3))
    slots = [Slot(limiter, Caller("me", blocks=())) for _ in range(4)]
    assert [ahead(enter(slot)) for slot in slots] == [0, 0, 0, (0,)]
    assert limiter.stats() == {HERE.backend.origin: (3, 1, 3)}
    assert repr(limiter) == "Limiter(1 hosts, 1 calls waiting)"
    slots[0].settle()
    assert woken(slots[3]) == [1]
    assert limiter.stats() == {HERE.backend.origin: (3, 0, 3)}


def test_a_slot_given_back_twice_frees_one_slot() -> None:
    limiter, (one, _two) = busy(2)
    one.settle()
    one.settle("any outcome")
    assert counts(limiter) == (1, 0)
    again = Slot(limiter, Caller("me"))
    assert enter(again) == 0
    one.settle()
    assert counts(limiter) == (2, 0), "the slot is another call's now"


def test_a_slot_that_was_given_back_cannot_be_entered() -> None:
    limiter, (held,) = busy()
    held.settle()
    assert enter(held) == 0
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
    assert [enter(slot).ahead for slot in slots] == [0, 1, 2]


def test_a_full_queue_refuses_every_priority() -> None:
    limiter, (held,) = busy(max_queue=2)
    first, _second = queued(limiter, 0, 0)
    assert enter(Slot(limiter, Caller("me")), priority=99) is FULL
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
    assert counts(limiter) == (1, 1)
    assert len(limiter._hosts) == 1
    held.settle()
    assert woken(stays) == [1]


def test_a_thread_that_blocks_a_loop_goes_before_its_tasks() -> None:
    limiter, (held,) = busy()
    task = Slot(limiter, Caller("loop"))
    other = Slot(limiter, Caller("another loop"))
    thread = Slot(limiter, Caller("thread", blocks=("thread", "loop")))
    for slot, priority in ((task, 9), (other, 5), (thread, 0)):
        assert isinstance(enter(slot, priority=priority), Queued)
    held.settle()
    assert woken(thread, task, other) == [1, 0, 0]
    thread.settle()
    assert woken(task, other) == [1, 0], "the loop runs again, so it is its task's turn"


def test_a_wait_that_could_never_end_is_refused() -> None:
    limiter = limited(host(2))
    mine, loops = (Slot(limiter, Caller(owner)) for owner in ("thread", "loop"))
    assert (enter(mine), enter(loops)) == (0, 0)
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
    with limiter._inbox.lock:  # a finaliser in the middle of enter()
        if comes_back == "settled":
            held[0].settle()
        elif comes_back == "dropped":
            held.clear()
            gc.collect()
        else:
            granted.settle()
        assert woken(waits) == [0]
    asks = Slot(limiter, Caller("me"))
    assert isinstance(enter(asks), Queued)
    assert woken(waits) == [1]


class Interrupted(Limiter):
    """With its lock held, something happens in another thread or a finaliser."""

    meanwhile: Callable[[], object] | None = None

    def _grant(self, now: float, entering: Any = None) -> None:
        super()._grant(now, entering)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()


def interrupted(limit: int, max_queue: int) -> Interrupted:
    limiter = Interrupted()
    limiter.configure([host(limit)], max_queue)
    return limiter


@pytest.mark.parametrize(
    ("blocks", "max_queue", "answer"),
    [((), 1, FULL), (("other",), 9, STUCK), ((), 9, (1,))],
    ids=["full", "stuck", "queued"],
)
def test_a_slot_that_comes_back_during_a_refusal_wakes_the_first(
    blocks: Sequence[object], max_queue: int, answer: object
) -> None:
    limiter = interrupted(1, max_queue)
    held = Slot(limiter, Caller("other"))
    assert enter(held) == 0
    (waits,) = queued(limiter, 0)
    limiter.meanwhile = held.settle
    asks = Slot(limiter, Caller("me", blocks))
    assert ahead(enter(asks)) == answer
    assert woken(waits) == [1], "it sleeps for ever beside a free slot"


def test_slots_that_come_back_at_the_same_time_are_both_passed_on() -> None:
    limiter = interrupted(2, 9)
    one, two = (Slot(limiter, Caller("other")) for _ in range(2))
    assert (enter(one), enter(two)) == (0, 0)
    waits = queued(limiter, 0, 0)
    limiter.meanwhile = two.settle
    one.settle()
    assert woken(*waits) == [1, 1]


# -- Several hosts


def test_a_call_takes_the_first_of_its_hosts_that_is_free() -> None:
    limiter = limited(host(1), host(1, "b", B))
    first, second, third = (Slot(limiter, Caller(object())) for _ in range(3))
    assert enter(first, THERE, HERE) == 0
    assert (counts(limiter, A), counts(limiter, B)) == ((0, 0), (1, 0))
    assert enter(second, THERE, HERE) == 1
    assert ahead(enter(third, THERE, HERE)) == (0,)
    assert (counts(limiter, A), counts(limiter, B)) == ((1, 1), (1, 1)), "it waits for both"
    second.settle()
    assert third.poll(1e9).option == 1  # type: ignore[union-attr]
    assert (counts(limiter, A), counts(limiter, B)) == ((1, 0), (1, 0))
    third.settle()
    first.settle()
    assert (counts(limiter, A), counts(limiter, B)) == ((0, 0), (0, 0))


def test_two_deployments_at_one_host_are_the_first_of_them() -> None:
    limiter = limited(host(1))
    held, waits = (Slot(limiter, Caller(object())) for _ in range(2))
    assert enter(held, option(A, "one"), option(A, "two")) == 0
    assert isinstance(enter(waits, option(A, "one"), option(A, "two")), Queued)
    assert counts(limiter) == (1, 1)
    held.settle()
    assert waits.poll(1e9).option == 0  # type: ignore[union-attr]


def test_only_a_call_whose_hosts_are_all_full_is_refused() -> None:
    limiter = limited(host(1), host(1, "b", B), max_queue=1)
    held = [Slot(limiter, Caller("other")) for _ in range(2)]
    assert [enter(slot, HERE, THERE) for slot in held] == [0, 1]
    (_waits,) = queued(limiter, 0)
    assert ask(limiter) is FULL
    assert ahead(ask(limiter, options=(HERE, THERE))) == (0,)


def test_a_call_is_stuck_only_if_its_thread_holds_every_slot_that_it_could_get() -> None:
    limiter = limited(host(1), host(1, "b", B))
    mine, theirs = Slot(limiter, Caller("me")), Slot(limiter, Caller("other"))
    assert (enter(mine), enter(theirs, THERE)) == (0, 0)
    assert ask(limiter, "me", ("me",)) is STUCK
    assert isinstance(ask(limiter, "me", ("me",), (HERE, THERE)), Queued)
    theirs.waiter.owner = "me"
    assert ask(limiter, "me", ("me",), (HERE, THERE)) is STUCK


def test_a_call_is_stuck_if_the_models_of_its_own_calls_need_the_memory() -> None:
    """A slot is free, but the host keeps one model, and that is in use."""
    limiter = limited(OllamaBackend("a", base_url=A, max_concurrency=2))
    mine = Slot(limiter, Caller("me"))
    assert enter(mine, option(A, "one", OllamaBackend)) == 0
    assert ask(limiter, "me", ("me",), (option(A, "two", OllamaBackend),)) is STUCK
    assert ask(limiter, "me", ("me",), (option(A, "one", OllamaBackend),)) == 0


class LeavesFree:
    """A scheduler that gives no slot away for now."""

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        return None


def test_a_call_waits_for_a_slot_that_is_left_free_though_its_own_calls_have_the_others() -> None:
    backend = OllamaBackend(
        "a", base_url=A, max_concurrency=2, memory_gb=9, models={"two": Model(memory_gb=4)}
    )
    limiter = limited(backend, scheduler=LeavesFree())
    mine, one = Slot(limiter, Caller("me")), option(A, "one", OllamaBackend)
    limiter.listed(backend, [LoadedModel(name="one", size=10**9)])
    assert enter(mine, one) == 0
    assert isinstance(
        ask(limiter, "me", ("me",), (make_deployment("a/two", backend, "two", PriceBook()),)), Queued
    )
    limiter.configure([host(1)], 9)
    assert ask(limiter, "me", ("me",), (one,)) is STUCK


# -- Limits, and their changes


def test_the_smallest_limits_of_the_backends_at_one_host_count() -> None:
    backends = [
        host(3, "three", "http://gpu.test:1/other", memory_gb=24),
        host(2, "two", "http://gpu.test:1/v1", memory_gb=16),
        host(None, "free", "http://gpu.test:1/v1"),
        host(4, "four", "http://gpu.test:1"),
        host(5, "five", "http://gpu.test:2"),
        host(None, "unlimited", "http://gpu.test:3"),
    ]
    limiter = limited(*backends)
    first, second = Origin("http", "gpu.test", 1), Origin("http", "gpu.test", 2)
    slot = Slot(limiter, Caller("me"))
    assert enter(slot, THERE) == 0
    assert limiter.stats() == {first: (0, 0, 2), second: (1, 0, 5)}
    assert limiter == {first: HostLimits(2, True, 16), second: HostLimits(5)}
    assert Origin("http", "gpu.test", 3) not in limiter


def test_a_limit_taken_off_lets_those_go_that_wait_for_it_and_perhaps_for_others() -> None:
    limiter = limited(host(1), host(1, "b", B))
    held = [Slot(limiter, Caller("other")) for _ in range(2)]
    assert [enter(slot, HERE, THERE) for slot in held] == [0, 1]
    slots = [Slot(limiter, Caller(object())) for _ in range(3)]
    for slot, options in zip(slots, ((HERE,), (HERE, THERE), (THERE, HERE)), strict=True):
        assert isinstance(enter(slot, *options), Queued)
    limiter.configure([host(1), host(None, "b", B)], 9)
    assert woken(*slots) == [0, 1, 1]
    assert [slot.poll(1e9) for slot in slots[1:]] == [Granted(1), Granted(0)]
    assert (limiter.stats()[HERE.backend.origin][:2], THERE.backend.origin in limiter) == ((1, 1), False)
    assert enter(Slot(limiter, Caller("late")), HERE, THERE) == 1, "it asked before the reload"
    for slot in (*slots, *held):
        slot.settle()
    assert counts(limiter) == (0, 0)


def test_in_a_forked_child_all_slots_are_free() -> None:
    limiter = limited(host(1), max_queue=9)
    held, waits = (Slot(limiter, Caller(name)) for name in ("me", "other"))
    assert enter(held) == 0
    assert isinstance(enter(waits), Queued)
    with limiter._inbox.lock:
        limiter.after_fork()
        assert limiter.stats() == {HERE.backend.origin: (0, 0, 1)}
        held.settle()  # the parent's lock may never be free here
        waits.settle()
    assert limiter.stats() == {HERE.backend.origin: (0, 0, 1)}
    assert ask(limiter) == 0
