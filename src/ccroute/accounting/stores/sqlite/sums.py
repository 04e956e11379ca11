"""Sums over the rows of an SQLite ledger, in SQL.

Knows the table's columns; must not open files.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, Final

from ccroute.accounting.stores.sqlite.schema import SPAN, amount_of, bounds
from ccroute.accounting.tally import EXACT, Key, Lengths, Tally, TokenCounts, keys_of, total_usd

AT_ONCE: Final = 20_000
"""Rows that are summed up at once, about: SQLite sorts them, which is quick in a processor's cache."""
_DAY: Final = 86_400_000_000  # microseconds
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_PARTS: Final = {"group": '"group"', "day": f"started / {_DAY}"}
"""How the parts of a key are written in SQL, where it is not their name."""
UNPRICED: Final = -1
"""Instead of a tier's number."""
_PROMPT: Final = "input + cache_read + cache_write_5m + cache_write_1h"
_COUNTS: Final = (
    "sum(final)",
    "count(*)",
    "sum(outcome IN ('failed', 'interrupted'))",
    "sum(estimated)",
    "sum(final AND cached)",
    "sum(final AND overridden)",
    "count(CASE WHEN final THEN override_saved END)",
    "group_concat(CASE WHEN outcome = 'ok' THEN CAST(latency * 1e6 + 0.5 AS INTEGER) END)",
    *(f"sum({bucket})" for bucket in TokenCounts._fields),
)
_LATENCIES: Final = 7
"""The place of the latencies in these."""
_AMOUNTS: Final = ("cost", "CASE WHEN estimated THEN cost END", "CASE WHEN final THEN override_saved END")
_QUICKLY: Final = [column for each in _AMOUNTS for column in (f"sum({each})", "NULL")]
"""The amounts, where all of them are whole numbers: with a text, the sum is a float."""
_EXACTLY: Final = [
    f"group_concat(CASE WHEN typeof({each}) = '{kind}' THEN {each} END)"
    for each in map("({})".format, _AMOUNTS)
    for kind in ("integer", "text")
]
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

    def read(part: tuple[int, int]) -> list[Iterable[Any]]:
        connection = free.get()
        try:
            return _read(connection, by, tiers, part)
        finally:
            free.put(connection)

    parts = list(pairwise(_borders(connections[0], *bounds(start, end))))
    groups, names = defaultdict[tuple[Any, ...], Tally](Tally), len(by)
    with ThreadPoolExecutor(len(connections)) as threads:
        for columns in threads.map(read, parts):
            for found in zip(*columns, strict=True):
                _add(groups[found[:names]], tiers, found[names:])
    key = keys_of(by)
    return {key(group): tally for group, tally in groups.items()}


def _borders(connection: sqlite3.Connection, start: int, end: int) -> list[int]:
    """The moments between which there are about `AT_ONCE` rows each."""
    borders = [start]
    query = f"SELECT started_ns {SPAN} ORDER BY started_ns LIMIT 1 OFFSET {AT_ONCE}"
    while found := connection.execute(query, (borders[-1], end)).fetchone():
        borders += found
    return [*borders, end]


def _read(
    connection: sqlite3.Connection, by: Sequence[str], tiers: Sequence[Lengths], part: tuple[int, int]
) -> list[Iterable[Any]]:
    """The groups of a part, as columns: `by`, the tier, `_COUNTS` and `_AMOUNTS`."""
    groups = [*(_PARTS.get(name, name) for name in by), tier_of(tiers)]
    columns: list[Any]
    try:
        columns = _columns(connection, groups, _QUICKLY, part)
        is_exact = all(float not in map(type, column) for column in columns[-len(_QUICKLY) :])
    except sqlite3.OperationalError as error:
        if str(error) != "integer overflow":  # more than 9 million USD
            raise
        is_exact = False
    if not is_exact:
        columns = _columns(connection, groups, _EXACTLY, part)
    for i, name in enumerate(by):
        if name == "day":
            columns[i] = map(day_of, columns[i])
    texts = columns[len(groups) + _LATENCIES]
    columns[len(groups) + _LATENCIES] = (text and map(int, text.split(",")) for text in texts)
    return columns


def _columns(
    connection: sqlite3.Connection, groups: Sequence[str], amounts: Sequence[str], part: tuple[int, int]
) -> list[Any]:
    """The groups of a part, as columns.

    They come as one text. With a row for each group, sqlite3 would wait after each for the thread that runs
    Python just then, for 5 ms.
    """
    columns = [*groups, *_COUNTS, *amounts]
    inner = ", ".join(f"{column} AS c{i}" for i, column in enumerate(columns))
    outer = ", ".join(f"json_group_array(c{i})" for i in range(len(columns)))
    query = f"SELECT json_array({outer}) FROM (SELECT {inner} {SPAN} GROUP BY {', '.join(groups)})"  # noqa: S608
    (text,) = connection.execute(query, part).fetchone()
    found: list[Any] = json.loads(text)
    return found


def tier_of(tiers: Sequence[Lengths]) -> str:
    """The number of a row's tier, in SQL."""
    limits = "".join(f" WHEN {_PROMPT} <= {each.longest} THEN {i}" for i, each in enumerate(tiers[:-1]))
    return f"CASE WHEN cost IS NULL THEN {UNPRICED}{limits} ELSE {len(tiers) - 1} END"


@cache
def day_of(number: int) -> str:
    """The day that is so many days after the first of 1970."""
    return date.fromordinal(_FIRST_DAY + number).isoformat()


def _add(tally: Tally, tiers: Sequence[Lengths], found: Sequence[Any]) -> None:
    """Add what SQL summed up."""
    add_counts(tally, tiers, found[:15])
    cost, costs, estimated_cost, estimated_costs, saved, all_saved = found[15:]
    tally.cost = _plus(tally.cost, cost, costs)
    tally.estimated_cost = _plus(tally.estimated_cost, estimated_cost, estimated_costs)
    tally.override_saved = _plus(tally.override_saved, saved, all_saved)


def add_counts(tally: Tally, tiers: Sequence[Lengths], found: Sequence[Any]) -> None:
    """Add the counts of a group: its tier, those of `_SUMS`, and its latencies, which may be None."""
    tier, requests, attempts, failures, estimated, cache_hits, overrides, overrides_known, latencies = found[
        :9
    ]
    tally.requests += requests
    tally.attempts += attempts
    tally.failures += failures
    tally.estimated += estimated
    tally.cache_hits += cache_hits
    tally.overrides += overrides
    tally.overrides_known += overrides_known
    tokens = TokenCounts._make(found[9:15])
    if tier == UNPRICED:
        tally.unknown_cost_requests += requests
    tally.add_tokens(None if tier == UNPRICED else tiers[tier], tokens)
    tally.latencies.extend(latencies or ())


def _plus(total: Decimal, whole: int | str | None, texts: str | None) -> Decimal:
    """`total` and amounts as columns have them: a sum of whole numbers, or these themselves, and texts."""
    if isinstance(whole, str):
        whole = sum(map(int, whole.split(",")))
    if whole:
        total = EXACT.add(total, amount_of(whole)) if total else amount_of(whole)
    return total_usd([total, *map(Decimal, texts.split(","))]) if texts else total
