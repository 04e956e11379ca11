"""One call's slot at a host, or its place in a queue, and how the call sleeps until it has one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ccroute.flow.effects import Granted, Look, Queued
from ccroute.http.message import Failure

if TYPE_CHECKING:
    from ccroute.routing import Deployment
    from ccroute.routing.scheduling import Place
    from ccroute.runtime.limiter.limiter import Limiter

FULL = Failure("queue", "the host is busy and its queue is full: raise max_queue, or send less", sent=False)
LATE = Failure("queue", "the host was busy until the deadline: raise timeout=, or send less", sent=False)
STUCK = Failure(
    "queue",
    "every slot of the host is held by this thread or by the event loop it runs, so waiting would never "
    "end: finish or close the other stream first, or use acomplete()",
    sent=False,
)


class Waiter(Protocol):
    """What lets a call sleep until it has a slot.

    owner:  the thread, or a weak reference to the loop, that runs the call and will give the slot back.
    blocks: the owners that cannot give back a slot while this call waits: a thread blocks itself and the
            loop it runs, a task blocks none.
    """

    owner: object

    @property
    def blocks(self) -> Sequence[object]: ...

    async def wait(self, until: float) -> bool:
        """Sleep until the waiter is woken, or until this instant (monotonic): then False."""
        ...

    def wake(self) -> bool:
        """End the sleep. Never waits. False if the call is gone."""
        ...


class Call:
    """A call as the limiter knows it. It does not keep its `Slot` alive.

    places:       where it may be served: one for each of its options.
    granted:      what it got.
    asleep_until: the instant until which it sleeps if nobody wakes it.
    """

    __slots__ = ("asleep_until", "granted", "places", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.places: Sequence[Place] = ()
        self.granted: Granted | None = None
        self.asleep_until = 0.0


class Slot:
    """One call's slot at a host, or its place in a queue. Dropping the object gives it back, too."""

    _limiter: Limiter | None = None  # an interrupt may come before it is set

    def __init__(self, limiter: Limiter, waiter: Waiter) -> None:
        self.waiter = waiter
        self._call = Call(waiter)
        self._limiter = limiter

    def enter(self, options: Sequence[Deployment], priority: int) -> Granted | Queued | Failure:
        """Ask for a slot at the host of any of these. `Queued`: `poll` tells when the call has one."""
        return Granted() if self._limiter is None else self._limiter.enter(self._call, options, priority)

    def poll(self, until: float, decides: float = math.inf) -> Granted | Look | Queued | Failure | float:
        """What a call that is queued gets now. A number: the instant until which it has to sleep, unless its
        waiter is woken before. At `decides` it gets the seconds that it still has to wait, at `until` it
        leaves the queue."""
        if self._limiter is None:
            return self._call.granted or LATE
        found = self._limiter.poll(self._call, until, decides)
        if found is LATE:
            self.settle()
        return found

    def settle(self, outcome: object = None) -> None:
        """Give the slot back, or leave the queue. Only the first call counts. Never waits."""
        if self._limiter is not None:
            self._limiter.release(self._call)
            self._limiter = None  # only now: until then an interrupt leaves it to `__del__`

    __del__ = settle
