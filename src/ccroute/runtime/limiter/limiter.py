"""Limits the calls at hosts: a call that finds no free slot waits in a queue that threads and tasks share.

Must not know HTTP, nor which call is next: `routing.scheduling` decides that. One lock guards its state. Code
that holds the lock never waits. Giving a slot back never waits for the lock, because a finaliser may do it in
the middle of any other code.
"""

from __future__ import annotations

import math
import operator
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ccroute.backends import Backend, Origin
from ccroute.flow.effects import Granted, Look, Queued
from ccroute.http.message import Failure
from ccroute.http.streams.event_loops import has_ended
from ccroute.routing.scheduling import RECHECK, Host, HostLimits, Hosts, Scheduler
from ccroute.routing.scheduling.guarded import guarded
from ccroute.runtime.limiter.places import host_limits, place_of
from ccroute.runtime.limiter.slot import FULL, LATE, STUCK, Call
from ccroute.types.locks import Inbox

if TYPE_CHECKING:
    from ccroute.routing import Deployment
    from ccroute.routing.scheduling import Grant, Place
    from ccroute.types import LoadedModel, ModelStats

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at what a server has loaded."""
UNANSWERED: Final = 60.0
"""The same where the server does not answer: a call that looks has no use of its slot meanwhile."""
OVERDUE: Final = 10.0
"""Seconds after which another call does what the last one should have done: its loop may be busy."""


class LimiterStats(NamedTuple):
    """How busy a host is: slots in use, calls in the queue, and all its slots."""

    held: int
    waiting: int
    limit: int


class Limiter(dict[Origin, HostLimits]):
    """The hosts of one router that have a limit, and the calls that have their slots or wait for one.

    It is a dict, because every call asks whether its host is in it.
    """

    def __init__(
        self, scheduler: Scheduler | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._scheduler = guarded(scheduler)
        self._now = monotonic
        self._max_queue = 0
        self._named: set[Origin] = set()  # the hosts of the present configuration
        self._lookers: dict[Origin, Backend] = {}  # hosts that tell what they have loaded
        self._inbox: Inbox[Callable[..., None], *tuple[Any, ...]] = Inbox(operator.call)
        self._begin()

    def _begin(self) -> None:
        blocked: dict[object, Call] = {}  # owner → the call that blocks it
        self._blocked = blocked

        def instead(call: Any) -> Any:
            """A waiting thread blocks its loop: the loop does not run until the thread has its slot."""
            return blocked.get(call.waiter.owner, call)

        self._hosts = Hosts(self._scheduler, instead)
        self._hosts.configure(self)
        self._recheck = math.inf  # when the scheduler is asked again, because it left a slot free
        self._looks = dict.fromkeys(self._lookers, 0.0)  # when each host is looked at again

    def __repr__(self) -> str:
        return f"Limiter({len(self)} hosts, {len(self._hosts)} calls waiting)"

    @property
    def hosts(self) -> Mapping[Origin, Host]:
        """The state of each host, to look at. Never waits."""
        return self._hosts.by_origin

    def stats(self) -> dict[Origin, LimiterStats]:
        """How busy each host is. Never waits."""
        return {
            origin: LimiterStats(len(host.running), sum(map(len, host.queues.copy())), host.limits.slots)
            for origin, host in self._hosts.by_origin.copy().items()
        }

    def models(self) -> dict[Origin, dict[str, ModelStats]]:
        """The models of each host that loads them on demand. Never waits."""
        from ccroute.routing.scheduling.stats import model_stats  # loaded at its first use

        now = self._now()
        return {origin: model_stats(host, now) for origin, host in self._hosts.by_origin.copy().items()}

    def after_fork(self) -> None:
        """Free all slots in a forked child: the calls that have them run in the parent."""
        self._inbox.renew()
        self._begin()

    # -- Limits

    def configure(self, backends: Iterable[Backend], max_queue: int) -> None:
        """Take over the limits of these backends, also for the calls that wait: those get slots that are new,
        and run at once where a limit was taken off. Where there are fewer slots than before, the calls that
        run keep theirs. Never waits: a signal's handler may reload.

        If several backends share a host, the smallest limits count. A host that no backend has any more keeps
        its limit until a later configuration finds it idle: calls that began before may still be asking it.
        """
        groups: dict[Origin, list[Backend]] = {}
        for backend in backends:
            groups.setdefault(backend.origin, []).append(backend)
        limits = {origin: found for origin, group in groups.items() if (found := host_limits(group))}
        lookers = {
            each.origin: each
            for origin, found in limits.items()
            for each in reversed(groups[origin] if found.loads_models else [])
            if each.loaded()
        }
        self._inbox.append((self._configure, max_queue, {*groups}, limits, lookers))
        self._inbox.drain()

    def _configure(
        self,
        max_queue: int,
        named: set[Origin],
        limits: dict[Origin, HostLimits],
        lookers: dict[Origin, Backend],
    ) -> None:
        now, self._max_queue, self._lookers = self._now(), max_queue, lookers
        for origin, host in self._hosts.by_origin.items():
            is_idle = not host.running and not host.queues
            if origin not in named and (origin in self._named or not is_idle):
                limits[origin] = host.limits
        for origin in [origin for origin in self if origin not in limits]:
            self._let_go(origin, now)
            del self[origin]
        self.update(limits)
        self._hosts.configure(limits)
        self._named = named
        self._looks = {origin: self._looks.get(origin, 0.0) for origin in self._lookers}
        self._grant(now)

    def _let_go(self, origin: Origin, now: float) -> None:
        """Let every call run that waits for a host: it has no limit any more."""
        host = self._hosts.by_origin[origin]
        while host.queues:
            call = cast(Call, next(iter(host.queues)).first)
            call.granted = Granted([place.host for place in call.places].index(origin))
            call.waiter.wake()
            self._leave(call, now)

    # -- Slots

    def enter(self, call: Call, options: Sequence[Deployment], priority: int) -> Granted | Queued | Failure:
        """Give the call a slot or a place in the queue, or return why it may not wait."""
        try:
            with self._inbox.lock:
                if self._inbox:
                    self._inbox.read()
                places, hosts, now = [], self._hosts, self._now()
                for number, option in enumerate(options):
                    host = hosts.by_origin.get(option.backend.origin)
                    if host is None:  # a reload has taken the limit off
                        call.granted = Granted(number)
                        return call.granted
                    places.append(place_of(option, host))
                call.places = places
                if len(places) > 1:
                    places = [*dict.fromkeys(places)]
                if (grant := hosts.enter(call, places, priority, now)) is None:
                    return self._queued(call, places, now)
                granted = call.granted = Granted(call.places.index(grant.place), grant)
                return granted
        finally:
            if self._inbox:
                self._inbox.drain()

    def _queued(self, call: Call, places: Sequence[Place], now: float) -> Granted | Queued | Failure:
        """The call waits, unless it gets a slot after all, or may not wait."""
        hosts, blocks = self._hosts, call.waiter.blocks
        for owner in blocks:
            self._blocked[owner] = call
        for place in places:
            running = hosts.by_origin[place.host].running
            for dead in [each for each in running if _is_dead(cast(Call, each).waiter.owner)]:
                hosts.leave(dead, now)
        self._grant(now, entering=call)
        if call.granted is not None:
            return call.granted
        ahead = min(hosts.waiting_at(place.host) for place in places) - 1
        stuck = bool(blocks) and all(self._is_held_by(blocks, place, now) for place in places)
        if stuck or ahead >= self._max_queue:
            self._leave(call, now)
            return STUCK if stuck else FULL
        return Queued(ahead, hosts.left(call, now))

    def _is_held_by(self, owners: Sequence[object], place: Place, now: float) -> bool:
        """Whether a slot for the place has to come from calls that run for these owners."""
        host = self._hosts.by_origin[place.host]
        if not host.running or (host.free_slots and host.evicted_by(place, now) is not None):
            return False
        return all(cast(Call, each).waiter.owner in owners for each in host.running)

    def release(self, call: Call) -> None:
        """Take back the call's slot or its place in the queue. Never waits; finalisers call it, too."""
        self._inbox.append((self._released, call))
        self._inbox.drain()

    def _released(self, call: Call) -> None:
        now = self._now()
        self._leave(call, now)
        call.granted = None  # which refers to the call
        if self._hosts.waiting:
            self._grant(now)

    def _leave(self, call: Call, now: float) -> None:
        self._hosts.leave(call, now)
        if self._blocked:
            self._unblock(call)

    def _unblock(self, call: Call) -> None:
        for owner in call.waiter.blocks:
            if self._blocked.get(owner) is call:
                del self._blocked[owner]

    def _grant(self, now: float, entering: Call | None = None) -> None:
        """Give free slots to waiting calls, and wake them; `entering` is awake."""
        hosts = self._hosts
        for grant in hosts.grants(now):
            call = cast(Call, grant.call)
            call.granted = Granted(call.places.index(grant.place), grant)
            self._unblock(call)
            if call is not entering and not call.waiter.wake():
                self._leave(call, now)
        self._recheck = math.inf
        if hosts.waiting:
            if any(host.free_slots and host.queues for host in hosts.by_origin.values()):
                self._recheck = now + RECHECK
            self._wake_last(now)

    # -- What a waiting call does meanwhile: look at what servers have loaded, and ask the scheduler again

    def poll(
        self, call: Call, until: float, decides: float = math.inf
    ) -> Granted | Look | Queued | Failure | float:
        """What a waiting call gets now, or the instant until which it has to sleep."""
        if call.granted is not None:
            return call.granted
        if (now := self._now()) >= until:
            return LATE
        try:
            with self._inbox.lock:
                self._inbox.read()
                return self._poll(call, min(until, decides), now)
        finally:
            if self._inbox:
                self._inbox.drain()

    def _poll(self, call: Call, until: float, now: float) -> Granted | Look | Queued | float:
        call.asleep_until = 0.0
        if now >= self._recheck:
            self._grant(now)
        if call.granted is not None:
            return call.granted
        if now >= until:
            return Queued(0, self._hosts.left(call, now))
        patience = 0.0 if self._hosts.last is call else OVERDUE
        for origin, due in self._looks.items():
            if due + patience <= now and self._has_a_choice(origin):
                self._looks[origin] = now + UNANSWERED
                return Look(self._lookers[origin])
        call.asleep_until = min(until, self._next_check() + patience)
        return call.asleep_until

    def _next_check(self) -> float:
        """The next instant at which a waiting call has something to do."""
        looks = [due for origin, due in self._looks.items() if self._has_a_choice(origin)]
        return min([self._recheck, *looks])

    def _has_a_choice(self, origin: Origin) -> bool:
        """Whether it matters what a host has loaded: calls wait for several models, or for several hosts."""
        queues = self._hosts.by_origin[origin].queues
        return len(queues) > 1 or any(len(queue.places) > 1 for queue in queues)

    def _wake_last(self, now: float) -> None:
        """Wake the call that came last if it sleeps beyond the next check. It is the last to get a slot, so
        it has time for it."""
        check = self._next_check()
        while (last := cast("Call | None", self._hosts.last)) is not None and last.asleep_until > check:
            last.asleep_until = 0.0
            if last.waiter.wake():
                return
            self._leave(last, now)

    # -- What flows tell and ask

    def predicted(self, option: Deployment, priority: int) -> float:
        """Seconds until it would begin to answer a call that came now."""
        try:
            with self._inbox.lock:
                self._inbox.read()
                host = self._hosts.by_origin.get(option.backend.origin)
                if host is None:
                    return 0.0
                return self._hosts.predicted(place_of(option, host), priority, self._now())
        finally:
            self._inbox.drain()

    def measured(self, grant: Grant, load: float | None, service: float) -> None:
        """A call was answered, in so many seconds. Never waits: it counts when the call gives its slot
        back."""
        self._inbox.append((self._hosts.measured, grant, load, service, self._now()))

    def answered(self, grant: Grant) -> None:
        """A call was answered, or its answer begins: its model is loaded. Never waits."""
        grant.answered = True

    def listed(self, backend: Backend, models: Sequence[LoadedModel]) -> None:
        """The backend's server has these models loaded. Never waits."""
        sizes = [
            (backend.runner(each.name), None if each.size is None else each.size / 1e9) for each in models
        ]
        self._inbox.append((self._listed, backend.origin, sizes, self._now()))
        self._inbox.drain()

    def _listed(self, origin: Origin, models: list[tuple[str, float | None]], now: float) -> None:
        self._hosts.listed(origin, models, now)
        if origin in self._looks:
            self._looks[origin] = now + LOOK_EVERY
        self._grant(self._now())


def _is_dead(owner: object) -> bool:
    """Whether `owner` is a loop that was closed or is gone: its tasks will not give a slot back."""
    if not isinstance(owner, weakref.ref):
        return False
    loop = owner()
    return loop is None or has_ended(loop)
