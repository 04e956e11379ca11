"""Time and randomness as an interface, so that a test can replay everything below the runtime."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """`monotonic` in seconds for every limit, `now` in UTC for records only, `random` in [0, 1)."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...

    def random(self) -> float: ...
