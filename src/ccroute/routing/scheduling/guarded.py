"""A scheduler of the user's own, of which a fault must not break calls."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ccroute.observe.logging import kind_and_place
from ccroute.routing.scheduling.host import Host
from ccroute.routing.scheduling.places import Choice
from ccroute.routing.scheduling.policies import ArrivalOrder, LoadedFirst, Scheduler

_log = logging.getLogger("ccroute")


def guarded(scheduler: Scheduler | None) -> Scheduler:
    """The scheduler, or `LoadedFirst`. Where one of the user's own raises an error or chooses what does not
    wait, `ArrivalOrder` decides instead."""
    if scheduler is None:
        return LoadedFirst()
    return scheduler if type(scheduler) in (LoadedFirst, ArrivalOrder) else _Guarded(scheduler)


class _Guarded:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._otherwise = ArrivalOrder()
        self._is_logged = False

    def choose(self, host: Host, choices: Sequence[Choice], now: float) -> Choice | None:
        try:
            chosen = self._scheduler.choose(host, choices, now)
            if chosen is None or any(chosen is each or chosen == each for each in choices):
                return chosen
            fault = "returned neither None nor one of the choices"
        except Exception as error:
            fault = f"raised {kind_and_place(error)}"
        if not self._is_logged:
            self._is_logged = True
            name = type(self._scheduler).__name__
            _log.error("scheduler %s %s: calls go in order of arrival instead (logged once)", name, fault)
        return self._otherwise.choose(host, choices, now)
