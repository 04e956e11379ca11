"""Draws what each day cost, by matplotlib (the extra `plot`).

Knows the rows of a report; must not read ledgers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ccroute.display import cut, rounded_usd
from ccroute.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED: Final = 8
"""The most expensive names have separate bars. All others share one. matplotlib has ten colours."""
_FEW: Final = 14
"""Up to so many days, each day has a tick and a mark."""
_MANY: Final = 120
"""Up to so many days, each day has a bar."""
_LONGEST: Final = 30
"""Characters of a name that are shown."""


def plot(rows: Sequence[Mapping[str, Any]], by: Sequence[str], baseline: str | None, ax: Axes | None) -> Axes:
    """Bars of what each day cost, stacked by the names in `by`, and a line of what it would have cost.

    rows:     of a report by "day" and `by`.
    baseline: the line's name. None: no line.
    ax:       where to draw. None: a new figure.
    """
    try:
        import matplotlib.dates
        from matplotlib import pyplot, ticker
    except ImportError:
        raise ConfigError("plot() needs matplotlib: pip install 'ccroute[plot]'") from None
    dates: Any = matplotlib.dates  # the module has no types
    beside: dict[str, Any] = {"loc": "best"}  # the legend
    if ax is None:
        _, ax = pyplot.subplots(figsize=(9, 4), layout="constrained")
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
    ax.set_title(_title(rows, by), loc="left", fontsize="medium", parse_math=False)
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda amount, _: _shown(amount)))
    days = _days(rows)
    if not days:
        ax.set_xticks([])
        return ax
    handles: list[Any] = []
    places, below = dates.date2num(days), [0.0] * len(days)
    for style, costs in _stacked(rows, by, days):
        top = [low + cost for low, cost in zip(below, costs, strict=True)]
        if len(days) <= _MANY:
            handles.append(ax.bar(places, costs, bottom=below, width=0.8, **style))
        else:  # many bars would take seconds
            handles.append(ax.fill_between(places, below, top, step="mid", linewidth=0, **style))
        below = top
    if baseline is not None:
        handles += ax.plot(
            places,
            _baseline(rows, days),
            color=pyplot.rcParams["text.color"],
            linewidth=1 if len(days) <= _MANY else 0.5,
            marker="o" if len(days) <= _FEW else "",
            markersize=4,
            label=_label(baseline),
        )
    if len(days) <= _FEW:
        ax.set_xticks(places, [f"{day:%b} {day.day}" for day in days])
    else:
        ticks = dates.AutoDateLocator(minticks=3, maxticks=9)
        ax.xaxis.set_major_locator(ticks)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(ticks))
    ax.set_xlim(places[0] - 0.8, places[-1] + 0.8)
    ax.set_ylim(bottom=0)
    if handles:
        legend = ax.legend(handles=handles, fontsize="small", **beside)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may have dollars
    return ax


def _days(rows: Sequence[Mapping[str, Any]]) -> list[date]:
    """Every day from the first to the last one with calls."""
    known = [_day(row) for row in rows]
    if not known:
        return []
    first = min(known)
    return [first + timedelta(days=number) for number in range((max(known) - first).days + 1)]


def _day(row: Mapping[str, Any]) -> date:
    """The row's day; the first day, if the row is of a month or a year."""
    return date.fromisoformat(f"{row['day']}-01-01"[: len("2026-01-01")])


def _costs(rows: Sequence[Mapping[str, Any]], days: Sequence[date]) -> list[float]:
    """The cost of each day, for drawing."""
    sums = defaultdict[date, Decimal](Decimal)
    for row in rows:
        sums[_day(row)] += row["cost"] or 0
    return [float(sums[day]) for day in days]


def _baseline(rows: Sequence[Mapping[str, Any]], days: Sequence[date]) -> list[float]:
    """The baseline's cost of each day. NaN, which makes a gap in the line, if a part of it is unknown."""
    costs = _costs([{**row, "cost": row["baseline_cost"]} for row in rows], days)
    unknown = {_day(row) for row in rows if row["cost"] is not None and row["baseline_cost"] is None}
    return [math.nan if day in unknown else cost for day, cost in zip(days, costs, strict=True)]


def _stacked(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], days: Sequence[date]
) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """The label and colour, and the cost of each day: of each of the most expensive names, and of all others
    together."""
    groups = defaultdict[tuple[Any, ...], list[Mapping[str, Any]]](list)
    for row in rows:
        if row["cost"]:
            groups[tuple(row[name] for name in by)].append(row)
    ordered = sorted(groups, key=lambda names: sum(row["cost"] for row in groups[names]), reverse=True)
    named = ordered if len(ordered) <= MOST_NAMED + 1 else ordered[:MOST_NAMED]
    for names in named:
        yield {"label": _label(*names)}, _costs(groups[names], days)
    if others := ordered[len(named) :]:
        rest = [row for names in others for row in groups[names]]
        yield {"label": f"{len(others)} others", "color": "0.8"}, _costs(rest, days)


def _label(*names: str | None) -> str:
    shown = ", ".join("-" if name is None else cut(name, _LONGEST) for name in names)
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib hides such a name


def _title(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> str:
    what = f"Cost per day by {', '.join(by)}"
    if not rows:
        return f"{what}: no calls"
    total = sum((row["cost"] or Decimal(0) for row in rows), Decimal(0))
    title = f"{what}: {rounded_usd(total if total < 1 else round(total, 2))}"
    if unknown := sum(row["unknown_cost_requests"] for row in rows):
        title += f", without {unknown} {'call' if unknown == 1 else 'calls'} of unknown cost"
    return title


def _shown(amount: float) -> str:
    """An amount beside the axis: at least cents."""
    whole, _, cents = f"{amount:,.9f}".rstrip("0").partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"
