"""The ledger in memory."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final

from ccroute.accounting.ledger import span
from ccroute.accounting.stores.base import ALL, BaseLedger
from ccroute.accounting.tally import USUAL_TIERS, Key, LedgerRow, Lengths, Tally, key_of, merged, tallied

MOST_AT_ONCE: Final = 64
"""Old rows that are summed up together. One by one, each would cost twice as much: caches are cold then."""
MOST_SUMS: Final = 5_000
"""Sums of old rows. Each takes a few kB."""


class MemoryLedger(BaseLedger):
    """The default: the last `limit` rows as they are, and sums of older ones.

    Older rows are summed up per agent, group, alias, model, backend and day, without their sessions: reports
    show them with the session None. There are at most `MOST_SUMS` such sums. Where more would be needed, the
    oldest are summed up by month ("2026-01"), then by year, and then without names. Their percentiles are
    right to 1 %, and a baseline's tiers are known if they are among `USUAL_TIERS`.

    The rows are the queue, so recording never waits. Rows beyond the limit are summed up, some at a time, by
    the thread that finds the lock free.
    """

    def __init__(self, limit: int = 100_000) -> None:
        super().__init__()
        self._kept = limit
        self._most = limit + min(MOST_AT_ONCE, limit // 16)
        self._older = OrderedDict[Key, Tally]()

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
        tiers: Sequence[Lengths] = USUAL_TIERS,
    ) -> dict[Key, Tally]:
        """Sums over the rows started in [since, until), per value of `by`; other parts of keys are empty.

        A sum of old rows counts if a part of its day, month or year is in there.
        """
        start, end = span(since, until)
        first, last = start.date().isoformat(), (end - timedelta.resolution).date().isoformat()
        groups = defaultdict[Key, list[Tally]](list)
        with self._unchanged():
            rows = self._waiting()
            for key, tally in self._older.items():
                if first[: len(key.day)] <= key.day <= last:
                    groups[key_of(by, map(key._asdict().get, by))].append(tally)
            older = {key: merged(tallies) for key, tallies in groups.items()}
        found = tallied((row for row in rows if start <= row.started < end), by, tiers)
        for key, tally in older.items():
            found[key] = merged([tally, found[key]]) if key in found else tally
        return found

    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        while rows:
            row = rows.pop()
            tally = self._older_at(row.key()._replace(session=None))
            tally.add(row)
            tally.condense()
        while len(self._older) > MOST_SUMS:
            key, tally = self._older.popitem(last=False)
            coarser = _coarser(key)
            self._older[coarser] = merged(
                [tally, *([self._older[coarser]] if coarser in self._older else [])]
            )

    def _older_at(self, key: Key) -> Tally:
        tally = self._older.get(key)
        if tally is None:
            tally = self._older[key] = Tally()
        return tally


def _coarser(key: Key) -> Key:
    """The key of a longer time: a month, a year, and then a year without names."""
    if len(key.day) > len("2026"):
        return key._replace(day=key.day[: -len("-01")])
    return key_of(["day"], [key.day])
