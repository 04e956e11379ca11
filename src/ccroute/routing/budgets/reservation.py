"""What one attempt may spend of its budgets, from its request to its row."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ccroute.accounting.budgets import Scope
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.budgets.table import Need, Needs
from ccroute.routing.budgets.worst_case import InTheWay, WorstCase
from ccroute.routing.sleeper import Sleeper

if TYPE_CHECKING:
    from ccroute.accounting.row import LedgerRow
    from ccroute.routing.budgets.budgets import Budgets


class Reservation(Sleeper):
    """One attempt's place in its budgets. What it reserves is free again when its row is counted.

    attempt:    the id of its row.
    output:     tokens of the longest answer that there is room for, once it is `granted`; `shortened_by` is
                the budget that has no room for a longer one.
    in_the_way: the budget that it waits for, or that refuses it.
    queue:      where it waits: for others in flight of a scope, or for a window; None: it does not.
    ticket:     its place there: the lowest is the first.
    """

    output = 0
    shortened_by: Need | None = None
    granted = False
    in_the_way: InTheWay | None = None
    queue: Scope | Literal["next window"] | None = None
    ticket = 0

    def __init__(
        self,
        budgets: Budgets,
        needs: Needs,
        attempt: str,
        worst: WorstCase,
        expires: datetime,
    ) -> None:
        self.budgets = budgets
        self.needs = needs
        self.attempt = attempt
        self.worst = worst
        self.expires = expires

    def spend(self, row: LedgerRow) -> None:
        """The attempt is over, and its row will be written when its call ends. Never waits."""
        self.budgets.spend(self, row)

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """None: nothing was sent, so nothing is reserved any more. An attempt that was made keeps its
        reservation until its row is counted."""
        if outcome is None:
            self.budgets.leave(self)
