"""The order in which the requests of a batch begin, so that each host loads each model as seldom as possible.

Pure: no lock, no clock, no I/O. `runtime.batches` begins the requests. Which call a host serves next is the
scheduler's decision, as for all calls.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from ccroute.http.origin import Origin
from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Place

T = TypeVar("T")

WAITING: Final = 1
"""Calls of one batch that wait for a host, besides those that it serves. So it is never idle, and a call
spends little of its time in the queue."""


class Begun(NamedTuple):
    """A call of the batch that runs: where it could be served, and the host that it is at, or asks first."""

    places: frozenset[Place]
    host: Origin


class BatchOrder(Generic[T]):
    """The requests of a batch that have not begun, and which of them begins next.

    hosts:       the hosts that serve only so many calls at a time, as they are now.
    concurrency: the most calls of the batch at each other host.
    """

    def __init__(self, hosts: Mapping[Origin, Host], concurrency: int) -> None:
        self._hosts = hosts
        self._concurrency = concurrency
        self._groups: dict[frozenset[Place], list[tuple[int, int, T]]] = {}  # heaps
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, request: T, number: int, places: frozenset[Place], priority: int) -> None:
        """A request that may be served at any of `places`. `number` is its own: of equal requests, the lowest
        begins first."""
        heapq.heappush(self._groups.setdefault(places, []), (-priority, number, request))
        self._size += 1

    def next(self, begun: Iterable[Begun]) -> T | None:
        """Take the request that begins next, while these calls run. None: all hosts have enough to do.

        By priority. Of requests for the same hosts, those whose model is loaded come first, then those whose
        model is asked for already, then the model with the most requests. Where several hosts serve the same
        models, each is to keep one: so a model with one host's share of calls comes after the others.
        """
        begun = list(begun)
        at, asked = Counter(call.host for call in begun), Counter(call.places for call in begun)
        best, found = None, None
        for places, heap in self._groups.items():
            room = self._room(places, at)
            if room > 0:
                rank = self._rank(places, heap, asked[places])
                if best is None or rank < best:
                    best, found = rank, places
        if found is None:
            return None
        heap = self._groups[found]
        request = heapq.heappop(heap)[2]
        if not heap:
            del self._groups[found]
        self._size -= 1
        return request

    def has_room(self, places: frozenset[Place], begun: Iterable[Begun]) -> bool:
        """Whether one more call for these places may begin, while these calls run."""
        return self._room(places, Counter(call.host for call in begun)) > 0

    def _room(self, places: frozenset[Place], at: Mapping[Origin, int]) -> int:
        """How many more calls the hosts may get; `at` says how many each has."""
        if not places:
            return 1  # unknown
        return sum(self._most(host) - at[host] for host in {place.host for place in places})

    def _most(self, origin: Origin) -> int:
        host = self._hosts.get(origin)
        return self._concurrency if host is None else host.limits.slots + WAITING

    def _rank(self, places: frozenset[Place], heap: list[tuple[int, int, T]], asked: int) -> tuple[int, ...]:
        """The least is best; `asked`: the calls for these places that run."""
        priority, number, _ = heap[0]
        hosts = {place.host for place in places}
        if asked * len(hosts) >= sum(map(self._most, hosts)) > 0:
            return priority, 3, number
        if any(self._is_loaded(place) for place in places):
            return priority, 0, number
        return (priority, 1, number) if asked else (priority, 2, -len(heap), number)

    def _is_loaded(self, place: Place) -> bool:
        host = self._hosts.get(place.host)
        return not place.model if host is None else host.has(place)
