"""The rows of an SQLite ledger: as values of the columns in `tables`, and their sums in SQL.

Knows SQL; must not open files.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final
from zlib import crc32

from ccroute.accounting.ledger import utc
from ccroute.accounting.prices import NOTHING
from ccroute.accounting.tally import BAND, Key, LedgerRow, Tally
from ccroute.types import FailureClass, Usage
from ccroute.types.route import new_usage

INSERT: Final = f"INSERT INTO attempts VALUES ({', '.join('?' * 36)}) ON CONFLICT DO NOTHING"  # noqa: S608
_TAKEN: Final = "SELECT started_ns, id FROM attempts WHERE started_ns BETWEEN ? AND ?"
NULL: Final = float("nan")
"""Stored as NULL. Python's sqlite3 takes 0.2 µs for each None: it looks for an adapter. Source:
https://sqlite.org/c3ref/bind_blob.html#:~:text=NaN"""
PLACES: Final = 12
"""An amount with so many decimal places, or fewer, is stored as a whole number, which SQL can sum up exactly;
any other as text. A price of up to 6 places per million tokens never needs more."""
_INT64: Final = 2**63
_EXACT: Final = Context(prec=100)
_FAILURES: Final = {str(failure): failure for failure in FailureClass}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = 86_400_000_000

UNPRICED, NO_TOKENS = -3, -2  # instead of a band
PROMPT = "input + cache_read + cache_write_5m + cache_write_1h"
_SUMS: Final = f"""
    CASE WHEN cost IS NULL THEN {UNPRICED} WHEN {PROMPT} + output = 0 THEN {NO_TOKENS}
        ELSE {{band}} END AS band,
    count(*), sum(final), sum(outcome IN ('failed', 'interrupted')),
    sum(final AND cached), sum(final AND overridden), count(CASE WHEN final THEN override_saved END),
    sum(input), sum(cache_read), sum(cache_write_5m), sum(cache_write_1h), sum(output), sum(reasoning),
    max(estimated),
    sum(CASE WHEN typeof(cost) = 'integer' THEN cost END),
    group_concat(CASE WHEN typeof(cost) = 'text' THEN cost END, ' '),
    sum(CASE WHEN final AND typeof(override_saved) = 'integer' THEN override_saved END),
    group_concat(CASE WHEN final AND typeof(override_saved) = 'text' THEN override_saved END, ' ')
"""
BAND_OF: Final = f"({PROMPT} + {BAND - 1}) / {BAND} - 1"
_SPAN: Final = " FROM attempts WHERE started_ns >= ? AND started_ns < ?"
_PARTS: Final = {"group": '"group"', "day": f"started / {_DAY}"}
"""How the parts of a key are written in SQL, where it is not their name."""
_NO_PARTS: Final[dict[str, Any]] = dict.fromkeys(Key._fields) | {
    "alias": "",
    "model": "",
    "backend": "",
    "day": "",
}


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970; before 1677 and after 2262, SQLite's least and greatest number."""
    since_1970 = (utc(moment) - _EPOCH) // _MICROSECOND * 1000
    return max(-_INT64, min(since_1970, _INT64 - 1))


def _bounds(start: datetime, end: datetime) -> tuple[int, int]:
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
    """The columns of a row whose texts may have half characters, which SQLite does not take."""
    return tuple(
        value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values(row)
    )


def insert(cursor: sqlite3.Cursor, columns: tuple[Any, ...]) -> None:
    """Insert a row, unless it is there."""
    if cursor.execute(INSERT, columns).rowcount:
        return
    # It is there, or a row of the same microsecond has its number.
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
    found = connection.execute(f"SELECT *{_SPAN}", _bounds(start, end))
    return list(map(ledger_row, found))


def ids(connection: sqlite3.Connection, start: datetime, end: datetime) -> list[str]:
    """The ids of the rows started in [start, end)."""
    return [id for (id,) in connection.execute(f"SELECT id{_SPAN}", _bounds(start, end))]


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
        None if cost is None else _amount(cost),
        bool(overridden),
        bool(fallback),
        duration,
        first_content,
        bool(final),
        bool(cached),
        latency,
        None if saved is None else _amount(saved),
        json.loads(metadata) if metadata else {},
        *stored[31:35],
    )


def sums(
    connection: sqlite3.Connection,
    second: sqlite3.Connection,
    start: datetime,
    end: datetime,
    by: Sequence[str],
    tiers: bool,
) -> dict[Key, Tally]:
    """Sums over the rows started in [start, end), per value of `by`; other parts of the keys are empty.

    Without `tiers`, all tokens of known price are in the first band: reading many bands takes its time. The
    `second` connection is used in a thread.
    """
    try:
        return _sums(connection, second, _bounds(start, end), by, tiers)
    except sqlite3.OperationalError as error:
        if str(error) != "integer overflow":  # more than 9 million USD
            raise
    tallies = defaultdict[Key, Tally](Tally)
    for row in rows(connection, start, end):
        tallies[row.key()].add(row)
    return dict(tallies)


def _sums(
    connection: sqlite3.Connection,
    second: sqlite3.Connection,
    bounds: tuple[int, int],
    by: Sequence[str],
    tiers: bool,
) -> dict[Key, Tally]:
    parts = len(by)
    columns = "".join(f"{_PARTS.get(name, name)} AS part{i}, " for i, name in enumerate(by))
    grouped = "".join(f"part{i}, " for i in range(parts)) + "band"
    sums = _SUMS.format(band=BAND_OF if tiers else "0")
    groups = defaultdict[tuple[Any, ...], Tally](Tally)
    with ThreadPoolExecutor(1) as helper:
        latencies = helper.submit(_latencies, second, columns, parts, bounds)
        for found in connection.execute(f"SELECT {columns}{sums}{_SPAN} GROUP BY {grouped}", bounds):
            add(groups[found[:parts]], *found[parts:])
    for group, each in latencies.result().items():
        groups[group].latencies = each
    return {key_of(dict(zip(by, group, strict=True))): tally for group, tally in groups.items()}


def _latencies(
    connection: sqlite3.Connection, columns: str, parts: int, bounds: tuple[int, int]
) -> dict[tuple[Any, ...], list[float]]:
    """The latencies of answered calls, sorted, per group."""
    query = f"SELECT {columns}latency{_SPAN} AND latency IS NOT NULL AND outcome = 'ok'"
    found = connection.execute(query, bounds)
    latencies = defaultdict[tuple[Any, ...], list[float]](list)
    if parts:
        for row in found:
            latencies[row[:parts]].append(row[parts])
    else:
        latencies[()] = [latency for (latency,) in found]
    for each in latencies.values():
        each.sort()
    return latencies


def key_of(parts: dict[str, Any]) -> Key:
    if "day" in parts:
        parts["day"] = (_EPOCH + timedelta(days=parts["day"])).date().isoformat()
    return Key(**{**_NO_PARTS, **parts})


def add(
    tally: Tally,
    band: int,
    attempts: int,
    requests: int,
    failures: int,
    cache_hits: int,
    overrides: int,
    overrides_known: int,
    *sums: Any,
) -> None:
    """Add what SQL summed up."""
    *tokens, estimated, cost, other_costs, saved, other_saved = sums
    tally.attempts += attempts
    tally.requests += requests
    tally.failures += failures
    tally.cache_hits += cache_hits
    tally.overrides += overrides
    tally.overrides_known += overrides_known
    tally.override_saved += _total(saved, other_saved)
    if band == UNPRICED:
        tally.unpriced += attempts
        tally.unknown_cost_requests += requests
        tally.unpriced_usage += _usage(tokens, estimated)
        return
    tally.cost += _total(cost, other_costs)
    if band != NO_TOKENS:
        tally.priced += attempts
        tally.add_known(band, _usage(tokens, estimated))


def _usage(tokens: Sequence[int], estimated: int) -> Usage:
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
    scaled = amount.scaleb(PLACES, _EXACT)
    whole = int(scaled)
    return whole if whole == scaled and -_INT64 <= whole < _INT64 else str(amount)


def _amount(stored: int | str) -> Decimal:
    """The amount in USD of a column, without zeros at its end."""
    if isinstance(stored, str):
        return Decimal(stored)
    amount = Decimal(stored).scaleb(-PLACES, _EXACT).normalize(_EXACT)
    return Decimal(f"{amount:f}")  # 100, not 1E+2


def _total(whole: int | None, others: str | None) -> Decimal:
    total = NOTHING if whole is None else _amount(whole)
    for other in (others or "").split():
        total = _EXACT.add(total, Decimal(other))
    return total
