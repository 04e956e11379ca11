"""The machine's clock and its random numbers, passed to everything that needs them."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import partial


class SystemClock:
    """The machine's `ccroute.types.clock.Clock`: three C functions, so a call of one costs little."""

    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    now = staticmethod(partial(datetime.now, UTC))
