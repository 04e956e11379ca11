"""The table of an SQLite ledger: its columns, and a row as their values.

Knows SQL; must not open files.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ccroute.accounting.ledger import utc
from ccroute.accounting.tally import EXACT, LedgerRow
from ccroute.types import FailureClass, Usage
from ccroute.types.route import new_usage

APPLICATION: Final = 0x63637274  # "ccrt"
MIGRATIONS: Final = (
    (
        """
    CREATE TABLE attempts (
        started          INTEGER NOT NULL,  -- microseconds since 1970, UTC
        id               TEXT NOT NULL,
        call             TEXT NOT NULL,
        agent            TEXT,
        "group"          TEXT,
        session          TEXT,
        requested_model  TEXT,
        alias            TEXT NOT NULL,
        backend          TEXT NOT NULL,
        deployment       TEXT NOT NULL,
        model            TEXT NOT NULL,
        outcome          TEXT NOT NULL,
        failure          TEXT,
        status           INTEGER,
        input            INTEGER NOT NULL,  -- tokens
        cache_read       INTEGER NOT NULL,
        cache_write_5m   INTEGER NOT NULL,
        cache_write_1h   INTEGER NOT NULL,
        output           INTEGER NOT NULL,
        reasoning        INTEGER NOT NULL,  -- part of output
        estimated        INTEGER NOT NULL,  -- 0 or 1
        cost,                               -- millionths of a millionth USD, or USD as text; NULL: unknown
        overridden       INTEGER NOT NULL,
        fallback         INTEGER NOT NULL,
        duration         REAL NOT NULL,     -- seconds
        first_content    REAL,
        final            INTEGER NOT NULL,
        cached           INTEGER NOT NULL,
        latency          REAL,
        override_saved,                     -- as cost
        metadata         TEXT,              -- JSON
        PRIMARY KEY (started, id)
    ) WITHOUT ROWID
    """,
    ),
    (
        "ALTER TABLE attempts ADD COLUMN price_source TEXT",
        "ALTER TABLE attempts ADD COLUMN queue REAL NOT NULL DEFAULT 0",  # seconds
        "ALTER TABLE attempts ADD COLUMN load REAL",  # seconds
        "ALTER TABLE attempts ADD COLUMN version TEXT",  # of ccroute
    ),
)
"""The statements that lead from each version to the next; the first one makes version 1."""

INSERT: Final = f"INSERT INTO attempts VALUES ({', '.join('?' * 35)}) ON CONFLICT DO NOTHING"  # noqa: S608

PLACES: Final = 12
"""An amount with so many decimal places, or fewer, is stored as a whole number, which SQL can sum up exactly;
any other as text, with a point. A price of up to 6 places per million tokens never needs more."""
_TENS: Final = 10 ** (PLACES + 1)
_ONE, _POINT = Decimal(1), Decimal("0.0")
_INT64: Final = 2**63
_FAILURES: Final = {str(failure): failure for failure in FailureClass}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _microseconds(moment: datetime) -> int:
    return (utc(moment) - _EPOCH) // _MICROSECOND


def bounds(start: datetime, end: datetime) -> tuple[int, int]:
    """Both moments in microseconds since 1970."""
    return _microseconds(start), _microseconds(end)


def values(row: LedgerRow) -> tuple[Any, ...]:
    """The columns of a row."""
    usage = row.usage
    return (
        (row.started - _EPOCH) // _MICROSECOND,
        row.id,
        row.call,
        row.agent,
        row.group,
        row.session,
        row.requested_model,
        row.alias,
        row.backend,
        row.deployment,
        row.model,
        row.outcome,
        None if row.failure is None else str(row.failure),
        row.status,
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        int(usage.estimated),
        None if row.cost is None else _stored(row.cost),
        int(row.overridden),
        int(row.fallback),
        row.duration,
        row.first_content,
        int(row.final),
        int(row.cached),
        row.latency,
        None if row.override_saved is None else _stored(row.override_saved),
        json.dumps(dict(row.metadata), default=str, skipkeys=True) if row.metadata else None,
        row.price_source,
        row.queue,
        row.load,
        row.version,
    )


def storable(row: LedgerRow) -> tuple[Any, ...]:
    """The columns of a row whose texts may have half characters, which SQLite does not take."""
    return tuple(
        value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values(row)
    )


def rows(connection: sqlite3.Connection, start: datetime, end: datetime) -> list[LedgerRow]:
    """The rows started in [start, end), oldest first."""
    found = connection.execute(
        "SELECT * FROM attempts WHERE started >= ? AND started < ? ORDER BY started, id", bounds(start, end)
    )
    return list(map(ledger_row, found))


def ledger_row(stored: Sequence[Any]) -> LedgerRow:
    started, id, call, agent, group, session, requested, alias, backend, deployment, model = stored[:11]
    outcome, failure, status, *tokens, estimated, cost = stored[11:22]
    overridden, fallback, duration, first_content, final, cached, latency, saved, metadata = stored[22:31]
    return LedgerRow(
        id,
        call,
        _EPOCH + timedelta(microseconds=started),
        agent,
        group,
        session,
        requested,
        alias,
        backend,
        deployment,
        model,
        outcome,
        _FAILURES.get(failure, failure),
        status,
        _usage(tokens, estimated),
        None if cost is None else amount_of(cost),
        bool(overridden),
        bool(fallback),
        duration,
        first_content,
        bool(final),
        bool(cached),
        latency,
        None if saved is None else amount_of(saved),
        json.loads(metadata) if metadata else {},
        *stored[31:],
    )


def _usage(tokens: Sequence[int], estimated: int) -> Usage:
    """Token counts as columns have them."""
    input, cache_read, write_5m, write_1h, output, reasoning = tokens
    return new_usage(
        input=input,
        cache_read=cache_read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        output=output,
        reasoning=reasoning,
        estimated=bool(estimated),
    )


def _stored(amount: Decimal) -> int | str:
    """An amount in USD as a column has it."""
    scaled = amount.scaleb(PLACES, EXACT)
    whole = int(scaled)
    is_exact = whole == scaled and -_INT64 <= whole < _INT64
    return whole if is_exact else str(EXACT.add(amount, _POINT))


def amount_of(stored: int | str) -> Decimal:
    """The amount in USD of a column, without zeros at its end."""
    if isinstance(stored, str):
        return Decimal(stored)
    amount = Decimal(stored).scaleb(-PLACES, EXACT).normalize(EXACT)
    return amount if stored % _TENS else amount.quantize(_ONE)  # 100, not 1E+2
