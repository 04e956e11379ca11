"""Where rows are recorded, each before the caller gets the answer."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from random import getrandbits
from typing import Protocol, runtime_checkable

from ccroute.accounting.tally import Key, LedgerRow, Tally
from ccroute.types.locks import lock_tries

MOST_AT_ONCE = 64
"""Old rows that are summed up together. One by one, each would cost twice as much: caches are cold then."""


def uuid7(moment: datetime) -> str:
    """A UUID that sorts by time (RFC 9562, version 7): 48 bits of milliseconds, 58 random ones. It ends in
    0000: `attempt_id` puts a number there."""
    value = int(moment.timestamp() * 1000) << 80 | getrandbits(76)
    value = value & ~(0xF << 76 | 0b11 << 62 | 0xFFFF) | 0x7 << 76 | 0b10 << 62
    text = value.to_bytes(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def attempt_id(call: str, number: int) -> str:
    """The id of a call's attempt, counted from 1: the call's own with the number at its end."""
    return f"{call[:-4]}{number & 0xFFFF:04x}"


@runtime_checkable
class Ledger(Protocol):
    """Where attempts are recorded.

    `record` is called from any thread and must be quick. A finaliser may call it at any moment, so it must
    not wait for a lock that its own thread may hold. `tallies` sums up everything recorded, per `Key`;
    `since` and `until` are UTC.
    """

    def record(self, row: LedgerRow) -> None: ...

    def tallies(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Mapping[Key, Tally]: ...


@runtime_checkable
class RowLedger(Ledger, Protocol):
    """A ledger that has what `router.rows()` needs: the rows started in [since, until), oldest first."""

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterable[LedgerRow]: ...


class MemoryLedger:
    """The default: the last `limit` rows as they are, older ones summed up per agent, session, model and day.

    Recording never waits, because a finaliser may record at any moment. Appending a row is atomic. Rows
    beyond the limit are summed up, some at a time, by the thread that finds the lock free.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._rows: deque[LedgerRow] = deque()
        self._limit = limit
        self._most = limit + min(MOST_AT_ONCE, limit // 16)
        self._older: defaultdict[Key, Tally] = defaultdict(Tally)
        self._summing = threading.Lock()
        self._tries = lock_tries(self._summing)

    def record(self, row: LedgerRow) -> None:
        """Append one row."""
        self._rows.append(row)
        if len(self._rows) <= self._most:
            return
        for _ in self._tries():
            try:
                while len(self._rows) > self._limit:
                    row = self._rows.popleft()
                    self._older[row.key()].add(row)
            finally:
                self._summing.release()
            return

    def after_fork(self) -> None:
        """Replace the lock in a forked child: a thread that the child does not have may hold it."""
        self._summing = threading.Lock()
        self._tries = lock_tries(self._summing)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The last `limit` rows, of these the ones that started in [since, until), oldest first."""
        start, end = _span(since, until)
        held = self._held()
        rows = [row for row in held[max(0, len(held) - self._limit) :] if start <= row.started < end]
        return sorted(rows, key=attrgetter("started"))

    def tallies(self, since: datetime | None = None, until: datetime | None = None) -> dict[Key, Tally]:
        """Sums over the rows started in [since, until); rows already summed up count by their day."""
        start, end = _span(since, until)
        first, last = start.date().isoformat(), (end - timedelta.resolution).date().isoformat()
        sums = defaultdict[Key, Tally](Tally)
        with self._summing:
            for key, tally in self._older.items():
                if first <= key.day <= last:
                    sums[key].merge(tally)
            rows = self._held()
        for row in rows:
            if start <= row.started < end:
                sums[row.key()].add(row)
        return dict(sums)

    def _held(self) -> list[LedgerRow]:
        while True:
            try:
                return list(self._rows)
            except RuntimeError:  # another thread recorded meanwhile
                continue


_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


def moment(name: str, given: date | str | None) -> datetime | None:
    """The moment that the argument `name` gives; a date begins at midnight UTC.

    Raises `ValueError` for a text that is not ISO 8601, `TypeError` for another type.
    """
    if given is None or isinstance(given, datetime):
        return given
    if isinstance(given, date):
        return datetime(given.year, given.month, given.day, tzinfo=UTC)
    if not isinstance(given, str):
        raise TypeError(f"{name}= takes a datetime, a date or an ISO 8601 text, not {type(given).__name__}")
    try:
        return datetime.fromisoformat(given)
    except ValueError:
        raise ValueError(f'{name}= takes a datetime or a text such as "2026-01-31", not {given!r}') from None


def _span(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    return _FIRST if since is None else _utc(since), _LAST if until is None else _utc(until)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
