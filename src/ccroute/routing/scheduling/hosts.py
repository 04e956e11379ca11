"""All hosts with a limit, and all calls that wait for one. A call waits for any of its places."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from ccroute.http.origin import Origin
from ccroute.routing.scheduling.host import Grant, Host, HostLimits
from ccroute.routing.scheduling.places import Choice, Place, Queue
from ccroute.routing.scheduling.policies import LoadedFirst, Scheduler
from ccroute.routing.scheduling.prediction import Bound, begins_in


class Hosts:
    """The hosts of one router. The caller holds its own lock, and tells the time (monotonic seconds).

    An interrupt may come at any instruction. After it, a call that leaves holds nothing, and one that has
    not been told of its slot gets it again.

    waiting: the calls that wait, in order of arrival, each with its queue.
    instead: the call that gets a slot in place of the one that is next, such as the thread that blocks the
             event loop of that one. It must wait for the same host, or it is not asked.
    """

    def __init__(
        self, scheduler: Scheduler, instead: Callable[[Hashable], Hashable] = lambda call: call
    ) -> None:
        self.scheduler = scheduler
        self.by_origin: dict[Origin, Host] = {}
        self._instead = instead
        self._queues: dict[tuple[tuple[Place, ...], int], Queue] = {}
        self.waiting: dict[Hashable, Queue] = {}
        self._running: dict[Hashable, Host] = {}

    def __len__(self) -> int:
        """The number of calls that wait."""
        return len(self.waiting)

    @property
    def last(self) -> Hashable | None:
        """The waiting call that came last."""
        return next(reversed(self.waiting), None)

    def waiting_at(self, origin: Origin) -> int:
        """The number of calls that wait for a host, perhaps for others, too."""
        return sum(map(len, self.by_origin[origin].queues))

    def enter(self, call: Hashable, places: Sequence[Place], priority: int, now: float) -> Grant | None:
        """Ask for a slot at any of `places`, the preferred one first. None: the call waits."""
        for place in places:
            if place.model:
                self.by_origin[place.host].asked(place, now)
        for place in places:
            host = self.by_origin[place.host]
            if not host.queues and len(host.running) < host.limits.slots and host.has(place):
                return self._start(host, call, place, now, now)
        key = (tuple(places), priority)
        queue = self._queues.get(key)
        if queue is None:
            queue = Queue(places, priority)
        self.waiting[call] = queue
        queue.add(call, now)
        self._queues[key] = queue
        for place in queue.places:
            queues = self.by_origin[place.host].queues
            if queue not in queues:
                queues[queue] = tuple(Choice(queue, each) for each in queue.places if each.host == place.host)
        return None

    def leave(self, call: Hashable, now: float) -> None:
        """A call gives up its slot, or its place in the queue."""
        if (host := self._running.get(call)) is not None:
            host.end(call, now)
            del self._running[call]
        if call in self.waiting:
            self._dequeue(call)

    def grants(self, now: float) -> Iterator[Grant]:
        """Give free slots to waiting calls, until nobody is to get one now. The caller takes all of them."""
        granted = bool(self.waiting)
        while granted:  # what one host does may be a reason for another one
            granted = False
            for host in self.by_origin.values():
                while host.free_slots and host.queues:
                    grant = self._next(host, now)
                    if grant is None:
                        break
                    granted = True
                    yield grant
                    self._dequeue(grant.call)

    def predicted(self, place: Place, priority: int, now: float) -> float:
        """Seconds until a call that comes now would begin to be answered there, loading included."""
        return begins_in(self.by_origin[place.host], place, priority, now, self._bound)

    def left(self, call: Hashable, now: float) -> float:
        """Seconds until a call that waits would begin to be answered, loading included."""
        queue = self.waiting[call]
        came, bound = queue.came(call), self._bound
        return min(
            begins_in(self.by_origin[place.host], place, queue.priority, now, bound, came)
            for place in queue.places
        )

    @property
    def _bound(self) -> Bound:
        return self.scheduler.bound if isinstance(self.scheduler, LoadedFirst) else _unbounded

    def listed(self, origin: Origin, models: Iterable[tuple[str, float | None]], now: float) -> None:
        """A server lists its loaded models, each with its memory in GB."""
        if (host := self.by_origin.get(origin)) is not None:
            host.listed(models, now)

    def measured(self, grant: Grant, load: float | None, service: float, now: float) -> None:
        """A call was answered: the server loaded for `load` seconds (None: unknown) and worked for `service`
        seconds, without loading."""
        host = self.by_origin.get(grant.place.host)
        if host is None:
            return
        grant.answered = True
        host.measured(grant.place.model, load if grant.loads and grant.idle else None, service, now)

    def configure(self, limits: Mapping[Origin, HostLimits]) -> None:
        """Take over these limits. A host without any is forgotten; its calls in the queue get a slot nowhere,
        so the caller wakes them before."""
        for origin, given in limits.items():
            host = self.by_origin.get(origin)
            if host is None:
                self.by_origin[origin] = Host(origin, given, self.by_origin)
            else:
                host.configure(given)
        for origin in [origin for origin in self.by_origin if origin not in limits]:
            del self.by_origin[origin]

    def _next(self, host: Host, now: float) -> Grant | None:
        choices = host.choices()
        chosen = self.scheduler.choose(host, choices, now)
        if chosen is None:
            return None
        evicted = host.evicted_by(chosen.place, now)
        if evicted is None:
            return None  # the calls that run come to their end first
        call = chosen.queue.first
        chosen.queue.served = now
        instead, place = self._instead(call), chosen.place
        if instead != call and (other := self.waiting.get(instead)) is not None:
            found = [each.place for each in choices if each.queue is other]
            if found and (gone := host.evicted_by(found[0], now)) is not None:
                call, place, evicted = instead, found[0], gone
        return self._start(host, call, place, self.waiting[call].came(call), now, evicted)

    def _start(
        self, host: Host, call: Hashable, place: Place, came: float, now: float, evicted: Sequence[str] = ()
    ) -> Grant:
        if (before := self._running.get(call)) is not None:
            before.end(call, now)
        self._running[call] = host
        return host.start(call, place, came, now, evicted)

    def _dequeue(self, call: Hashable) -> None:
        """Take a call out of its queue. No host ever knows an empty queue."""
        queue = self.waiting.get(call)
        if queue is None:
            return
        if len(queue) == 1 and call in queue:
            self._queues.pop((queue.places, queue.priority), None)
            for place in queue.places:
                if (host := self.by_origin.get(place.host)) is not None:
                    host.queues.pop(queue, None)
        queue.remove(call)
        del self.waiting[call]


def _unbounded(host: Host, model: str) -> float:
    return float("inf")
