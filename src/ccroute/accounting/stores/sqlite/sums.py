"""Sums over the rows of an SQLite ledger, in SQL.

Knows the table's columns; must not open files.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from itertools import chain, pairwise
from queue import SimpleQueue
from typing import Any, Final

from ccroute.accounting.prices import NOTHING
from ccroute.accounting.stores.sqlite.schema import SPAN, amount_of, bounds
from ccroute.accounting.tally import Key, Lengths, Tally, TokenCounts, combined, keys_of, total_usd

AT_ONCE: Final = 20_000
"""Rows that are summed up at once, about: SQLite sorts them, which is quick in a processor's cache."""
_DAY: Final = 86_400_000_000  # microseconds
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_PARTS: Final = {"group": '"group"', "day": f"started / {_DAY}"}
"""How the parts of a key are written in SQL, where it is not their name."""
_PROMPT: Final = "input + cache_read + cache_write_5m + cache_write_1h"
_SUMS: Final = (
    "sum(final)",
    "count(*)",
    "sum(outcome IN ('failed', 'interrupted'))",
    "count(CASE WHEN cost IS NULL AND final THEN 1 END)",
    "sum(estimated)",
    "sum(final AND cached)",
    "sum(final AND overridden)",
    "count(CASE WHEN final THEN override_saved END)",
    *(f"sum({bucket})" for bucket in TokenCounts._fields),
    "count(*) - count(cost)",
    *(f"sum(CASE WHEN cost IS NULL THEN {bucket} ELSE 0 END)" for bucket in TokenCounts._fields),
    "group_concat(CASE WHEN outcome = 'ok' THEN CAST(latency * 1e6 + 0.5 AS INTEGER) END)",
)
_AMOUNTS: Final = ("cost", "CASE WHEN estimated THEN cost END", "CASE WHEN final THEN override_saved END")
_QUICKLY: Final = tuple(f"sum({amount})" for amount in _AMOUNTS)
"""The amounts, where all of them are whole numbers: with a text, the sum is a float."""
_EXACTLY: Final = tuple(f"json_group_array({amount})" for amount in _AMOUNTS)
"""All amounts, for Python to sum up."""


def sums(
    connections: Sequence[sqlite3.Connection],
    start: datetime,
    end: datetime,
    by: Sequence[str],
    tiers: Sequence[Lengths],
) -> dict[Key, Tally]:
    """Sums over the rows started in [start, end), per value of `by`.

    The rows are read in parts, with each connection in a thread of its own.
    """
    free = SimpleQueue[sqlite3.Connection]()
    for connection in connections:
        free.put(connection)

    def read(part: tuple[int, int]) -> Iterable[Sequence[Any]]:
        connection = free.get()
        try:
            return _read(connection, by, tiers, part)
        finally:
            free.put(connection)

    parts = list(pairwise(_borders(connections[0], *bounds(start, end))))
    with ThreadPoolExecutor(len(connections)) as threads:
        return grouped(chain.from_iterable(threads.map(read, parts)), by, tiers)


def _borders(connection: sqlite3.Connection, start: int, end: int) -> list[int]:
    """The moments between which there are about `AT_ONCE` rows each."""
    borders = [start]
    query = f"SELECT started_ns {SPAN} ORDER BY started_ns LIMIT 1 OFFSET {AT_ONCE}"
    while found := connection.execute(query, (borders[-1], end)).fetchone():
        borders += found
    return [*borders, end]


def _read(
    connection: sqlite3.Connection, by: Sequence[str], tiers: Sequence[Lengths], part: tuple[int, int]
) -> Iterable[Sequence[Any]]:
    """The groups of a part, as `grouped` takes them."""
    groups = [*(_PARTS.get(name, name) for name in by), tier_of(tiers)]
    found = _columns(connection, groups, _QUICKLY, part)
    if found is None or any(float in map(type, amounts) for amounts in found[-len(_AMOUNTS) :]):
        found = _columns(connection, groups, _EXACTLY, part) or []
    *columns, latencies, cost, estimated_cost, override_saved = found
    microseconds = (text and map(int, text.split(",")) for text in latencies)
    amounts = (map(_usd, each) for each in (cost, estimated_cost, override_saved))
    return zip(*columns, microseconds, *amounts, strict=True)


def _columns(
    connection: sqlite3.Connection, groups: Sequence[str], amounts: Sequence[str], part: tuple[int, int]
) -> list[list[Any]] | None:
    """The groups of a part, as columns. None if a sum is too large: more than 9 million USD.

    They come as one text. With a row for each group, sqlite3 would wait after each for the thread that runs
    Python just then, for 5 ms.
    """
    columns = [*groups, *_SUMS, *amounts]
    inner = ", ".join(f"{column} AS c{i}" for i, column in enumerate(columns))
    outer = ", ".join(f"json_group_array(c{i})" for i in range(len(columns)))
    query = f"SELECT json_array({outer}) FROM (SELECT {inner} {SPAN} GROUP BY {', '.join(groups)})"  # noqa: S608
    try:
        (text,) = connection.execute(query, part).fetchone()
    except sqlite3.OperationalError as error:
        if str(error) != "integer overflow":
            raise
        return None
    found: list[list[Any]] = json.loads(text)
    return found


def tier_of(tiers: Sequence[Lengths]) -> str:
    """The number of a row's tier, in SQL."""
    limits = "".join(f"WHEN {_PROMPT} <= {each.longest} THEN {i} " for i, each in enumerate(tiers[:-1]))
    return f"CASE {limits}ELSE {len(tiers) - 1} END" if limits else "NULL"


def grouped(lines: Iterable[Sequence[Any]], by: Sequence[str], tiers: Sequence[Lengths]) -> dict[Key, Tally]:
    """Sums per key. A line has what SQL summed up: the parts that `by` names, the tier, then as `_SUMS`, and
    the amounts in USD."""
    names, day, key = len(by), by.index("day") if "day" in by else None, keys_of(by)
    found = combined((line[:names], _tally(line[names:], tiers)) for line in lines)
    if day is None:
        return {key(group): tally for group, tally in found.items()}
    return {key((*group[:day], _day(group[day]), *group[day + 1 :])): each for group, each in found.items()}


@cache
def _day(number: int) -> str:
    """The day that is so many days after the first of 1970."""
    return date.fromordinal(_FIRST_DAY + number).isoformat()


def _tally(found: Sequence[Any], tiers: Sequence[Lengths]) -> Tally:
    tier, requests, attempts, failures, unknown, estimated, cache_hits, overrides, overrides_known = found[:9]
    used, unpriced, microseconds, cost, estimated_cost, override_saved = found[9:15], found[15], *found[22:]
    tokens, known = dict[Lengths | None, TokenCounts](), TokenCounts._make(used)
    if unpriced:
        tokens[None] = TokenCounts._make(found[16:22])
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
        array("q", microseconds or ()),
    )


def _usd(stored: int | str | None) -> Decimal:
    """A sum of amounts, or a list of them as JSON, as columns have them."""
    if isinstance(stored, str):
        return total_usd(amount_of(amount) for amount in json.loads(stored) if amount is not None)
    return NOTHING if stored is None else amount_of(stored)
