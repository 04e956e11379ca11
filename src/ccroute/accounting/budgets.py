"""The values that budgets are checked with, and the protocol of the store that has them.

An account says what is spent and reserved in one scope from one moment on. What is spent comes from the rows
of the ledger. A reservation is what an attempt in flight may still cost. Only reservations are not in the
ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from ccroute.accounting.money import EXACT, NOTHING
from ccroute.accounting.row import LedgerRow

Kind: TypeAlias = Literal["router", "agent", "group", "backend", "session"]


class Scope(NamedTuple):
    """Whose spending counts.

    name:    of the agent, group, backend or session; "" for the router: every row counts.
    session: only the rows of this session count; None: those of all sessions, and of none.
    """

    kind: Kind
    name: str = ""
    session: str | None = None


class Claim(NamedTuple):
    """One budget that an attempt needs: its scope, its window and its limits.

    `usd` and `tokens` limit the sum of two things: the rows of the scope that started at `since` or later,
    and all reservations of the scope. None: no limit.

    Reservations count whenever they were made, because an attempt that began before midnight may be recorded
    after it. The account is not needed after `until`. Both are UTC; a window without beginning and end is
    `ccroute.types.budget.ALWAYS`.
    """

    scope: Scope
    since: datetime
    until: datetime
    usd: Decimal | None
    tokens: int | None


class Account(NamedTuple):
    """What is spent and reserved in the scope and window of a claim: USD, and tokens of prompts and answers
    (`Usage.total_tokens`). A row of unknown cost counts for its tokens only."""

    spent_usd: Decimal
    spent_tokens: int
    reserved_usd: Decimal
    reserved_tokens: int


UNUSED: Final = Account(NOTHING, 0, NOTHING, 0)
"""An account with nothing spent and nothing reserved."""


def fits(claim: Claim, account: Account, usd: Decimal, tokens: int) -> bool:
    """Whether an attempt that uses at most `usd` and `tokens` fits a claim. 0 USD fits every limit in USD."""
    if claim.usd is not None and usd:
        taken = EXACT.add(account.spent_usd, account.reserved_usd)
        if EXACT.add(taken, usd) > claim.usd:
            return False
    return claim.tokens is None or account.spent_tokens + account.reserved_tokens + tokens <= claim.tokens


def alone(account: Account) -> Account:
    """The account without reservations: as if all attempts in flight had ended and spent nothing."""
    return account._replace(reserved_usd=NOTHING, reserved_tokens=0)


def covers(scope: Scope, row: LedgerRow) -> bool:
    """Whether a row counts in a scope."""
    if scope.session is not None and row.session != scope.session:
        return False
    return scope.kind == "router" or getattr(row, scope.kind) == scope.name


class BudgetStore(Protocol):
    """Accounts and reservations, for threads and tasks at once. Made by `BaseLedger.budget_store()`.

    `attempt` is the id of the attempt's row, which is known before the attempt begins (`attempt_id`). An
    attempt reserves once. Its reservation ends when its row is counted, or when it is settled with 0.
    """

    shared: bool
    """Whether other processes change the accounts. A waiting call then has to look again from time to
    time."""

    def accounts(self, claims: Sequence[Claim]) -> list[Account]:
        """The account of each claim now. Only reads. Raises the store's error."""
        ...

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Account] | None:
        """Reserve `usd` and `tokens` in every claim, or in none. None: it is reserved. Otherwise at least one
        claim does not fit (`fits`), and the result is the account of each claim.

        `expires` (UTC): when the reservation ends if its process died. Raises the store's error; then nothing
        is reserved.
        """
        ...

    def settle(self, attempt: str, usd: Decimal, tokens: int) -> None:
        """The attempt has ended, but its call has not. Its row will have `usd` and `tokens`, so the
        reservation shrinks to that. 0 of both ends the reservation. Never waits, because a finaliser may call
        it. Does nothing for an unknown attempt."""

    def count(self, row: LedgerRow) -> None:
        """Count a row that was given to the ledger, also if the ledger failed to write it: its amounts are
        spent, and its reservation ends. Called for each row, with or without a reservation. Never waits.

        A store in the ledger's own database has done this already, when the row was written."""

    def after_fork(self) -> None:
        """In a forked child: replace the locks, which may belong to threads of the parent, and forget the
        reservations, which are the parent's."""
