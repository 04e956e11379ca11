"""Sums over the rows in PostgreSQL, in SQL.

Knows the table's columns; must not connect.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from ccroute.accounting.stores.postgres.schema import SPAN, TABLE, version
from ccroute.accounting.stores.sums import tallies_of, tier_of
from ccroute.accounting.tally import Key, Lengths, Tally

_SUMS: Final = """
    count(*) FILTER (WHERE final), count(*), count(*) FILTER (WHERE outcome IN ('failed', 'interrupted')),
    count(*) FILTER (WHERE estimated), count(*) FILTER (WHERE final AND cached),
    count(*) FILTER (WHERE final AND overridden), count(override_saved) FILTER (WHERE final),
    coalesce(array_agg(latency) FILTER (WHERE outcome = 'ok' AND latency IS NOT NULL), '{}'),
    sum(input)::bigint, sum(cache_read)::bigint, sum(cache_write_5m)::bigint, sum(cache_write_1h)::bigint,
    sum(output)::bigint, sum(reasoning)::bigint,
    NULL, sum(cost)::text, NULL, (sum(cost) FILTER (WHERE estimated))::text,
    NULL, (sum(override_saved) FILTER (WHERE final))::text
"""
"""As SQLite's sums; amounts are texts."""
_PARTS: Final = {"group": '"group"', "day": "(started AT TIME ZONE 'UTC')::date - date '1970-01-01'"}
"""How the parts of a key are written in SQL, where it is not their name."""
_TWICE: Final = f"SELECT id FROM {TABLE} WHERE id = ANY(%s)".encode()  # noqa: S608
_NOT_TWICE: Final = "AND NOT EXISTS (SELECT FROM unnest(%s::text[]) AS twice WHERE twice = id)"


def sums(
    connection: Connection[Any],
    start: datetime,
    end: datetime,
    by: Sequence[str],
    tiers: Sequence[Lengths],
    without: Sequence[str],
) -> dict[Key, Tally]:
    """Sums over the rows started in [start, end), but for the ids `without`, per value of `by`."""
    if not version(connection):
        return {}
    twice = [id for (id,) in connection.execute(_TWICE, [without])] if without else []
    parts = "".join(f"{_PARTS.get(name, name)}, " for name in by) + tier_of(tiers)
    groups = ", ".join(str(i + 1) for i in range(len(by) + 1))
    query = f"SELECT {parts}, {_SUMS} {SPAN} {_NOT_TWICE if twice else ''} GROUP BY {groups}"
    with connection.cursor(binary=True) as cursor:
        found = cursor.execute(query.encode(), [start, end, *([twice] if twice else [])])
        return tallies_of(map(list, found), by, tiers)
