"""The machine's clock and its random numbers, handed to everything that needs either."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import partial

LONGEST = 1e6
"""Seconds that one wait takes at most: systems count them in small numbers, and refuse larger ones."""


class SystemClock:
    """`ccroute.types.clock.Clock` as the machine has it: three functions of C."""

    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    now = staticmethod(partial(datetime.now, UTC))
