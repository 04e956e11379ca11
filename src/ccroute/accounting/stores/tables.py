"""The tables of an SQLite ledger, version by version.

Knows SQL; must not open files.
"""

from __future__ import annotations

from typing import Final

APPLICATION: Final = 0x63637274  # "ccrt"

_COLUMNS: Final = """
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
"""
_SECOND: Final = """
    price_source     TEXT,
    queue            REAL NOT NULL DEFAULT 0,  -- seconds
    load             REAL,                     -- seconds
    version          TEXT,                     -- of ccroute
"""

# A table of its own key is written a third faster than one without rowid, whose pages are split in three.
MIGRATIONS: Final = (
    (f"CREATE TABLE attempts ({_COLUMNS} PRIMARY KEY (started, id)) WITHOUT ROWID",),
    (
        "ALTER TABLE attempts ADD COLUMN price_source TEXT",
        "ALTER TABLE attempts ADD COLUMN queue REAL NOT NULL DEFAULT 0",
        "ALTER TABLE attempts ADD COLUMN load REAL",
        "ALTER TABLE attempts ADD COLUMN version TEXT",
    ),
    (
        "ALTER TABLE attempts RENAME TO old_attempts",
        f"""
        CREATE TABLE attempts ({_COLUMNS} {_SECOND}
            started_ns       INTEGER PRIMARY KEY  -- started, with three digits more that make it unique
        )
        """,
        "INSERT INTO attempts SELECT *, next_ns(started) FROM old_attempts ORDER BY started, id",
        "DROP TABLE old_attempts",
    ),
)
"""The statements that lead from each version to the next; the first one makes version 1. `next_ns` gives the
least number that is free, for rows in the order of `started`."""

_NUMBERED: Final = "started * 1000 AS started_ns"
OLD: Final = (
    f"SELECT *, NULL AS price_source, 0.0 AS queue, NULL AS load, NULL AS version, {_NUMBERED}",
    f"SELECT *, {_NUMBERED}",
)
"""What makes the columns of this version, for a reader who may not change a file of version 1 or 2."""
