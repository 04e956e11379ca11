"""One row per attempt, written before the caller gets the answer. Prompts and answers are not in it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Protocol, runtime_checkable

from ccroute.accounting.tally import Key, Tally
from ccroute.types import JSON, FailureClass, Outcome, Usage


def uuid7(moment: datetime) -> str:
    """A UUID that sorts by time (RFC 9562, version 7): 48 bits of milliseconds, 74 random ones."""
    value = int(moment.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One attempt: who asked, who served, what it used and cost.

    `started` is UTC, durations are seconds, money is USD. `cost` is `None` when the deployment has
    no known price. `final` marks the attempt that decided the call, and only there `latency` (of
    the whole call) and `override_saved` (the requested model's price minus the served one's, where
    both are known) are filled in.
    """

    id: str
    call: str
    started: datetime
    agent: str | None
    group: str | None
    session: str | None
    requested_model: str | None
    alias: str
    backend: str
    deployment: str
    model: str
    outcome: Outcome
    failure: FailureClass | None
    status: int | None
    usage: Usage
    cost: Decimal | None
    overridden: bool
    fallback: bool
    duration: float
    first_content: float | None
    final: bool
    cached: bool = False
    latency: float | None = None
    override_saved: Decimal | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)

    def to_dict(self) -> dict[str, JSON]:
        """The row as flat JSON: `usage` as its token counts, money as str, `started` as ISO 8601."""
        row = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "usage"}
        money = {name: None if row[name] is None else str(row[name]) for name in ("cost", "override_saved")}
        tokens = self.usage.model_dump()
        return {
            **row,
            "started": self.started.isoformat(),
            "metadata": dict(self.metadata),
            **tokens,
            **money,
        }

    def key(self) -> Key:
        """What reports may group this row by."""
        day = self.started.date().isoformat()
        return Key(self.agent, self.group, self.alias, self.model, self.backend, day, self.session)


@runtime_checkable
class Ledger(Protocol):
    """Where attempts are written; `record` is called from any thread and must be quick. It may be called by
    a finaliser in the middle of anything, so it must not wait for a lock that its own thread may hold.

    `tallies` sums up everything recorded, per `Key`; `since` and `until` are UTC.
    """

    def record(self, row: LedgerRow) -> None: ...

    def tallies(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Mapping[Key, Tally]: ...


@runtime_checkable
class RowLedger(Ledger, Protocol):
    """A ledger that also gives back its rows: what `router.rows()` needs.

    `rows` gives those started in [since, until), UTC, oldest first.
    """

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterable[LedgerRow]: ...


class MemoryLedger:
    """The default: the last `limit` rows as they are, older ones summed up per agent, session, model and day.

    Recording never waits, because a finaliser may record in the middle of anything: a row is appended,
    which is atomic, and rows beyond the limit are summed up by whoever finds nobody else at it.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._rows: deque[LedgerRow] = deque()
        self._limit = limit
        self._older: dict[Key, Tally] = {}
        self._summing = threading.Lock()

    def record(self, row: LedgerRow) -> None:
        """Append one row."""
        self._rows.append(row)
        if len(self._rows) <= self._limit:
            return
        # No interrupt comes between a step of `for` and its body, as it may after a call of acquire().
        for _ in iter(partial(self._summing.acquire, blocking=False), False):
            try:
                while len(self._rows) > self._limit:
                    add_row(self._older, self._rows.popleft())
            finally:
                self._summing.release()
            return

    def after_fork(self) -> None:
        """In a forked child: the lock may be held by a thread that is not here."""
        self._summing = threading.Lock()

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> list[LedgerRow]:
        """The rows held that started in [since, until), oldest first; rows summed up are not among them."""
        start, end = _span(since, until)
        return sorted([row for row in self._held() if start <= row.started < end], key=_STARTED)

    def tallies(self, since: datetime | None = None, until: datetime | None = None) -> dict[Key, Tally]:
        """Sums over the rows started in [since, until); rows already summed up count by their day."""
        start, end = _span(since, until)
        first, last = start.date().isoformat(), (end - _TICK).date().isoformat()
        with self._summing:
            sums = {key: tally.copy() for key, tally in self._older.items() if first <= key.day <= last}
            rows = self._held()
        for row in rows:
            if start <= row.started < end:
                add_row(sums, row)
        return sums

    def _held(self) -> list[LedgerRow]:
        while True:
            try:
                return list(self._rows)
            except RuntimeError:  # another thread recorded meanwhile
                continue


def add_row(sums: dict[Key, Tally], row: LedgerRow) -> None:
    """Count one row under its key."""
    tally = sums.get(key := row.key())
    if tally is None:
        tally = sums[key] = Tally()
    tally.add(
        row.usage,
        row.cost,
        failed=row.outcome in {"failed", "interrupted"},
        final=row.final,
        cached=row.cached,
        overridden=row.overridden,
        override_saved=row.override_saved,
        latency=row.latency if row.outcome == "ok" else None,
    )


_STARTED = attrgetter("started")
_TICK = timedelta.resolution
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


def moment(name: str, given: date | str | None) -> datetime | None:
    """A bound in time as a caller may write it; `name` is the argument it came by. A date begins at
    midnight UTC. Raises `ValueError` for a text that is no ISO 8601, `TypeError` for what is no date."""
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
