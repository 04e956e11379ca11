"""The reservation of one attempt in its budgets."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ccroute.accounting.budgets import Scope
from ccroute.routing.acquired import AttemptOutcome
from ccroute.routing.budgets.table import Need, Needs
from ccroute.routing.budgets.worst_case import Blocked, WorstCase
from ccroute.routing.sleeper import Sleeper

if TYPE_CHECKING:
    from ccroute.accounting.row import LedgerRow
    from ccroute.routing.budgets.budgets import Budgets


class Reservation(Sleeper):
    """What one attempt reserves in its budgets, or waits to reserve. It ends when the attempt's row is
    counted.

    attempt:    the id of its row.
    granted:    whether it is reserved.
    output:     tokens of the longest answer that the budgets have room for. `shortened_by` is the budget that
                has no room for a longer one.
    blocked:    the budget that the attempt waits for, or that refuses it.
    queue:      where the attempt waits: the scope whose attempts in flight it waits for, or "next window".
                None: it does not wait.
    ticket:     the attempt's place in the order of arrival, from 1; 0: it never waited.
    """

    output = 0
    shortened_by: Need | None = None
    granted = False
    blocked: Blocked | None = None
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
        """The attempt has ended. Its row will be written when its call ends. Never waits."""
        self.budgets.spend(self, row)

    def settle(self, outcome: AttemptOutcome | None = None) -> None:
        """End the reservation if nothing was sent (None). An attempt that was sent keeps its reservation
        until its row is counted."""
        if outcome is None:
            self.budgets.leave(self)
