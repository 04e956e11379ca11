"""The accounts of budgets in the file of an SQLite ledger, in SQL.

Every function runs within its caller's transaction. Triggers update the accounts when a row is written, and
when a reservation is made, changed or ended: see `tables`. Knows SQL and claims; must not open files or read
clocks.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ccroute.accounting.budgets import Account, Claim, Scope
from ccroute.accounting.money import EXACT, NOTHING
from ccroute.accounting.stores.sqlite.columns import NULL, nanoseconds
from ccroute.accounting.stores.sqlite.tables import COUNT, amount_of_text, tokens

CHANGE: Final = "UPDATE reservations SET usd = ?, tokens = ? WHERE attempt = ?"
END: Final = "DELETE FROM reservations WHERE attempt = ?"
_MOST: Final = 2**53
_ACCOUNT: Final = """
SELECT usd, tokens, reserved_usd, reserved_tokens FROM accounts
WHERE kind = ? AND name = ? AND session IS ? AND since = ?
"""
_RESERVE: Final = "INSERT INTO reservations SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE "
_ROOM: Final = """
EXISTS (SELECT 1 FROM accounts WHERE kind = ? AND name = ? AND session IS ? AND since = ?
    AND usd + reserved_usd <= ? AND tokens + reserved_tokens <= ?)
"""
# In two parts, because a sum of whole numbers fails where it is too large, and `+` goes on with a REAL.
_WHOLE: Final = "CASE WHEN typeof(cost) = 'integer' THEN cost END"
_TEXT: Final = f"CASE WHEN typeof(cost) = 'text' THEN {amount_of_text('cost')} END"
_SPENT: Final = f"""
SELECT coalesce(sum({_WHOLE} / 1000000), 0) * 1000000 + coalesce(sum({_WHOLE} % 1000000), 0)
    + coalesce(sum({_TEXT}), 0), coalesce(sum({{tokens}}), 0)
FROM {{table}} WHERE started_ns >= ?
"""
_SPENT_HERE: Final = _SPENT.format(table="attempts", tokens=tokens())
_SPENT_SHIPPED: Final = _SPENT.format(table="shipped", tokens="tokens")
_UNUSED: Final = """
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM accounts) AND NOT EXISTS (SELECT 1 FROM reservations)
"""
_RESERVED: Final = "SELECT coalesce(sum(usd), 0), coalesce(sum(tokens), 0) FROM reservations WHERE true"
_window: Final = lru_cache(64)(nanoseconds)


class Process(NamedTuple):
    """A process with reservations. `expires`: when the first of them does, in nanoseconds since 1970."""

    name: str
    expires: int


def read_account(cursor: sqlite3.Cursor, claim: Claim) -> Account:
    """The account of a claim. If the file has no such account, the rows are summed up."""
    usd, tokens, reserved_usd, reserved_tokens = _stored(cursor, claim) or _sums(cursor, claim)
    return Account(_usd(usd), tokens, _usd(reserved_usd), reserved_tokens)


def open_account(cursor: sqlite3.Cursor, claim: Claim, asked: int) -> None:
    """Make the account of a claim if the file has none, from the rows. `asked`: see the column."""
    if _stored(cursor, claim) is not None:
        return
    scope = claim.scope
    if scope.session is not None or scope.kind == "session":
        # Sessions are many, and each would read all rows.
        cursor.execute(
            "CREATE INDEX IF NOT EXISTS attempts_by_session ON attempts (session) WHERE session IS NOT NULL"
        )
    cursor.execute(COUNT)
    window = _window(claim.since), _window(claim.until)
    cursor.execute(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*scope, *window, *_sums(cursor, claim), asked),
    )


def reserve(
    cursor: sqlite3.Cursor,
    attempt: str,
    claims: Sequence[Claim],
    usd: Decimal,
    tokens: int,
    process: str,
    expires: int,
) -> bool:
    """Reserve in all claims, in one statement. False: one claim does not fit (`fits`), or has no account."""
    names: dict[str, object] = dict.fromkeys(("agent", "group", "backend", "session"), NULL)
    rooms: list[object] = []
    for claim in claims:
        kind, name, session = claim.scope
        names[kind] = name
        if session is not None:
            names["session"] = session
        room_usd = math.inf if claim.usd is None or not usd else _at_most(EXACT.subtract(claim.usd, usd))
        room_tokens = math.inf if claim.tokens is None else _in_column(claim.tokens - tokens)
        window = _window(claim.since)
        rooms += (kind, name, NULL if session is None else session, window, room_usd, room_tokens)
    reservation = (
        attempt,
        names["agent"],
        names["group"],
        names["backend"],
        names["session"],
        at_least(usd),
        _in_column(tokens),
        process,
        expires,
    )
    statement = _RESERVE + " AND ".join([_ROOM] * len(claims))
    return cursor.execute(statement, (*reservation, *rooms)).rowcount > 0


def processes(cursor: sqlite3.Cursor) -> list[Process]:
    """The processes that have reservations."""
    found = cursor.execute("SELECT process, min(expires) FROM reservations GROUP BY process")
    return [Process(*each) for each in found]


def end_reservations(cursor: sqlite3.Cursor, process: str, before: int | None) -> None:
    """End the reservations of a process that expire before a moment; None: all of them."""
    if before is None:
        cursor.execute("DELETE FROM reservations WHERE process = ?", (process,))
    else:
        cursor.execute("DELETE FROM reservations WHERE process = ? AND expires < ?", (process, before))


def forget(cursor: sqlite3.Cursor, ended: int, idle: int) -> None:
    """Remove the accounts whose windows ended before `ended`, and those that were not used since `idle`. If
    no account and no reservation is left, rows need no trigger any more."""
    cursor.execute("DELETE FROM accounts WHERE until <= ? OR asked < ?", (ended, idle))
    if cursor.execute(_UNUSED).fetchone():
        cursor.execute("DROP TRIGGER IF EXISTS attempt_counted")


def has_trigger(cursor: sqlite3.Cursor) -> bool:
    """Whether rows are counted in accounts."""
    return bool(cursor.execute("SELECT 1 FROM sqlite_master WHERE name = 'attempt_counted'").fetchone())


def at_least(usd: Decimal) -> int | float:
    """The amount in the unit of the columns, rounded up if a column cannot hold it exactly."""
    return -_at_most(EXACT.minus(usd))


def _stored(cursor: sqlite3.Cursor, claim: Claim) -> tuple[Any, ...] | None:
    found: tuple[Any, ...] | None = cursor.execute(_ACCOUNT, (*claim.scope, _window(claim.since))).fetchone()
    return found


def _sums(cursor: sqlite3.Cursor, claim: Claim) -> tuple[Any, ...]:
    """The sums of the rows and reservations of a claim. For a session, only the rows in this file count:
    those in PostgreSQL are not known by session."""
    condition, names = _matches(claim.scope)
    bound = _window(claim.since), *names
    usd, tokens = cursor.execute(_SPENT_HERE + condition, bound).fetchone()
    if claim.scope.kind != "session" and claim.scope.session is None:
        shipped = cursor.execute(_SPENT_SHIPPED + condition, bound).fetchone()
        usd, tokens = usd + shipped[0], tokens + shipped[1]
    return (usd, tokens, *cursor.execute(_RESERVED + condition, names).fetchone())


def _matches(scope: Scope) -> tuple[str, list[str]]:
    """The rows and reservations of a scope, as a condition in SQL."""
    parts: list[tuple[str, str]] = [] if scope.kind == "router" else [(scope.kind, scope.name)]
    if scope.session is not None:
        parts.append(("session", scope.session))
    return "".join(f' AND "{column}" = ?' for column, _ in parts), [name for _, name in parts]


def _in_column(tokens: int) -> int:
    """The number of tokens, limited to what a column can hold."""
    return max(-_MOST, min(tokens, _MOST))


def _usd(amount: float) -> Decimal:
    usd = Decimal(amount).scaleb(-12, EXACT).normalize(EXACT)
    return EXACT.add(usd, NOTHING)  # 100, not 1E+2; 0, not 0E-12


def _at_most(usd: Decimal) -> int | float:
    """The amount in the unit of the columns, rounded down if a column cannot hold it exactly."""
    scaled = usd.scaleb(12, EXACT)
    whole = int(scaled)
    whole -= whole > scaled
    return whole if abs(whole) < 2**63 else math.nextafter(whole, -math.inf)
