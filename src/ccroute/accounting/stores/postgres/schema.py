"""The table in PostgreSQL: its migrations, and its rows and sums in the form of the SQLite ledger.

Knows SQL; must not connect, nor know when to ship.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from psycopg import Connection, sql

from ccroute.accounting.row import Key, LedgerRow
from ccroute.accounting.stores.sqlite.columns import PLACES, ledger_row
from ccroute.accounting.stores.sqlite.sums import grouped, tier_of
from ccroute.accounting.tally import Lengths, Tally, TokenCounts
from ccroute.types.route import LEAST_LOAD

TABLE: Final = "ccroute_attempts"
VERSIONS: Final = "ccroute_migrations"
MIGRATIONS: Final = (
    f"""
CREATE TABLE {TABLE} (
    id               text COLLATE "C" PRIMARY KEY,
    call             text NOT NULL,
    started          timestamptz NOT NULL,
    agent            text,
    "group"          text,
    session          text,
    requested_model  text,
    alias            text NOT NULL,
    backend          text NOT NULL,
    deployment       text NOT NULL,
    model            text NOT NULL,
    outcome          text NOT NULL,
    failure          text,
    status           bigint,
    input            bigint NOT NULL,
    cache_read       bigint NOT NULL,
    cache_write_5m   bigint NOT NULL,
    cache_write_1h   bigint NOT NULL,
    output           bigint NOT NULL,
    reasoning        bigint NOT NULL,
    estimated        boolean NOT NULL,
    cost             numeric,
    overridden       boolean NOT NULL,
    fallback         boolean NOT NULL,
    duration         double precision NOT NULL,
    first_content    double precision,
    final            boolean NOT NULL,
    cached           boolean NOT NULL,
    latency          double precision,
    override_saved   numeric,
    metadata         jsonb NOT NULL DEFAULT '{{}}',
    price_source     text,
    queue            double precision NOT NULL DEFAULT 0,
    load             double precision,
    version          text
);
CREATE INDEX {TABLE}_started ON {TABLE} (started);
COMMENT ON TABLE {TABLE} IS 'ccroute: a row for each attempt of a call; USD, seconds';
COMMENT ON COLUMN {TABLE}.call IS 'the call that the attempt belongs to';
COMMENT ON COLUMN {TABLE}.input IS 'tokens of the prompt that came from no cache';
COMMENT ON COLUMN {TABLE}.reasoning IS 'tokens; a part of output';
COMMENT ON COLUMN {TABLE}.estimated IS 'whether the tokens are estimated';
COMMENT ON COLUMN {TABLE}.cost IS 'USD; NULL: the price is unknown';
COMMENT ON COLUMN {TABLE}.final IS 'whether the attempt decided its call: one of each call does';
COMMENT ON COLUMN {TABLE}.latency IS 'seconds of the whole call, in its final attempt';
COMMENT ON COLUMN {TABLE}.override_saved IS 'USD: what the requested model would have cost, less cost';
""",
)
"""The SQL from each version to the next. It may only add columns with a default, so that an older ccroute on
another machine can still write."""

_MAKE_VERSIONS: Final = f"""
CREATE TABLE IF NOT EXISTS {VERSIONS} (
    version integer PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
);
"""
_MIGRATE_LOCK: Final = 0x6363727400000000  # "ccrt"
"""The advisory lock for changes of the table."""

_JSON_TYPES: Final = {
    name: type
    for type, names in (
        ("bigint", "started"),
        (
            "text",
            "id call agent group session requested_model alias backend deployment model outcome failure",
        ),
        ("bigint", "status input cache_read cache_write_5m cache_write_1h output reasoning"),
        ("integer", "estimated"),
        ("numeric", "cost"),
        ("integer", "overridden fallback"),
        ("double precision", "duration first_content"),
        ("integer", "final cached"),
        ("double precision", "latency"),
        ("numeric", "override_saved"),
        ("text", "metadata price_source"),
        ("double precision", "queue load"),
        ("text", "version"),
    )
    for name in names.split()
}
"""The columns of the journal, in its order, with the type as which PostgreSQL reads them from JSON."""
_NAMES: Final = tuple(_JSON_TYPES)
_METADATA: Final = _NAMES.index("metadata")
_AMOUNTS: Final = [name for name, type in _JSON_TYPES.items() if type == "numeric"]
_FROM_JOURNAL: Final = {
    "started": "timestamptz 'epoch' + started / 1000000 * interval '1 second'"
    " + mod(started, 1000000) * interval '1 microsecond'",
    "metadata": "coalesce(metadata::jsonb, '{}')",
    **{name: f"{name} = 1" for name, type in _JSON_TYPES.items() if type == "integer"},
    **{name: f"trim_scale({name})" for name in _AMOUNTS},
}
_TO_JOURNAL: Final = {
    "started": "(extract(epoch FROM started) * 1000000)::bigint",
    "metadata": "metadata::text",
    **{name: f"{name}::text" for name in _AMOUNTS},
}


def _listed(columns: Mapping[str, str]) -> str:
    """The columns in SQL: the text in `columns`, or else the name."""
    return ", ".join(columns.get(name, f'"{name}"') for name in _NAMES)


INSERT: Final = f"""
INSERT INTO {TABLE} ({_listed({})})
SELECT {_listed(_FROM_JOURNAL)}
FROM json_to_recordset(%s::json) AS row ({_listed({k: f'"{k}" {type}' for k, type in _JSON_TYPES.items()})})
ON CONFLICT (id) DO NOTHING
""".encode()
"""Inserts rows. Its argument comes from `as_json`."""
LOCK: Final = """
SELECT pg_try_advisory_xact_lock(%s),
    set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true),
    set_config('lock_timeout', regexp_replace(current_setting('lock_timeout'), '^0$', '30s'), true)
"""
"""Takes the lock of the journal with that number, and says whether it got it: only one process may ship from
a journal. Then a commit waits for the server's disk, because the journal removes the rows, and a locked table
is an error after some time."""


def prepare(connection: Connection[Any]) -> None:
    """Make the table, or bring it to this version. Other processes may do so at the same time.

    Raises `psycopg.Error`; `errors.InsufficientPrivilege` if the role has no right to do so: then the owner
    has to run `script`.
    """
    if version(connection) >= len(MIGRATIONS):
        return
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '5s'")  # a report may hold the table for long
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATE_LOCK])
        # In this transaction, it sees what another process has just made.
        connection.execute(_MAKE_VERSIONS.encode())
        connection.execute(_steps(version(connection)).encode())


def version(connection: Connection[Any]) -> int:
    """The version of the table, 0 if there is none."""
    if connection.execute("SELECT to_regclass(%s)", [VERSIONS]).fetchone() == (None,):
        return 0
    found = connection.execute(f"SELECT max(version) FROM {VERSIONS}").fetchone()
    return 0 if found is None or found[0] is None else int(found[0])


def script(connection: Connection[Any]) -> str:
    """The SQL that the owner has to run if the role may not make the table."""
    role = sql.Identifier(connection.info.user).as_string(connection)
    grants = f"GRANT SELECT, INSERT ON {TABLE} TO {role};\nGRANT SELECT ON {VERSIONS} TO {role};"
    return f"BEGIN;{_MAKE_VERSIONS}{_steps(version(connection))}{grants}\nCOMMIT;"


def _steps(version: int) -> str:
    steps = ""
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        steps += f"{migration}INSERT INTO {VERSIONS} (version) VALUES ({number});\n"
    return steps


def as_json(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of the journal, as `INSERT` takes them."""
    return f"[{','.join(map(_json, rows))}]"  # one by one, so that other threads run in between


def _json(row: Sequence[Any]) -> str:
    named = dict(zip(_NAMES, row, strict=False))
    for name in _AMOUNTS:
        named[name] = _amount(named[name])
    return json.dumps(named)


def _amount(stored: int | str | None) -> str | None:
    return f"{stored}e-{PLACES}" if isinstance(stored, int) else stored


def cleaned(row: Sequence[Any]) -> list[Any]:
    """A row of the journal without the values that PostgreSQL refuses: the character NUL, lone surrogates,
    and NaN and infinity in metadata."""
    clean = list(map(_clean, row))
    if row[_METADATA]:
        clean[_METADATA] = json.dumps(_clean(json.loads(row[_METADATA])))
    return clean


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list) else value


_NOT_TWICE: Final = " AND NOT EXISTS (SELECT FROM unnest(%s::text[]) AS twice WHERE twice = id)"
_TWICE: Final = f"SELECT id FROM {TABLE} WHERE id = ANY(%s)".encode()
_SPAN: Final = f" FROM {TABLE} WHERE started >= %s AND started < %s"
_ROWS: Final = f"SELECT {_listed(_TO_JOURNAL)}{_SPAN} ORDER BY started, id".encode()


def rows(connection: Connection[Any], start: datetime, end: datetime) -> list[LedgerRow]:
    """The rows started in [start, end), oldest first."""
    return list(map(ledger_row, connection.execute(_ROWS, [start, end]))) if version(connection) else []


def _microseconds(seconds: str) -> str:
    return f"floor({seconds} * 1e6 + 0.5)::bigint"


_TOKENS: Final = [f'sum("{bucket}")' for bucket in TokenCounts._fields]
_SUMS: Final = (
    "count(*) FILTER (WHERE final)",
    "count(*)",
    "count(*) FILTER (WHERE outcome IN ('failed', 'interrupted'))",
    "count(*) FILTER (WHERE final AND cost IS NULL)",
    "count(*) FILTER (WHERE estimated)",
    "count(*) FILTER (WHERE final AND cached)",
    "count(*) FILTER (WHERE final AND overridden)",
    "count(override_saved) FILTER (WHERE final)",
    *(f"{tokens}::bigint" for tokens in _TOKENS),
    "count(*) FILTER (WHERE cost IS NULL)",
    *(f"({tokens} FILTER (WHERE cost IS NULL))::bigint" for tokens in _TOKENS),
    f"sum({_microseconds('queue')})::bigint",
    f"count(*) FILTER (WHERE load >= {LEAST_LOAD})",
    f"(sum({_microseconds('load')}) FILTER (WHERE load >= {LEAST_LOAD}))::bigint",
    f"array_agg({_microseconds('latency')}) FILTER (WHERE outcome = 'ok' AND latency IS NOT NULL)",
    "coalesce(sum(cost), 0)",
    "coalesce(sum(cost) FILTER (WHERE estimated), 0)",
    "coalesce(sum(override_saved) FILTER (WHERE final), 0)",
)
"""As `grouped` takes them."""
_PARTS: Final = {"group": '"group"', "day": "(started AT TIME ZONE 'UTC')::date"}
"""The parts of a key in SQL, if that is not the name of the part."""


def sums(
    connection: Connection[Any],
    start: datetime,
    end: datetime,
    by: Sequence[str],
    tiers: Sequence[Lengths],
    without: Sequence[str],
) -> dict[Key, Tally]:
    """Sums over the rows started in [start, end), per value of `by`. `without`: ids of rows to leave out."""
    if not version(connection):
        return {}
    groups = [*(_PARTS.get(name, name) for name in by), tier_of(tiers)]
    places = ", ".join(str(i + 1) for i in range(len(groups)))
    twice = [id for (id,) in connection.execute(_TWICE, [without])] if without else []
    query = f"SELECT {', '.join([*groups, *_SUMS])}{_SPAN}"
    query += f"{_NOT_TWICE if twice else ''} GROUP BY {places}"
    arguments = [start, end, *([twice] if twice else [])]
    with connection.cursor(binary=True) as cursor:
        found = grouped(cursor.execute(query.encode(), arguments), by, tiers)
    return {key._replace(day=str(key.day)): tally for key, tally in found.items()}
