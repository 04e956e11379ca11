"""A report of a ledger: every column, every grouping, and how it prints."""

from __future__ import annotations

import csv
import gc
import math
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.accounting.support import DAY, START, row, rows

from ccroute import Price, Report, Usage
from ccroute.accounting import Key, LedgerRow, MemoryLedger, Tally, cost
from ccroute.accounting.report import MOST_SHOWN
from ccroute.display import rounded_usd

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
    "wait",
    "loads",
    "load_seconds",
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
            failure="ambiguous",
            final=False,
            latency=None,
            cost=Decimal("0.5"),
            usage=Usage(input=1000),
            queue=0.25,
            load=0.01,
        ),
        row(cost=None, latency=3.0, cached=True, queue=40.0, load=45.5),
        row(overridden=True, override_saved=Decimal("0.25"), cost=Decimal(0), latency=2.0, load=0.05),
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
        "wait": 40.25,
        "loads": 2,
        "load_seconds": 45.55,
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


def test_an_unknown_price_saves_nothing() -> None:
    (only,) = report(row(cost=None), baseline=BASELINE).to_dicts()
    assert (only["cost"], only["unknown_cost_requests"]) == (None, 1), "unknown is not nothing"
    assert (only["baseline_cost"], only["saved"], only["saved_percent"]) == (None, None, None)


def test_known_cost_is_beside_the_requests_of_unknown_cost() -> None:
    (only,) = report(row(), row(cost=None), baseline=BASELINE).to_dicts()
    assert (only["cost"], only["unknown_cost_requests"]) == (1, 1)
    assert only["baseline_cost"] == Decimal("0.0225"), "for the tokens whose cost is known"


def test_an_attempt_without_tokens_makes_no_cost_known() -> None:
    rejected = row(outcome="failed", cost=Decimal(0), usage=Usage(), final=False, latency=None)
    (only,) = report(rejected, row(cost=None)).to_dicts()
    assert only["cost"] is None
    (only,) = report(rejected).to_dicts()
    assert only["cost"] == 0, "nothing was used, so nothing was spent"


def test_what_overrides_saved_is_unknown_where_no_saving_is_known() -> None:
    unknown, known = row(overridden=True), row(overridden=True, override_saved=Decimal(2))
    assert report(unknown).total["override_saved"] is None
    assert report(unknown, known).total["override_saved"] == 2
    assert report(row()).total["override_saved"] == 0


# -- A baseline with tiers

TIERED = Price(3, 15, above={200_000: Price(6, "22.5")})


def test_the_baselines_tier_is_that_of_each_attempts_prompt() -> None:
    short, long = Usage(input=150_000, output=10), Usage(input=100_000, cache_read=100_001, output=10)
    made = report(*[row(usage=short)] * 2, row(usage=long), baseline=TIERED)
    assert made.total["baseline_cost"] == 2 * cost(short, TIERED) + cost(long, TIERED)  # type: ignore[operator]


@given(st.lists(st.integers(199_000, 201_000), min_size=1, max_size=9), st.sampled_from([0, 99]))
def test_usual_tiers_are_exact_however_many_rows_were_summed_up(prompts: list[int], limit: int) -> None:
    ledger = MemoryLedger(limit)
    used = [Usage(input=prompt, output=1) for prompt in prompts]
    for usage in used:
        ledger.record(row(usage=usage))
    made = Report.of(ledger.tallies, "agent", None, None, TIERED)
    assert made.total["baseline_cost"] == sum(cost(usage, TIERED) or 0 for usage in used)


def test_an_unusual_tier_is_exact_only_while_the_rows_are_there() -> None:
    odd, ledger = Price(1, 1, above={12_345: Price(2, 2)}), MemoryLedger(2)
    for prompt in (12_345, 12_346):
        ledger.record(row(usage=Usage(input=prompt)))
    total = Report.of(ledger.tallies, "agent", None, None, odd).total
    assert total["baseline_cost"] == Decimal("0.012345") + Decimal("0.024692")
    for _ in range(2):
        ledger.record(row())
    total = Report.of(ledger.tallies, "agent", None, None, odd).total
    assert (total["baseline_cost"], total["saved"], total["saved_percent"]) == (None, None, None)
    assert total["cost"] == 4, "what was spent is known all the same"


@pytest.mark.parametrize("by", [each for each in GROUPS if each != "day"])
def test_rows_are_grouped_by_any_key(by: str) -> None:
    found = report(row(), row(cost=Decimal(9), **{by: "other"}), row(), by=by).to_dicts()
    assert [each["requests"] for each in found] == [1, 2], "most expensive first"
    assert found[0][by] == "other"


def test_days_are_in_their_order_and_each_with_the_most_expensive_first() -> None:
    later = START + DAY
    recorded = [row(started=later, cost=Decimal(9)), row(), row(model="n", cost=Decimal(2))]
    found = report(*recorded, by=("model", "day")).to_dicts()
    assert [(each["day"], each["model"]) for each in found] == [
        ("2026-01-01", "n"),
        ("2026-01-01", "m"),
        ("2026-01-02", "m"),
    ]


def test_rows_are_grouped_by_several_keys_in_their_order() -> None:
    found = report(row(), row(model="n"), row(agent=None), by=("model", "agent")).to_dicts()
    assert [list(each)[:2] for each in found] == [["model", "agent"]] * 3
    assert {(each["model"], each["agent"]) for each in found} == {("m", "py"), ("n", "py"), ("m", None)}


def test_of_equal_cost_the_busier_comes_first() -> None:
    found = report(row(agent="a", cost=Decimal(2)), row(agent="b"), row(agent="b")).to_dicts()
    assert [each["agent"] for each in found] == ["b", "a"]


@pytest.mark.parametrize("by", ["agents", ("agent", "colour"), ""])
def test_an_unknown_grouping_is_an_error_with_the_known_ones(by: Any) -> None:
    with pytest.raises(ValueError, match="by= is one of agent, group, alias, model, backend, day, session"):
        report(by=by)


def test_what_a_report_gives_away_is_a_copy() -> None:
    made = report(row())
    made.to_dicts()[0]["cost"] = None
    next(iter(made))["cost"] = made[0]["cost"] = made.total["cost"] = None
    assert made.to_dicts()[0]["cost"] == made.total["cost"] == 1


# -- A report as data


def test_by_nothing_is_the_total() -> None:
    made = report(row(), row(agent="js", cost=None), by=())
    (only,) = made
    assert list(only) == COLUMNS
    assert only == made.total == report(row(), row(agent="js", cost=None)).total
    assert (only["requests"], only["cost"], only["unknown_cost_requests"]) == (2, 1, 1)


def test_the_total_of_nothing_is_nothing_spent() -> None:
    (only,) = report(by=(), baseline=BASELINE)
    assert (only["requests"], only["cost"], only["saved"], only["p50"]) == (0, 0, 0, None)
    assert list(report()) == []


def test_a_report_is_a_sequence_of_its_rows() -> None:
    made = report(row(), row(agent="js", cost=Decimal(3)))
    assert len(made) == 2
    assert [each["agent"] for each in made] == ["js", "py"] == [made[0]["agent"], made[-1]["agent"]]
    assert [each["agent"] for each in made[1:]] == ["py"]
    assert list(made) == made.to_dicts()
    assert not report()
    with pytest.raises(IndexError):
        made[2]


def test_pandas_makes_a_table_of_a_report() -> None:
    made = report(row(), row(agent="js", cost=None), baseline=BASELINE)
    table = pandas.DataFrame(made)
    assert list(table.columns) == ["agent", *COLUMNS]
    assert list(table["agent"]) == ["py", "js"]
    assert table["cost"][0] == Decimal(1), "exact unless floats are asked for"
    floats = pandas.DataFrame(made.to_dicts(floats=True))
    money = ["cost", "baseline_cost", "saved", "saved_percent", "override_saved", "p50", "p95"]
    assert {str(floats[name].dtype) for name in money} == {"float64"}
    assert floats["cost"].sum() == 1.0
    assert floats["cost"].isna().tolist() == [False, True]


def test_columns_are_floats_also_where_nothing_is_known() -> None:
    (only,) = report(row(cost=None, latency=None)).to_dicts(floats=True)
    assert all(math.isnan(only[name]) for name in ("cost", "baseline_cost", "saved", "p50", "p95"))


@given(st.lists(rows, max_size=20), st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True))
def test_however_it_is_grouped_the_sums_stay_the_same(recorded: list[LedgerRow], by: list[str]) -> None:
    found = report(*recorded, by=tuple(by), baseline=BASELINE).to_dicts()
    assert sum(each["attempts"] for each in found) == len(recorded)
    assert sum(each["requests"] for each in found) == sum(each.final for each in recorded)
    assert sum(each["cost"] or 0 for each in found) == sum(each.cost or 0 for each in recorded)
    spent = [cost(each.usage, BASELINE) or 0 for each in recorded if each.cost is not None]
    assert sum(each["baseline_cost"] or 0 for each in found) == sum(spent)


# -- Printing


def test_it_prints_as_an_aligned_table() -> None:
    made = report(
        row(latency=0.5),
        row(agent="javascript", cost=Decimal("12.345678"), latency=10.0),
        row(agent=None, cost=None, latency=None),
    )
    assert str(made).splitlines() == [
        "agent       requests  input  output                    cost       p50",
        "----------  --------  -----  ------  ----------------------  --------",
        "javascript         1  1,000     100              $12.345678  10.000 s",
        "py                 1  1,000     100                   $1.00   0.500 s",
        "-                  1  1,000     100               1 unknown         -",
        "----------  --------  -----  ------  ----------------------  --------",
        "total              3  3,000     300  $13.345678 + 1 unknown   0.500 s",
    ]
    assert repr(made) == str(made)


def test_savings_and_overrides_are_shown_where_there_are_any() -> None:
    only = row(cost=Decimal(0), overridden=True, override_saved=Decimal("0.25"))
    made = report(only, baseline=BASELINE, by=("agent", "model"))
    header, _, line, _, total = str(made).splitlines()
    assert header.split() == [
        "agent", "model", "requests", "input", "output", "cost", "saved", "saved_percent", "overrides",
        "override_saved", "p50",
    ]  # fmt: skip
    assert total.split() == ["total", *line.split()[2:]]
    assert line.split() == [
        "py",
        "m",
        "1",
        "1,000",
        "100",
        "$0.00",
        "$0.0225",
        "100.0",
        "%",
        "1",
        "$0.25",
        "1.000",
        "s",
    ]


def test_waits_and_loads_are_shown_where_there_are_any() -> None:
    busy, idle = row(model="big", queue=1234.56, load=45.0), row(model="small", load=0.02)
    assert str(report(busy, busy, idle, by="model")).splitlines() == [
        "model  requests  input  output   cost      p50       wait        loads",
        "-----  --------  -----  ------  -----  -------  ---------  -----------",
        "big           2  2,000     200  $2.00  1.000 s  2,469.1 s  2 in 90.0 s",
        "small         1  1,000     100  $1.00  1.000 s      0.0 s            0",
        "-----  --------  -----  ------  -----  -------  ---------  -----------",
        "total         3  3,000     300  $3.00  1.000 s  2,469.1 s  2 in 90.0 s",
    ]
    short = str(report(row(queue=0.02), row(queue=0.02))).splitlines()[0]
    assert short.split()[-1] == "p50", "nobody had to wait"


def test_an_empty_report_is_a_header() -> None:
    assert str(report()).splitlines() == ["agent  requests  cost", "-----  --------  ----"]


def test_the_total_alone_is_one_line() -> None:
    assert str(report(row(), row(), by=())).splitlines() == [
        "requests  input  output   cost      p50",
        "--------  -----  ------  -----  -------",
        "       2  2,000     200  $2.00  1.000 s",
    ]


def test_an_unknown_cost_that_is_not_final_is_shown() -> None:
    shown = str(report(row(cost=None, final=False, latency=None))).splitlines()[2]
    assert shown.split() == ["py", "0", "1,000", "100", "unknown"]


def cells(html: str, part: str) -> list[tuple[str, str]]:
    """The text and the style of the cells in a part of the table: `thead`, `tbody` or `tfoot`."""
    found = ElementTree.fromstring(f"<main>{html}</main>").findall(f".//{part}/tr/*")
    return [(each.text or "", each.attrib["style"]) for each in found]


def test_in_a_notebook_the_total_is_the_tables_foot() -> None:
    shown = report(row(), row(agent="js"))._repr_html_()
    assert [text for text, _ in cells(shown, "tfoot")] == ["total", "2", "2,000", "200", "$2.00", "1.000 s"]
    assert "<tfoot>" not in report(row(), by=())._repr_html_()


def test_in_a_notebook_numbers_are_at_the_right_and_in_no_colour() -> None:
    shown = report(row())._repr_html_()
    for part in ("thead", "tbody", "tfoot"):
        names, *numbers = cells(shown, part)
        assert "text-align: left" in names[1]
        assert all("text-align: right" in style for _, style in numbers)
    assert "color" not in shown, "themes are light and dark"


def test_in_a_notebook_names_are_escaped() -> None:
    shown = report(row(agent="<b>&"))._repr_html_()
    assert cells(shown, "tbody")[0][0] == "<b>&"
    assert "<b>" not in shown


def test_a_prompt_and_a_notebook_show_the_first_of_many_rows() -> None:
    made = report(*(row(agent=f"agent-{number}") for number in range(MOST_SHOWN + 5)))
    assert str(made).count("agent-") == MOST_SHOWN + 5
    for shown in (repr(made), made._repr_html_()):
        assert shown.count("agent-") == MOST_SHOWN
        assert "5 more rows: print(report), or report.to_dicts()" in shown
        assert str(MOST_SHOWN + 5) in shown, "the total is that of all"


@pytest.mark.parametrize("on", [True, False])
def test_a_report_leaves_the_garbage_collector_as_it_was(on: bool) -> None:
    seen = []

    class Watched(dict[Key, Tally]):
        def items(self) -> Any:
            seen.append(gc.isenabled())
            return super().items()

    sums = Watched({row().key(): Tally()})
    (gc.enable if on else gc.disable)()
    try:
        Report(sums)
        with pytest.raises(AttributeError):
            Report({row().key(): None})  # type: ignore[dict-item]  # wrong on purpose
        assert gc.isenabled() == on
    finally:
        gc.enable()
    assert seen == [False]


# -- What is estimated


def test_estimated_tokens_are_listed_apart() -> None:
    guess, nothing = Usage(input=10, estimated=True), Usage(estimated=True)
    made = report(
        row(usage=guess),
        row(usage=guess, cost=Decimal("0.5")),
        row(usage=guess, cost=None),
        row(agent="js", usage=guess, cost=Decimal(2)),
        row(agent="exact"),
    )
    assert made.estimated == [
        {"agent": "js", "attempts": 1, "cost": Decimal(2)},
        {"agent": "py", "attempts": 3, "cost": Decimal("1.5")},
    ]
    note = "estimated: the tokens of 4 of 5 attempts, which cost $3.50"
    assert str(made).splitlines()[-1] == note
    assert note in made._repr_html_()
    assert [each["cost"] for each in made.to_dict()["estimated"]] == ["2", "1.5"]
    made.estimated[0]["cost"] = None
    assert made.estimated[0]["cost"] == 2
    assert report(row(usage=nothing)).estimated == [{"agent": "py", "attempts": 1, "cost": 1}]
    assert report(row()).estimated == []


# -- CSV


def test_a_csv_file_has_every_row_with_exact_amounts(tmp_path: Path) -> None:
    made = report(
        row(cost=Decimal("0.000000000001"), latency=1 / 3),
        row(cost=Decimal("1E+3"), agent="js"),
        row(cost=None, agent=None),
        by=("agent", "day"),
        baseline=BASELINE,
    )
    made.to_csv(tmp_path / "costs.csv")
    with open(tmp_path / "costs.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [list(line) for line in read] == [["agent", "day", *COLUMNS]] * 3
    assert [line["cost"] for line in read] == ["1000", "0.000000000001", ""]
    assert [line["agent"] for line in read] == ["js", "py", ""]
    assert (read[1]["p50"], read[1]["saved"], read[2]["saved"]) == ("0.333333", "0.022499999999", "")
    assert all(
        (line[name] or None)
        == (None if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value))
        for line, expected in zip(read, made, strict=True)
        for name, value in expected.items()
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r\n=1", "'\r\n=1"),
        ("＝1", "'＝1"),
        ('a, "b"\nc', 'a, "b"\nc'),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path: Path, name: str, written: str) -> None:
    made = report(row(agent=name), row(agent="négligé", cost=Decimal("-0.5")), baseline=BASELINE)
    made.to_csv(tmp_path / "costs.csv", encoding="utf-8-sig")
    with open(tmp_path / "costs.csv", encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["agent"] == written
    assert (second["agent"], second["cost"]) == ("négligé", "-0.5"), "a number is a number"
    assert pandas.read_csv(tmp_path / "costs.csv")["requests"].sum() == 2


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
    assert rounded_usd(Decimal(amount)) == shown
