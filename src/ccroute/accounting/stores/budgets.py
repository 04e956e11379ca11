"""What is spent of budgets, in memory: accounts that begin with what the ledger says, and reservations.

Knows rows and claims; must not know calls, nor wait for anything but the ledger's sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from ccroute.accounting.budgets import Claim, Kind, Scope, Standing, fits
from ccroute.accounting.prices import NOTHING
from ccroute.accounting.tally import Key, LedgerRow
from ccroute.errors import ConfigError
from ccroute.types.locks import Inbox

if TYPE_CHECKING:
    from ccroute.accounting.stores.base import BaseLedger

MOST_SESSIONS: Final = 100_000
"""Sessions whose spending is known; the one that was asked for longest ago is forgotten first."""
_PARTS: Final = ("agent", "group", "backend", "session")


@dataclass(slots=True)
class _Amount:
    """USD and tokens, spent or reserved."""

    usd: Decimal = NOTHING
    tokens: int = 0


class _Reservation(NamedTuple):
    scopes: tuple[Scope, ...]
    usd: Decimal
    tokens: int


@dataclass(slots=True)
class _Window:
    """The accounts of all scopes of one kind, from `since` on: those of sessions, too, begin without the
    ledger, which takes long to ask."""

    kind: Kind
    by_session: bool
    since: datetime
    until: datetime
    accounts: dict[Scope, _Amount] = field(default_factory=dict)

    def add(self, row: LedgerRow | Key, usd: Decimal, tokens: int) -> None:
        """Count what one row, or a sum of rows, spent."""
        kind, session = self.kind, row.session if self.by_session else None
        name = "" if kind == "router" else getattr(row, kind)
        if name is None or (self.by_session and session is None):
            return
        account = self.account(Scope(kind, name, session))
        account.usd += usd
        account.tokens += tokens

    def account(self, scope: Scope) -> _Amount:
        """What the scope spent."""
        account = self.accounts.get(scope)
        if account is None:
            account = self.accounts[scope] = _Amount()
            if len(self.accounts) > MOST_SESSIONS:
                del self.accounts[next(iter(self.accounts))]
        elif self.by_session or self.kind == "session":
            self.accounts[scope] = self.accounts.pop(scope)
        return account


class MemoryBudgets:
    """Accounts and reservations in memory, for the routers of this process that share a ledger.

    Settling never waits: see `Inbox`.
    """

    shared = False

    def __init__(self, ledger: BaseLedger) -> None:
        self._ledger = ledger
        self._windows: dict[tuple[str, bool, datetime], _Window] = {}
        self._reservations: dict[str, _Reservation] = {}
        self._reserved: dict[Scope, _Amount] = {}
        self._inbox = Inbox(self._apply)

    def standings(self, claims: Sequence[Claim]) -> list[Standing]:
        """How each claim stands now."""
        with self._inbox.lock:
            self._inbox.read()
            found = [self._standing(claim) for claim in claims]
        self._inbox.drain()
        return found

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Standing] | None:
        """Reserve so much of every claim, or nothing."""
        with self._inbox.lock:
            self._inbox.read()
            standings = [self._standing(claim) for claim in claims]
            fit = all(fits(*each, usd, tokens) for each in zip(claims, standings, strict=True))
            if fit:
                self._put(attempt, tuple([claim.scope for claim in claims]), usd, tokens)
        self._inbox.drain()
        return None if fit else standings

    def settle(self, attempt: str, usd: Decimal, tokens: int) -> None:
        """The attempt is over before its call is, and its row will say so much."""
        self._inbox.append((attempt, usd, tokens, None))
        self._inbox.drain()

    def count(self, row: LedgerRow) -> None:
        """The row was given to the ledger: its reservation ends, and what it says is spent."""
        self._inbox.append((row.id, row.cost or NOTHING, row.usage.total_tokens, row))
        self._inbox.drain()

    def after_fork(self) -> None:
        """In a forked child: what is reserved is the parent's. What was spent, and is not in the ledger yet,
        counts."""
        self._inbox.renew()
        self._reservations.clear()
        self._reserved.clear()

    def _standing(self, claim: Claim) -> Standing:
        scope = claim.scope
        window = self._windows.get((scope.kind, scope.session is not None, claim.since))
        spent = (window or self._load(claim)).account(scope)
        reserved = self._reserved.get(scope)
        if reserved is None:
            return Standing(spent.usd, spent.tokens, NOTHING, 0)
        return Standing(spent.usd, spent.tokens, reserved.usd, reserved.tokens)

    def _load(self, claim: Claim) -> _Window:
        """The accounts of a window that is asked for the first time, as the ledger has them. Windows that are
        over are dropped."""
        (kind, _, session), since = claim.scope, claim.since
        window = _Window(kind, session is not None, since, claim.until)
        for key, tally in self._ledger.tallies(since, None, _PARTS).items():
            window.add(key, tally.cost, tally.usage.total_tokens)
        if self._reservations:  # rows that were written a moment ago, and are about to be counted
            for row in self._rows(since):
                if row.id in self._reservations:
                    window.add(row, -(row.cost or NOTHING), -row.usage.total_tokens)
        self._windows = {k: known for k, known in self._windows.items() if known.until > since}
        self._windows[kind, session is not None, since] = window
        return window

    def _rows(self, since: datetime) -> list[LedgerRow]:
        try:
            return self._ledger.rows(since)
        except ConfigError:  # a ledger of the user's own, which keeps sums only: some rows may count twice
            return []

    def _put(self, attempt: str, scopes: tuple[Scope, ...], usd: Decimal, tokens: int) -> None:
        self._reservations[attempt] = _Reservation(scopes, usd, tokens)
        for scope in scopes:
            reserved = self._reserved.get(scope)
            if reserved is None:
                self._reserved[scope] = _Amount(usd, tokens)
            else:
                reserved.usd += usd
                reserved.tokens += tokens

    def _apply(self, attempt: str, usd: Decimal, tokens: int, row: LedgerRow | None) -> None:
        """End a reservation. What was spent is counted with its row, and until then stays reserved. Only with
        the lock."""
        reservation = self._reservations.pop(attempt, None)
        if reservation is not None:
            for scope in reservation.scopes:
                reserved = self._reserved.get(scope)
                if reserved is not None:
                    reserved.usd -= reservation.usd
                    reserved.tokens -= reservation.tokens
                    if not reserved.usd and not reserved.tokens:
                        del self._reserved[scope]
        if not usd and not tokens:
            return
        if row is not None:
            for window in self._windows.values():
                if row.started >= window.since:
                    window.add(row, usd, tokens)
        elif reservation is not None:
            self._put(attempt, reservation.scopes, usd, tokens)
