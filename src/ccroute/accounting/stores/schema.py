"""The table of an SQLite ledger: its columns, a row as its values, and its sums in SQL.

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

from ccroute.accounting.ledger import utc
from ccroute.accounting.prices import NOTHING
from ccroute.accounting.tally import BAND, Key, LedgerRow, Tally
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
any other as text. A price of up to 6 places per million tokens never needs more."""
_INT64: Final = 2**63
_EXACT: Final = Context(prec=100)
_FAILURES: Final = {str(failure): failure for failure in FailureClass}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = 86_400_000_000

_UNPRICED, _NO_TOKENS = -3, -2  # instead of a band
_PROMPT = "input + cache_read + cache_write_5m + cache_write_1h"
_SUMS: Final = f"""
    CASE WHEN cost IS NULL THEN {_UNPRICED} WHEN {_PROMPT} + output = 0 THEN {_NO_TOKENS}
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
_BAND: Final = f"({_PROMPT} + {BAND - 1}) / {BAND} - 1"
_SPAN: Final = " FROM attempts WHERE started >= ? AND started < ?"
_PARTS: Final = {"group": '"group"', "day": f"started / {_DAY}"}
"""How the parts of a key are written in SQL, where it is not their name."""
_NO_PARTS: Final[dict[str, Any]] = dict.fromkeys(Key._fields) | {
    "alias": "",
    "model": "",
    "backend": "",
    "day": "",
}


def _microseconds(moment: datetime) -> int:
    return (utc(moment) - _EPOCH) // _MICROSECOND


def _bounds(start: datetime, end: datetime) -> tuple[int, int]:
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
    found = connection.execute(f"SELECT *{_SPAN} ORDER BY started, id", _bounds(start, end))
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
        *stored[31:],
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
    sums = _SUMS.format(band=_BAND if tiers else "0")
    groups = defaultdict[tuple[Any, ...], Tally](Tally)
    with ThreadPoolExecutor(1) as helper:
        latencies = helper.submit(_latencies, second, columns, parts, bounds)
        for found in connection.execute(f"SELECT {columns}{sums}{_SPAN} GROUP BY {grouped}", bounds):
            _add(groups[found[:parts]], *found[parts:])
    for group, each in latencies.result().items():
        groups[group].latencies = each
    return {_key(dict(zip(by, group, strict=True))): tally for group, tally in groups.items()}


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


def _key(parts: dict[str, Any]) -> Key:
    if "day" in parts:
        parts["day"] = (_EPOCH + timedelta(days=parts["day"])).date().isoformat()
    return Key(**{**_NO_PARTS, **parts})


def _add(
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
    if band == _UNPRICED:
        tally.unpriced += attempts
        tally.unknown_cost_requests += requests
        tally.unpriced_usage += _usage(tokens, estimated)
        return
    tally.cost += _total(cost, other_costs)
    if band != _NO_TOKENS:
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
