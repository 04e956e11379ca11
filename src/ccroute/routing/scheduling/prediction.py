"""When a call would begin to be answered at a place: from measured times."""

from __future__ import annotations

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice, Place

LOADS = 12.0

def begins_in(host: Host, place: Place, priority: int, now: float) -> float:
    """The seconds until a call that comes now would begin to be answered there, its load included."""
    slots = max(host.limits.slots, 1)
    free = slot_free_in(host, now)
    ahead = same = (
        0.0  # seconds of work before it: all that is served before its model, and calls of its model
    )
    for queue, choices in host.queues.items():
        if queue.priority < priority:
            continue
        here = choices[0].place
        work = len(queue) * host.service_seconds(here.model) / slots
        if here.model == place.model:
            same += work
        elif queue.priority > priority or host.has(here):
            ahead += work
    if host.has(place):
        return free + same
    return free + ahead + same + host.load_seconds(place.model)


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
