"""When a call would begin to be answered at a place: from measured times, without a simulation."""

from __future__ import annotations

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Place


def begins_in(host: Host, place: Place, priority: int, now: float) -> float:
    """The seconds until a call that comes now would begin to be answered there, its load included."""
    slots = max(host.limits.slots, 1)
    free = slot_free_in(host, now)
    ahead = same = (
        0.0  # seconds of work before it: all that is served before its model, and calls of its model
    )
    for queue in host.queues:
        if queue.priority < priority:
            continue
        here = next((each for each in queue.places if each.host == host.origin), None)
        if here is None:
            continue
        work = len(queue) * host.service_seconds(here.model) / slots
        if here.model == place.model:
            same += work
        elif queue.priority > priority or host.has(here):
            ahead += work
    if host.has(place):
        return free + same
    return free + ahead + same + host.load_seconds(place.model)


def slot_free_in(host: Host, now: float) -> float:
    """The seconds until a slot is free."""
    if host.free_slots:
        return 0.0
    return min(
        max(
            running.since
            + host.service_seconds(running.place.model)
            + (host.load_seconds(running.place.model) if running.loads else 0.0)
            - now,
            0.0,
        )
        for running in host.running.values()
    )
