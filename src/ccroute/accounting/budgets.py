"""What a budget's spending is counted by, and where it is kept: values, and what a store must have.

An account is what the rows of the ledger say, for one scope from one moment on. A reservation is what an
attempt in flight may still cost. So a store never knows more than the ledger, but for the reservations.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol, TypeAlias

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
    """One budget that an attempt needs, as a store has to know it.

    The rows of its scope that started at `since` or later, with all that is reserved for the scope, may come
    to `usd` and to `tokens` at most. None: any number.

    What is reserved counts whenever it was reserved: an attempt that began before midnight may be written
    down after it. From `until` on nobody asks for this account any more. Both are UTC; a window without
    beginning and end is `ccroute.types.budget.ALWAYS`.
    """

    scope: Scope
    since: datetime
    until: datetime
    usd: Decimal | None
    tokens: int | None


class Standing(NamedTuple):
    """What is spent and reserved of one claim: USD, and tokens of prompts and answers (`Usage.total_tokens`).
    Rows of unknown cost count for their tokens only."""

    spent_usd: Decimal
    spent_tokens: int
    reserved_usd: Decimal
    reserved_tokens: int


def fits(claim: Claim, standing: Standing, usd: Decimal, tokens: int) -> bool:
    """Whether an attempt of at most so much fits a claim. A limit in USD never stands in the way of 0 USD."""
    if claim.usd is not None and usd:
        taken = EXACT.add(standing.spent_usd, standing.reserved_usd)
        if EXACT.add(taken, usd) > claim.usd:
            return False
    return claim.tokens is None or standing.spent_tokens + standing.reserved_tokens + tokens <= claim.tokens


def alone(standing: Standing) -> Standing:
    """How a claim stands when all others have ended without spending."""
    return standing._replace(reserved_usd=NOTHING, reserved_tokens=0)


def covers(scope: Scope, row: LedgerRow) -> bool:
    """Whether what a row says is spending of a scope."""
    if scope.session is not None and row.session != scope.session:
        return False
    return scope.kind == "router" or getattr(row, scope.kind) == scope.name


class BudgetStore(Protocol):
    """Accounts and reservations, for threads and tasks at once. Made by `BaseLedger.budget_store()`.

    An attempt is named by its row's id, which is known before it begins (`attempt_id`). It reserves once. Its
    reservation ends when its row is counted, or when it is settled with nothing.
    """

    shared: bool
    """Whether other processes change it: who waits then looks again every so often."""

    def standings(self, claims: Sequence[Claim]) -> list[Standing]:
        """How each claim stands now. Reads only. Raises the store's error."""
        ...

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Standing] | None:
        """Reserve so much of every claim, or nothing. None: it is reserved. Otherwise how each claim stands.

        `fits` says what is free. `expires` (UTC): when the reservation ends if its process died. Raises the
        store's error; then nothing is reserved.
        """
        ...

    def settle(self, attempt: str, usd: Decimal, tokens: int) -> None:
        """The attempt is over before its call is, and its row will say so much: the rest is free again.
        Nothing of both: it has no reservation any more. Never waits, since a finaliser may call it; an
        unknown attempt is none."""

    def count(self, row: LedgerRow) -> None:
        """The row was given to the ledger, which may have failed to write it: its reservation ends, and what
        it says is spent. Called for each row, with or without a reservation. Never waits, as `settle`.

        A store in the ledger's own database has done this when the row was written."""

    def after_fork(self) -> None:
        """In a forked child: locks may belong to threads that are not here, and reservations are the
        parent's."""
