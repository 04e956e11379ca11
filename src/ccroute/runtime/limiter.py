"""Limits the calls at a host: slots, and a queue that threads and tasks share.

Must not know HTTP. One lock guards the decisions. Code that holds the lock never waits. Giving a slot back
never waits for the lock, because a finaliser may do it in the middle of any other code.
"""

from __future__ import annotations

import heapq
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ccroute.backends import Backend, Origin
from ccroute.flow.effects import Queued
from ccroute.http.message import Failure
from ccroute.http.streams.event_loops import has_ended
from ccroute.types.locks import lock_tries

if TYPE_CHECKING:
    from ccroute.routing import Deployment
    from ccroute.routing.scheduling import Grant
    from ccroute.types import LoadedModel

FULL = Failure("queue", "the host is busy and its queue is full: raise max_queue, or send less", sent=False)
LATE = Failure("queue", "the host was busy until the deadline: raise timeout=, or send less", sent=False)
STUCK = Failure(
    "queue",
    "every slot of the host is held by this thread or by the event loop it runs, so waiting would never "
    "end: finish or close the other stream first, or use acomplete()",
    sent=False,
)

MAX_STALE = 64
"""Queue entries of calls that gave up: the largest number kept, besides one entry for each waiting call."""


class Waiter(Protocol):
    """One call that asks the limiter for a slot.

    owner:  the thread, or a weak reference to the loop, that runs the call and will give the slot back.
    blocks: the owners that cannot give back a slot while this call waits: a thread blocks itself and the
            loop it runs, a task blocks none.
    """

    owner: object

    @property
    def blocks(self) -> Sequence[object]: ...

    def wake(self) -> bool:
        """Tell the call that it has the slot. Never waits. False if the call is gone."""
        ...


class Slot:
    """One call's slot at a host, or its place in the queue. Dropping the object gives it back, too."""

    _limiter: ConcurrencyLimiter | None = None  # an interrupt may come before it is set

    def __init__(self, limiter: ConcurrencyLimiter, waiter: Waiter) -> None:
        self.waiter = waiter
        self._limiter = limiter

    def enter(self, priority: int) -> Queued | Failure | None:
        """Ask for the slot. None: the call has it. `Queued`: `waiter` is woken when the call has it."""
        return None if self._limiter is None else self._limiter.enter(self.waiter, priority)

    def settle(self, outcome: object = None) -> None:
        """Give the slot back, or leave the queue. Only the first call counts. Never waits."""
        if self._limiter is not None:
            self._limiter.release(self.waiter)
            self._limiter = None  # only now: until then an interrupt leaves it to `__del__`

    __del__ = settle


class LimiterStats(NamedTuple):
    """How busy a host is: slots in use, calls in the queue, and all its slots."""

    held: int
    waiting: int
    limit: int


class ConcurrencyLimiter:
    """Lets `limit` calls run at a time. The others queue: by priority, then first come, first served."""

    def __init__(self, limit: int, max_queue: int) -> None:
        self._limit = limit
        self._max_queue = max_queue
        self._held: set[Waiter] = set()
        self._waiting: set[Waiter] = set()
        self._queue: list[tuple[int, int, Waiter]] = []
        self._blocked: dict[object, Waiter] = {}  # owner → the waiter that blocks it
        self._arrivals = 0
        self._released: deque[Waiter | None] = deque()  # None: the limit has changed
        self._lock = threading.Lock()
        self._tries = lock_tries(self._lock)

    def __repr__(self) -> str:
        return f"ConcurrencyLimiter({len(self._held)} of {self._limit} held, {len(self._waiting)} waiting)"

    def stats(self) -> LimiterStats:
        """How busy the host is at this moment."""
        return LimiterStats(len(self._held), len(self._waiting), self._limit)

    def resize(self, limit: int, max_queue: int) -> None:
        """Let `limit` calls run from now on: waiting calls get the slots that are new. Where there are fewer
        than before, the calls that run keep theirs. Never waits: a signal's handler may reload."""
        self._limit, self._max_queue = limit, max_queue
        self._released.append(None)
        self._drain()

    def fresh(self) -> ConcurrencyLimiter:
        """One with the same limits whose slots are all free."""
        return ConcurrencyLimiter(self._limit, self._max_queue)

    def enter(self, waiter: Waiter, priority: int) -> Queued | Failure | None:
        """Give `waiter` a slot (None) or a place in the queue, or return why it may not wait."""
        try:
            with self._lock:
                self._update()
                if len(self._held) >= self._limit:
                    self._held -= {holder for holder in self._held if _is_dead(holder.owner)}
                    self._grant()
                if len(self._held) < self._limit:  # then the queue is empty
                    self._held.add(waiter)
                    return None
                if all(holder.owner in waiter.blocks for holder in self._held):
                    return STUCK
                ahead = len(self._waiting)
                if ahead >= self._max_queue:
                    return FULL
                self._arrivals += 1
                self._waiting.add(waiter)
                heapq.heappush(self._queue, (-priority, self._arrivals, waiter))
                self._blocked.update(dict.fromkeys(waiter.blocks, waiter))
                return Queued(ahead)
        finally:
            if self._released:
                self._drain()

    def release(self, waiter: Waiter) -> None:
        """Take back the slot of `waiter` or its place in the queue. Never waits; finalisers call it, too."""
        self._released.append(waiter)
        self._drain()

    def _drain(self) -> None:
        """Pass released slots on. A thread that had the lock calls this afterwards, so none is missed."""
        for _ in self._tries():
            try:
                self._update()
            finally:
                self._lock.release()
            if not self._released:
                return

    def _update(self) -> None:
        """Take released slots back and give them to the first in the queue. The caller has the lock."""
        while self._released:
            if (waiter := self._released[0]) is not None:
                self._held.discard(waiter)
                if waiter in self._waiting:
                    self._dequeue(waiter)
            self._released.popleft()
        if self._waiting:
            self._grant()

    def _grant(self) -> None:
        while self._waiting and len(self._held) < self._limit:
            waiter = self._first()
            self._held.add(waiter)
            self._dequeue(waiter)
            if not waiter.wake():
                self._held.discard(waiter)
        if len(self._queue) > 2 * len(self._waiting) + MAX_STALE:
            self._queue = [entry for entry in self._queue if entry[2] in self._waiting]
            heapq.heapify(self._queue)

    def _first(self) -> Waiter:
        while self._queue[0][2] not in self._waiting:
            heapq.heappop(self._queue)
        waiter = self._queue[0][2]
        # A waiting thread blocks its loop: the loop does not run until the thread has its slot.
        return self._blocked.get(waiter.owner, waiter)

    def _dequeue(self, waiter: Waiter) -> None:
        self._waiting.discard(waiter)
        for owner in waiter.blocks:
            if self._blocked.get(owner) is waiter:
                del self._blocked[owner]


def _is_dead(owner: object) -> bool:
    """Whether `owner` is a loop that was closed or is gone: its tasks will not give a slot back."""
    if not isinstance(owner, weakref.ref):
        return False
    loop = owner()
    return loop is None or has_ended(loop)


class Limiters(dict[Origin, ConcurrencyLimiter]):
    """The concurrency limiters of one router, one per origin that has a limit.

    If several backends share an origin, the smallest limit counts.
    """

    def __init__(self, backends: Iterable[Backend], max_queue: int) -> None:
        super().__init__()
        self.by_origin = self
        self._hosts: set[Origin] = set()
        self.configure(backends, max_queue)

    def configure(self, backends: Iterable[Backend], max_queue: int) -> None:
        """Take over the limits of these backends, also for the calls that wait. Only one thread at a time.

        A host that no backend has any more keeps its limiter until a later update finds it idle: calls that
        began before may still be asking it.
        """
        limits: dict[Origin, int | None] = {}
        for backend in backends:
            known = [each for each in (backend.max_concurrency, limits.get(backend.origin)) if each]
            limits[backend.origin] = min(known, default=None)
        for origin, limiter in self.by_origin.copy().items():
            limit = limits.get(origin)
            if limit is not None:
                limiter.resize(limit, max_queue)
            elif origin in limits:
                del self.by_origin[origin]
                limiter.resize(sys.maxsize, max_queue)
            elif origin not in self._hosts and limiter.stats()[:2] == (0, 0):
                del self.by_origin[origin]
        for origin, limit in limits.items():
            if limit is not None and origin not in self.by_origin:
                self.by_origin[origin] = ConcurrencyLimiter(limit, max_queue)
        self._hosts = {*limits}

    def predicted(self, options: Sequence[Deployment], priority: int) -> list[float]:
        """Seconds until each of these would begin to answer."""
        return [0.0] * len(options)

    def measured(self, grant: Grant, load: float | None, service: float) -> None:
        """A call was answered."""

    def listed(self, backend: Backend, models: Sequence[LoadedModel]) -> None:
        """The backend's server has these models loaded."""

    def after_fork(self) -> None:
        """Free all slots in a forked child: the calls that have them run in the parent."""
        for origin, limiter in self.by_origin.copy().items():
            self.by_origin[origin] = limiter.fresh()

    def stats(self) -> dict[Origin, LimiterStats]:
        """How busy each host with a limit is. Never waits."""
        return {origin: limiter.stats() for origin, limiter in self.by_origin.copy().items()}
