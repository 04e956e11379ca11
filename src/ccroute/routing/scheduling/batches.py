"""The order in which the requests of a batch begin, so that each host loads each model as seldom as possible.

Pure: no lock, no clock, no I/O. `runtime.batches` begins the requests. Which call a host serves next is the
scheduler's decision, as for all calls.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from typing import Final, Generic, TypeAlias, TypeVar

from ccroute.http.origin import Origin
from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Place

T = TypeVar("T")
Places: TypeAlias = frozenset[Place]
"""Where a request may be served; empty: unknown."""

WAITING: Final = 1
"""Calls of one batch that wait for a host, besides those that it serves. So it is never idle, and a call
spends little of its time in the queue."""
_NOWHERE: Final[Counter[Origin]] = Counter()


class BatchOrder(Generic[T]):
    """The requests of a batch that have not begun, and which of them begins next.

    hosts:       the hosts that serve only so many calls at a time, as they are now.
    concurrency: the most calls of the batch at each other host.
    """

    def __init__(self, hosts: Mapping[Origin, Host], concurrency: int) -> None:
        self._hosts = hosts
        self._concurrency = concurrency
        self._waiting: dict[Places, list[tuple[int, int, T]]] = {}  # heaps
        self._size = 0
        self._running: dict[Places, Counter[Origin]] = {}  # and where they are
        self._at: Counter[Origin] = Counter()

    def __len__(self) -> int:
        """The requests that have not begun."""
        return self._size

    def add(self, request: T, number: int, places: Places, priority: int) -> None:
        """A request that may be served at any of `places`. `number` is its own: of equal requests, the lowest
        begins first."""
        heapq.heappush(self._waiting.setdefault(places, []), (-priority, number, request))
        self._size += 1

    def next(self) -> T | None:
        """Take the request that begins next. None: all hosts have enough to do.

        By priority. Of requests for the same hosts, those whose model is loaded come first, then those whose
        model is asked for already, then the model with the most requests. Where several hosts serve the same
        models, each is to keep one: so each begins with another model, and a model with one host's share of
        calls comes after the others.
        """
        ready = [(self._rank(places), places) for places in self._waiting if self.has_room(places)]
        if not ready:
            return None
        _, places = min(ready, key=itemgetter(0))
        heap = self._waiting[places]
        request = heapq.heappop(heap)[2]
        if not heap:
            del self._waiting[places]
        self._size -= 1
        return request

    def has_room(self, places: Places) -> bool:
        """Whether one more call for these places may begin: at their hosts, and where such calls have moved
        to, as they do when a host fails."""
        hosts = {place.host for place in places}
        if hosts and sum(self._most(host) - self._at[host] for host in hosts) <= 0:
            return False
        moved_to = self._running.get(places, _NOWHERE).keys() - hosts
        return all(self._at[host] < self._most(host) for host in moved_to)

    def begin(self, places: Places, host: Origin) -> None:
        """A call for these places begins; it asks this host first."""
        self._running.setdefault(places, Counter())[host] += 1
        self._at[host] += 1

    def end(self, places: Places, host: Origin) -> None:
        """A call for these places ends, at this host, or moves away from it."""
        found = self._running[places]
        for counter in (found, self._at):
            counter[host] -= 1
            if not counter[host]:
                del counter[host]
        if not found:
            del self._running[places]

    def _most(self, origin: Origin) -> int:
        host = self._hosts.get(origin)
        return self._concurrency if host is None else host.limits.slots + WAITING

    def _rank(self, places: Places) -> tuple[int, ...]:
        """The least is best."""
        heap, hosts = self._waiting[places], {place.host for place in places}
        priority, number, _ = heap[0]
        asked = sum(self._running.get(places, _NOWHERE).values())
        if asked * len(hosts) >= sum(map(self._most, hosts)) > 0:
            return priority, 3, number
        slots = sum(host.limits.slots for host in map(self._hosts.get, hosts) if host is not None)
        if asked * len(hosts) >= slots > 0 and len(hosts) > self._models_at(hosts):
            return priority, 2, 0, number  # behind the models that nobody has asked for
        if any(self._is_loaded(place) for place in places):
            return priority, 0, number
        return (priority, 1, number) if asked else (priority, 2, -len(heap), number)

    def _models_at(self, hosts: set[Origin]) -> int:
        """The number of models that these hosts are asked for."""
        return sum(any(place.host in hosts for place in places) for places in self._running)

    def _is_loaded(self, place: Place) -> bool:
        host = self._hosts.get(place.host)
        return not place.model if host is None else host.has(place)
