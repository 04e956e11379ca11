"""The ledger in memory."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain, pairwise
from operator import attrgetter
from typing import Final

from ccroute.accounting.ledger import span
from ccroute.accounting.row import Key, LedgerRow, keys_of
from ccroute.accounting.stores.base import ALL, BaseLedger
from ccroute.accounting.tally import USUAL_TIERS, Lengths, Tally, joined, merged, tallied

MOST_AT_ONCE: Final = 64
"""Old rows are summed up in batches of this size. One by one, each row would take twice as long."""
MOST_SUMS: Final = 4_000
"""The most sums of days that are kept; the same of months, and of years. Each takes up to 6 kB."""


class MemoryLedger(BaseLedger):
    """The default: the last `limit` rows as they are, and sums of older ones.

    Older rows are summed up per agent, group, alias, model, backend and day. Sums have no sessions: in
    reports, their session is None. If there are more than `MOST_SUMS` of them, the oldest become sums of
    months ("2026-01"). If there are as many of these, the oldest become sums of years ("2026"), and then of
    years without names. Their percentiles are right to 1 %. The tiers of a baseline are right if they are
    among `USUAL_TIERS`.

    The rows are the queue, so recording never waits. Rows beyond the limit are summed up, some at a time, by
    the thread that finds the lock free.
    """

    def __init__(self, limit: int = 100_000) -> None:
        super().__init__()
        self._kept = limit
        self._most = limit + min(MOST_AT_ONCE, limit // 16)
        # Sums of days, of months, of years, and of years without names.
        self._older = [OrderedDict[Key, Tally]() for _ in range(4)]

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
        groups, only = defaultdict[Key, list[Tally]](list), keys_of(by)
        with self._unchanged():
            for key, tally in chain.from_iterable(sums.items() for sums in self._older):
                if first[: len(key.day)] <= key.day <= last:
                    groups[only(getattr(key, name) for name in by)].append(tally)
            older = {key: merged(tallies) for key, tallies in groups.items()}
            rows = self._waiting()
        return joined(older, tallied((row for row in rows if start <= row.started < end), by, tiers))

    def _keep(self, rows: list[LedgerRow], *, wait: bool) -> None:
        days = self._older[0]
        while rows:
            row = rows.pop()
            key = Key(row.agent, row.group, row.alias, row.model, row.backend, row.day, None)
            tally = days.get(key)
            if tally is None:
                tally = days[key] = Tally()
            tally.add(row)
            tally.condense()
        for sums, coarser in pairwise(self._older):
            while len(sums) > MOST_SUMS:
                key, tally = sums.popitem(last=False)
                key = _coarser(key)
                known = coarser.get(key)
                coarser[key] = tally if known is None else merged([known, tally])


def _coarser(key: Key) -> Key:
    """The key of the month of a day, of the year of a month, and of a year without names."""
    if len(key.day) > len("2026"):
        return key._replace(day=key.day[: -len("-01")])
    return keys_of(["day"])([key.day])
