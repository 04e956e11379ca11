"""What calls have shown of a model at a host: its load time, the time of a call, and when calls come."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from ccroute.types.route import LEAST_LOAD

USUAL_LOAD: Final = 5.0
"""Seconds that a model takes to load, until one was measured at the host."""
USUAL_SERVICE: Final = 5.0
"""Seconds that a call takes, until one was measured."""
QUICK_LOADS: Final = 3
"""Loads that took less until a model is known to be loaded that quickly."""
WEIGHT: Final = 0.3
"""The weight of a new measurement."""
DEMAND_HALF_LIFE: Final = 600.0
"""Seconds after which a call counts half for the demand."""
GAPS: Final = 15
"""Gaps between calls that are remembered. Odd, so that one of them is the median."""


class Estimate:
    """The measured facts of one model at one host.

    load:       seconds to load it; None: not measured.
    service:    seconds that a call takes, without loading; None: not measured.
    batch:      the calls of its last batch.
    use:        the share of the host's time that its new calls needed while it was loaded the last time.
    idle_since: the instant since which it is loaded and no call for it runs or waits; None: that is not so.
    """

    __slots__ = ("_calls", "_gaps", "_quick_loads", "_since", "batch", "idle_since", "load", "service", "use")

    def __init__(self, now: float) -> None:
        self.load: float | None = None
        self.service: float | None = None
        self.batch = 0
        self.use = 0.0
        self.idle_since: float | None = None
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._calls = 0.0
        self._quick_loads = 0
        self._since = now

    def loaded_in(self, seconds: float) -> None:
        """The model was loaded in so many seconds, at a host that did nothing else. Less than `LEAST_LOAD`
        says that it was loaded already, and only time and again that it is loaded that quickly."""
        if seconds >= LEAST_LOAD:
            self.load = smoothed(self.load, seconds, WEIGHT)
            return
        self._quick_loads += 1
        if self.load is None and self._quick_loads >= QUICK_LOADS:
            self.load = LEAST_LOAD

    def served_in(self, seconds: float) -> None:
        """A call took so many seconds, without loading."""
        self.service = smoothed(self.service, seconds, WEIGHT)

    def asked(self, now: float) -> None:
        """A call came for the model."""
        self._calls, self._since = self._decayed(now) + 1.0, now
        if self.idle_since is not None:
            self._gaps.append(now - self.idle_since)
            self.idle_since = None

    def demand(self, now: float) -> float:
        """Calls per second, recently."""
        return self._decayed(now) * math.log(2) / DEMAND_HALF_LIFE

    @property
    def gap(self) -> float | None:
        """The seconds after which the next call usually comes when the model has nothing to do: the median;
        None: not measured."""
        return sorted(self._gaps)[len(self._gaps) // 2] if self._gaps else None

    def _decayed(self, now: float) -> float:
        return self._calls * math.exp2((self._since - now) / DEMAND_HALF_LIFE)


def smoothed(before: float | None, value: float, weight: float) -> float:
    """The mean of measurements, where the last one has this weight. `before`: the mean without it; None: it
    is the first."""
    return value if before is None else before + weight * (value - before)
