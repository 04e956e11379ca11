"""Admission to a host that serves only so many calls at a time: one gate for threads and tasks alike.

Knows permits, who waits and in which order; must not know HTTP. Who is next is decided under one lock,
waking is done outside of it. Giving a permit back never waits, because a finaliser may do it in the
middle of anything.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from ccroute.backends import Backend, Origin
from ccroute.flow.effects import Enter, Failure
from ccroute.runtime.waits import TaskWait, ThreadWait

FULL = Failure("queue", "the host is busy and its queue is full: raise max_queue, or send less", sent=False)
LATE = Failure("queue", "the host was busy until the deadline: raise timeout=, or send less", sent=False)
STUCK = Failure(
    "queue",
    "every permit of the host is held by this thread or by the event loop it runs, so waiting would never "
    "end: finish or close the other stream first, or use acomplete()",
    sent=False,
)


MOST_GONE = 64
"""Entries of callers that gave up which a queue keeps at most, besides one for each that waits."""


class _Place:
    """One of a host's places, taken by `owner`: the thread, or a reference to the loop, that drives it."""

    __slots__ = ("owner",)

    def __init__(self, owner: object) -> None:
        self.owner = owner


class Permit:
    """The right to use a place at a host. One that is dropped, by whatever interrupt, gives it back, too."""

    _place: _Place | None = None  # an interrupt may come before it has one

    def __init__(self, gate: Gate, place: _Place) -> None:
        self._gate = gate
        self._place = place

    def moved(self, owner: object) -> None:
        """Another thread drives the call now."""
        if self._place is not None:
            self._place.owner = owner

    def release(self) -> None:
        """Give the place back. Never waits, and may be called twice."""
        if self._place is not None:
            self._gate.leave(self._place)
            self._place = None

    __del__ = release


class Waiter(Protocol):
    """Somebody in a queue.

    owner:  who will own the permit.
    stops:  the owners that can give nothing back while this one waits: a thread stops itself and the
            loop it runs, a task stops nobody.
    permit: set as soon as it is granted.
    """

    owner: object
    stops: Sequence[object]
    permit: Permit | None

    def wake(self) -> bool:
        """The permit is granted; False if nobody is there any more to take it."""
        ...


class Gate:
    """`permits` calls at a time; the others wait, the highest priority first, equals in their order."""

    def __init__(self, permits: int, max_queue: int) -> None:
        self._permits = permits
        self._max_queue = max_queue
        self._held: set[_Place] = set()
        self._queue: list[tuple[int, int, Waiter]] = []
        self._waiting: set[Waiter] = set()
        self._stopped: dict[object, Waiter] = {}
        self._arrivals = 0
        self._back: deque[_Place] = deque()
        self._gone: deque[Waiter] = deque()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Gate({self.held} of {self._permits} permits held, {self.waiting} waiting)"

    @property
    def held(self) -> int:
        """Permits that are out."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many are in the queue."""
        return len(self._waiting)

    def enter(self, owner: object) -> Permit | None:
        """A permit, if one is free and nobody waits for it."""
        try:
            with self._lock:
                self._settle()
                granted = self._grant()
                permit = self._issue(owner) if len(self._held) < self._permits else None
            self._wake(granted)
            return permit
        finally:
            self._work_off()

    def queue(self, waiter: Waiter, priority: int) -> Failure | None:
        """Wait for a permit; `waiter` is woken when it has one. A failure says why it may not wait."""
        with self._lock:
            self._settle()
            self._held -= {place for place in self._held if _is_dead(place.owner)}
            refused = self._refusal(waiter)
            if refused is None:
                self._arrivals += 1
                self._waiting.add(waiter)
                heapq.heappush(self._queue, (-priority, self._arrivals, waiter))
                self._stopped.update(dict.fromkeys(waiter.stops, waiter))
            granted = self._grant()
        self._wake(granted)
        return refused

    def leave(self, place: _Place) -> None:
        """A place is free again; the next waiter has it at once."""
        self._back.append(place)
        self._work_off()

    def abandon(self, waiter: Waiter) -> None:
        """`waiter` waits no more; a permit that it was granted meanwhile goes to the next."""
        self._gone.append(waiter)
        self._work_off()

    def _work_off(self) -> None:
        """Give on what came back. Who has the lock comes here after it, so nothing stays unseen."""
        if not (self._back or self._gone):
            return
        # No interrupt comes between a step of `for` and its body, as it may after a call of acquire().
        for _ in iter(partial(self._lock.acquire, blocking=False), False):
            try:
                self._settle()
                granted = self._grant()
            finally:
                self._lock.release()
            # Who is not there any more is gone, which the next round takes note of.
            self._gone.extend([waiter for waiter in granted if not waiter.wake()])
            if not (self._back or self._gone):
                return

    def _wake(self, granted: list[Waiter]) -> None:
        self._gone.extend([waiter for waiter in granted if not waiter.wake()])
        self._work_off()

    def _refusal(self, waiter: Waiter) -> Failure | None:
        if len(self._held) < self._permits:
            return None
        if all(place.owner in waiter.stops for place in self._held):
            return STUCK
        return FULL if len(self._waiting) >= self._max_queue else None

    def _settle(self) -> None:
        """Take note of what came back; only with the lock."""
        while self._back:
            self._held.discard(self._back[0])
            self._back.popleft()
        while self._gone:
            waiter = self._gone.popleft()
            self._dequeue(waiter)
            waiter.permit = None

    def _grant(self) -> list[Waiter]:
        """Give what is free to those who are first, and say to whom; only with the lock."""
        granted = []
        while self._waiting and len(self._held) < self._permits:
            waiter = self._first()
            self._dequeue(waiter)
            waiter.permit = self._issue(waiter.owner)
            granted.append(waiter)
        if len(self._queue) > 2 * len(self._waiting) + MOST_GONE:
            self._queue = [entry for entry in self._queue if entry[2] in self._waiting]
            heapq.heapify(self._queue)
        return granted

    def _first(self) -> Waiter:
        while self._queue[0][2] not in self._waiting:
            heapq.heappop(self._queue)
        waiter = self._queue[0][2]
        # A loop that a waiting thread stops stands still until that thread is through.
        first = self._stopped.get(waiter.owner, waiter)
        if first is waiter:
            heapq.heappop(self._queue)
        return first

    def _dequeue(self, waiter: Waiter) -> None:
        self._waiting.discard(waiter)
        for owner in waiter.stops:
            if self._stopped.get(owner) is waiter:
                del self._stopped[owner]

    def _issue(self, owner: object) -> Permit:
        permit = Permit(self, place := _Place(owner))
        self._held.add(place)
        return permit


def _is_dead(owner: object) -> bool:
    """Whether `owner` is a loop that was closed, or is gone: no task of it gives anything back."""
    if not isinstance(owner, weakref.ref):
        return False
    loop = owner()
    return loop is None or loop.is_closed()


class Gates:
    """The gates of one router's hosts: of several backends at one origin, the smallest limit counts."""

    def __init__(self, backends: Iterable[Backend], max_queue: int) -> None:
        self._max_queue = max_queue
        self._permits: dict[Origin, int] = {}
        for backend in backends:
            limit = backend.max_concurrency
            if limit is not None:
                self._permits[backend.origin] = min(limit, self._permits.get(backend.origin, limit))
        self.after_fork()

    def after_fork(self) -> None:
        """All places are free: in a forked child, whoever holds one is not here."""
        self._gates = {origin: Gate(permits, self._max_queue) for origin, permits in self._permits.items()}

    def enter(
        self, effect: Enter, waits: Callable[[ThreadWait], None] = lambda wait: None
    ) -> Permit | Failure | None:
        """A permit for the effect's host, waited for; None where there is no limit.

        `waits` is told before it waits, so that somebody else can end that.
        """
        gate = self._gates.get(effect.backend.origin)
        if gate is None:
            return None
        permit = gate.enter(threading.current_thread())
        if permit is not None:
            return permit
        waiter = ThreadWait()
        try:
            refused = _join(gate, waiter, effect)
            waits(waiter)
            if refused is None and waiter.wait(effect.until) and waiter.permit is not None:
                permit, waiter.permit = waiter.permit, None
                return permit
        except BaseException:
            gate.abandon(waiter)
            raise
        gate.abandon(waiter)
        return refused or LATE

    async def aenter(
        self, effect: Enter, waits: Callable[[TaskWait], None] = lambda wait: None
    ) -> Permit | Failure | None:
        """`enter`, awaited."""
        gate = self._gates.get(effect.backend.origin)
        if gate is None:
            return None
        permit = gate.enter(weakref.ref(asyncio.get_running_loop()))
        if permit is not None:
            return permit
        waiter = TaskWait()
        try:
            refused = _join(gate, waiter, effect)
            waits(waiter)
            if refused is None and await waiter.wait(effect.until) and waiter.permit is not None:
                permit, waiter.permit = waiter.permit, None
                return permit
        except BaseException:
            gate.abandon(waiter)
            raise
        gate.abandon(waiter)
        return refused or LATE


def _join(gate: Gate, waiter: Waiter, effect: Enter) -> Failure | None:
    ahead = gate.waiting
    refused = gate.queue(waiter, effect.priority)
    if refused is None and waiter.permit is None:
        effect.queued(ahead)
    return refused
