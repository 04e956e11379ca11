"""One host that serves only so many calls at a time: its slots, and the models that it has loaded.

What it believes to be loaded comes from its own last calls, corrected by what the server lists.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
    came:      the calls for it that have come since then.
    calls:     the calls that it has got since then.
    batch:     how many of them came before its load was over.
    idle:      seconds in which it had nothing to do though calls for other models waited.
    is_sure:   a call was answered, or the server lists it: its load may have failed before that.
    """

    __slots__ = ("batch", "calls", "came", "idle", "is_sure", "memory_gb", "since")

    def __init__(self, since: float, memory_gb: float | None, *, is_sure: bool = False) -> None:
        self.since = since
        self.memory_gb = memory_gb
        self.is_sure = is_sure
        self.came = 0
        self.calls = 0
        self.batch = 0
        self.idle = 0.0


class Times(NamedTuple):
    """What a model at a host takes, in seconds, measured or as others there do: its load, a call without the
    load, and its last batch."""

    load: float
    service: float
    batch: float


@dataclass(slots=True)  # every call makes one; a named tuple would take twice as long
class Grant:
    """A call has a slot.

    loads:    whether the host has to load the model first.
    evicted:  the models that the host gives up for it.
    idle:     whether the host had nothing else to do: only then does the server's load time mean this load.
    kept:     the models that stay loaded beside it.
    seconds:  the predicted seconds of the load; 0 where the model is loaded.
    since:    the instant since which it has the slot.
    answered: whether it was answered, or its answer has begun. It gives its slot back later.
    """

    call: Hashable
    place: Place
    loads: bool = False
    evicted: Sequence[str] = ()
    idle: bool = False
    kept: Sequence[str] = ()
    seconds: float = 0.0
    since: float = 0.0
    answered: bool = False


class Host:
    """The state of one host. A scheduler reads it; only `Hosts` changes it.

    place:   where calls go that need no model loaded.
    running: the calls that have a slot.
    loaded:  the models that are loaded, or are being loaded.
    queues:  the queues that may be served here, each with its places here.
    peers:   all hosts of the router: a queue may also be served at others.
    was_cut: the call that ended last got no answer. The server may still read its prompt: a disconnect stops
             that only after 512 tokens.
    """

    def __init__(
        self, origin: Origin, limits: HostLimits, peers: Mapping[Origin, Host] = MappingProxyType({})
    ) -> None:
        self.origin = origin
        self.limits = limits
        self.peers = peers
        self.place = Place(origin, "")
        self.running: dict[Hashable, Grant] = {}
        self.loaded: dict[str, Loaded] = {}
        self.queues: dict[Queue, Sequence[Choice]] = {}  # in the order in which they began
        self._known: dict[str, Estimate] = {}
        self._usual = Estimate(0.0)  # of all models here
        self._times: dict[str, Times] = {}  # of `times`, until something else is measured
        self._most_listed = 1
        self.was_cut = False

    def __repr__(self) -> str:
        return f"Host({self.origin}, {len(self.running)} of {self.limits.slots} slots, {list(self.loaded)})"

    @property
    def free_slots(self) -> int:
        """Slots that no call has."""
        return max(self.limits.slots - len(self.running), 0)

    def choices(self) -> list[Choice]:
        """What may be served next."""
        return [choice for choices in self.queues.values() for choice in choices]

    def has(self, place: Place) -> bool:
        """Whether a call there needs no load."""
        return place.model in self.loaded or not (place.model and self.limits.loads_models)

    def has_room(self, place: Place) -> bool:
        """Whether the model there fits beside those that are loaded."""
        if self.limits.memory_gb is None:
            return len(self.loaded) < self._most_listed
        return self._fits(place, ())

    def estimate(self, model: str, now: float) -> Estimate:
        """What is known of a model here."""
        found = self._known.get(model)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            found = self._known[model] = Estimate(now)
        return found

    def times(self, model: str) -> Times:
        """What the model takes here."""
        return self._times.get(model) or self._measured_times(model)

    def load_seconds(self, model: str) -> float:
        """Seconds that the model takes to load: measured, or as others here do."""
        known = self._known.get(model)
        load = self._usual.load if known is None or known.load is None else known.load
        return USUAL_LOAD if load is None else load

    def service_seconds(self, model: str) -> float:
        """Seconds that a call to the model takes: measured, or as of others here."""
        return self.times(model).service

    def _measured_times(self, model: str) -> Times:
        known, usual = self._known.get(model, self._usual), self._usual
        service = usual.service if known.service is None else known.service
        service = USUAL_SERVICE if service is None else service
        if len(self._times) >= _MOST_KNOWN:
            self._times.clear()
        times = self._times[model] = Times(
            self.load_seconds(model), service, known.batch * service / max(self.limits.slots, 1)
        )
        return times

    def measured_loads(self) -> dict[str, float]:
        """The seconds that each model takes to load of which that was measured. Never waits."""
        known = self._known.copy()
        return {model: each.load for model, each in known.items() if each.load is not None}

    def waiting(self, model: str) -> int:
        """The number of calls that wait for the model here, perhaps at other hosts, too."""
        return sum(
            len(queue)
            for queue, choices in self.queues.items()
            if any(choice.place.model == model for choice in choices)
        )

    def work(self, models: Collection[str]) -> float:
        """Seconds that all slots need for the calls that wait for these models."""
        calls = sum(
            len(queue) * self.service_seconds(choices[0].place.model)
            for queue, choices in self.queues.items()
            if any(choice.place.model in models for choice in choices)
        )
        return calls / max(self.limits.slots, 1)

    def is_held_up(self, priority: int) -> bool:
        """Whether calls of a higher priority wait here."""
        return any(queue.priority > priority for queue in self.queues)

    def is_young(self, model: str, now: float) -> bool:
        """Whether a loaded model has served for less time than its load took."""
        return now - self.loaded[model].since < 2.0 * self.load_seconds(model)

    def evicted_by(self, place: Place, now: float) -> Sequence[str] | None:
        """The models that must go before the place's model can be loaded. None: models that run calls need
        the memory.

        Those go whose expected demand times load time is least; before them, those that are not young.
        """
        if self.has(place):
            return ()
        in_use = self._in_use()
        idle = [model for model in self.loaded if model not in in_use]
        if len(idle) > 1:
            idle.sort(key=lambda model: (self.is_young(model, now), self.value(model, now)))
        gone: list[str] = []
        while not self._fits(place, gone):
            if not idle:
                return None
            gone.append(idle.pop(0))
        return gone

    def value(self, model: str, now: float) -> float:
        """What it is worth to keep a model: the seconds of load that its calls would need each second."""
        known = self._known.get(model)
        return 0.0 if known is None else known.demand(now) * self.load_seconds(model)

    def use(self, model: str, now: float) -> float:
        """The share of the host's time that new calls of a model need while it is loaded, now or the last
        time."""
        estimate = self.estimate(model, now)
        loaded = self.loaded.get(model)
        if loaded is None:
            return estimate.use
        load = self.load_seconds(model)
        rate = (loaded.came + estimate.demand(now) * load) / max(now - loaded.since + load, 1e-9)
        return rate * self.service_seconds(model) / max(self.limits.slots, 1)

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

    def configure(self, limits: HostLimits) -> None:
        """Take over other limits."""
        self.limits = limits
        self._times.clear()

    def asked(self, place: Place, now: float) -> None:
        """A call comes that may be served at this place."""
        estimate = self.estimate(place.model, now)
        if (loaded := self.loaded.get(place.model)) is not None:
            loaded.came += 1
            if estimate.idle_since is not None and self.queues:
                since = max(estimate.idle_since, min(queue.oldest for queue in self.queues))
                loaded.idle += max(now - since, 0.0)
        estimate.asked(now)

    def start(
        self, call: Hashable, place: Place, came: float, now: float, evicted: Sequence[str] = ()
    ) -> Grant:
        """A call that came at the instant `came` gets a slot."""
        model, loads = place.model, not self.has(place)
        idle = not self.running and not self.was_cut
        grant = self.running[call] = Grant(call, place, loads, evicted, idle, (), 0.0, now)
        if loads:
            grant.seconds = self.load_seconds(model)
            for gone in evicted:
                self._drop(gone, now)
            grant.kept = [*self.loaded]
            self.loaded[model] = Loaded(now, place.memory_gb)
        if (loaded := self.loaded.get(model)) is not None:
            loaded.calls += 1
            if came <= loaded.since + self.load_seconds(model):
                loaded.batch += 1
        return grant

    def end(self, call: Hashable, now: float) -> None:
        """A call gives its slot back. Note whether its model has nothing to do now, or was perhaps not
        loaded."""
        if (ended := self.running.pop(call, None)) is None:
            return
        self.was_cut = not ended.answered
        model = ended.place.model
        if (loaded := self.loaded.get(model)) is None:
            return
        loaded.is_sure = loaded.is_sure or ended.answered
        if self.running and model in self._in_use():
            return
        if not loaded.is_sure:
            self._drop(model, now)
        elif not (self.queues and self.waiting(model)):
            self.estimate(model, now).idle_since = now

    def measured(self, model: str, load: float | None, service: float, now: float) -> None:
        """A call of the model took so many seconds, and its load, if it is known."""
        self._times.clear()
        usual = self._usual
        for estimate in (self.estimate(model, now), usual) if self.limits.loads_models else (usual,):
            estimate.served_in(service)
            if load is not None:
                estimate.loaded_in(load)

    def listed(self, models: Iterable[tuple[str, float | None]], now: float) -> None:
        """The server lists these models as loaded, each with its memory in GB. Models of running calls stay:
        they may still be loading. What does not fit beside them was listed before it had to go."""
        found = {model: size for model, size in islice(models, _MOST_KNOWN) if model}
        in_use = self._in_use()
        gone = [model for model in self.loaded if model not in found and model not in in_use]
        for model in gone:
            self._drop(model, now)
        # Larger models may not fit as others did: what had to go shows it.
        self._most_listed = max(1 if gone else self._most_listed, len(found))
        is_old = not in_use <= found.keys()
        for model, size in found.items():
            if (before := self.loaded.get(model)) is not None:
                before.memory_gb, before.is_sure = size, True
            elif not is_old or self.has_room(Place(self.origin, model, size)):
                self.loaded[model] = Loaded(now, size, is_sure=True)

    def _in_use(self) -> set[str]:
        return {running.place.model for running in self.running.values()}

    def _drop(self, model: str, now: float) -> None:
        estimate = self.estimate(model, now)
        estimate.use = self.use(model, now)
        self._times.pop(model, None)
        estimate.batch = self.loaded.pop(model).batch
