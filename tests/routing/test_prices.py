"""Prices of names, and the warning of prices that can never count."""

from __future__ import annotations

from typing import Any

import pytest
from tests.flow.support import local, paid

from ccroute import Agent, Price, PriceBook
from ccroute.routing import AgentTable, AliasTable, Tables
from ccroute.routing.tables.prices import is_known, warn_of_unused

PRICE = Price(1, 2)


def tables(prices: dict[str, Any], **aliases: Any) -> Tables:
    agents = AgentTable({"py": Agent("paid/sonnet-4-5")})
    return Tables([paid(), local()], AliasTable(aliases), agents, prices=PriceBook(prices))


@pytest.mark.parametrize(
    ("name", "known"),
    [("fast", True), ("paid/x", True), ("else/x", True), ("opus", True), ("opsu", False)],
)
def test_a_name_is_known_by_a_deployment_a_price_or_its_form(name: str, known: bool) -> None:
    assert is_known(tables({"opus": PRICE}, fast="paid/m"), name) is known


@pytest.mark.parametrize(
    ("price", "warning"),
    [
        ("fast", 'prices["fast"] is an alias'),
        ("paid/m", None),
        ("m", None),
        ("baseline", None),
        ("paid/quite-another", None),
        ("payd/m", 'prices["payd/m"] names no backend of this router, did you mean "paid"?'),
        ("sonet-4-5", "leads to no model that this router knows, and paid/sonnet-4-5 has no price"),
        ("quite-another", None),
    ],
)
def test_a_price_that_can_never_count_is_warned_of(
    price: str, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unused(tables({price: PRICE}, fast="paid/m"), "baseline")
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == (warning is not None)
    assert warning is None or warning in found[0]


def test_without_prices_there_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused(tables({}, fast="paid/m"), None)
    assert caplog.records == []


def test_a_whole_price_list_is_not_compared_by_spelling(caplog: pytest.LogCaptureFixture) -> None:
    prices: dict[str, Any] = {f"sonet-{i}-5": PRICE for i in range(201)}
    warn_of_unused(tables(prices, fast="paid/m"), None)
    assert caplog.records == []
