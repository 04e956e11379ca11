"""Sums over the rows of an SQLite ledger, in SQL.

Knows the table's columns; must not open files.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from itertools import accumulate, chain
from queue import SimpleQueue
from typing import Any, Final

from pydantic_core import from_json

from ccroute.accounting.money import NOTHING, total_usd
from ccroute.accounting.row import Key, keys_of
from ccroute.accounting.stores.sqlite.columns import SPAN, amount_of, bounds
from ccroute.accounting.stores.sqlite.tables import PROMPT
from ccroute.accounting.tally import Lengths, Tally, TokenCounts, combined, without_gc
from ccroute.types.route import LEAST_LOAD

AT_ONCE: Final = 20_000
"""The most rows that one statement sums up. SQLite sorts them, which is fast while they fit in the CPU
cache."""
_DAY: Final = 86_400_000_000_000  # nanoseconds
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_PROMPT: Final = " + ".join(PROMPT)
_HAS_FILTER: Final = sqlite3.sqlite_version_info >= (3, 30)


def _only(condition: str, aggregate: str, value: str) -> str:
    """The aggregate over the rows for which the condition holds. With a filter, no other row costs a step."""
    if _HAS_FILTER:
        return f"{aggregate}({value}) FILTER (WHERE {condition})"
    return f"{aggregate}(CASE WHEN {condition} THEN {value} END)"


def _microseconds(seconds: str) -> str:
    return f"CAST({seconds} * 1e6 + 0.5 AS INTEGER)"


_SUMS: Final = (
    "sum(final)",
    "count(*)",
    _only("outcome IN ('failed', 'interrupted')", "count", "1"),
    _only("final AND cost IS NULL", "count", "1"),
    "sum(estimated)",
    "sum(final AND cached)",
    "sum(final AND overridden)",
    _only("final", "count", "override_saved"),
    *(f"sum({bucket})" for bucket in TokenCounts._fields),
    "count(*) - count(cost)",
    *(_only("cost IS NULL", "sum", bucket) for bucket in TokenCounts._fields),
    _only("queue > 0", "sum", _microseconds("queue")),
    _only(f"load >= {LEAST_LOAD}", "count", "1"),
    _only(f"load >= {LEAST_LOAD}", "sum", _microseconds("load")),
    _only("outcome = 'ok'", "count", "latency"),
)
_LATENCIES: Final = _only("outcome = 'ok'", "group_concat", _microseconds("latency"))


def _amounts(aggregate: str) -> Sequence[str]:
    """Of cost, of the estimated part of it, and of what overrides saved."""
    estimated, saved = _only("estimated", aggregate, "cost"), _only("final", aggregate, "override_saved")
    return f"{aggregate}(cost)", estimated, saved


_QUICKLY: Final = _amounts("sum")
"""The sums of amounts that are all whole numbers. If one is a text, the sum is a float."""
_EXACTLY: Final = _amounts("json_group_array")
"""All amounts, for Python to sum up."""


def sums(
    connections: Sequence[sqlite3.Connection],
    start: datetime,
    end: datetime,
    by: Sequence[str],
    tiers: Sequence[Lengths],
) -> dict[Key, Tally]:
    """Sums over the rows started in [start, end), per value of `by`.

    The rows are read in parts, with one thread per connection.
    """
    free = SimpleQueue[sqlite3.Connection]()
    first, *others = connections

    def read(part: tuple[int, int]) -> Iterable[Sequence[Any]]:
        connection = free.get()
        try:
            return _read(connection, by, tiers, part)
        finally:
            free.put(connection)

    for connection in others:
        free.put(connection)
    threads = ThreadPoolExecutor(len(connections))
    try:
        with without_gc():
            found = threads.map(read, _parts(first, *bounds(start, end), within_days="day" in by))
            free.put(first)
            return grouped(chain.from_iterable(found), by, tiers)
    finally:
        threads.shutdown(cancel_futures=True)  # after an interrupt, the other parts are not read


def _parts(
    connection: sqlite3.Connection, start: int, end: int, *, within_days: bool
) -> Iterator[tuple[int, int]]:
    """Spans of at most `AT_ONCE` rows each. `within_days`: none has rows of two days, so that SQL need not
    group by day."""
    first = f"SELECT started_ns {SPAN} ORDER BY started_ns LIMIT 1"
    while found := connection.execute(first, (start, end)).fetchone():
        (start,) = found
        last = min(end, (start // _DAY + 1) * _DAY) if within_days else end
        found = connection.execute(f"{first} OFFSET {AT_ONCE}", (start, last)).fetchone()
        border = last if found is None else found[0]
        yield start, border
        start = border


def _read(
    connection: sqlite3.Connection, by: Sequence[str], tiers: Sequence[Lengths], part: tuple[int, int]
) -> Iterable[Sequence[Any]]:
    """The groups of a part, as `grouped` takes them."""
    groups = [*(f'"{name}"' for name in by if name != "day"), tier_of(tiers)]
    found, microseconds = _columns(connection, groups, _QUICKLY, part)
    if any(float in map(type, amounts) for amounts in found[-len(_QUICKLY) :]):
        found, microseconds = _columns(connection, groups, _EXACTLY, part)
    *columns, answered, cost, estimated_cost, override_saved = found
    latencies = array("q", microseconds)
    ends = accumulate(answered)
    each = (latencies[end - count : end] for end, count in zip(ends, answered, strict=True))
    amounts = (map(_usd, column) for column in (cost, estimated_cost, override_saved))
    if "day" in by:
        day = date.fromordinal(_FIRST_DAY + part[0] // _DAY).isoformat()
        columns.insert(by.index("day"), [day] * len(answered))
    return zip(*columns, each, *amounts, strict=True)


def _columns(
    connection: sqlite3.Connection, groups: Sequence[str], amounts: Sequence[str], part: tuple[int, int]
) -> tuple[list[list[Any]], list[int]]:
    """The groups of a part, as columns, and their latencies one after the other.

    They come as one text. If each group were a row, sqlite3 would need Python's lock after each of them, and
    could wait 5 ms for it each time.
    """
    columns = [*groups, *_SUMS, *amounts]
    inner = ", ".join(f"{column} AS c{i}" for i, column in enumerate(columns))
    outer = ", ".join(f"json_group_array(c{i})" for i in range(len(columns)))
    inner = f"SELECT {inner}, {_LATENCIES} AS latencies {SPAN} GROUP BY {', '.join(groups)}"
    try:
        query = f"SELECT json_array({outer}), group_concat(latencies) FROM ({inner})"
        found, latencies = connection.execute(query, part).fetchone()
    except sqlite3.OperationalError as error:
        if amounts is _EXACTLY or str(error) != "integer overflow":  # more than 9 million USD
            raise
        return _columns(connection, groups, _EXACTLY, part)
    return from_json(found), from_json(f"[{latencies or ''}]")


def tier_of(tiers: Sequence[Lengths]) -> str:
    """The number of a row's tier, in SQL."""
    limits = "".join(f"WHEN {_PROMPT} <= {each.longest} THEN {i} " for i, each in enumerate(tiers[:-1]))
    return f"CASE {limits}ELSE {len(tiers) - 1} END" if limits else "NULL"


def grouped(lines: Iterable[Sequence[Any]], by: Sequence[str], tiers: Sequence[Lengths]) -> dict[Key, Tally]:
    """Sums per key. Each line has these values: the parts that `by` names, the tier, `_SUMS` with the
    latencies in place of their number, and the amounts in USD."""
    names, key = len(by), keys_of(by)
    found = combined((line[:names], _tally(line[names:], tiers)) for line in lines)
    return {key(group): tally for group, tally in found.items()}


def _tally(found: Sequence[Any], tiers: Sequence[Lengths]) -> Tally:
    tier, requests, attempts, failures, unknown, estimated, cache_hits, overrides, overrides_known = found[:9]
    used, unpriced, used_unpriced = found[9:15], found[15], found[16:22]
    wait, loads, load_time, latencies, cost, estimated_cost, override_saved = found[22:]
    tokens, known = dict[Lengths | None, TokenCounts](), TokenCounts._make(used)
    if unpriced:
        tokens[None] = TokenCounts._make(used_unpriced)
        known = known.minus(tokens[None])
    if unpriced < attempts:
        tokens[tiers[tier or 0]] = known
    return Tally(
        requests,
        attempts,
        failures,
        unknown,
        estimated,
        cache_hits,
        overrides,
        overrides_known,
        cost,
        estimated_cost,
        override_saved,
        tokens,
        array("q", latencies or ()),
        {},
        wait or 0,
        loads,
        load_time or 0,
    )


def _usd(stored: int | str | None) -> Decimal:
    """A sum of amounts, or a list of them as JSON, as columns have them."""
    if isinstance(stored, str):
        return total_usd(amount_of(amount) for amount in from_json(stored) if amount is not None)
    return NOTHING if stored is None else amount_of(stored)
