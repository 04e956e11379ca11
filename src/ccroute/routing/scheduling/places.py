"""Where calls may be served, and the queues of those that wait for it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from itertools import takewhile
from typing import NamedTuple

from ccroute.http.origin import Origin


class Place(NamedTuple):
    """A host, and the model that it must have loaded to serve a call.

    model:     what the server loads, as `Backend.runner`. It is "" where it loads nothing on demand.
    memory_gb: what the model occupies, in GB; None: unknown.
    """

    host: Origin
    model: str
    memory_gb: float | None = None


class Queue:
    """The calls that wait for the same places with the same priority, in order of arrival.

    A call waits in one queue. Each host of its places may serve it, with equal right.

    served: the instant at which a call of it last got a slot.
    """

    __slots__ = ("_waiting", "places", "priority", "served")

    def __init__(self, places: Sequence[Place], priority: int) -> None:
        self.places = tuple(places)
        self.priority = priority
        self._waiting: OrderedDict[Hashable, float] = OrderedDict()  # call → when it came
        self.served = float("-inf")

    def __repr__(self) -> str:
        return f"Queue({len(self)} calls, priority {self.priority}, {self.places})"

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, call: Hashable) -> bool:
        return call in self._waiting

    @property
    def oldest(self) -> float:
        """The instant at which the first call came. Only of a queue that is not empty."""
        return next(iter(self._waiting.values()))

    @property
    def first(self) -> Hashable:
        """The call that is next. Only of a queue that is not empty."""
        return next(iter(self._waiting))

    def add(self, call: Hashable, now: float) -> None:
        """A call begins to wait."""
        self._waiting[call] = now

    def came(self, call: Hashable) -> float:
        """The instant at which a call of this queue came."""
        return self._waiting[call]

    def before(self, instant: float) -> int:
        """The number of calls that came before an instant."""
        if instant == math.inf:
            return len(self._waiting)
        later = takewhile(lambda came: came >= instant, reversed(self._waiting.values()))
        return len(self._waiting) - sum(1 for _ in later)

    def remove(self, call: Hashable) -> None:
        """A call waits no longer."""
        self._waiting.pop(call, None)


class Choice(NamedTuple):
    """A queue that a host may serve next, and the place at this host: one for each of the queue's places
    there."""

    queue: Queue
    place: Place
