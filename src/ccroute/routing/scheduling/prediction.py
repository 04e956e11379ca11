"""When a call would begin to be answered at a place: from measured times."""

from __future__ import annotations

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice, Place


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
    """Whether the last caller of a queue, whose model would have to be loaded here, gets his answer sooner at
    another host of his that has it loaded."""
    limit = host.load_seconds(choice.place.model)
    for place in choice.queue.places:
        if place.host == host.origin or (peer := host.peers.get(place.host)) is None:
            continue
        if place.model in peer.loaded or not peer.limits.loads_models:
            ahead = peer.waiting(place.model) - 1
            served = ahead * peer.service_seconds(place.model) / max(peer.limits.slots, 1)
            if slot_free_in(peer, now) + served <= limit:
                return True
    return False


def slot_free_in(host: Host, now: float) -> float:
    """The seconds until a slot is free."""
    if host.free_slots or not host.running:
        return 0.0
    return max(
        min(
            running.since
            + host.service_seconds(running.place.model)
            + (host.load_seconds(running.place.model) if running.loads else 0.0)
            for running in host.running.values()
        )
        - now,
        0.0,
    )
