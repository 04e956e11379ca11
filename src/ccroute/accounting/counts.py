"""What calls came to since their router began: counts in memory, whatever ledger there is.

Knows rows; must not know who shows the counts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass
from functools import partial
from typing import Final

from ccroute.accounting.row import LedgerRow
from ccroute.types.locks import Inbox
from ccroute.types.route import LEAST_LOAD

MOST_NEW: Final = 64
"""Rows that are counted together."""
MOST_NAMES: Final = 10_000
"""Deployments that are counted apart. There is a limit, because names may come from clients."""


@dataclass(slots=True)
class Count:
    """Calls and attempts, in the columns of a report. `wait` is in seconds, too."""

    requests: int = 0
    attempts: int = 0
    failures: int = 0
    wait: float = 0.0
    loads: int = 0
    load_seconds: float = 0.0

    def add(self, row: LedgerRow) -> None:
        """Count one attempt."""
        self.requests += row.final
        self.attempts += 1
        self.failures += row.outcome in {"failed", "interrupted"}
        self.wait += row.queue
        if row.load is not None and row.load >= LEAST_LOAD:
            self.loads += 1
            self.load_seconds += row.load

    def plus(self, other: Count) -> Count:
        """The sum of both."""
        return Count(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))


class Counts(Inbox[LedgerRow]):
    """The counts of one router since the instant `since` (monotonic), by backend and deployment.

    A call appends `(row,)`, which never waits, and calls `drain` where there are more than `MOST_NEW`.
    """

    def __init__(self, since: float) -> None:
        self._counts = defaultdict[tuple[str, str], Count](Count)
        super().__init__(partial(_add, self._counts))
        self.since = since

    def restart(self, since: float) -> None:
        """Count from now on: in a forked child, whose parent counts the calls before."""
        self.renew()
        self.clear()
        self._counts.clear()
        self.since = since

    def by_deployment(self) -> dict[tuple[str, str], Count]:
        """The count of each backend and deployment. Beyond `MOST_NAMES`, the deployment is ""."""
        with self.lock:
            self.read()
            found = {names: count.plus(Count()) for names, count in self._counts.items()}
        self.drain()
        return found


def _add(counts: dict[tuple[str, str], Count], row: LedgerRow) -> None:
    names = row.backend, row.deployment
    if len(counts) >= MOST_NAMES and names not in counts:
        names = row.backend, ""
    counts[names].add(row)
