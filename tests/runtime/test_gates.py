"""A host serves so many calls at a time: nobody more is let in, nobody is forgotten, and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.conftest import Caller
from tests.support import ollama
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Request, ScriptedServer, Set, Step, Wait, answer, stream
from tests.support.steps import Link

from ccroute import Agent, AliasTable, OllamaBackend, OpenAIBackend, RetryPolicy, Router
from ccroute.backends import Backend
from ccroute.errors import OverloadedError, QueueTimeoutError
from ccroute.flow import Enter
from ccroute.observe import Event, FellBack, Queued, Retried
from ccroute.runtime.gates import FULL, LATE, MOST_GONE, STUCK, Gate, Gates, Permit

PROMPTLY = 5.0
"""Seconds that a test waits for what must happen at once, before it calls it lost."""
ONCE = RetryPolicy(attempts=1)


# -- The gate alone, without threads


class Waiting:
    """Somebody in the queue of a gate, awake or gone."""

    def __init__(self, owner: object, stops: Sequence[object] = (), *, there: bool = True) -> None:
        self.owner = owner
        self.stops = stops
        self.permit: Permit | None = None
        self.there = there
        self.woken = 0
        self.priority = 0

    def wake(self) -> bool:
        assert self.permit is not None, "woken without a permit"
        self.woken += 1
        return self.there


def busy(permits: int = 1, max_queue: int = 1000) -> tuple[Gate, list[Permit]]:
    """A gate whose places are all taken by somebody else."""
    gate = Gate(permits, max_queue)
    held = [gate.enter("somebody") for _ in range(permits)]
    assert all(held)
    return gate, [permit for permit in held if permit is not None]


def queued(gate: Gate, *priorities: int, **about: Any) -> list[Waiting]:
    waiters = [Waiting(object(), **about) for _ in priorities]
    for waiter, priority in zip(waiters, priorities, strict=True):
        assert gate.queue(waiter, priority) is None
    return waiters


def is_free(gate: Gate) -> bool:
    """Whether a newcomer enters at once; it leaves again."""
    permit = gate.enter("newcomer")
    if permit is None:
        return False
    permit.release()
    return True


def test_so_many_enter_and_no_more() -> None:
    gate = Gate(3, 10)
    held = [gate.enter("me") for _ in range(4)]
    assert [permit is not None for permit in held] == [True, True, True, False]
    assert (gate.held, gate.waiting) == (3, 0)
    assert repr(gate) == "Gate(3 of 3 permits held, 0 waiting)"
    assert held[0] is not None
    held[0].release()
    assert is_free(gate)


def test_a_permit_given_back_twice_frees_one_place() -> None:
    gate, (one, _two) = busy(2)
    one.release()
    one.release()
    assert gate.held == 1
    again = gate.enter("me")
    one.release()
    assert gate.enter("me") is None, "the place is another's now"
    assert again is not None


def test_who_came_first_is_served_first_and_a_higher_priority_before() -> None:
    gate, (held,) = busy()
    waiters = queued(gate, 0, 5, 0, 5, -1, 9)
    order = []
    held.release()
    while any(waiter.woken for waiter in waiters):
        (served,) = [waiter for waiter in waiters if waiter.woken]
        order.append(waiters.index(served))
        served.woken = 0
        assert served.permit is not None
        served.permit.release()
    assert order == [5, 1, 3, 0, 2, 4]
    assert is_free(gate)


def test_nobody_passes_those_who_wait() -> None:
    gate, (held,) = busy()
    (waiter,) = queued(gate, 0)
    held.release()
    assert gate.enter("me") is None
    assert waiter.woken == 1


def test_a_full_queue_takes_nobody_whatever_the_priority() -> None:
    gate, (held,) = busy(max_queue=2)
    first, _second = queued(gate, 0, 0)
    assert gate.queue(Waiting("me"), 99) is FULL
    held.release()
    assert (gate.waiting, first.woken) == (1, 1)
    assert gate.queue(Waiting("me"), 0) is None
    none, _ = busy(max_queue=0)
    assert none.queue(Waiting("me"), 0) is FULL


def test_who_queues_at_a_free_gate_is_served_at_once() -> None:
    gate = Gate(1, 0)
    (waiter,) = queued(gate, 0)
    assert waiter.permit is not None
    assert gate.waiting == 0


def test_who_gives_up_holds_nothing() -> None:
    gate, (held,) = busy()
    early, late, next_one = queued(gate, 0, 0, 0)
    gate.abandon(early)
    held.release()
    assert (early.woken, late.woken) == (0, 1)
    gate.abandon(late)  # it was granted meanwhile
    assert (late.permit, next_one.woken) == (None, 1)
    gate.abandon(next_one)
    gate.abandon(next_one)
    assert gate.held == 0
    assert is_free(gate)


def test_who_is_not_there_any_more_passes_its_permit_on() -> None:
    gate, (held,) = busy()
    gone = queued(gate, 9, 9, there=False)
    (waiter,) = queued(gate, 0)
    held.release()
    assert [each.permit for each in gone] == [None, None]
    assert waiter.woken == 1
    gate.abandon(waiter)
    assert is_free(gate)


def test_thousands_that_are_not_there_any_more_do_not_hide_the_one_that_is() -> None:
    gate, (held,) = busy(max_queue=10_000)
    queued(gate, *[0] * 3000, there=False)
    (waiter,) = queued(gate, 0)
    held.release()
    assert waiter.woken == 1
    gate.abandon(waiter)
    assert is_free(gate)


def test_a_permit_that_is_dropped_comes_back() -> None:
    gate, held = busy()
    (waiter,) = queued(gate, 0)
    held.clear()
    gc.collect()
    assert waiter.woken == 1
    waiter.permit = None
    gc.collect()
    assert gate.held == 0
    assert is_free(gate)


def test_the_queue_does_not_grow_with_those_who_gave_up() -> None:
    gate, (held,) = busy()
    (stays,) = queued(gate, 9)
    for _ in range(5000):
        (waiter,) = queued(gate, 0)
        gate.abandon(waiter)
    assert gate.waiting == 1
    assert len(gate._queue) <= 2 + MOST_GONE + 1
    held.release()
    assert stays.woken == 1


def test_a_thread_that_stops_a_loop_goes_before_the_tasks_of_that_loop() -> None:
    gate, (held,) = busy()
    task = Waiting("loop")
    other = Waiting("another loop")
    blocking = Waiting("thread", stops=("thread", "loop"))
    for waiter, priority in ((task, 9), (other, 5), (blocking, 0)):
        assert gate.queue(waiter, priority) is None
    held.release()
    assert (blocking.woken, task.woken, other.woken) == (1, 0, 0)
    assert blocking.permit is not None
    blocking.permit.release()
    assert (task.woken, other.woken) == (1, 0), "the loop runs again, so its task has its turn"


def test_a_wait_that_could_never_end_is_refused() -> None:
    gate = Gate(2, 10)
    mine, loops = gate.enter("thread"), gate.enter("loop")
    assert mine is not None
    assert loops is not None
    blocking = Waiting("thread", stops=("thread", "loop"))
    assert gate.queue(blocking, 0) is STUCK
    assert gate.waiting == 0
    assert gate.queue(Waiting("thread", stops=("thread",)), 0) is None, "the loop may still give one back"
    loops.moved("another thread")
    assert gate.queue(Waiting("thread", stops=("thread", "loop")), 0) is None
    assert gate.queue(Waiting("loop"), 0) is None, "a task stops nobody"


# -- Finalisers and other threads in the middle of anything


@pytest.mark.parametrize("asks", ["enter", "queue"])
@pytest.mark.parametrize("comes_back", ["released", "dropped", "abandoned"])
def test_what_comes_back_while_the_lock_is_held_never_waits_and_is_given_on(
    asks: str, comes_back: str
) -> None:
    gate, held = busy()
    (waiter,) = queued(gate, 0)
    if comes_back == "abandoned":
        granted = waiter
        held.pop().release()
        (waiter,) = queued(gate, 0)
    with gate._lock:  # a finaliser in the middle of enter()
        if comes_back == "released":
            held[0].release()
        elif comes_back == "dropped":
            held.clear()
            gc.collect()
        else:
            gate.abandon(granted)
        assert waiter.woken == 0
    if asks == "enter":
        assert gate.enter("me") is None
    else:
        assert gate.queue(Waiting("me"), 0) is None
    assert waiter.woken == 1, "whoever had the lock last gave it on"


class Interrupted(Gate):
    """A gate in whose midst, with the lock held, something happens in another thread or a finaliser."""

    def __init__(self, permits: int, max_queue: int) -> None:
        self.meanwhile: Callable[[], object] | None = None
        super().__init__(permits, max_queue)

    def _settle(self) -> None:
        super()._settle()
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()


@pytest.mark.parametrize(
    ("stops", "max_queue", "refusal"),
    [((), 1, FULL), (("somebody",), 9, STUCK)],
    ids=["full", "stuck"],
)
def test_a_permit_that_comes_back_while_somebody_is_refused_still_wakes_who_waits(
    stops: Sequence[object], max_queue: int, refusal: object
) -> None:
    gate = Interrupted(1, max_queue)
    held = gate.enter("somebody")
    assert held is not None
    (waiter,) = queued(gate, 0)
    gate.meanwhile = held.release
    assert gate.queue(Waiting("me", stops), 0) in {refusal, None}
    assert waiter.woken == 1, "it sleeps for ever beside a free place"


def test_a_permit_that_comes_back_while_somebody_enters_still_wakes_who_waits() -> None:
    gate = Interrupted(1, 9)
    held = gate.enter("somebody")
    assert held is not None
    (waiter,) = queued(gate, 0)
    gate.meanwhile = held.release
    assert gate.enter("me") is None
    assert waiter.woken == 1


# -- Whatever happens in whatever order

THREADS = ["t1", "t2", "t3"]
LOOPS = ["l1", "l2"]


class Turnstile(RuleBasedStateMachine):
    """Against a model with plain lists: who is in, who waits, whose turn it is."""

    @initialize(permits=st.integers(1, 3), max_queue=st.integers(0, 6))
    def begin(self, permits: int, max_queue: int) -> None:
        self.gate = Gate(permits, max_queue)
        self.permits, self.max_queue = permits, max_queue
        self.inside: list[list[Any]] = []  # [permit or the waiter that has it, owner]
        self.line: list[Waiting] = []

    # -- the model

    def turn(self) -> Waiting:
        """Whose turn it is: the first of the highest priority, unless a thread stops its loop."""
        best = max(waiter.priority for waiter in self.line)
        first = next(waiter for waiter in self.line if waiter.priority == best)
        blocking = [waiter for waiter in self.line if first.owner in waiter.stops]
        return blocking[0] if blocking else first

    def advance(self) -> None:
        """The model lets in whoever can; the gate must have done the same."""
        while self.line and len(self.inside) < self.permits:
            served = self.turn()
            self.line.remove(served)
            if served.there:
                self.inside.append([served, served.owner])
            else:
                assert served.permit is None
                assert served.woken == 1
        for entry in self.inside:
            if isinstance(entry[0], Waiting):
                assert entry[0].woken == 1, "not woken though it is its turn"
                assert entry[0].permit is not None
        for waiter in self.line:
            assert waiter.woken == 0, "woken out of turn"
            assert waiter.permit is None

    def out(self, which: int) -> Any:
        return self.inside.pop(which % len(self.inside))[0]

    # -- what happens

    @rule(owner=st.sampled_from(THREADS + LOOPS))
    def enter(self, owner: str) -> None:
        permit = self.gate.enter(owner)
        free = not self.line and len(self.inside) < self.permits
        assert (permit is not None) is free
        if permit is not None:
            self.inside.append([permit, owner])

    @rule(
        thread=st.sampled_from([None, *THREADS]),
        loop=st.sampled_from([None, *LOOPS]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        there=st.sampled_from([True, True, True, False]),
    )
    def queue(self, thread: str | None, loop: str | None, priority: int, there: bool) -> None:
        """A task waits, or a thread, which may stop the loop it runs."""
        if thread is None and loop is None:
            return
        stops = () if thread is None else tuple(each for each in (thread, loop) if each is not None)
        if any(set(stops) & set(waiter.stops) for waiter in self.line):
            return  # it waits already, so it cannot ask
        waiter = Waiting(thread or loop, stops, there=there)
        waiter.priority = priority
        full = len(self.inside) >= self.permits
        expected = None
        if full and all(owner in stops for _, owner in self.inside):
            expected = STUCK
        elif full and len(self.line) >= self.max_queue:
            expected = FULL
        assert self.gate.queue(waiter, priority) is expected
        if expected is None:
            self.line.append(waiter)
            self.advance()

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["release", "twice", "drop"]), locked=st.booleans())
    def leave(self, which: int, how: str, locked: bool) -> None:
        held = self.out(which)
        with_it = held.permit if isinstance(held, Waiting) else held

        def act() -> None:
            nonlocal held, with_it
            if how != "drop":
                with_it.release()
            if how == "twice":
                with_it.release()
            if isinstance(held, Waiting):
                held.permit = None
            held = with_it = None

        self.act(act, locked)

    @precondition(lambda self: self.line or self.inside)
    @rule(which=st.integers(0, 99), locked=st.booleans())
    def give_up(self, which: int, locked: bool) -> None:
        """One that waits, or that has been granted a place and does not know it yet."""
        granted = [entry for entry in self.inside if isinstance(entry[0], Waiting)]
        everybody = [*self.line, *granted]
        if not everybody:
            return
        chosen = everybody[which % len(everybody)]
        if isinstance(chosen, Waiting):
            self.line.remove(chosen)
        else:
            self.inside.remove(chosen)
            chosen = chosen[0]
        self.act(lambda: self.gate.abandon(chosen), locked)
        assert chosen.permit is None

    def act(self, act: Callable[[], None], locked: bool) -> None:
        if locked:
            with self.gate._lock:
                act()
            self.gate._work_off()  # as whoever had the lock does
        else:
            act()
        self.advance()

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 99), owner=st.sampled_from(THREADS + LOOPS))
    def moves(self, which: int, owner: str) -> None:
        entry = self.inside[which % len(self.inside)]
        permit = entry[0].permit if isinstance(entry[0], Waiting) else entry[0]
        permit.moved(owner)
        entry[1] = owner

    @rule(times=st.integers(1, 150))
    def crowd_comes_and_goes(self, times: int) -> None:
        if not self.line or len(self.line) >= self.max_queue:
            return
        for _ in range(times):
            waiter = Waiting("crowd")
            assert self.gate.queue(waiter, -9) is None
            self.gate.abandon(waiter)

    # -- what holds always

    @invariant()
    def agrees(self) -> None:
        assert self.gate.held == len(self.inside) <= self.permits
        assert self.gate.waiting == len(self.line)
        assert not self.line or self.gate.held == self.permits, "a place stands empty beside a queue"
        assert len(self.gate._queue) <= 2 * len(self.line) + MOST_GONE + 1

    def teardown(self) -> None:
        if not hasattr(self, "gate"):
            return
        while self.line or self.inside:
            if self.inside:
                self.leave(0, "release", locked=False)
            else:
                self.give_up(0, locked=False)
        assert (self.gate.held, self.gate.waiting) == (0, 0)
        held = [self.gate.enter("newcomer") for _ in range(self.permits)]
        assert None not in held, "a permit was lost"
        assert not self.gate._stopped


TestTurnstile = Turnstile.TestCase
TestTurnstile.settings = settings(max_examples=150, stateful_step_count=40)


# -- Gates: real threads and real loops


def host(permits: int | None = 1, name: str = "a", url: str = "http://gpu.test:1/v1") -> Backend:
    return OpenAIBackend(name, base_url=url, max_concurrency=permits)


class House:
    """The gates of one host, and helpers that wait in threads and loops of their own."""

    def __init__(self, permits: int = 1, max_queue: int = 1000) -> None:
        self.backend = host(permits)
        self.gates = Gates([self.backend], max_queue)
        self.pool = ThreadPoolExecutor(64)
        self._loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []

    @property
    def gate(self) -> Gate:
        return self.gates._gates[self.backend.origin]

    def effect(
        self, seconds: float = PROMPTLY, *, priority: int = 0, told: Callable[[int], None] | None = None
    ) -> Enter:
        until = time.monotonic() + seconds
        return Enter(self.backend, "m", priority, until, told or (lambda ahead: None))

    def take(self) -> Permit:
        """A place, held by nobody who waits here."""
        permit = self.gates.enter(self.effect())
        assert isinstance(permit, Permit)
        permit.moved("somebody else")
        return permit

    def wait(self, **about: Any) -> Any:
        """Somebody waits in a thread of its own; returns when it does."""
        waits = threading.Event()
        future = self.pool.submit(self.gates.enter, self.effect(told=lambda ahead: waits.set(), **about))
        assert waits.wait(PROMPTLY)
        return future

    def loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        self._loops.append((loop, thread))
        return loop

    def await_in(self, loop: asyncio.AbstractEventLoop, **about: Any) -> Any:
        """A task waits on a loop in another thread; returns when it does."""
        waits = threading.Event()
        effect = self.effect(told=lambda ahead: waits.set(), **about)
        future = asyncio.run_coroutine_threadsafe(self.gates.aenter(effect), loop)
        assert waits.wait(PROMPTLY)
        return future

    def close(self) -> None:
        self.pool.shutdown()
        for loop, thread in self._loops:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.close()


def got(future: Any) -> Permit:
    permit = future.result(PROMPTLY)
    assert isinstance(permit, Permit)
    return permit


def test_where_there_is_no_limit_there_is_no_gate() -> None:
    house = House()
    free = house.effect()._replace(backend=host(None, url="http://free.test"))
    assert house.gates.enter(free) is None
    assert asyncio.run(house.gates.aenter(free)) is None
    house.close()


def test_twenty_threads_and_the_tasks_of_two_loops_share_three_places_and_all_are_served() -> None:
    house = House(3)
    inside, most = 0, 0
    guard = threading.Lock()
    served: Counter[str] = Counter()
    together = threading.Event()

    def visit(who: str) -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
            served[who] += 1
            if inside == 3:
                together.set()

    def go() -> None:
        nonlocal inside
        with guard:
            inside -= 1

    def by_thread(name: str) -> None:
        for _ in range(20):
            permit = house.gates.enter(house.effect())
            assert isinstance(permit, Permit)
            visit(name)
            together.wait(PROMPTLY)  # the first three stay until all three are inside
            go()
            permit.release()

    async def by_task(name: str) -> None:
        for _ in range(20):
            permit = await house.gates.aenter(house.effect())
            assert isinstance(permit, Permit)
            visit(name)
            while not together.is_set():
                await asyncio.sleep(0)
            go()
            permit.release()

    async def tasks(name: str) -> None:
        await asyncio.gather(*(by_task(f"{name}{n}") for n in range(5)))

    work = [house.pool.submit(by_thread, f"t{n}") for n in range(20)]
    work += [asyncio.run_coroutine_threadsafe(tasks(name), house.loop()) for name in "xy"]
    for each in work:
        each.result(20)
    assert most == 3
    assert (len(served), set(served.values())) == (30, {20})
    assert (house.gate.held, house.gate.waiting) == (0, 0)
    house.close()


def test_threads_and_tasks_stand_in_one_line_by_priority_and_then_by_order(house: House) -> None:
    held = house.take()
    loop = house.loop()
    line = [
        house.wait(),
        house.await_in(loop),
        house.wait(priority=1),
        house.await_in(loop, priority=1),
        house.wait(),
        house.await_in(house.loop(), priority=2),
    ]
    assert house.gate.waiting == 6
    held.release()
    for number in (5, 2, 3, 0, 1, 4):
        permit = got(line[number])
        later = [each for each in line if not each.done()]
        assert house.gate.waiting == len(later)
        permit.release()
        del permit
    assert house.gate.held == 0


def test_who_waits_is_told_how_many_are_ahead(house: House) -> None:
    held = house.take()
    ahead: list[int] = []
    waits = []
    for _ in range(3):
        told = threading.Event()

        def tell(count: int, told: threading.Event = told) -> None:
            ahead.append(count)
            told.set()

        waits.append(house.pool.submit(house.gates.enter, house.effect(told=tell)))
        assert told.wait(PROMPTLY)
    assert ahead == [0, 1, 2]
    held.release()
    for each in waits:
        got(each).release()


def test_a_wait_ends_at_its_deadline(house: House) -> None:
    held = house.take()

    def timed() -> tuple[object, float]:
        began = time.monotonic()
        return house.gates.enter(house.effect(0.2)), time.monotonic() - began

    async def atimed() -> tuple[object, float]:
        began = time.monotonic()
        return await house.gates.aenter(house.effect(0.2)), time.monotonic() - began

    for ended, took in (timed(), asyncio.run(atimed())):
        assert ended is LATE
        assert 0.2 <= took < 0.25
    assert house.gates.enter(house.effect(-1)) is LATE, "also one that has passed"
    assert asyncio.run(house.gates.aenter(house.effect(-1))) is LATE
    assert house.gate.waiting == 0
    held.release()
    assert is_free(house.gate)


def test_a_full_queue_refuses_threads_and_tasks_at_once() -> None:
    house = House(max_queue=1)
    held = house.take()
    waits = house.wait()
    assert house.gates.enter(house.effect()) is FULL
    assert asyncio.run(house.gates.aenter(house.effect())) is FULL
    held.release()
    got(waits).release()
    house.close()


def test_a_thread_does_not_wait_for_itself(house: House) -> None:
    mine = house.gates.enter(house.effect())
    assert isinstance(mine, Permit)
    assert house.gates.enter(house.effect()) is STUCK
    mine.release()


def test_a_thread_waits_for_others_even_if_it_holds_some() -> None:
    house = House(2)
    mine = house.gates.enter(house.effect())
    theirs = house.take()
    threading.Timer(0.0, theirs.release).start()
    second = house.gates.enter(house.effect())
    assert isinstance(second, Permit)
    assert isinstance(mine, Permit)
    house.close()


def test_a_thread_does_not_wait_for_the_tasks_of_the_loop_that_it_stops(house: House) -> None:
    async def both() -> None:
        task = await house.gates.aenter(house.effect())
        assert isinstance(task, Permit)
        assert house.gates.enter(house.effect()) is STUCK
        assert await house.gates.aenter(house.effect(0.01)) is LATE, "a task may wait for another"
        task.release()
        mine = house.gates.enter(house.effect())
        assert isinstance(mine, Permit)
        assert house.gates.enter(house.effect()) is STUCK

    asyncio.run(both())


def test_a_thread_that_stops_a_loop_goes_before_that_loops_tasks(house: House) -> None:
    held = house.take()

    async def both() -> None:
        waits = asyncio.Event()
        task = asyncio.create_task(
            house.gates.aenter(house.effect(priority=9, told=lambda ahead: waits.set()))
        )
        await waits.wait()
        mine = house.gates.enter(house.effect(told=lambda ahead: held.release()))
        assert isinstance(mine, Permit)
        mine.release()
        assert isinstance(await task, Permit)

    asyncio.run(both())


def test_a_new_thread_does_not_take_an_ended_threads_place_for_its_own(house: House) -> None:
    """Systems give the id of an ended thread to the next one."""

    def in_thread(work: Callable[[], object]) -> tuple[int | None, list[object]]:
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        thread.join()
        return thread.ident, results

    first, held = in_thread(lambda: house.gates.enter(house.effect()))

    def with_the_same_id() -> object:
        if threading.get_ident() != first:
            return None
        return house.gates.enter(house.effect(told=lambda ahead: held.clear()))

    for _ in range(500):
        _, (entered,) = in_thread(with_the_same_id)
        if entered is not None:
            assert isinstance(entered, Permit)
            return
    pytest.skip("this system gives no thread an id that was used before")


@pytest.mark.parametrize("when", ["while it waits", "in the tick of its grant", "before it runs again"])
async def test_a_cancelled_task_holds_nothing(house: House, when: str) -> None:
    held = house.take()
    waits = asyncio.Event()
    task = asyncio.create_task(house.gates.aenter(house.effect(told=lambda ahead: waits.set())))
    await waits.wait()
    next_one = house.wait()
    if when == "while it waits":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.release()
    else:
        held.release()
        if when == "in the tick of its grant":
            task.cancel()
        else:
            asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
    (await asyncio.to_thread(got, next_one)).release()
    assert house.gate.held == 0


def test_a_task_of_a_loop_that_was_closed_is_passed_over(house: House) -> None:
    held = house.take()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    task = loop.create_task(house.gates.aenter(house.effect(told=lambda ahead: loop.stop())))
    loop.run_forever()
    loop.close()
    next_one = house.wait()
    assert house.gate.waiting == 2
    held.release()
    got(next_one).release()
    assert house.gate.held == 0
    del task
    gc.collect()


@pytest.mark.parametrize("waited", [False, True], ids=["at once", "after waiting"])
def test_a_permit_that_an_interrupt_drops_comes_back(house: House, waited: bool) -> None:
    if waited:
        held = house.take()
        waits = house.wait()
        held.release()
        permit = got(waits)
        del waits, held
        house.pool.submit(int).result()  # the worker lets go of its last result
    else:
        permit = house.take()
        house.pool.submit(int).result()
    del permit
    gc.collect()
    assert house.gate.held == 0
    assert is_free(house.gate)


async def test_a_permit_that_a_task_drops_after_waiting_comes_back(house: House) -> None:
    held = house.take()
    waits = asyncio.Event()
    task = asyncio.create_task(house.gates.aenter(house.effect(told=lambda ahead: waits.set())))
    await waits.wait()
    held.release()
    assert isinstance(await task, Permit)
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert house.gate.held == 0


def test_to_give_back_in_the_middle_of_the_gates_own_work_does_not_wait(house: House) -> None:
    loop: list[Any] = [house.gates.enter(house.effect())]
    loop.append(loop)
    with house.gate._lock:
        del loop
        gc.collect()
    assert is_free(house.gate)


def test_an_error_of_whoever_is_told_leaves_nobody_in_the_queue(house: House) -> None:
    held = house.take()

    def fails(ahead: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.gates.enter(house.effect(told=fails))
    assert house.gate.waiting == 0
    held.release()


def test_of_two_backends_at_one_host_the_smaller_limit_counts() -> None:
    two, three = host(2, "two"), host(3, "three", url="http://gpu.test:1/other")
    elsewhere = host(5, "five", url="http://gpu.test:2")
    gates = Gates([three, two, host(None, "free"), elsewhere], 0)
    far = time.monotonic() + PROMPTLY
    effects = [Enter(backend, "m", 0, far, lambda ahead: None) for backend in (two, three, elsewhere)]
    held = [gates.enter(effect) for effect in effects for _ in range(2)]
    assert [isinstance(permit, Permit) for permit in held] == [True, True, False, False, True, True]
    assert held[2] in {FULL, STUCK}


def test_in_a_forked_child_all_places_are_free(house: House) -> None:
    held = house.take()
    lock = house.gate._lock
    with lock:
        house.gates.after_fork()
    assert isinstance(house.gates.enter(house.effect()), Permit)
    held.release()


# -- Through the public API


class Presence(Step):
    """Tells a `Host` that a request is being served (+1), or is not any more (-1)."""

    def __init__(self, host: Host, by: int) -> None:
        self.host, self.by = host, by

    def play(self, link: Link) -> None:
        with self.host.guard:
            self.host.now += self.by
            self.host.most = max(self.host.most, self.host.now)


class Host(ScriptedServer):
    """Answers on OpenAI's wire; its first request, when `go` is set. Knows how many it served at a time.

    `served` holds the prompts in the order in which they came.
    """

    def __init__(self) -> None:
        super().__init__(self._answers)
        self.guard = threading.Lock()
        self.now = self.most = 0
        self.first, self.go = threading.Event(), threading.Event()
        self.queued = threading.Semaphore(0)
        self.events: list[Event] = []

    @property
    def served(self) -> list[str]:
        return [request.json["messages"][-1]["content"] for request in self.requests]

    def hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Queued):
            self.queued.release()

    def backend(self, name: str = "a", permits: int | None = 1, **options: Any) -> OpenAIBackend:
        return OpenAIBackend(name, base_url=self.url, max_concurrency=permits, **options)

    def router(self, *backends: Backend, **options: Any) -> Router:
        return Router(list(backends) or [self.backend()], on_event=self.hear, **options)

    def someone_waits(self) -> None:
        assert self.queued.acquire(timeout=PROMPTLY), "nobody waits"

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def _answers(self, request: Request) -> Iterable[Step]:
        yield Presence(self, +1)
        if not self.first.is_set():
            yield Set(self.first)
            yield Wait(self.go)
        if request.json.get("stream"):
            *most, last = chat_sse(["so", " far"])
            yield from stream(most, end=False)
            yield Presence(self, -1)
            yield from [*stream([last])][1:]
        else:
            yield Presence(self, -1)
            yield from answer(json=chat(request.json["messages"][-1]["content"]))


def in_thread(pool: ThreadPoolExecutor, caller: Caller, router: Router, *args: Any, **options: Any) -> Any:
    return pool.submit(caller.complete, router, *args, **options)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_two_calls_at_once_never_overlap_at_a_host_that_serves_one(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with Host() as host, host.router() as router:
        calls = [in_thread(pool, caller, router, f"{n}", model="a/m") for n in range(6)]
        for _ in range(5):
            host.someone_waits()
        host.go.set()
        assert {call.result(PROMPTLY).text for call in calls} == set("012345")
        assert (host.most, len(host.requests)) == (1, 6)


def test_an_ollama_serves_one_call_at_a_time(caller: Caller, pool: ThreadPoolExecutor) -> None:
    began, go, waits = threading.Event(), threading.Event(), threading.Event()

    def chats(request: Request) -> Iterable[Step]:
        yield Set(began)
        yield Wait(go)
        yield from ollama.json_answer(ollama.merged(ollama.chat_lines(ollama.Said(), "m")))

    def hear(event: Event) -> None:
        if isinstance(event, Queued):
            waits.set()

    with ollama.FakeOllama(["m"], on_chat=chats) as server:
        backend = OllamaBackend("home", base_url=server.url, max_concurrency=1)
        with Router([backend], on_event=hear) as router:
            first = in_thread(pool, caller, router, "x", model="home/m")
            assert began.wait(PROMPTLY)
            second = in_thread(pool, caller, router, "y", model="home/m")
            assert waits.wait(PROMPTLY)
            assert len(server.chats) == 1
            go.set()
            assert first.result(PROMPTLY).text == second.result(PROMPTLY).text == "Hello there."


@pytest.mark.parametrize("how", ["read to its end", "closed", "dropped"])
def test_the_place_is_held_until_a_stream_is_over(caller: Caller, pool: ThreadPoolExecutor, how: str) -> None:
    with Host() as host, host.router() as router:
        host.go.set()
        held = router.stream("first", model="a/m")
        next(held)
        other = in_thread(pool, caller, router, "second", model="a/m")
        host.someone_waits()
        assert host.served == ["first"]
        if how == "closed":
            held.close()
        elif how == "dropped":
            del held
            gc.collect()
        else:
            assert "".join(chunk.text for chunk in held) in {"so far", " far"}
        assert other.result(PROMPTLY).text == "second"


async def test_the_place_is_held_until_an_async_stream_is_over() -> None:
    with Host() as host:
        host.go.set()
        waits = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Queued):
                waits.set()

        async with Router([host.backend()], on_event=hear) as router:
            async with router.astream("first", model="a/m") as held:
                await anext(held)
                other = asyncio.create_task(router.acomplete("second", model="a/m"))
                await waits.wait()
                assert host.served == ["first"]
            assert (await other).text == "second"


def test_backends_at_one_host_share_the_smallest_limit(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host:
        with host.router(host.backend("wide", 5), host.backend("narrow", 1)) as router:
            first = in_thread(pool, caller, router, "first", model="wide/m")
            assert host.first.wait(PROMPTLY)
            second = in_thread(pool, caller, router, "second", model="wide/m")
            host.someone_waits()
            host.go.set()
            assert first.result(PROMPTLY).text == "first"
            assert second.result(PROMPTLY).text == "second"
            assert host.most == 1


def test_a_higher_priority_goes_first(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, host.router() as router:
        calls = [in_thread(pool, caller, router, "running", model="a/m")]
        assert host.first.wait(PROMPTLY)
        for prompt, priority in (("usual", 0), ("later", -1), ("urgent", 5), ("usual too", 0)):
            calls.append(in_thread(pool, caller, router, prompt, model="a/m", priority=priority))
            host.someone_waits()
        host.go.set()
        for call in calls:
            call.result(PROMPTLY)
        assert host.served == ["running", "urgent", "usual", "usual too", "later"]


def test_who_waits_is_told_of(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, host.router() as router:
        first = in_thread(pool, caller, router, "first", model="a/m")
        assert host.first.wait(PROMPTLY)
        second = in_thread(pool, caller, router, "second", model="a/m")
        host.someone_waits()
        host.go.set()
        first.result(PROMPTLY)
        second.result(PROMPTLY)
        (event,) = host.told(Queued)
        assert isinstance(event, Queued)
        assert (event.deployment, event.ahead) == ("a/m", 0)


def test_a_full_queue_sends_the_call_to_another_deployment(caller: Caller, pool: ThreadPoolExecutor) -> None:
    with Host() as host, Host() as spare:
        spare.go.set()
        backends = host.backend(), spare.backend("b")
        in_order = AliasTable({"any": ["a/m", "b/m"]}, strategy="ordered")
        with host.router(*backends, aliases=in_order, max_queue=0) as router:
            first = in_thread(pool, caller, router, "first", model="a/m")
            assert host.first.wait(PROMPTLY)
            second = caller.complete(router, "second", model="any")
            assert (second.text, second.route.backend) == ("second", "b")
            missed, _ = second.route.attempts
            assert (missed.failure, missed.error, missed.cost) == ("not_sent", "QueueTimeoutError", 0)
            host.go.set()
            first.result(PROMPTLY)


@pytest.mark.parametrize("trigger", ["availability", "rate_limit"])
def test_a_full_queue_is_a_matter_of_availability(
    caller: Caller, pool: ThreadPoolExecutor, trigger: str
) -> None:
    with Host() as host, Host() as spare:
        spare.go.set()
        agents = {"py": Agent("a/m", fallback=["b/m"], triggers=[trigger])}  # type: ignore[list-item]
        backends = host.backend(), spare.backend("b")
        with host.router(*backends, agents=agents, max_queue=0, retry=ONCE) as router:
            first = in_thread(pool, caller, router, "first", model="a/m")
            assert host.first.wait(PROMPTLY)
            if trigger == "availability":
                second = caller.complete(router, "second", agent="py")
                assert second.route.fallback
                assert [type(event) for event in host.events][-1] is FellBack
            else:
                with pytest.raises(QueueTimeoutError, match=r"a/m: .*queue is full"):
                    caller.complete(router, "second", agent="py")
            host.go.set()
            first.result(PROMPTLY)


def test_a_host_that_is_busy_until_the_deadline_is_a_queue_timeout(
    caller: Caller, pool: ThreadPoolExecutor
) -> None:
    with Host() as host, host.router() as router:
        first = in_thread(pool, caller, router, "first", model="a/m")
        assert host.first.wait(PROMPTLY)
        began = time.monotonic()
        with pytest.raises(QueueTimeoutError, match="busy until the deadline") as caught:
            caller.complete(router, "second", model="a/m", timeout=0.3)
        assert time.monotonic() - began < 0.4
        assert [attempt.failure for attempt in caught.value.attempts] == ["not_sent"]
        host.go.set()
        first.result(PROMPTLY)
        assert host.served == ["first"]


def test_a_nested_call_on_a_host_with_one_place_is_refused_at_once() -> None:
    with Host() as host, host.router() as router:
        host.go.set()
        for _ in router.stream("outer", model="a/m"):
            with pytest.raises(QueueTimeoutError, match="by this thread"):
                router.complete("inner", model="a/m")
            break
        assert host.told(Retried) == [], "what can never end is not tried again"
        assert router.complete("after", model="a/m").text == "after"


async def test_a_blocking_call_in_a_loop_whose_tasks_hold_all_places_is_refused_at_once() -> None:
    with Host() as host, host.router() as router:
        host.go.set()
        async with router.astream("outer", model="a/m") as outer:
            await anext(outer)
            with pytest.raises(QueueTimeoutError, match="event loop"):
                router.complete("inner", model="a/m")
            assert host.told(Retried) == []


def test_a_refused_call_gives_its_place_back(caller: Caller) -> None:
    with ScriptedServer([answer(503)], repeat=True) as server:
        backend = OpenAIBackend("a", base_url=server.url, max_concurrency=1)
        with Router([backend], retry=ONCE, health="off") as router:
            for _ in range(3):
                with pytest.raises(OverloadedError):
                    caller.complete(router, "x", model="a/m")
            (gate,) = router._means.gates._gates.values()
            assert (gate.held, gate.waiting) == (0, 0)
