"""One host that serves only so many calls at a time: its slots, and the models that it has loaded.

What it believes to be loaded comes from its own last calls, corrected by what the server lists.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ccroute.http.origin import Origin
from ccroute.routing.scheduling.estimates import USUAL_LOAD, USUAL_SERVICE, Estimate
from ccroute.routing.scheduling.places import Choice, Place, Queue

_MOST_KNOWN = 1000
"""Models that a host remembers. There is a limit, because names may come from clients."""


class HostLimits(NamedTuple):
    """What a host may do.

    slots:        calls that it serves at a time.
    loads_models: whether it loads models on demand, so that a switch takes time.
    memory_gb:    memory for its models, in GB; None: one model at a time, unless the server lists more.
    """

    slots: int
    loads_models: bool = False
    memory_gb: float | None = None


class Loaded:
    """A model that a host has loaded, or is loading.

    since:     the instant at which its load began.
    memory_gb: what it occupies, in GB; None: unknown.
    calls:     the calls that it got since then.
    idle:      seconds in which it served nobody though calls for other models waited.
    """

    __slots__ = ("calls", "idle", "memory_gb", "since")

    def __init__(self, since: float, memory_gb: float | None) -> None:
        self.since = since
        self.memory_gb = memory_gb
        self.calls = 0
        self.idle = 0.0


class Running(NamedTuple):
    """A call that has a slot: where, since when, and whether its model had to be loaded."""

    place: Place
    since: float
    loads: bool


class Host:
    """The state of one host. A scheduler reads it; only `Hosts` changes it.

    running: the calls that have a slot.
    loaded:  the models that are loaded, or are being loaded.
    queues:  the queues that may be served here.
    peers:   all hosts of the router: a queue may also be served at others.
    """

    def __init__(
        self, origin: Origin, limits: HostLimits, peers: Mapping[Origin, Host] = MappingProxyType({})
    ) -> None:
        self.origin = origin
        self.limits = limits
        self.peers = peers
        self.running: dict[Hashable, Running] = {}
        self.loaded: dict[str, Loaded] = {}
        self.queues: dict[Queue, None] = {}  # in the order in which they began
        self._known: dict[str, Estimate] = {}
        self._most_listed = 1
        self._ended: list[Place] = []

    def __repr__(self) -> str:
        return f"Host({self.origin}, {len(self.running)} of {self.limits.slots} slots, {list(self.loaded)})"

    @property
    def free_slots(self) -> int:
        """Slots that no call has."""
        return max(self.limits.slots - len(self.running), 0)

    def choices(self) -> list[Choice]:
        """What may be served next."""
        origin = self.origin
        return [
            Choice(queue, place) for queue in self.queues for place in queue.places if place.host == origin
        ]

    def has(self, place: Place) -> bool:
        """Whether a call there needs no load."""
        return not self.limits.loads_models or place.model in self.loaded

    def estimate(self, model: str, now: float) -> Estimate:
        """What is known of a model here."""
        found = self._known.get(model)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            found = self._known[model] = Estimate(now)
        return found

    def load_seconds(self, model: str) -> float:
        """Seconds that the model takes to load: measured, or as others here do."""
        known = self._known.get(model)
        if known is not None and known.load is not None:
            return known.load
        measured = [each.load for each in self._known.values() if each.load is not None]
        return sum(measured) / len(measured) if measured else USUAL_LOAD

    def service_seconds(self, model: str) -> float:
        """Seconds that a call to the model takes: measured, or as of others here."""
        known = self._known.get(model)
        if known is not None and known.service is not None:
            return known.service
        measured = [each.service for each in self._known.values() if each.service is not None]
        return sum(measured) / len(measured) if measured else USUAL_SERVICE

    def evicted_by(self, place: Place, now: float) -> Sequence[str] | None:
        """The models that must go before the place's model can be loaded. None: models that run calls, or
        that were loaded just now, need the memory.

        Those go whose expected demand times load time is least.
        """
        if self.has(place):
            return ()
        in_use = {running.place.model for running in self.running.values()}
        idle = [model for model in self.loaded if model not in in_use]
        idle.sort(key=lambda model: self.estimate(model, now).demand(now) * self.load_seconds(model))
        gone: list[str] = []
        while not self._fits(place, gone):
            if not idle:
                return None
            gone.append(idle.pop(0))
        return gone

    def _fits(self, place: Place, gone: Collection[str]) -> bool:
        left = [loaded for model, loaded in self.loaded.items() if model not in gone]
        if self.limits.memory_gb is None:
            return len(left) < self._most_listed
        if not left:
            return True  # alone, it must fit: the server says so if it does not
        sizes = [place.memory_gb, *(loaded.memory_gb for loaded in left)]
        known = [size for size in sizes if size is not None]
        return len(known) == len(sizes) and sum(known) <= self.limits.memory_gb

    # Changes, made by `Hosts`.

    def start(self, call: Hashable, place: Place, now: float, evicted: Iterable[str]) -> bool:
        """A call gets a slot; whether its model has to be loaded first."""
        loads = not self.has(place)
        self.running[call] = Running(place, now, loads)
        if loads:
            for model in evicted:
                del self.loaded[model]
            self.loaded[place.model] = Loaded(now, place.memory_gb)
        if (loaded := self.loaded.get(place.model)) is not None:
            loaded.calls += 1
        return loads

    def asked(self, place: Place, now: float) -> None:
        """A call comes that may be served at this place."""
        estimate = self.estimate(place.model, now)
        estimate.asked(now)
        since = estimate.idle_since
        if since is not None:
            estimate.idle_since = None
            estimate.gaps.append(now - since)
            loaded = self.loaded.get(place.model)
            if loaded is not None and self.queues:
                loaded.idle += max(now - max(since, min(queue.oldest for queue in self.queues)), 0.0)

    def end(self, call: Hashable) -> None:
        """A call gives its slot back."""
        ended = self.running.pop(call, None)
        if ended is not None:
            self._ended.append(ended.place)

    def rest(self, now: float) -> None:
        """Note since when the models of calls that ended have nothing to do."""
        for place in self._ended:
            model = place.model
            if model in self.loaded and not any(each.place.model == model for each in self.running.values()):
                if not any(place in queue.places for queue in self.queues):
                    self.estimate(model, now).idle_since = now
        self._ended.clear()

    def listed(self, models: Iterable[tuple[str, float | None]], now: float) -> None:
        """The server lists these models as loaded, each with its memory in GB. Models of running calls stay:
        they may still be loading."""
        found = dict(models)
        self._most_listed = max(self._most_listed, len(found))
        in_use = {running.place.model for running in self.running.values()}
        for model in [model for model in self.loaded if model not in found and model not in in_use]:
            del self.loaded[model]
        for model, size in found.items():
            before = self.loaded.get(model)
            if before is None:
                self.loaded[model] = Loaded(now, size)
            else:
                before.memory_gb = size
