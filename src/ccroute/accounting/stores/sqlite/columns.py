"""The rows of an SQLite ledger, as values of the columns in `tables`.

Knows SQL; must not open files.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zlib import crc32

from ccroute.accounting.ledger import utc
from ccroute.accounting.money import EXACT
from ccroute.accounting.row import LedgerRow
from ccroute.types import FailureClass, Usage
from ccroute.types.route import new_usage

INSERT: Final = f"INSERT INTO attempts VALUES ({', '.join('?' * 36)}) ON CONFLICT DO NOTHING"
_TAKEN: Final = "SELECT started_ns, id FROM attempts WHERE started_ns BETWEEN ? AND ?"
NULL: Final = float("nan")
"""Stored as NULL. Python's sqlite3 takes 0.2 µs for each None: it looks for an adapter. Source:
https://sqlite.org/c3ref/bind_blob.html#:~:text=NaN"""
PLACES: Final = 12
"""Decimal places. An amount with at most so many is stored as a whole number, which SQL can sum up exactly.
Any other is stored as text, with a point. A price of up to 6 places per million tokens never needs more."""
_TENS: Final = 10 ** (PLACES + 1)
_ONE, _POINT = Decimal(1), Decimal("0.0")
_INT64: Final = 2**63
_FAILURES: Final = {str(failure): failure for failure in FailureClass}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
SPAN: Final = "FROM attempts WHERE started_ns >= ? AND started_ns < ?"
"""The rows between two moments of `bounds`."""


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970; before 1677 and after 2262, SQLite's least and greatest number."""
    since_1970 = (utc(moment) - _EPOCH) // _MICROSECOND * 1000
    return max(-_INT64, min(since_1970, _INT64 - 1))


def bounds(start: datetime, end: datetime) -> tuple[int, int]:
    """Both moments as `nanoseconds`."""
    return nanoseconds(start), nanoseconds(end)


def values(row: LedgerRow) -> tuple[Any, ...]:
    """The columns of a row."""
    # fmt: off
    (
        id, call, started, agent, group, session, requested_model, alias, backend, deployment, model, outcome,
        failure, status, usage, cost, overridden, fallback, duration, first_content, final, cached, latency,
        override_saved, metadata, price_source, queue, load, version,
    ) = row
    # fmt: on
    microseconds = (started - _EPOCH) // _MICROSECOND
    return (
        microseconds,
        id,
        call,
        NULL if agent is None else agent,
        NULL if group is None else group,
        NULL if session is None else session,
        NULL if requested_model is None else requested_model,
        alias,
        backend,
        deployment,
        model,
        outcome,
        NULL if failure is None else str(failure),
        NULL if status is None else status,
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        +usage.estimated,
        NULL if cost is None else _stored(cost),
        +overridden,
        +fallback,
        duration,
        NULL if first_content is None else first_content,
        +final,
        +cached,
        NULL if latency is None else latency,
        NULL if override_saved is None else _stored(override_saved),
        json.dumps(dict(metadata), default=str, skipkeys=True) if metadata else NULL,
        NULL if price_source is None else price_source,
        queue,
        NULL if load is None else load,
        version,
        microseconds * 1000 + crc32(id.encode(errors="replace")) % 1000,
    )


def storable(row: LedgerRow) -> tuple[Any, ...]:
    """The columns of a row. Lone surrogates in texts are replaced, because SQLite refuses them."""
    return tuple(
        value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values(row)
    )


def insert(cursor: sqlite3.Cursor, columns: tuple[Any, ...]) -> None:
    """Insert a row, unless a row with its id is stored already."""
    if cursor.execute(INSERT, columns).rowcount:
        return
    # The row is stored already, or another row of the same microsecond has its number.
    id, first = columns[1], columns[0] * 1000
    while True:
        numbers = range(first, first + 1000)
        taken = dict(cursor.execute(_TAKEN, (numbers[0], numbers[-1])).fetchall())
        if id in taken.values():
            return
        free = min(set(numbers) - taken.keys(), default=None)
        if free is None:
            first = numbers.stop
        elif cursor.execute(INSERT, (*columns[:-1], free)).rowcount:
            return


def rows(connection: sqlite3.Connection, start: datetime, end: datetime) -> list[LedgerRow]:
    """The rows started in [start, end)."""
    found = connection.execute(f"SELECT * {SPAN}", bounds(start, end))
    return list(map(ledger_row, found))


def ids(connection: sqlite3.Connection, start: datetime, end: datetime) -> list[str]:
    """The ids of the rows started in [start, end)."""
    return [id for (id,) in connection.execute(f"SELECT id {SPAN}", bounds(start, end))]


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
        *stored[31:35],
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
