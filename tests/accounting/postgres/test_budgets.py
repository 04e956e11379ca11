"""Budgets with a ledger in PostgreSQL: what the journal has shipped goes on to count."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.accounting.postgres.conftest import Place
from tests.accounting.support import START, row
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import Budget, Model, OpenAIBackend, Price, Router
from ccroute.accounting import PostgresLedger
from ccroute.accounting.budgets import Claim, Scope
from ccroute.errors import BudgetExceededError
from ccroute.types import Usage
from ccroute.types.clock import BEGINNING, END

HOUR = timedelta(hours=1)


def spent(ledger: PostgresLedger, scope: Scope, since: Any = BEGINNING) -> tuple[Decimal, int]:
    [account] = ledger.budget_store().accounts([Claim(scope, since, END, Decimal(100), None)])
    return account.spent_usd, account.spent_tokens


def test_rows_that_were_shipped_go_on_to_count(place: Place) -> None:
    ledger = place.ledger()
    for number in range(8):
        ledger.record(
            row(
                started=START + number * HOUR / 2,
                agent=None if number == 7 else "py",
                group=["devs", "NULL", None, "'"][number % 4],
                backend=f"b{number % 2}",
                cost=Decimal("1.0000000000001") if number == 3 else None if number == 6 else Decimal(number),
                usage=Usage(input=number, output=1),
            )
        )
    expected = {
        (Scope("router"), BEGINNING): (Decimal(20), 36),
        (Scope("router"), START + 2 * HOUR): (Decimal(16), 26),
        (Scope("agent", "py"), BEGINNING): (Decimal(13), 28),
        (Scope("group", "devs"), BEGINNING): (Decimal(4), 6),
        (Scope("group", "NULL"), BEGINNING): (Decimal(6), 8),
        (Scope("backend", "b0"), START + HOUR): (Decimal(6), 15),
        (Scope("agent", "js"), BEGINNING): (Decimal(0), 0),
    }
    before = {asked: spent(ledger, *asked) for asked in expected}
    rounded = {asked: (round(usd, 9), tokens) for asked, (usd, tokens) in before.items()}
    assert rounded == expected  # of more than 12 decimal places, a little more counts
    ledger.close()
    assert len(place.ids()) == 8
    assert {asked: spent(place.ledger(), *asked) for asked in expected} == before
    other = row(agent="js", group="NULL", backend="b0", cost=Decimal(2), usage=Usage(input=1))
    for _ in range(2):  # once in the journal, once shipped in the same quarter of an hour
        later = place.ledger()
        later.record(other)
        assert spent(later, Scope("agent", "js")) == (2, 1)
        assert spent(later, Scope("group", "NULL")) == (8, 9)
        later.close()
        later.record(other := other._replace(id="again", cost=Decimal(0), usage=Usage()))


def test_a_budget_outlives_the_router_and_the_shipping(place: Place) -> None:
    url = f"{place.url}&journal={place.journal}"
    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        backend = OpenAIBackend(
            "main", base_url=server.url, models={"m": Model(price=Price(100_000, 0), context_window=100)}
        )
        with Router([backend], default_model="main/m", ledger=url) as router:
            cost = router.complete("hi", max_tokens=1).cost
        assert cost is not None
        assert cost >= 1
        assert len(place.ids()) == 1
        budgets = {"router": Budget(usd=1, per="total")}
        with Router([backend], default_model="main/m", ledger=url, budgets=budgets) as router:
            with pytest.raises(BudgetExceededError) as raised:
                router.complete("hi", max_tokens=1)
        assert raised.value.spent == cost
