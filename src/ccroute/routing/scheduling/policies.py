"""The order in which a host serves its queues: a small protocol, and the two orders that ccroute has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice

LOADS: Final = 12.0
"""The usual bound of waiting, in load times of the model that waits."""
LEAST_BOUND: Final = 10.0
"""Seconds: no bound is shorter, unless it is given."""
RECHECK: Final = 0.5
"""Seconds: a scheduler that left a slot free is asked again after so long, at the latest."""


class Scheduler(Protocol):
    """Decides which queue a host with a free slot serves next. It must not keep what it is given.

    choices: what waits for this host, at least one. `now` is a monotonic instant in seconds.

    Returns one of `choices`, or None to leave the slot free for now: it is asked again as soon as something
    changes, and at the latest after `RECHECK` seconds.
    """

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None: ...


class ArrivalOrder:
    """By priority, then first come, first served, whatever is loaded."""

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        return min(choices, key=lambda each: (-each.queue.priority, each.queue.oldest))


class LoadedFirst:
    """Callers of a loaded model first, in batches, with a bound on waiting.

    max_wait: seconds after which a caller of another model may force a switch; None: twelve times the
              measured load time of its model, at least 10 s.
    """

    batch_load = 0.0
    dwell = 2.0
    stay = True

    def __init__(self, max_wait: float | None = None) -> None:
        self.max_wait = max_wait

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        top = max(choice.queue.priority for choice in choices)
        urgent = [choice for choice in choices if choice.queue.priority == top]
        ready = [choice for choice in urgent if host.has(choice.place)]
        others = [choice for choice in urgent if not host.has(choice.place)]
        late = [each for each in others if now - each.queue.oldest > self.bound(host, each.place.model)]
        if ready:
            first = min(ready, key=lambda each: each.queue.oldest)
            if not late:
                return first
            loaded = host.loaded[first.place.model]
            load = host.load_seconds(first.place.model)
            if first.queue.oldest <= loaded.since + load * self.batch_load:
                return first
            if now - loaded.since < load * self.dwell:
                return first
        if late:
            return min(late, key=lambda each: each.queue.oldest)
        chosen = max(others, key=lambda each: _gain(host, each, now))
        if self.stay:
            for model in host.evicted_by(chosen.place, now) or ():
                if self._is_worth_staying(host, model, now):
                    return None
        return chosen

    def bound(self, host: Host, model: str) -> float:
        """Seconds that a caller of a model may wait before it forces a switch."""
        if self.max_wait is not None:
            return self.max_wait
        return max(LEAST_BOUND, LOADS * host.load_seconds(model))

    def _is_worth_staying(self, host: Host, model: str, now: float) -> bool:
        """Whether the next call for a model that has nothing to do is likely to come sooner than what a
        call has cost in loading and idling since it is loaded."""
        estimate = host.estimate(model, now)
        since = estimate.idle_since
        if since is None or not estimate.gaps:
            return False
        loaded = host.loaded[model]
        limit = (host.load_seconds(model) + loaded.idle) / max(loaded.calls, 1)
        passed, total = now - since, 0.0
        gaps = sorted(estimate.gaps)
        best, until = limit, 0.0
        for number, gap in enumerate(gaps, 1):
            total += gap
            cost = (total + gap * (len(gaps) - number)) / number
            if cost <= best:
                best, until = cost, gap
        return passed <= until


def _gain(host: Host, choice: Choice, now: float) -> float:
    """The waiting that a switch ends, per second of load."""
    return (choice.queue.waited(now) + len(choice.queue)) / host.load_seconds(choice.place.model)
