"""What is spent of budgets, in memory: accounts that begin with what the ledger says, and reservations.

Knows rows and claims; must not know calls, nor wait for anything but the ledger's sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ccroute.accounting.budgets import Claim, Kind, Scope, Standing, fits
from ccroute.accounting.money import EXACT, NOTHING
from ccroute.accounting.row import Key, LedgerRow
from ccroute.errors import ConfigError
from ccroute.types.locks import Inbox

if TYPE_CHECKING:
    from ccroute.accounting.stores.base import BaseLedger

MOST_SESSIONS: Final = 100_000
"""Sessions whose spending is known; the one that was asked for longest ago is forgotten first."""
_MOST_AT_ONCE: Final = 64
_PARTS: Final = ("agent", "group", "backend", "session")


@dataclass(slots=True)
class _Amount:
    """USD and tokens, spent or reserved."""

    usd: Decimal = NOTHING
    tokens: int = 0


@dataclass(slots=True)
class _Window:
    """The accounts of all scopes of one kind, from `since` on: those of sessions, too, begin without the
    ledger, which takes long to ask."""

    kind: Kind
    by_session: bool
    since: datetime
    until: datetime
    accounts: dict[tuple[Kind, str, str | None], _Amount] = field(default_factory=dict)  # by scope

    def add(self, row: LedgerRow | Key, usd: Decimal, tokens: int) -> None:
        """Count what one row, or a sum of rows, spent."""
        kind, session = self.kind, row.session if self.by_session else None
        name = "" if kind == "router" else getattr(row, kind)
        if name is None or (self.by_session and session is None):
            return
        account = self.accounts.get((kind, name, session)) or self.new(Scope(kind, name, session))
        account.usd = EXACT.add(account.usd, usd)
        account.tokens += tokens

    def new(self, scope: Scope) -> _Amount:
        """The account of a scope that spent nothing yet."""
        if len(self.accounts) >= MOST_SESSIONS:
            del self.accounts[next(iter(self.accounts))]
        account = self.accounts[scope] = _Amount()
        return account


class MemoryBudgets:
    """Accounts and reservations in memory, for the routers of this process that share a ledger.

    Settling never waits: see `Inbox`.
    """

    shared = False

    def __init__(self, ledger: BaseLedger) -> None:
        self._ledger = ledger
        self._windows: dict[tuple[str, bool, datetime], _Window] = {}
        self._reservations: dict[str, tuple[list[Claim], Decimal, int]] = {}
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
        found = None
        with self._inbox.lock:
            if self._inbox:
                self._inbox.read()
            for claim in claims:
                if not fits(claim, self._standing(claim), usd, tokens):
                    found = [self._standing(each) for each in claims]
                    break
            else:
                if attempt in self._reservations:  # an interrupt came before this was known
                    self._end(attempt)
                self._put(attempt, claims, usd, tokens)
        if self._inbox:
            self._inbox.drain()
        return found

    def settle(self, attempt: str, usd: Decimal, tokens: int) -> None:
        """The attempt is over before its call is, and its row will say so much."""
        self._inbox.append((attempt, usd, tokens, None))
        self._inbox.drain()

    def count(self, row: LedgerRow) -> None:
        """The row was given to the ledger: its reservation ends, and what it says is spent."""
        self._inbox.append((row.id, row.cost or NOTHING, row.usage.total_tokens, row))
        if len(self._inbox) >= _MOST_AT_ONCE:  # until then, the next one that asks reads it
            self._inbox.drain()

    def after_fork(self) -> None:
        """In a forked child: what is reserved is the parent's. What was spent, and is not in the ledger yet,
        counts."""
        self._inbox.renew()
        self._reservations.clear()
        self._reserved.clear()

    def _standing(self, claim: Claim) -> Standing:
        scope = claim.scope
        key = scope.kind, scope.session is not None, claim.since
        window = self._windows.get(key) or self._load(claim)
        spent = window.accounts.get(scope) or window.new(scope)
        if window.by_session or window.kind == "session":
            window.accounts[scope] = window.accounts.pop(scope)
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
                    window.add(row, EXACT.minus(row.cost or NOTHING), -row.usage.total_tokens)
        self._windows = {k: known for k, known in self._windows.items() if known.until > since}
        self._windows[kind, session is not None, since] = window
        return window

    def _rows(self, since: datetime) -> list[LedgerRow]:
        try:
            return self._ledger.rows(since)
        except ConfigError:  # a ledger of the user's own, which keeps sums only: some rows may count twice
            return []

    # An interrupt comes only after a call, so what stands between two calls below is done as a whole.

    def _put(self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int) -> None:
        held: list[Claim] = []
        self._reservations[attempt] = held, usd, tokens
        for claim in claims:
            reserved = self._reserved.get(claim.scope)
            if reserved is None:
                reserved = self._reserved[claim.scope] = _Amount()
            reserved.usd = EXACT.add(reserved.usd, usd)
            reserved.tokens += tokens
            held.append(claim)

    def _apply(self, attempt: str, usd: Decimal, tokens: int, row: LedgerRow | None) -> None:
        """End a reservation. What was spent is counted with its row, and until then stays reserved. Only with
        the lock."""
        claims = self._end(attempt)
        if not usd and not tokens:
            return
        if row is None:
            if claims:
                self._put(attempt, claims, usd, tokens)
            return
        for window in self._windows.values():
            if row.started >= window.since:
                window.add(row, usd, tokens)

    def _end(self, attempt: str) -> Sequence[Claim]:
        """End a reservation, if there is one; its claims."""
        known = self._reservations.get(attempt)
        if known is None:
            return ()
        held, usd, tokens = known
        claims = tuple(held)
        while held:
            scope = held[-1].scope
            reserved = self._reserved.get(scope)
            if reserved is not None:  # None: nothing is reserved, as for what is free
                reserved.usd = EXACT.subtract(reserved.usd, usd)
                reserved.tokens -= tokens
                if not reserved.tokens and not reserved.usd:
                    del self._reserved[scope]
            held.pop()
        del self._reservations[attempt]
        return claims
