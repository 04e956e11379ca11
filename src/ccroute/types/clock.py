"""Time and randomness as an interface, so that a test can replay everything below the runtime; and the first
and the last moment, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Protocol

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
END: Final = datetime.max.replace(tzinfo=UTC)


class Clock(Protocol):
    """`monotonic` in seconds for every limit, `now` in UTC for records only, `random` in [0, 1)."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...

    def random(self) -> float: ...
