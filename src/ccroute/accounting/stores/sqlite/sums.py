"""Sums over the rows of an SQLite ledger, in SQL.

Knows the table's columns; must not open files.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from functools import cache, partial
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
_SUMS: Final = """
    sum(final), count(*), sum(outcome IN ('failed', 'interrupted')), sum(estimated), sum(final AND cached),
    sum(final AND overridden), count(CASE WHEN final THEN override_saved END),
    json_group_array(latency) FILTER (WHERE outcome = 'ok' AND latency IS NOT NULL),
    sum(input), sum(cache_read), sum(cache_write_5m), sum(cache_write_1h), sum(output), sum(reasoning),
"""
_AMOUNTS: Final = ("cost", "CASE WHEN estimated THEN cost END", "CASE WHEN final THEN override_saved END")
_NUMBER, _TEXT = (
    "CASE WHEN typeof({0}) = 'integer' THEN {0} END",
    "CASE WHEN typeof({0}) = 'text' THEN {0} END",
)
_QUICKLY: Final = ", ".join(f"sum({each}), NULL" for each in _AMOUNTS)
"""The amounts, where all of them are whole numbers: with a text, the sum is a float."""
_EXACTLY: Final = ", ".join(
    f"group_concat({_NUMBER.format(f'({each})')}), group_concat({_TEXT.format(f'({each})')})"
    for each in _AMOUNTS
)
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

    def read(part: tuple[int, int]) -> list[list[Any]]:
        connection = free.get()
        try:
            return _read(connection, query, part)
        finally:
            free.put(connection)

    query = partial(_query, by, tiers)
    day = by.index("day") if "day" in by else None
    parts = list(pairwise(_borders(connections[0], *bounds(start, end))))
    groups = defaultdict[tuple[Any, ...], Tally](Tally)
    with ThreadPoolExecutor(len(connections)) as threads:
        for found in threads.map(read, parts):
            for line in found:
                if day is not None:
                    line[day] = day_of(line[day])
                _add(groups[tuple(line[: len(by)])], tiers, line[len(by) :])
    key = keys_of(by)
    return {key(group): tally for group, tally in groups.items()}


def _borders(connection: sqlite3.Connection, start: int, end: int) -> list[int]:
    """The moments between which there are about `AT_ONCE` rows each."""
    borders = [start]
    query = f"SELECT started_ns {SPAN} ORDER BY started_ns LIMIT 1 OFFSET {AT_ONCE}"
    while found := connection.execute(query, (borders[-1], end)).fetchone():
        borders += found
    return [*borders, end]


def _query(by: Sequence[str], tiers: Sequence[Lengths], amounts: str) -> str:
    parts = "".join(f"{_PARTS.get(name, name)}, " for name in by)
    tier = tier_of(tiers)
    groups = f"SELECT json_array({parts}{tier}, {_SUMS} {amounts}) AS line {SPAN} GROUP BY {parts}{tier}"
    return f"SELECT group_concat(line) FROM ({groups})"  # noqa: S608


def tier_of(tiers: Sequence[Lengths]) -> str:
    """The number of a row's tier, in SQL."""
    limits = "".join(f" WHEN {_PROMPT} <= {each.longest} THEN {i}" for i, each in enumerate(tiers[:-1]))
    return f"CASE WHEN cost IS NULL THEN {UNPRICED}{limits} ELSE {len(tiers) - 1} END"


def _read(
    connection: sqlite3.Connection, query: Callable[[str], str], part: tuple[int, int]
) -> list[list[Any]]:
    try:
        found = _lines(connection, query(_QUICKLY), part)
        if not any(float in map(type, line[-6:]) for line in found):
            return found
    except sqlite3.OperationalError as error:
        if str(error) != "integer overflow":  # more than 9 million USD
            raise
    return _lines(connection, query(_EXACTLY), part)


def _lines(connection: sqlite3.Connection, query: str, part: tuple[int, int]) -> list[list[Any]]:
    """The groups of a part. They come as one text: sqlite3 lets other threads run Python only between two
    rows, and would wait 5 ms for them after each of many."""
    (text,) = connection.execute(query, part).fetchone()
    return [] if text is None else json.loads(f"[{text}]")


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
    tally.latencies += latencies or ()


def _plus(total: Decimal, whole: int | str | None, texts: str | None) -> Decimal:
    """`total` and amounts as columns have them: a sum of whole numbers, or these themselves, and texts."""
    if isinstance(whole, str):
        whole = sum(map(int, whole.split(",")))
    if whole:
        total = EXACT.add(total, amount_of(whole)) if total else amount_of(whole)
    return total_usd([total, *map(Decimal, texts.split(","))]) if texts else total
