"""The picture of a report: bars of each day's cost, and the baseline as a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from matplotlib import dates, pyplot
from matplotlib.axes import Axes
from tests.accounting.support import DAY, START, row

from ccroute import Price, Report
from ccroute.accounting import LedgerRow, MemoryLedger
from ccroute.errors import ConfigError

BASELINE = Price(1000, 10_000)
"""Two USD for the tokens of a row."""


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def report(
    *recorded: LedgerRow, by: Any = "agent", baseline: Price | None = None, limit: int = 1000
) -> Report:
    ledger = MemoryLedger(limit)
    for each in recorded:
        ledger.record(each)
    return Report.of(ledger.tallies, by, None, None, baseline, "opus")


def on(day: int, **facts: Any) -> LedgerRow:
    return row(started=START + day * DAY, **facts)


def drawn(made: Report, **options: Any) -> tuple[Axes, dict[str, list[float]]]:
    """The picture, painted, and the heights of its bars by their name."""
    ax = made.plot(**options)
    ax.figure.canvas.draw()
    return ax, {str(bars.get_label()): [bar.get_height() for bar in bars] for bars in ax.containers}


def names(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


ROWS = [
    on(0),
    on(0, agent="js", cost=Decimal(3)),
    on(3, cost=Decimal("0.5")),
    on(3, agent="js", cost=None),
    on(3, agent="idle", cost=Decimal(0)),
]


@pytest.mark.parametrize("by", ["agent", ("day", "agent"), ("agent", "day"), "day", ()])
def test_each_day_has_a_bar_and_a_day_without_calls_is_zero(by: Any) -> None:
    ax, bars = drawn(report(*ROWS, by=by, baseline=BASELINE))
    assert bars == {"js": [3, 0, 0, 0], "py": [1, 0, 0, 0.5]}, "the most expensive first"
    [line] = ax.get_lines()
    assert list(line.get_ydata()) == [4, 0, 0, 4], "of the attempts whose cost is known"
    assert names(ax) == ["js", "py", "baseline opus"]
    assert ax.get_title(loc="left") == "Cost per day by agent: $4.50, without 1 call of unknown cost"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["Jan 1", "Jan 2", "Jan 3", "Jan 4"]
    assert list(line.get_xdata()) == [dates.date2num(START + day * DAY) for day in range(4)]


def test_the_bars_of_a_day_stand_on_each_other() -> None:
    js, py = report(*ROWS).plot().containers
    assert [bar.get_y() for bar in js] == [0] * 4
    assert [bar.get_y() for bar in py] == [3, 0, 0, 0]


@pytest.mark.parametrize(
    ("by", "labels"),
    [("model", ["n", "m"]), (("model", "agent"), ["n, js", "m, py"]), (("day", "group"), ["devs"])],
)
def test_bars_are_stacked_by_what_the_report_is_by(by: Any, labels: list[str]) -> None:
    ax, bars = drawn(report(on(0), on(1, model="n", agent="js", cost=Decimal(2)), by=by))
    assert list(bars) == names(ax) == labels
    assert ax.get_title(loc="left").startswith(f"Cost per day by {', '.join(set_apart(by))}: $3.00")


def set_apart(by: Any) -> list[str]:
    return [name for name in ([by] if isinstance(by, str) else by) if name != "day"]


def test_beyond_the_most_expensive_names_the_others_are_one() -> None:
    many = [on(0, agent=f"agent-{number}", cost=Decimal(number)) for number in range(1, 41)]
    _, bars = drawn(report(*many))
    assert list(bars) == [*(f"agent-{number}" for number in range(40, 32, -1)), "32 others"]
    assert sum(heights[0] for heights in bars.values()) == sum(range(41))
    _, bars = drawn(report(*many[:9]))
    assert len(bars) == 9
    assert "1 others" not in bars


def test_a_free_baseline_is_a_line_at_zero() -> None:
    ax, _ = drawn(report(*ROWS, baseline=Price(0, 0)))
    assert list(ax.get_lines()[0].get_ydata()) == [0] * 4
    assert drawn(report(*ROWS))[0].get_lines() == ax.get_lines()[1:] == []


def test_calls_that_were_free_leave_the_baseline() -> None:
    ax, bars = drawn(report(on(0, cost=Decimal(0)), baseline=BASELINE))
    assert (bars, names(ax)) == ({}, ["baseline opus"])
    ax, bars = drawn(report(on(0, cost=Decimal(0))))
    assert (bars, names(ax)) == ({}, [])


def test_without_calls_the_picture_says_so() -> None:
    ax, bars = drawn(report(baseline=BASELINE))
    assert (ax.get_title(loc="left"), bars) == ("Cost per day by agent: no calls", {})


def test_it_draws_where_it_is_told_to() -> None:
    _, (left, right) = pyplot.subplots(1, 2)
    ax, _ = drawn(report(*ROWS), ax=right)
    assert ax is right
    assert not left.has_data()
    assert drawn(report(*ROWS))[0].figure is not right.figure


def test_a_name_is_shown_as_it_is() -> None:
    odd = ["_hidden", "a$b$c", "<b>", "x" * 50]
    ax, _ = drawn(
        report(*(on(0, agent=name, cost=Decimal(9 - i)) for i, name in enumerate(odd)), on(0, agent=None))
    )
    assert names(ax) == [" _hidden", "a$b$c", "<b>", f"{'x' * 30}…", "-"]


@pytest.mark.parametrize("days", [1, 20, 60, 400])
def test_any_number_of_days_is_drawn(days: int) -> None:
    made = report(*(on(day) for day in range(days)), baseline=BASELINE)
    ax, bars = drawn(made)
    assert names(ax) == ["py", "baseline opus"]
    first, last = ax.get_xlim()
    assert days <= last - first <= days + 1
    assert len(ax.get_xticklabels()) < 20
    if days < 120:
        assert bars == {"py": [1] * days}
    else:
        [area] = ax.collections
        assert area.get_datalim(ax.transData).height == 1


def test_what_is_only_known_by_month_is_drawn_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.accounting.stores.memory.MOST_SUMS", 3)
    ax, bars = drawn(report(*(on(day) for day in range(35)), limit=0))
    assert bars["py"][0] == 31
    assert sum(bars["py"]) == 35
    assert ax.get_title(loc="left") == "Cost per day by agent: $35.00"


def test_a_day_whose_baseline_is_unknown_is_a_gap() -> None:
    made = report(on(0), on(1), on(2), baseline=Price(1, 1, above={1234: Price(2, 2)}), limit=2)
    [line] = drawn(made)[0].get_lines()
    assert [cost == cost for cost in line.get_ydata()] == [False, True, True]


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0.0, "$0.00"), (0.0000025, "$0.0000025"), (0.5, "$0.50"), (12_345.678, "$12,345.678")],
)
def test_the_axis_shows_at_least_cents(amount: float, shown: str) -> None:
    ax, _ = drawn(report(*ROWS))
    assert ax.yaxis.get_major_formatter()(amount) == shown


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'ccroute\[plot\]'"):
        report(*ROWS).plot()


def test_a_day_is_one_of_utc() -> None:
    late = row(started=START + DAY - timedelta(microseconds=1))
    _, bars = drawn(report(late, on(1, cost=Decimal(2))))
    assert bars == {"py": [1, 2]}
