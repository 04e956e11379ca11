"""The ledger in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter

from ccroute.accounting.ledger import span
from ccroute.accounting.stores.base import ALL, BaseLedger
from ccroute.accounting.tally import Key, LedgerRow, Tally

MOST_AT_ONCE = 64
"""Old rows that are summed up together. One by one, each would cost twice as much: caches are cold then."""


class MemoryLedger(BaseLedger):
    """The default: the last `limit` rows as they are, older ones summed up per agent, session, model and day.

    The rows are the queue, so recording never waits. Rows beyond the limit are summed up, some at a time, by
    the thread that finds the lock free.
    """

    def __init__(self, limit: int = 100_000) -> None:
        super().__init__()
        self._kept = limit
        self._most = limit + min(MOST_AT_ONCE, limit // 16)
        self._older: defaultdict[Key, Tally] = defaultdict(Tally)

    def record(self, row: LedgerRow) -> None:
        """Append one row."""
        self._queue.append(row)
        if len(self._queue) > self._most:
            self._store(wait=False)

    def defer(self, row: LedgerRow) -> None:
        """Append one row."""
        self.record(row)

    def flush(self) -> None:
        """Do nothing: no row has to be stored elsewhere."""

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The last `limit` rows, of these the ones that started in [since, until), oldest first."""
        start, end = span(since, until)
        held = self._queued()
        rows = [row for row in held[max(0, len(held) - self._kept) :] if start <= row.started < end]
        return sorted(rows, key=attrgetter("started"))

    def tallies(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        by: Sequence[str] = ALL,
        *,
        tiers: bool = True,
    ) -> dict[Key, Tally]:
        """Sums over the rows started in [since, until); rows already summed up count by their day."""
        start, end = span(since, until)
        first, last = start.date().isoformat(), (end - timedelta.resolution).date().isoformat()
        sums = defaultdict[Key, Tally](Tally)
        with self._unchanged():
            for key, tally in self._older.items():
                if first <= key.day <= last:
                    sums[key].merge(tally)
            rows = self._waiting()
        for row in rows:
            if start <= row.started < end:
                sums[row.key()].add(row)
        return dict(sums)

    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        while rows:
            row = rows.pop()
            self._older[row.key()].add(row)
