"""The store of budgets in memory: what is spent, which is read from the ledger once, and reservations.

Knows rows and claims; must not know calls, nor wait for anything but the ledger's sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ccroute.accounting.budgets import Account, Claim, Kind, Scope, fits
from ccroute.accounting.money import EXACT, NOTHING
from ccroute.accounting.row import Key, LedgerRow
from ccroute.errors import ConfigError
from ccroute.types.locks import Inbox

if TYPE_CHECKING:
    from ccroute.accounting.stores.base import BaseLedger

MOST_SESSIONS: Final = 100_000
"""Scopes of a window whose spending is kept, such as sessions. The one that was unused longest is dropped."""
_MOST_AT_ONCE: Final = 64
_PARTS: Final = ("agent", "group", "backend", "session")


@dataclass(slots=True)
class _Amount:
    """USD and tokens, spent or reserved."""

    usd: Decimal = NOTHING
    tokens: int = 0


@dataclass(slots=True)
class _Window:
    """What is spent in one window, in all scopes of one kind. It is read from the ledger once, for all
    scopes, because that takes long. `by_session`: each session of a scope is counted alone."""

    kind: Kind
    by_session: bool
    since: datetime
    until: datetime
    spent: dict[tuple[Kind, str, str | None], _Amount] = field(default_factory=dict)  # by scope

    def add(self, row: LedgerRow | Key, usd: Decimal, tokens: int) -> None:
        """Count what one row, or a sum of rows, spent."""
        kind, session = self.kind, row.session if self.by_session else None
        name = "" if kind == "router" else getattr(row, kind)
        if name is None or (self.by_session and session is None):
            return
        spent = self.spent.get((kind, name, session)) or self.new(Scope(kind, name, session))
        spent.usd = EXACT.add(spent.usd, usd)
        spent.tokens += tokens

    def new(self, scope: Scope) -> _Amount:
        """Begin to count a scope in which nothing is spent yet."""
        if len(self.spent) >= MOST_SESSIONS:
            del self.spent[next(iter(self.spent))]
        spent = self.spent[scope] = _Amount()
        return spent


class MemoryBudgets:
    """Accounts and reservations in memory, for the routers of this process that share a ledger.

    Settling never waits: see `Inbox`.
    """

    shared = False

    def __init__(self, ledger: BaseLedger) -> None:
        self._ledger = ledger
        self._windows: dict[tuple[str, bool, datetime], _Window] = {}
        # By attempt: its claims, those in which its amounts are added already, and the amounts.
        self._reservations: dict[str, tuple[Sequence[Claim], list[Claim], Decimal, int]] = {}
        self._reserved: dict[Scope, _Amount] = {}
        self._inbox = Inbox(self._apply)

    def accounts(self, claims: Sequence[Claim]) -> list[Account]:
        """The account of each claim now."""
        with self._inbox.lock:
            self._inbox.read()
            found = [self._account(each, claims) for each in claims]
        self._inbox.drain()
        return found

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Account] | None:
        """Reserve in every claim, or in none."""
        found = None
        with self._inbox.lock:
            if self._inbox:
                self._inbox.read()
            for claim in claims:
                if not fits(claim, self._account(claim, claims), usd, tokens):
                    found = [self._account(each, claims) for each in claims]
                    break
            else:
                if attempt in self._reservations:  # an interrupt came before this was known
                    self._end(attempt)
                self._put(attempt, claims, usd, tokens)
        if self._inbox:
            self._inbox.drain()
        return found

    def settle(self, attempt: str, usd: Decimal, tokens: int) -> None:
        """The attempt has ended, but its call has not: reserve only what its row will have."""
        self._inbox.append((attempt, usd, tokens, None))
        self._inbox.drain()

    def count(self, row: LedgerRow) -> None:
        """Count a row that was given to the ledger: its amounts are spent, and its reservation ends."""
        self._inbox.append((row.id, row.cost or NOTHING, row.usage.total_tokens, row))
        if len(self._inbox) >= _MOST_AT_ONCE:  # fewer are read by the next call that asks
            self._inbox.drain()

    def after_fork(self) -> None:
        """In a forked child: the reservations are the parent's. What was spent counts here too, also if it is
        not in the ledger yet."""
        self._inbox.renew()
        self._reservations.clear()
        self._reserved.clear()

    def _account(self, claim: Claim, claims: Sequence[Claim]) -> Account:
        """The account of one of the claims."""
        scope = claim.scope
        key = scope.kind, scope.session is not None, claim.since
        window = self._windows.get(key)
        if window is None:
            self._load(claim.since, claims)
            window = self._windows[key]
        spent = window.spent.get(scope) or window.new(scope)
        if window.by_session or window.kind == "session":
            window.spent[scope] = window.spent.pop(scope)  # the latest used is the last
        reserved = self._reserved.get(scope)
        if reserved is None:
            return Account(spent.usd, spent.tokens, NOTHING, 0)
        return Account(spent.usd, spent.tokens, reserved.usd, reserved.tokens)

    def _load(self, since: datetime, claims: Sequence[Claim]) -> None:
        """Read what is spent since then from the ledger, once for all claims, and drop the windows that have
        ended."""
        new: dict[tuple[str, bool, datetime], _Window] = {}
        for (kind, _, session), begins, until, *_ in claims:
            key = kind, session is not None, begins
            if begins == since and key not in self._windows:
                new[key] = _Window(kind, session is not None, since, until)
        sums = self._ledger.tallies(since, None, _PARTS)
        # Rows that are in the ledger already, but that `count` will count.
        early = (
            [row for row in self._rows(since) if row.id in self._reservations] if self._reservations else []
        )
        for window in new.values():
            for parts, tally in sums.items():
                window.add(parts, tally.cost, tally.usage.total_tokens)
            for row in early:
                window.add(row, EXACT.minus(row.cost or NOTHING), -row.usage.total_tokens)
        self._windows = {k: known for k, known in self._windows.items() if known.until > since} | new

    def _rows(self, since: datetime) -> list[LedgerRow]:
        try:
            return self._ledger.rows(since)
        except ConfigError:  # a user's ledger that has only sums: some rows may count twice
            return []

    # Python raises an interrupt only after a call. So the statements between two calls below are done
    # together.

    def _put(self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int) -> None:
        held: list[Claim] = []
        self._reservations[attempt] = claims, held, usd, tokens
        for claim in claims:
            reserved = self._reserved.get(claim.scope)
            if reserved is None:
                reserved = self._reserved[claim.scope] = _Amount()
            reserved.usd = EXACT.add(reserved.usd, usd)
            reserved.tokens += tokens
            held.append(claim)

    def _apply(self, attempt: str, usd: Decimal, tokens: int, row: LedgerRow | None) -> None:
        """End a reservation, and count its row. Without a row, what was spent stays reserved until the row
        comes. The caller has the lock."""
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
        """End the reservation of an attempt, if it has one. Returns its claims."""
        known = self._reservations.get(attempt)
        if known is None:
            return ()
        claims, held, usd, tokens = known
        while held:
            scope = held[-1].scope
            reserved = self._reserved.get(scope)
            if reserved is not None:  # None: amounts of 0 were reserved
                reserved.usd = EXACT.subtract(reserved.usd, usd)
                reserved.tokens -= tokens
                if not reserved.tokens and not reserved.usd:
                    del self._reserved[scope]
            held.pop()
        del self._reservations[attempt]
        return claims
