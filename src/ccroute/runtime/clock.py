"""The real clock and real chance, handed to everything that needs either."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime


class SystemClock:
    """`ccroute.types.clock.Clock` as the machine has it."""

    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    @staticmethod
    def now() -> datetime:
        """The time of day, in UTC, for records only."""
        return datetime.now(UTC)


LONGEST = 1e6
"""Seconds that one wait takes at most: systems count them in small numbers, and refuse larger ones."""


def patience(left: float) -> float | None:
    """A timeout as sockets and locks take it, where forever is None."""
    return None if left == float("inf") else min(left, LONGEST)
