"""The tables of an SQLite ledger, version by version.

Knows SQL; must not open files.
"""

from __future__ import annotations

from typing import Final

APPLICATION: Final = 0x63637274  # "ccrt"
PROMPT: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
"""The columns whose sum is the length of a prompt, in tokens."""

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


def _belongs(row: str) -> str:
    """The accounts that a row or a reservation counts in, as a condition in SQL."""
    return f"""
        (session IS NULL AND kind = 'router' AND name = ''
        OR session IS NULL AND kind = 'agent' AND name = {row}.agent
        OR session IS NULL AND kind = 'group' AND name = {row}."group"
        OR session IS NULL AND kind = 'backend' AND name = {row}.backend
        OR session IS NULL AND kind = 'session' AND name = {row}.session
        OR session = {row}.session AND name = CASE kind WHEN 'router' THEN '' WHEN 'agent' THEN {row}.agent
            WHEN 'group' THEN {row}."group" WHEN 'backend' THEN {row}.backend END)
    """


def tokens(row: str = "") -> str:
    """The tokens of a row that count for a budget, in SQL; `row` ends with a dot."""
    return " + ".join(f"{row}{part}" for part in (*PROMPT, "output"))


def amount_of_text(cost: str) -> str:
    """A cost that is stored as text, as a whole number, rounded up, in SQL."""
    scaled = f"CAST({cost} AS REAL) * 1e12 * (1 + 1e-15)"
    return f"CASE WHEN {scaled} < 9e18 THEN CAST({scaled} AS INTEGER) + 1 ELSE {scaled} END"


def _amount(cost: str) -> str:
    """A cost as a number, 0 if it is unknown, in SQL."""
    return (
        f"CASE typeof({cost}) WHEN 'integer' THEN {cost} WHEN 'text' THEN {amount_of_text(cost)} ELSE 0 END"
    )


def _adds(row: str, sign: str, more: str = "") -> str:
    return f"""
        UPDATE accounts
        SET reserved_usd = reserved_usd {sign} {row}.usd,
            reserved_tokens = reserved_tokens {sign} {row}.tokens{more}
        WHERE {_belongs(row)}
    """


_ACCOUNTS: Final = (
    """
    CREATE TABLE accounts (              -- what is spent and reserved in a window
        kind             TEXT NOT NULL,  -- router, agent, group, backend or session
        name             TEXT NOT NULL,  -- of the agent, group and so on; '' for the router
        session          TEXT,           -- the only one that counts; NULL: all
        since            INTEGER NOT NULL,  -- as started_ns
        until            INTEGER NOT NULL,  -- the end of the window
        usd              NOT NULL,  -- as cost; a REAL above 9 million USD
        tokens           INTEGER NOT NULL,
        reserved_usd     NOT NULL,
        reserved_tokens  INTEGER NOT NULL,
        asked            INTEGER NOT NULL  -- when the latest reservation expires
    )
    """,
    "CREATE INDEX accounts_by_name ON accounts (kind, name, session, since)",
    "CREATE INDEX accounts_by_session ON accounts (session) WHERE session IS NOT NULL",
    """
    CREATE TABLE reservations (          -- what an attempt in flight may still cost
        attempt          TEXT PRIMARY KEY,  -- the id of its row
        agent            TEXT,
        "group"          TEXT,
        backend          TEXT,
        session          TEXT,
        usd              NOT NULL,
        tokens           INTEGER NOT NULL,
        process          TEXT NOT NULL,
        expires          INTEGER NOT NULL  -- when it ends if its process cannot be seen
    ) WITHOUT ROWID
    """,
    f"""
    CREATE TRIGGER reservation_made AFTER INSERT ON reservations BEGIN
        {_adds("NEW", "+", ", asked = max(asked, NEW.expires)")};
    END
    """,
    f"CREATE TRIGGER reservation_ended AFTER DELETE ON reservations BEGIN {_adds('OLD', '-')}; END",
    f"""
    CREATE TRIGGER reservation_changed AFTER UPDATE ON reservations BEGIN
        {_adds("OLD", "-")};
        {_adds("NEW", "+")};
    END
    """,
)

_SHIPPED: Final = (
    """
    CREATE TABLE shipped (               -- what the rows spent that were moved to PostgreSQL
        started_ns       INTEGER NOT NULL,  -- when a quarter of an hour began; windows begin with one
        agent            TEXT,
        "group"          TEXT,
        backend          TEXT NOT NULL,
        cost             INTEGER NOT NULL,  -- millionths of a millionth USD
        tokens           INTEGER NOT NULL
    )
    """,
    'CREATE UNIQUE INDEX shipped_by_names ON shipped (started_ns, quote(agent), quote("group"), backend)',
)

COUNT: Final = f"""
CREATE TRIGGER IF NOT EXISTS attempt_counted AFTER INSERT ON attempts BEGIN
    UPDATE accounts
    SET usd = usd + {_amount("NEW.cost")},
        tokens = tokens + {tokens("NEW.")}
    WHERE {_belongs("NEW")} AND since <= NEW.started_ns;
    DELETE FROM reservations WHERE attempt = NEW.id;
END
"""
"""It is made with the first account, because a row takes 3 µs longer with a trigger, even without
accounts."""

SHIP: Final = f"""
INSERT INTO shipped
SELECT started_ns - started_ns % 900000000000, agent, "group", backend,
    {_amount("cost")},
    {tokens()}
FROM attempts WHERE started_ns = ? AND id = ?
ON CONFLICT (started_ns, quote(agent), quote("group"), backend)
DO UPDATE SET cost = cost + excluded.cost, tokens = tokens + excluded.tokens
"""
"""Before a row is removed, what it spent is added to the table `shipped`."""

# Rows are written a third faster into a table with an integer key than into one WITHOUT ROWID.
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
        *_ACCOUNTS,
        *_SHIPPED,
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
