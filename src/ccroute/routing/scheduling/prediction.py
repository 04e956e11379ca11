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
    groups = _groups(host, priority, now)
    own = groups.pop(place.model, None)
    ahead = own.work if own is not None else 0.0
    others = sorted(
        (group for model, group in groups.items() if model not in host.loaded), key=lambda group: group.oldest
    )
    ready = sum(group.work for model, group in groups.items() if model in host.loaded)
    begins = free = slot_free_in(host, now)
    load = host.load_seconds(place.model)
    if host.has(place):
        begins += ready + ahead
        forced = _forced_in(host, others, now, bound)
        if begins <= max(forced, free) or _is_batch(host, place.model, now):
            return begins
        begins, came = max(forced, free), now
    else:
        came = own.oldest if own is not None else now
        others = [group for group in others if group.oldest <= came]
        if ready:
            forced = _forced_in(host, [*others, Group(place.model, ahead, load, came)], now, bound)
            use = sum(host.use(model, now) for model in host.loaded)
            begins = min(begins + _busy(ready, use), max(forced, free))
    longest = max(host.batch_seconds(model) for model in (place.model, *host.loaded, *groups))
    latest = came - now + bound(host, place.model) + BATCH_SHARE * longest - load
    for group in others:
        begins += group.load
        work = max(group.work, host.batch_seconds(group.model))
        begins = max(begins + work, min(begins + _busy(work, host.use(group.model, now)), latest))
    return begins + load + ahead


def _busy(work: float, use: float) -> float:
    """The seconds until work is done, if meanwhile more comes, which needs this share of the time."""
    return work / max(1.0 - use, 0.001)


def _groups(host: Host, priority: int, now: float) -> dict[str, Group]:
    """What waits for each model that a call of this priority has to wait for. Several hosts share the work:
    those that have the model loaded, or if none has it, all of them."""
    groups: dict[str, Group] = {}
    for queue, choices in host.queues.items():
        if queue.priority < priority:
            continue
        model = choices[0].place.model
        work, load = (
            len(queue) * host.service_seconds(model) / max(host.limits.slots, 1),
            host.load_seconds(model),
        )
        if len(queue.places) > 1:
            peers = [peer for place in queue.places if (peer := host.peers.get(place.host)) is not None]
            loaded = sum(model in peer.loaded for peer in peers)
            work /= loaded or len(peers)
            load /= 1 if loaded else len(peers)
        if (same := groups.get(model)) is not None:
            work, oldest = work + same.work, min(queue.oldest, same.oldest)
        else:
            oldest = queue.oldest
        groups[model] = Group(model, work, load, oldest)
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
