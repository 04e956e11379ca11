"""The order in which a host serves its queues: a small protocol, and the two orders that ccroute has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice, Queue
from ccroute.routing.scheduling.prediction import Group, is_better_elsewhere, is_soon_asked, switch_in

LOADS: Final = 12.0
"""The usual bound of waiting, in load times of the model that waits."""
LEAST_BOUND: Final = 10.0
"""Seconds: no bound is shorter, unless it is given."""
RECHECK: Final = 0.05
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
    """Callers of a loaded model first, in batches, with a bound on waiting. The first of these rules that
    applies decides:

    1. A caller of lower priority who has waited as long as the bound is served, but only one of a queue in
       each bound. Else only callers of the highest priority count.
    2. A model for which there is room is loaded. No host loads a model for a caller whom another host answers
       sooner.
    3. The callers who came before their model's load was over are its batch. They are served before the next
       switch.
    4. The host switches when it must, so that nobody waits longer than the bound and one batch: it plans to
       serve the other models one after another, the one whose first caller has waited longest at first.
    5. Callers of a loaded model are served, in order of arrival.
    6. A model that has nothing to do stays for its next call, if that usually comes soon: within half of what
       a call has cost, in loading and idling, since the model is loaded.
    7. The model is loaded whose first caller has waited longest, per second of its load.

    max_wait: the bound, in seconds; None: twelve times the measured load time of the caller's model, at least
              10 s.
    """

    def __init__(self, max_wait: float | None = None) -> None:
        if max_wait is not None:
            if isinstance(max_wait, bool) or not isinstance(max_wait, int | float):
                raise TypeError(f"max_wait must be a number of seconds, not {type(max_wait).__name__}")
            if not max_wait >= 0:  # nor NaN
                raise ValueError(f"max_wait must be seconds of at least 0, not {max_wait}")
        self.max_wait = max_wait

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        top = max([choice.queue.priority for choice in choices])
        ready: Choice | None = None
        others: list[Choice] = []
        for choice in choices:
            queue = choice.queue
            if queue.priority != top:
                if now - max(queue.oldest, queue.served) > self.bound(host, choice.place.model):
                    return choice
            elif not self._is_ready(host, choice, now):
                others.append(choice)
            elif ready is None or queue.oldest < ready.queue.oldest:
                ready = choice
        if not others or (ready is not None and self._is_bound_to_serve(host, ready, now)):
            return ready
        if len(choices) > len(host.queues):
            others = _one_of_each(others, ready)
        others.sort(key=_arrival)
        late = self._must_switch(host, ready, others, now)
        if ready is not None and not late:
            return ready
        if len(host.peers) > 1:
            others = [each for each in others if not is_better_elsewhere(host, each, now)]
            late = late and self._must_switch(host, ready, others, now)
        if late:
            return others[0]
        if ready is not None or not others:
            return ready
        chosen = max(others, key=lambda each: (now - each.queue.oldest) / host.load_seconds(each.place.model))
        if any(is_soon_asked(host, model, now) for model in host.evicted_by(chosen.place, now) or ()):
            return None
        return chosen

    def bound(self, host: Host, model: str) -> float:
        """Seconds that a caller of a model may wait."""
        if self.max_wait is not None:
            return self.max_wait
        bound = LOADS * host.times(model).load
        return bound if bound > LEAST_BOUND else LEAST_BOUND

    def _is_ready(self, host: Host, choice: Choice, now: float) -> bool:
        """Whether a call can be served without a load, or with one for which nothing has to go."""
        place = choice.place
        return host.has(place) or (
            host.has_room(place) and not (len(host.peers) > 1 and is_better_elsewhere(host, choice, now))
        )

    def _is_bound_to_serve(self, host: Host, ready: Choice, now: float) -> bool:
        """Whether the batch of the model is not yet served, or the model has just been loaded."""
        model = ready.place.model
        loaded = host.loaded.get(model)
        if loaded is None:  # there is room for it
            return True
        return ready.queue.oldest <= loaded.since + host.load_seconds(model) or host.is_young(model, now)

    def _must_switch(self, host: Host, ready: Choice | None, others: Sequence[Choice], now: float) -> bool:
        """Whether some of `others`, who are in order of arrival, would wait too long if one more call of a
        loaded model came before them."""
        if not others:
            return False
        groups, slots = [], max(host.limits.slots, 1)
        for queue, place in others:
            times = host.times(place.model)
            groups.append(Group(place.model, times.load, len(queue) * times.service / slots, queue.oldest))
        service = 0.0 if ready is None else host.service_seconds(ready.place.model)
        return switch_in(host, groups, now, self.bound) < service


def _one_of_each(choices: Sequence[Choice], ready: Choice | None) -> list[Choice]:
    """The first choice of each queue, but for the queue that can be served at once."""
    found: dict[Queue, Choice] = {}
    for choice in choices:
        if ready is None or choice.queue is not ready.queue:
            found.setdefault(choice.queue, choice)
    return [*found.values()]


def _arrival(choice: Choice) -> float:
    return choice.queue.oldest
