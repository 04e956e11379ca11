"""What calls have shown of a model at a host: its load time, the time of a call, and the demand."""

from __future__ import annotations

import math
from collections import deque

USUAL_LOAD = 5.0
"""Seconds that a model takes to load, until one was measured at the host."""
USUAL_SERVICE = 5.0
"""Seconds that a call takes, until one was measured."""
WEIGHT = 0.3
"""The weight of a new measurement."""
DEMAND_HALF_LIFE = 600.0
"""Seconds after which a call counts half for the demand."""

GAPS = 16
"""The last gaps between the calls of a model that are remembered."""


class Estimate:
    """The measured facts of one model at one host.

    load:    seconds to load it; None: not measured.
    service: seconds that a call takes, without loading; None: not measured.
    idle_since: the instant since which no call for the model runs or waits; None: one does.
    gaps:    how long that lasted the last times, in seconds.
    """

    __slots__ = ("_calls", "_since", "gaps", "idle_since", "load", "service")

    def __init__(self, now: float) -> None:
        self.load: float | None = None
        self.service: float | None = None
        self.idle_since: float | None = None
        self.gaps: deque[float] = deque(maxlen=GAPS)
        self._calls = 0.0
        self._since = now

    def loaded_in(self, seconds: float) -> None:
        """The model was loaded in so many seconds, at a host that did nothing else."""
        self.load = seconds if self.load is None else self.load + WEIGHT * (seconds - self.load)

    def served_in(self, seconds: float) -> None:
        """A call took so many seconds, without loading."""
        self.service = seconds if self.service is None else self.service + WEIGHT * (seconds - self.service)

    def asked(self, now: float) -> None:
        """A call came for the model."""
        self._calls, self._since = self._decayed(now) + 1.0, now

    def demand(self, now: float) -> float:
        """Calls per second, recently."""
        return self._decayed(now) * 0.693 / DEMAND_HALF_LIFE

    def _decayed(self, now: float) -> float:
        return self._calls * math.exp2((self._since - now) / DEMAND_HALF_LIFE)
