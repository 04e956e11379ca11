"""What a host is going to do, from measured times: when it must switch, when a call begins to be answered,
and where that is sooner."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, TypeAlias

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice, Place

BATCH_SHARE: Final = 0.75
"""How much of a batch's time a plan lets callers wait beyond the bound. The rest is for calls that take
longer than usual: nobody is to wait longer than the bound and one batch."""
SOON: Final = 12.0
"""Load times within which a model that is asked for again is missed, if it has gone."""
GAP_SHARE: Final = 0.5
"""A host waits for a model's next call if it usually comes within this share of what a call has cost."""
MOST_GAPS: Final = 3.0
"""The longest such wait, in usual gaps. If calls come at random, seven of eight gaps are shorter."""
FIRST_GAP: Final = 0.05
"""The longest such wait until gaps were measured, in load times."""

Bound: TypeAlias = Callable[[Host, str], float]
"""The seconds that a model's caller may wait at a host."""


class Group(NamedTuple):
    """The calls that wait for one model at a host.

    load:   the seconds of its load.
    work:   the seconds of the calls.
    oldest: when the first of them came.
    """

    model: str
    load: float
    work: float
    oldest: float


def switch_in(host: Host, groups: Sequence[Group], now: float, bound: Bound) -> float:
    """The seconds until a host must leave what it has loaded, so that no caller of the others waits longer
    than the bound and a batch, if they are served one model after another, in this order."""
    longest = max([host.times(model).batch for model in host.loaded], default=0.0)
    latest, begins = math.inf, now
    for model, load, work, oldest in groups:
        if (batch := host.times(model).batch) > longest:
            longest = batch
        begins += load
        if (least := oldest + bound(host, model) - begins) < latest:
            latest = least
        begins += work if work > batch else batch
    return latest + BATCH_SHARE * longest


def begins_in(
    host: Host, place: Place, priority: int, now: float, bound: Bound, came: float = math.inf
) -> float:
    """The seconds until a call would begin to be answered there, its load included: one that comes now, or
    one that waits since the instant `came`.

    The host first serves its loaded models' callers, until that is done or it must switch; then those who
    wait longer than the call's own queue, one model after another.
    """
    groups = _groups(host, priority, came)
    own = groups.pop(place.model, None)
    ready = sum(group.work for model, group in groups.items() if model in host.loaded)
    others = sorted(
        [group for model, group in groups.items() if model not in host.loaded], key=lambda each: each.oldest
    )
    mine = Group(
        place.model, host.load_seconds(place.model), own.work if own else 0.0, own.oldest if own else now
    )
    begins = free = slot_free_in(host, now)
    if host.has(place):
        begins += ready + mine.work
        loaded = host.loaded.get(place.model)
        is_batch = loaded is not None and now <= loaded.since + mine.load
        if is_batch or not others or begins <= (switch := max(switch_in(host, others, now, bound), free)):
            return begins
        begins, mine = switch, mine._replace(oldest=now)
    else:
        others = [group for group in others if group.oldest <= mine.oldest]
        if ready:
            use = sum(host.use(model, now) for model in host.loaded)
            switch = max(switch_in(host, [*others, mine], now, bound), free)
            begins = min(begins + _busy(ready, use), switch)
    latest = switch_in(host, [mine], now, bound)
    for group in others:
        begins += group.load
        work = max(group.work, host.times(group.model).batch)
        begins = max(begins + work, min(begins + _busy(work, host.use(group.model, now)), latest))
    return begins + mine.load + mine.work


def is_better_elsewhere(host: Host, choice: Choice, now: float) -> bool:
    """Whether a call, whose model would have to be loaded here, is better left to another host.

    That one has the model loaded, and serves the last caller of the queue before this one could have; or it
    is free, too, and a load costs it less. A load costs its own time, the time of the host's own callers who
    have to wait for it, and of loading again what has to go. No host is better where others come first.
    """
    here = _cost(host, choice.place, host.evicted_by(choice.place, now), now)
    first = True  # of equal hosts, the first one serves
    for place in choice.queue.places:
        if place.host == host.origin:
            first = False
        elif (peer := host.peers.get(place.host)) is None or peer.is_held_up(choice.queue.priority):
            continue
        elif peer.has(place):
            work = peer.work(peer.loaded or (place.model,)) - peer.service_seconds(place.model)
            if slot_free_in(peer, now) + work <= here:
                return True
        elif peer.free_slots and (gone := peer.evicted_by(place, now)) is not None:
            if any(is_soon_asked(peer, model, now) for model in gone):
                continue  # it keeps what it has
            there = _cost(peer, place, gone, now)
            if there < here or (first and there == here):
                return True
    return False


def is_soon_asked(host: Host, model: str, now: float) -> bool:
    """Whether the next call for a loaded model that has nothing to do is to be waited for."""
    estimate = host.estimate(model, now)
    if estimate.idle_since is None:
        return False
    load, gap = host.load_seconds(model), estimate.gap
    if gap is None:
        return now - estimate.idle_since <= FIRST_GAP * load
    loaded = host.loaded[model]
    worth = GAP_SHARE * (load + loaded.idle) / max(loaded.calls, 1)
    return gap <= worth and now - estimate.idle_since <= min(MOST_GAPS * gap, worth)


def slot_free_in(host: Host, now: float) -> float:
    """The seconds until a slot is free. A call that takes longer than usual is expected to take as much
    longer again."""
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


def _cost(host: Host, place: Place, gone: Collection[str] | None, now: float) -> float:
    """The seconds that it costs a host to load a model. `gone`: what has to go; None: not known yet."""
    cost = host.load_seconds(place.model)
    for model in host.loaded if gone is None else gone:
        if not any(model in peer.loaded for peer in host.peers.values() if peer is not host):
            cost += host.work([model]) + host.load_seconds(model) * min(host.value(model, now) * SOON, 1.0)
    return cost


def _busy(work: float, use: float) -> float:
    """The seconds until work is done, if meanwhile more comes, which needs this share of the time."""
    return work / max(1.0 - use, 0.001)


def _groups(host: Host, priority: int, came: float) -> dict[str, Group]:
    """What waits for each model that a call has to wait for: of its own priority, those that came before it.
    Several hosts share the work: those that have the model loaded, or if none has it, all of them."""
    groups: dict[str, Group] = {}
    for queue, choices in host.queues.items():
        if queue.priority < priority:
            continue
        model = choices[0].place.model
        calls = len(queue) if queue.priority > priority else queue.before(came)
        work = calls * host.service_seconds(model) / max(host.limits.slots, 1)
        load, oldest = host.load_seconds(model), queue.oldest
        if len(queue.places) > 1:
            peers = [peer for place in queue.places if (peer := host.peers.get(place.host)) is not None]
            loaded = sum(model in peer.loaded for peer in peers)
            work /= loaded or len(peers)
            load /= 1 if loaded else len(peers)
        if (same := groups.get(model)) is not None:
            work, oldest = work + same.work, min(oldest, same.oldest)
        groups[model] = Group(model, load, work, oldest)
    return groups
