"""The limiter against a model with plain lists, at two hosts: who has a slot, who waits, whose turn it is."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.runtime.test_limiter import A, B, Caller, ask, host, option

from ccroute.flow.effects import Granted, Queued
from ccroute.routing import Deployment
from ccroute.routing.scheduling import ArrivalOrder
from ccroute.runtime.limiter import FULL, STUCK, Limiter, Slot

FAR = 1e9
HOSTS = {"a": option(A), "b": option(B)}
URLS = {"a": A, "b": B}
THREADS = ["t1", "t2", "t3"]


class Loop:
    """As much of an event loop as the limiter looks at."""

    closed = False

    def call_soon_threadsafe(self) -> None: ...

    def is_closed(self) -> bool:
        return self.closed


class Asking(Caller):
    """A call in the model: where it may go, and where it has a slot."""

    def __init__(
        self, owner: object, blocks: Sequence[object], loop: Loop | None, at: Sequence[str], priority: int
    ) -> None:
        super().__init__(owner, blocks)
        self.loop, self.at, self.priority, self.inside = loop, at, priority, ""

    def wake(self) -> bool:
        return super().wake() and not (self.loop and self.loop.closed)


class LimiterMachine(RuleBasedStateMachine):
    @initialize(limits=st.tuples(st.integers(1, 3), st.integers(1, 2)), max_queue=st.integers(0, 6))
    def begin(self, limits: tuple[int, int], max_queue: int) -> None:
        self.limiter = Limiter(ArrivalOrder(), itertools.count(1).__next__)
        self.limits: dict[str, int | None] = {}
        self.inside: list[tuple[Slot, Asking]] = []
        self.line: list[tuple[Slot, Asking]] = []
        self.loops = [Loop(), Loop()]
        self.reload(limits, max_queue, locked=False)

    # -- the model

    def holders(self, at: str) -> list[Asking]:
        return [caller for _, caller in self.inside if caller.inside == at]

    def limit(self, at: str) -> float:
        limit = self.limits[at]
        return FAR if limit is None else limit

    def turn(self, at: str) -> tuple[Slot, Asking] | None:
        """Whose turn it is at a host: the first of the highest priority, unless a thread blocks its loop."""
        here = [entry for entry in self.line if at in entry[1].at]
        if not here or len(self.holders(at)) >= self.limit(at):
            return None
        best = max(caller.priority for _, caller in here)
        first = next(entry for entry in here if entry[1].priority == best)
        blocking = [entry for entry in here if first[1].owner in entry[1].blocks]
        return blocking[0] if blocking else first

    def advance(self, entering: Asking | None = None) -> None:
        """The model gives slots to the calls whose turn it is; the limiter must have done the same."""
        while any((served := self.turn(at)) and self.serve(*served, at, entering) for at in HOSTS):
            pass
        assert not any(caller.woken for _, caller in self.line), "woken out of turn"

    def serve(self, slot: Slot, caller: Asking, at: str, entering: Asking | None) -> bool:
        self.line.remove((slot, caller))
        assert caller.woken == (caller is not entering), "not woken though it is its turn"
        if not (caller.loop and caller.loop.closed and caller is not entering):
            caller.inside = at
            self.inside.append((slot, caller))
        return True

    # -- what happens

    @rule(
        thread=st.sampled_from([None, *THREADS]),
        loop=st.sampled_from([None, 0, 1]),
        at=st.sampled_from(["a", "b", "ab", "ba", "ab"]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def enter(self, thread: str | None, loop: int | None, at: str, priority: int) -> None:
        """A task asks, or a thread, which may block the loop it runs."""
        if thread is None and loop is None:
            return
        runs = None if loop is None else self.loops[loop]
        of_loop = [] if runs is None else [weakref.ref(runs)]
        blocks = [] if thread is None else [thread, *of_loop]
        owner = thread or of_loop[0]
        if any({owner, *blocks} & {*caller.blocks} for _, caller in self.line):
            return  # it waits already, so it cannot ask
        caller = Asking(owner, blocks, None if thread else runs, at, priority)
        slot = Slot(self.limiter, caller)
        options: list[Deployment] = [HOSTS[each] for each in at]
        answer = slot.enter(options, priority)
        if free := [each for each in at if self.limits[each] is None]:
            assert answer == Granted(at.index(free[0]))
            return
        if free := [each for each in at if len(self.holders(each)) < self.limit(each)]:
            caller.inside = free[0]
            self.inside.append((slot, caller))
        else:
            self.line.append((slot, caller))
            dead = [each for each in self.inside if each[1].inside in at and each[1].loop]
            for each in dead:
                if each[1].loop and each[1].loop.closed:
                    self.inside.remove(each)
            self.advance(caller)
        if caller.inside:
            assert isinstance(answer, Granted)
            assert at[answer.option] == caller.inside
        else:
            ahead = min(sum(each in other.at for _, other in self.line) for each in at) - 1
            held = [self.holders(each) for each in at]
            if all(holder.owner in blocks for each in held for holder in each):
                assert answer is STUCK
            elif ahead >= self.max_queue:
                assert answer is FULL
            else:
                assert isinstance(answer, Queued)
                assert answer.ahead == ahead
                return
            self.line.remove((slot, caller))

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

        self.do(act, locked)
        self.advance()

    def do(self, act: Any, locked: bool) -> None:
        """Alone, or in the middle of the turn of another thread that has the lock."""
        if locked:
            with self.limiter._inbox.lock:
                act()
            self.limiter._inbox.drain()  # as the thread does that had the lock
        else:
            act()

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 99), owner=st.sampled_from(THREADS))
    def moves(self, which: int, owner: str) -> None:
        """Another thread reads the stream from now on."""
        caller = self.inside[which % len(self.inside)][1]
        if caller.loop is None:
            caller.owner = owner

    @rule(which=st.sampled_from([0, 1]))
    def loop_ends(self, which: int) -> None:
        """Its tasks neither take a slot nor give theirs back."""
        loop = self.loops[which]
        if not any(weakref.ref(loop) in caller.blocks for _, caller in self.line):
            loop.closed, self.loops[which] = True, Loop()

    @rule(
        limits=st.tuples(*[st.sampled_from([1, 2, 3, None])] * 2),
        max_queue=st.integers(0, 6),
        locked=st.booleans(),
    )
    def reload(self, limits: tuple[int | None, int | None], max_queue: int, locked: bool) -> None:
        """Other limits; a signal's handler may reload, in the middle of the turn of the lock's holder."""
        self.limits, self.max_queue = dict(zip("ab", limits, strict=True)), max_queue
        backends = [host(limit, at, URLS[at]) for at, limit in self.limits.items()]
        self.do(lambda: self.limiter.configure(backends, max_queue), locked)
        for at in "ab":
            if self.limits[at] is None:
                for entry in [entry for entry in self.line if at in entry[1].at]:
                    assert entry[0].poll(FAR) == Granted(entry[1].at.index(at))
                    self.line.remove(entry)
                self.inside = [entry for entry in self.inside if entry[1].inside != at]
        self.advance()

    @rule()
    def forks(self) -> None:
        """In the child, the calls of the parent neither run nor wait."""
        gone, self.inside, self.line = self.inside + self.line, [], []
        self.limiter.after_fork()
        self.agrees()
        for slot, _ in gone:
            slot.settle()

    @rule(times=st.integers(1, 50))
    def many_calls_give_up(self, times: int) -> None:
        if not any(caller.at == "a" for _, caller in self.line) or len(self.line) >= self.max_queue:
            return
        for _ in range(times):
            assert isinstance(ask(self.limiter, "another"), Queued)

    # -- what holds always

    @invariant()
    def agrees(self) -> None:
        stats = self.limiter.stats()
        for at, deployment in HOSTS.items():
            origin, limit = deployment.backend.origin, self.limits[at]
            assert (origin in self.limiter) == (origin in stats) == (limit is not None)
            if limit is not None:
                waiting = sum(at in caller.at for _, caller in self.line)
                assert stats[origin] == (len(self.holders(at)), waiting, limit)
        assert all(isinstance(slot.poll(FAR), float) for slot, _ in self.line)

    def teardown(self) -> None:
        if not hasattr(self, "limiter"):
            return
        while self.line or self.inside:
            self.settle(0, "once", locked=False)
        self.agrees()
        for at, limit in self.limits.items():
            held = [Slot(self.limiter, Caller("new")) for _ in range(limit or 0)]
            assert all(isinstance(slot.enter([HOSTS[at]], 0), Granted) for slot in held), "a slot was lost"
            for slot in held:
                slot.settle()
        assert not self.limiter._blocked


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(max_examples=150, stateful_step_count=40)
