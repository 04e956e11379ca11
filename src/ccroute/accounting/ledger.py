"""What a ledger is, the ids of its rows, and the moments that bound a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from random import getrandbits
from typing import Protocol, runtime_checkable

from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.tally import Tally
from ccroute.types.clock import BEGINNING, END


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
    """Where attempts are recorded: what a ledger of your own must have.

    `record` is called from any thread, before the caller has the answer, so it must be quick. It is never
    called from a finaliser. `tallies` sums up everything recorded, per `Key`; `since` and `until` are UTC.
    """

    def record(self, row: LedgerRow) -> None: ...

    def tallies(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Mapping[Key, Tally]: ...


@runtime_checkable
class RowLedger(Ledger, Protocol):
    """A ledger that has what `router.rows()` needs: the rows started in [since, until), oldest first."""

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterable[LedgerRow]: ...


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


def span(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """Both bounds of a report; a missing one is the end of time."""
    return BEGINNING if since is None else utc(since), END if until is None else utc(until)


def utc(moment: datetime) -> datetime:
    """The moment in UTC; one without a zone is UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
