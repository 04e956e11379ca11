"""What a report says of a ledger: every column, every grouping, and how it prints."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.accounting.support import DAY, START, row, rows

from ccroute import Price, Report, Usage
from ccroute.accounting import LedgerRow, MemoryLedger, cost
from ccroute.accounting.report import usd

BASELINE = Price(15, 75, cache_read="1.5")
COLUMNS = [
    "requests",
    "attempts",
    "failures",
    "input",
    "cache_read",
    "cache_write",
    "output",
    "cost",
    "unknown_cost_requests",
    "baseline_cost",
    "saved",
    "saved_percent",
    "cache_hits",
    "overrides",
    "override_saved",
    "p50",
    "p95",
]
GROUPS: list[Any] = ["agent", "group", "alias", "model", "backend", "day", "session"]


def report(*recorded: LedgerRow, by: Any = "agent", baseline: Price | None = None) -> Report:
    ledger = MemoryLedger()
    for each in recorded:
        ledger.record(each)
    return Report(ledger.tallies(), by, baseline=baseline)


def test_a_row_has_every_column() -> None:
    (only,) = report(
        row(usage=Usage(input=700, cache_read=200, cache_write_5m=60, cache_write_1h=40, output=100)),
        row(
            outcome="failed",
            failure="W2",
            final=False,
            latency=None,
            cost=Decimal("0.5"),
            usage=Usage(input=1000),
        ),
        row(cost=None, latency=3.0, cached=True),
        row(overridden=True, override_saved=Decimal("0.25"), cost=Decimal(0), latency=2.0),
        baseline=BASELINE,
    ).to_dicts()
    assert list(only) == ["agent", *COLUMNS]
    assert only == {
        "agent": "py",
        "requests": 3,
        "attempts": 4,
        "failures": 1,
        "input": 3700,
        "cache_read": 200,
        "cache_write": 100,
        "output": 300,
        "cost": Decimal("1.5"),
        "unknown_cost_requests": 1,
        "baseline_cost": Decimal("0.0573000"),
        "saved": Decimal("-1.4427"),
        "saved_percent": Decimal("-2517.8"),
        "cache_hits": 1,
        "overrides": 1,
        "override_saved": Decimal("0.25"),
        "p50": 2.0,
        "p95": 3.0,
    }


def test_without_a_baseline_nothing_is_saved_or_lost() -> None:
    (only,) = report(row()).to_dicts()
    assert (only["baseline_cost"], only["saved"], only["saved_percent"]) == (None, None, None)


def test_a_free_answer_saves_the_baselines_whole_price() -> None:
    (only,) = report(row(cost=Decimal(0)), baseline=BASELINE).to_dicts()
    assert only["saved"] == only["baseline_cost"] == Decimal("0.0225")
    assert only["saved_percent"] == 100


def test_a_free_baseline_has_no_percentage() -> None:
    (only,) = report(row(), baseline=Price(0, 0)).to_dicts()
    assert (only["saved"], only["saved_percent"]) == (Decimal(-1), None)


def test_what_nobody_prices_saves_nothing() -> None:
    (only,) = report(row(cost=None), baseline=BASELINE).to_dicts()
    assert (only["cost"], only["saved"], only["unknown_cost_requests"]) == (0, 0, 1)


@pytest.mark.parametrize("by", GROUPS)
def test_rows_are_grouped_by_any_key(by: str) -> None:
    other = {"started": START + DAY} if by == "day" else {by: "other"}
    found = report(row(), row(cost=Decimal(9), **other), row(), by=by).to_dicts()
    assert [each["requests"] for each in found] == [1, 2], "most expensive first"
    assert found[0][by] == ("2026-01-02" if by == "day" else "other")


def test_rows_are_grouped_by_several_keys_in_their_order() -> None:
    found = report(row(), row(model="n"), row(agent=None), by=("model", "agent")).to_dicts()
    assert [list(each)[:2] for each in found] == [["model", "agent"]] * 3
    assert {(each["model"], each["agent"]) for each in found} == {("m", "py"), ("n", "py"), ("m", None)}


def test_of_equal_cost_the_busier_comes_first() -> None:
    found = report(row(agent="a", cost=Decimal(2)), row(agent="b"), row(agent="b")).to_dicts()
    assert [each["agent"] for each in found] == ["b", "a"]


@pytest.mark.parametrize("by", ["agents", (), ("agent", "colour"), ""])
def test_an_unknown_grouping_is_told_the_known_ones(by: Any) -> None:
    with pytest.raises(ValueError, match="by= is one of agent, group, alias, model, backend, day, session"):
        report(by=by)


def test_what_a_report_gives_away_is_a_copy() -> None:
    made = report(row())
    made.to_dicts()[0]["cost"] = None
    assert made.to_dicts()[0]["cost"] == 1


@given(st.lists(rows, max_size=20), st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True))
def test_however_it_is_grouped_the_sums_stay_the_same(recorded: list[LedgerRow], by: list[str]) -> None:
    found = report(*recorded, by=tuple(by), baseline=BASELINE).to_dicts()
    assert sum(each["attempts"] for each in found) == len(recorded)
    assert sum(each["requests"] for each in found) == sum(each.final for each in recorded)
    assert sum(each["cost"] for each in found) == sum(each.cost or 0 for each in recorded)
    spent = [cost(each.usage, BASELINE) or 0 for each in recorded if each.cost is not None]
    assert sum(each["baseline_cost"] for each in found) == sum(spent)


# -- Printing


def test_it_prints_as_an_aligned_table() -> None:
    made = report(
        row(latency=0.5),
        row(agent="javascript", cost=Decimal("12.345678"), latency=10.0),
        row(agent=None, cost=None, latency=None),
    )
    assert str(made).splitlines() == [
        "agent       requests  input  output               cost       p50",
        "----------  --------  -----  ------  -----------------  --------",
        "javascript         1   1000     100         $12.345678  10.000 s",
        "py                 1   1000     100              $1.00   0.500 s",
        "-                  1   1000     100  $0.00 + 1 unknown         -",
    ]
    assert repr(made) == str(made)


def test_savings_and_overrides_are_shown_where_there_are_any() -> None:
    made = report(row(cost=Decimal(0), overridden=True), baseline=BASELINE, by=("agent", "model"))
    header, _, line = str(made).splitlines()
    assert header.split() == [
        "agent", "model", "requests", "input", "output", "cost", "saved", "saved_percent", "overrides", "p50",
    ]  # fmt: skip
    assert line.split() == [
        "py",
        "m",
        "1",
        "1000",
        "100",
        "$0.00",
        "$0.0225",
        "100.0",
        "%",
        "1",
        "1.000",
        "s",
    ]


def test_an_empty_report_is_a_header() -> None:
    assert str(report()).splitlines() == ["agent  requests  cost", "-----  --------  ----"]


def test_in_a_notebook_names_are_escaped() -> None:
    shown = report(row(agent="<b>&"))._repr_html_()
    assert shown.startswith("<table><thead><tr><th>agent</th>")
    assert "<td>&lt;b&gt;&amp;</td>" in shown
    assert "<b>" not in shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.00"),
        ("3", "$3.00"),
        ("0.0225", "$0.0225"),
        ("12.5", "$12.50"),
        ("0.000001", "$0.000001"),
        ("0.1662500", "$0.16625"),
        ("-1.5", "-$1.50"),
        ("1E+3", "$1000.00"),
    ],
)
def test_money_has_at_least_cents_and_at_most_six_digits(amount: str, shown: str) -> None:
    assert usd(Decimal(amount)) == shown
