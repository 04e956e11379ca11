"""When a call would begin to be answered at a place: from measured times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice, Place

LOADS: Final = 12.0
"""The usual bound of waiting, in load times of the model that waits."""
BATCH_SHARE: Final = 0.75
"""How much of a batch's time a plan lets callers wait beyond the bound. The rest is for calls that take longer
than usual: nobody is to wait longer than the bound and one batch."""
Bound: TypeAlias = Callable[[Host, str], float]
"""The seconds that a model's caller may wait at a host."""


class Group(NamedTuple):
    """The calls that wait for one model at a host: seconds of work, the load before it, and when the first came."""

    model: str
    work: float
    load: float
    oldest: float


def begins_in(host: Host, place: Place, priority: int, now: float, bound: Bound) -> float:
    """The seconds until a call that comes now would begin to be answered there, its load included.

    It goes through what the host is going to do: its loaded models' calls, until they are served or another
    model's callers have waited as long as they may, and then the models that wait longer, one after another.
    """
    free = slot_free_in(host, now)
    groups = _groups(host, priority, now)
    own = groups.pop(place.model, None)
    ready = sum(group.work for model, group in groups.items() if model in host.loaded)
    others = sorted(
        (group for model, group in groups.items() if model not in host.loaded), key=lambda group: group.oldest
    )
    ahead = own.work if own is not None else 0.0
    if host.has(place):
        begins = free + ready + ahead
        forced = max(_forced_in(host, others, now, bound), free)
        if begins <= forced or _is_batch(host, place.model, now):
            return begins
        return begins + _visits(host, others) + host.load_seconds(place.model)
    came = own.oldest if own is not None else now
    mine = Group(place.model, ahead, host.load_seconds(place.model), came)
    others = [group for group in others if group.oldest <= came]
    begins = free
    if ready:
        begins += ready / max(1.0 - sum(host.use(model, now) for model in host.loaded), 0.01)
        begins = max(min(begins, _forced_in(host, [*others, mine], now, bound)), free)
    return begins + _visits(host, others) + mine.load + ahead


def _groups(host: Host, priority: int, now: float) -> dict[str, Group]:
    """What waits for each model that a call of this priority has to wait for."""
    groups: dict[str, Group] = {}
    for queue, choices in host.queues.items():
        if queue.priority >= priority:
            model = choices[0].place.model
            servers = sum(
                model in peer.loaded
                for place in queue.places
                if (peer := host.peers.get(place.host)) is not None
            )
            work = len(queue) * host.service_seconds(model) / max(host.limits.slots, 1) / max(servers, 1)
            before = groups.get(model)
            if before is None:
                groups[model] = Group(model, work, host.load_seconds(model), queue.oldest)
            else:
                groups[model] = Group(
                    model, before.work + work, before.load, min(queue.oldest, before.oldest)
                )
    return groups


def _forced_in(host: Host, others: Sequence[Group], now: float, bound: Bound) -> float:
    """The seconds until the host must leave its loaded model, so that nobody of the others waits too long."""
    allowed = BATCH_SHARE * max(
        (host.batch_seconds(model) for model in (*host.loaded, *(group.model for group in others))),
        default=0.0,
    )
    forced, begins = math.inf, now
    for group in others:
        begins += group.load
        forced = min(forced, group.oldest + bound(host, group.model) + allowed - begins)
        begins += max(group.work, host.batch_seconds(group.model))
    return forced


def _visits(host: Host, groups: Sequence[Group]) -> float:
    """The seconds for loading the models of these groups and serving their callers."""
    return sum(group.load + max(group.work, host.batch_seconds(group.model)) for group in groups)


def _is_batch(host: Host, model: str, now: float) -> bool:
    """Whether a call that comes now belongs to the batch of a loaded model."""
    loaded = host.loaded.get(model)
    return loaded is not None and now <= loaded.since + host.load_seconds(model)


def waits_less_elsewhere(host: Host, choice: Choice, now: float) -> bool:
    """Whether a call, whose model would have to be loaded here, is better left to another host that has it
    loaded: there, the last caller of its queue is served before this host has served its own callers, loaded
    the model, and loaded again what has to go for it."""
    elsewhere = [
        (peer, place.model)
        for place in choice.queue.places
        if place.host != host.origin and (peer := host.peers.get(place.host)) is not None and peer.has(place)
    ]
    if not elsewhere:
        return False
    here = host.load_seconds(choice.place.model)
    gone = host.evicted_by(choice.place, now)
    for model in host.loaded if gone is None else gone:
        if not any(model in peer.loaded for peer in host.peers.values() if peer is not host):
            here += host.work([model]) + host.load_seconds(model) * min(host.value(model, now) * LOADS, 1.0)
    return any(
        slot_free_in(peer, now) + peer.work(peer.loaded or [model]) - peer.service_seconds(model) <= here
        for peer, model in elsewhere
    )


def slot_free_in(host: Host, now: float) -> float:
    """The seconds until a slot is free. A call that takes longer than usual is expected to take as much longer
    again."""
    if host.free_slots or not host.running:
        return 0.0
    return min(
        abs(
            running.since
            + host.service_seconds(running.place.model)
            + (host.load_seconds(running.place.model) if running.loads else 0.0)
            - now
        )
        for running in host.running.values()
    )
