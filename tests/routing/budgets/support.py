"""Budgets on a clock that is set, and attempts that cost whole dollars."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.accounting.support import row
from tests.flow.support import FakeClock

from ccroute import Agent, Budget
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.accounting.budgets import Account, BudgetStore
from ccroute.routing.acquired import UNDECIDED
from ccroute.routing.budgets.budgets import Budgets
from ccroute.routing.budgets.reservation import Reservation
from ccroute.routing.budgets.table import BudgetTable
from ccroute.routing.budgets.worst_case import Blocked, WorstCase
from ccroute.routing.tables.agents import AgentTable
from ccroute.types import Usage
from ccroute.types.clock import END

AGENTS = AgentTable({"a": Agent("m", group="g"), "b": Agent("m", group="g"), "c": Agent("m")}, {"g": Agent()})
GROUPS = {"a": "g", "b": "g"}


@dataclass
class Bed:
    """Where a call sleeps. Notes that it was woken; `there` is false once its call is gone."""

    there: bool = True
    woken: int = 0

    def wake(self) -> bool:
        self.woken += 1
        return self.there


@dataclass
class Money:
    """The budgets of one router. One token of an answer costs one dollar, and prompts nothing."""

    given: dict[str, Budget]
    clock: FakeClock = field(default_factory=FakeClock)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    store: BudgetStore | None = None

    def __post_init__(self) -> None:
        self.store = self.store or self.ledger.budget_store()
        self.budgets = Budgets(self.store, self.clock)
        self.table = BudgetTable(self.given, AGENTS, ["main"])
        self._numbers = itertools.count(1)

    def worst(self, usd: int, *, may_shorten: bool = False, free: bool = False) -> WorstCase:
        return WorstCase(
            0, usd, Decimal(0), Decimal(0 if free else 10**6), may_shorten=may_shorten, least=min(usd, 2)
        )

    def asks(
        self, usd: int, agent: str | None = "a", session: str | None = None, **worst: Any
    ) -> Reservation:
        """An attempt of at most so many dollars, which has asked."""
        needs = self.table.needs(agent, GROUPS.get(agent or ""), "main", session)
        asked = Reservation(self.budgets, needs, f"i{next(self._numbers)}", self.worst(usd, **worst), END)
        self.budgets.ask(asked, self.clock.now())
        return asked

    def gets(self, usd: int, agent: str | None = "a", **given: Any) -> Reservation:
        """One that is granted at once."""
        asked = self.asks(usd, agent, **given)
        assert asked.granted, asked.blocked
        assert asked.blocked is None
        return asked

    def waits(
        self, usd: int, agent: str | None = "a", *, there: bool = True, **given: Any
    ) -> tuple[Reservation, Bed]:
        """One that has to wait, and sleeps."""
        asked, bed = self.asks(usd, agent, **given), Bed(there)
        assert self.budgets.wait(asked) > 0
        assert asked.sleeps(bed)
        return asked, bed

    def misses(self, usd: int, agent: str | None = "a", **given: Any) -> Blocked:
        """One that is refused at once; what is in its way."""
        asked = self.asks(usd, agent, **given)
        assert self.budgets.wait(asked) == 0
        assert not asked.granted
        assert asked.blocked is not None
        return asked.blocked

    def ends(
        self, asked: Reservation, usd: int, *, agent: str | None = "a", started: datetime | None = None
    ) -> LedgerRow:
        """Its row is written: it was answered, and cost so much."""
        asked.settle(UNDECIDED)
        written = self.row(asked, usd, agent=agent, started=started)
        self.ledger.record(written)
        self.budgets.count(written)
        return written

    def row(
        self, asked: Reservation, usd: int, *, agent: str | None = "a", started: datetime | None = None
    ) -> LedgerRow:
        return row(
            id=asked.attempt,
            started=started or self.clock.now(),
            agent=agent,
            group=GROUPS.get(agent or ""),
            backend="main",
            session=None,
            usage=Usage(output=usd),
            cost=Decimal(usd),
        )

    def after(self, seconds: float) -> Money:
        self.clock.elapsed += seconds
        return self

    def account(self, agent: str | None = "a", place: int = 0, session: str | None = None) -> Account:
        assert self.store is not None
        needs = self.table.needs(agent, GROUPS.get(agent or ""), "main", session)
        return self.store.accounts(needs.claims(self.clock.now()))[place]

    def spent(self, agent: str | None = "a", place: int = 0) -> tuple[int, int]:
        """USD that are spent, and reserved."""
        found = self.account(agent, place)
        return int(found.spent_usd), int(found.reserved_usd)
