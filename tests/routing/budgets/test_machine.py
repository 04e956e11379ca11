"""Any calls, at any time, under any budgets: never a cent over, nothing leaks, first come is first served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.routing.budgets.support import GROUPS, Bed, Money

from ccroute import Budget
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.accounting.budgets import Account, Claim
from ccroute.accounting.stores.memory_budgets import MemoryBudgets
from ccroute.routing.budgets.reservation import Reservation
from ccroute.routing.budgets.worst_case import Blocked

HOUR = 3600
LOOK = HOUR / 2
"""Seconds after which one that hangs holds up nobody. In the code it is less; here most of them would find
nothing."""
budgets = st.builds(
    lambda usd, tokens, per, then: Budget(usd, tokens=tokens, per=per, then=then),
    st.integers(0, 20),
    st.none() | st.integers(1, 20),
    st.sampled_from(["hour", "day", "total"]),
    st.sampled_from(["refuse", "queue", "fallback"]),
)


@pytest.fixture(autouse=True)
def looks_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.routing.budgets.budgets.LOOK_AT_ALL", LOOK)


@dataclass(eq=False)
class Attempt:
    """One attempt as the test sees it. `started`: of its row. `done`: its row, once it failed."""

    asked: Reservation
    agent: str
    usd: int
    bed: Bed = field(default_factory=Bed)
    until: float = 0.0
    hangs: bool = False
    hung: bool = False
    started: datetime | None = None
    done: LedgerRow | None = None


class Watched(MemoryBudgets):
    """Tells of each reservation that is made."""

    def __init__(self, ledger: MemoryLedger, made: Callable[[str, Sequence[Claim]], None]) -> None:
        super().__init__(ledger)
        self._made = made

    def reserve(
        self, attempt: str, claims: Sequence[Claim], usd: Decimal, tokens: int, expires: datetime
    ) -> list[Account] | None:
        lacking = super().reserve(attempt, claims, usd, tokens, expires)
        if lacking is None and usd:
            self._made(attempt, claims)
        return lacking


class BudgetMachine(RuleBasedStateMachine):
    @initialize(
        given=st.dictionaries(
            st.sampled_from(["router", "a", "b", "group:g", "backend:main"]), budgets, min_size=1, max_size=4
        )
    )
    def begins(self, given: dict[str, Budget]) -> None:
        ledger = MemoryLedger()
        self.money = Money(given, ledger=ledger, store=Watched(ledger, self._is_first))
        self.waiting: list[Attempt] = []
        self.running: list[Attempt] = []
        self.rows: list[LedgerRow] = []

    @rule(agent=st.sampled_from("abc"), usd=st.integers(0, 12), may_shorten=st.booleans())
    def arrives(self, agent: str, usd: int, may_shorten: bool) -> None:
        if self.money.table.needs(agent, GROUPS.get(agent), "main", None):
            attempt = Attempt(self.money.asks(usd, agent, may_shorten=may_shorten), agent, usd)
            self.waiting.append(attempt)
            self._looks(attempt)

    @rule(seconds=st.sampled_from([0.5, 60, HOUR / 2, 5 * HOUR, 24 * HOUR]))
    def time_passes(self, seconds: float) -> None:
        self._run_until(self.money.clock.elapsed + seconds)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), late=st.booleans())
    def is_put_off(self, data: st.DataObject, late: bool) -> None:
        """It waited for a slot, so its row begins later than its reservation."""
        data.draw(st.sampled_from(self.running)).started = self.money.clock.now()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), share=st.floats(0, 1), how=st.sampled_from(["answered", "failed", "not sent"]))
    def ends(self, data: st.DataObject, share: float, how: Literal["answered", "failed", "not sent"]) -> None:
        attempt = data.draw(st.sampled_from(self.running))
        cost, asked = int(attempt.asked.output * share), attempt.asked
        row = attempt.done or self.money.row(asked, cost, agent=attempt.agent, started=attempt.started)
        if how == "not sent" and attempt.done is None:
            asked.settle(None)
            self.running.remove(attempt)
        elif how == "failed" and attempt.done is None:  # its call goes on
            attempt.done = row
            asked.spend(row)
        else:
            self.running.remove(attempt)
            self.rows.append(row)
            self.money.ledger.record(row)
            self.money.budgets.count(row)
        self._wake_up()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def is_cancelled(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(attempt)
        attempt.asked.settle(None)
        self._wake_up()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hangs(self, data: st.DataObject) -> None:
        """Its loop is busy: it does not look, though it is woken."""
        attempt = data.draw(st.sampled_from(self.waiting))
        attempt.hangs = attempt.hung = True

    @rule()
    def goes_on(self) -> None:
        for attempt in self.waiting:
            attempt.hangs = False
        self._wake_up()

    @invariant()
    def never_a_cent_over(self) -> None:
        if not hasattr(self, "rows"):
            return
        now = self.money.clock.now()
        for need in self.money.table:
            spent_usd, spent_tokens = self._spent(need, now)
            held = [
                each.done.usage.output if each.done else each.asked.output for each in self._reserved(need)
            ]
            assert spent_usd + sum(held) <= (need.budget.usd or 0)
            assert need.budget.tokens is None or spent_tokens + sum(held) <= need.budget.tokens
            [account] = self.money.budgets.store.accounts([need.claim(now)])
            assert (account.spent_usd, account.reserved_usd) == (spent_usd, sum(held))

    def teardown(self) -> None:
        if not hasattr(self, "rows"):
            return
        self.goes_on()
        self._run_until(self.money.clock.elapsed + 2 * LOOK)
        while self.running:
            for attempt in self.running:
                attempt.asked.settle(None)
            self.running.clear()
            self._run_until(self.money.clock.elapsed + 2 * LOOK)
        assert all(self._way(each).reason == "spent" for each in self.waiting), "somebody waits for nobody"
        while self.waiting:
            self.waiting.pop().asked.settle(None)
        store = self.money.store
        assert isinstance(store, MemoryBudgets)
        store.accounts([])
        assert (store._reservations, store._reserved) == ({}, {})
        assert self.money.budgets.waiting() == []

    # How the test knows it.

    def _spent(self, need: Any, now: datetime) -> tuple[int, int]:
        since, kind, name = need.claim(now).since, need.scope.kind, need.scope.name
        rows = [row for row in self.rows if kind == "router" or getattr(row, kind) == name]
        found = [row for row in rows if row.started >= since]
        return sum(int(row.cost or 0) for row in found), sum(row.usage.output for row in found)

    def _reserved(self, need: Any) -> list[Attempt]:
        granted = [*self.running, *(each for each in self.waiting if each.asked.granted)]
        return [each for each in granted if need in each.asked.needs]

    def _way(self, attempt: Attempt) -> Blocked:
        assert attempt.asked.blocked is not None
        return attempt.asked.blocked

    def _run_until(self, end: float) -> None:
        """Let time pass; each one looks at its time."""
        self._wake_up()
        clock = self.money.clock
        while awake := [each for each in self.waiting if not each.hangs and each.until <= end]:
            attempt = min(awake, key=lambda each: each.until)
            clock.elapsed = max(clock.elapsed, attempt.until)
            self._looks(attempt)
            self._wake_up()
        clock.elapsed = max(clock.elapsed, end)

    def _wake_up(self) -> None:
        while woken := [each for each in self.waiting if each.bed.woken and not each.hangs]:
            self._looks(woken[0])

    def _looks(self, attempt: Attempt) -> None:
        asked = attempt.asked
        attempt.bed.woken = 0
        while seconds := self.money.budgets.wait(asked):
            attempt.until = self.money.clock.elapsed + seconds
            if asked.sleeps(attempt.bed):
                return
        self.waiting.remove(attempt)
        if asked.granted:
            self.running.append(attempt)
            attempt.started = self.money.clock.now()
        else:
            self._is_really_spent(attempt)

    def _is_first(self, attempt: str, claims: Sequence[Claim]) -> None:
        """Nobody who came before, and looks when woken, waits for others of a scope that it needs."""
        scopes = {claim.scope for claim in claims}
        places = {each.asked.attempt: place for place, each in enumerate(self.waiting)}
        for other in self.waiting[: places.get(attempt)]:
            assert other.hung or other.asked.attempt == attempt or other.asked.queue not in scopes

    def _is_really_spent(self, attempt: Attempt) -> None:
        way, now = self._way(attempt), self.money.clock.now()
        assert way.reason == "spent"
        usd, tokens = self._spent(way.need, now)
        least = attempt.asked.worst.least if attempt.asked.worst.may_shorten else attempt.usd
        too_dear = usd + least > (way.need.budget.usd or 0)
        assert too_dear or tokens + least > (way.need.budget.tokens or 10**9)


BudgetMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBudgetMachine: Callable[[], object] = BudgetMachine.TestCase
