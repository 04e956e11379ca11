"""The store of budgets in the file of an SQLite ledger, for all processes that share the file.

Knows when to look for processes that have ended; `accounts` has the SQL.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

from ccroute.accounting.budgets import UNUSED, Account, Claim
from ccroute.accounting.money import NOTHING
from ccroute.accounting.stores.sqlite import accounts
from ccroute.accounting.stores.sqlite.columns import nanoseconds
from ccroute.accounting.stores.sqlite.processes import has_ended, this_process

if TYPE_CHECKING:
    from ccroute.accounting.row import LedgerRow
    from ccroute.accounting.stores.sqlite.ledger import SqliteLedger

LOOK: Final = 0.05
"""Seconds between two looks for processes that have ended, by calls that find something reserved."""
IDLE: Final = 86_400
"""Seconds after which an unused account is removed. Its rows stay, so it can be made again."""
TIDY: Final = 60.0
"""Seconds between two looks for unused accounts. The first look is at the first use of a file."""


class SqliteBudgets:
    """Accounts and reservations in the ledger's file.

    The transaction that writes a row also counts it, and ends its reservation. If a process was killed, its
    reservations end at once. If it cannot be seen from here (not on Linux, or in another container), they end
    when they expire.
    """

    shared = True

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self._attempts = set[str]()  # that have reserved
        self._looked = self._tidied = 0.0  # when, on the monotonic clock

    def accounts(self, claims: Sequence[Claim]) -> list[Account]:
        """The account of each claim now. A row that could not be written yet still counts as reserved."""
        found = self._read(claims)
        if self._may_look(found) and (lost := self._ledger.read(_lost)):
            with contextlib.suppress(Exception):  # then their reservations stay for now
                self._ledger.transaction(partial(_end, lost))
            found = self._read(claims)
        return found

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Account] | None:
        """Reserve in every claim, or in none."""
        until = nanoseconds(expires)

        def reserve(cursor: sqlite3.Cursor) -> bool:
            return accounts.reserve(cursor, attempt, claims, usd, tokens, this_process(), until)

        def work(cursor: sqlite3.Cursor) -> list[Account] | None:
            if time.monotonic() - self._tidied > TIDY:
                self._tidied = time.monotonic()
                tidy(cursor)
            for claim in claims:
                accounts.open_account(cursor, claim, until)
            if reserve(cursor):
                return None
            found = [accounts.read_account(cursor, each) for each in claims]
            if not (self._may_look(found) and (lost := _lost(cursor))):
                return found
            _end(lost, cursor)
            return None if reserve(cursor) else [accounts.read_account(cursor, each) for each in claims]

        self._attempts.add(attempt)
        found: list[Account] | None = None
        try:
            if not self._ledger.write(reserve):
                found = self._ledger.transaction(work)
        except Exception:
            self._attempts.discard(attempt)
            raise
        except BaseException:  # an interrupt, perhaps after it was reserved
            self.settle(attempt, NOTHING, 0)
            raise
        if found is not None:
            self._attempts.discard(attempt)
        return found

    def settle(self, attempt: str, usd: Decimal, tokens: int) -> None:
        """The attempt has ended, but its call has not: reserve only what its row will have."""
        if attempt not in self._attempts:
            return
        if usd or tokens:
            self._ledger.change(accounts.CHANGE, accounts.at_least(usd), tokens, attempt)
        else:
            self._attempts.discard(attempt)
            self._ledger.change(accounts.END, attempt)

    def count(self, row: LedgerRow) -> None:
        """Only forget the attempt: the row was counted when it was written."""
        self._attempts.discard(row.id)

    def after_fork(self) -> None:
        """In a forked child: the reservations are the parent's."""
        self._attempts.clear()

    def _read(self, claims: Sequence[Claim]) -> list[Account]:
        found = self._ledger.read(lambda cursor: [accounts.read_account(cursor, each) for each in claims])
        return found or [UNUSED] * len(claims)

    def _may_look(self, found: Sequence[Account]) -> bool:
        """Whether to look for processes that have ended: something is reserved, and the last look was some
        time ago."""
        now = time.monotonic()
        if now - self._looked < LOOK or not any(each.reserved_usd or each.reserved_tokens for each in found):
            return False
        self._looked = now
        return True


def tidy(cursor: sqlite3.Cursor) -> None:
    """Remove old accounts, so that the file does not grow with every session, and the reservations of
    processes that have ended."""
    now = time.time_ns()
    _end(_lost(cursor), cursor)
    accounts.forget(cursor, now, now - IDLE * 10**9)


def _lost(cursor: sqlite3.Cursor) -> list[tuple[str, int | None]]:
    """The processes whose reservations end now: those that have ended, with None, and those that cannot be
    seen from here, with the present moment, before which reservations have expired."""
    now, lost = time.time_ns(), list[tuple[str, int | None]]()
    for name, expires in accounts.processes(cursor):
        ended = has_ended(name)
        if ended:
            lost.append((name, None))
        elif ended is None and expires < now:
            lost.append((name, now))
    return lost


def _end(lost: list[tuple[str, int | None]], cursor: sqlite3.Cursor) -> None:
    for each in lost:
        accounts.end_reservations(cursor, *each)
