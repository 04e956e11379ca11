"""What was spent and saved, grouped by agent, model, day and more: rows of dicts, printed as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal, localcontext
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TextIO, get_args, overload

from ccroute.accounting.ledger import moment
from ccroute.accounting.money import EXACT, NOTHING, as_json
from ccroute.accounting.price_lists import how_to_price, price_of_model
from ccroute.accounting.prices import PriceBook, PriceLike
from ccroute.accounting.row import Key
from ccroute.accounting.tally import Tally, combined, merged, tiers_of, without_gc
from ccroute.display import RichTable, aligned, html_table, rounded_usd
from ccroute.errors import ConfigError
from ccroute.types import Price

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType

GroupBy = Literal["agent", "group", "alias", "model", "backend", "day", "session"]
_HIDDEN = frozenset(
    {"attempts", "baseline_cost", "cache_hits", "p95", "unknown_cost_requests", "load_seconds"}
)
"""Columns that a printed table does not have."""
_ALWAYS = frozenset({"requests", "cost"})
"""Columns that it has even where all are zero or unknown."""
MOST_SHOWN: Final = 100
"""The most rows that a notebook or an interactive prompt shows."""
_FORMULA: Final = frozenset("=+-@＝＋－＠")
"""Characters with which a formula begins in a spreadsheet. Some are those of Japanese spreadsheets."""
_LEAST_WAIT = 0.05
"""Seconds; a table in which nobody waited longer has no such column."""
_FLOATS = ("cost", "baseline_cost", "saved", "saved_percent", "override_saved", "p50", "p95")


class Report(Sequence[Mapping[str, Any]]):
    """Sums of a ledger, one row per value of `by`; `total` is the sum of all.

    The most expensive row is the first. With "day" in `by`, days are in their order.

    It is a sequence of its rows, so `pandas.DataFrame(report)` is a table of them. `by=()` has one
    row, the total.

    Money is USD as `Decimal`, latencies are seconds. `requests` are calls whose deciding attempt is in the
    row, `failures` the attempts that failed. `cost` leaves out attempts of unknown price, whose calls
    `unknown_cost_requests` counts, and is `None` where no attempt had a known price. `baseline_cost` is
    what `baseline` would have cost for the tokens of the same attempts, each priced at its own tier, and
    `saved` is `baseline_cost - cost`. Both are `None` without a baseline, where `cost` is `None`, and where
    a tier of the baseline begins between prompts that were summed up. `override_saved` is `None` where no
    override's saving is known. `p50` and `p95` are percentiles of the latencies of answered
    calls. `wait` are the seconds that all attempts together waited before they began: for a slot, a
    rate limit or a budget. For `loads` of them a server loaded the model, which took `load_seconds` in all;
    servers that do not say so count as if they had none.
    """

    def __init__(
        self,
        sums: Mapping[Key, Tally],
        by: GroupBy | Sequence[GroupBy] = "agent",
        *,
        baseline: Price | None = None,
    ) -> None:
        self.by = group_by(by)
        self._baseline = baseline
        self._baseline_name = "baseline"
        self._read: Callable[..., Mapping[Key, Tally]] = lambda by: sums
        self._rows, self._estimated = list[dict[str, Any]](), list[dict[str, Any]]()
        with localcontext(EXACT), without_gc():
            groups = combined(
                (tuple([getattr(key, name) for name in self.by]), each) for key, each in sums.items()
            )
            whole = merged(list(groups.values()))
            self._total, self._total_estimated = _columns(whole, baseline), _estimated(whole)
            for group, tally in groups.items() if self.by else ():
                row: dict[str, Any] = dict(zip(self.by, group, strict=True))
                if tally.estimated:
                    self._estimated.append(row | _estimated(tally))
                row.update(_columns(tally, baseline))
                self._rows.append(row)
        if not self.by:
            self._rows, self._estimated = [self._total], [self._total_estimated] * bool(whole.estimated)
        self._rows.sort(key=itemgetter("requests"), reverse=True)
        self._rows.sort(key=lambda row: row["cost"] or NOTHING, reverse=True)
        if "day" in self.by:
            self._rows.sort(key=itemgetter("day"))
        self._estimated.sort(key=itemgetter("cost"), reverse=True)

    @classmethod
    def from_ledger(
        cls,
        path: str | os.PathLike[str],
        by: GroupBy | Sequence[GroupBy] = "agent",
        since: date | str | None = None,
        until: date | str | None = None,
        baseline: Price | str | None = None,
        *,
        prices: PriceBook | Mapping[str, PriceLike] | None = None,
    ) -> Self:
        """The report of a ledger, an SQLite file or `postgresql://…`, without a router. Other programs may
        write to it meanwhile.

        As `Router.report`; a `baseline` that is a name has its price in `prices`, or from the provider who
        made the model (the extra `prices`). Raises `ConfigError` if there is no ledger at `path`, if it
        cannot be read, and if the baseline has no price.
        """
        from ccroute.accounting.stores.opening import read_sums

        price = baseline if isinstance(baseline, Price) else None
        if isinstance(baseline, str):
            book = prices if isinstance(prices, PriceBook) else PriceBook(prices)
            price = price_of_model(baseline, book, usual=True)
            if price is None:
                raise ConfigError(f'baseline: "{baseline}" has no price: {how_to_price(baseline)}')
        name = baseline if isinstance(baseline, str) else ""
        return cls.of(partial(read_sums, path), by, since, until, price, name)

    @classmethod
    def of(
        cls,
        read: Callable[..., Mapping[Key, Tally]],
        by: GroupBy | Sequence[GroupBy],
        since: date | str | None,
        until: date | str | None,
        baseline: Price | None,
        baseline_name: str = "",
    ) -> Self:
        """The report of sums that `read` gives, as `BaseLedger.tallies` does."""
        tiers = tiers_of(() if baseline is None else [limit for limit, _ in baseline.above])
        read = partial(read, moment("since", since), moment("until", until), tiers=tiers)
        parts = group_by(by)
        made = cls(read(by=parts), parts, baseline=baseline)
        made._read = read
        made._baseline_name = f"baseline {baseline_name}".rstrip()
        return made

    @property
    def total(self) -> dict[str, Any]:
        """The sum over all rows, without the columns of `by`."""
        return dict(self._total)

    @property
    def estimated(self) -> list[dict[str, Any]]:
        """How much of each row is estimated, because a server sent no token counts: `attempts`, and their
        part of `cost`. Rows without any are not in the list."""
        return [dict(row) for row in self._estimated]

    def to_dict(self) -> dict[str, Any]:
        """`by`, `rows`, `total` and `estimated` as JSON: money and percentages are str, and None where
        unknown."""
        return {
            "by": list(self.by),
            "rows": [as_json(row) for row in self._rows],
            "total": as_json(self._total),
            "estimated": [as_json(row) for row in self._estimated],
        }

    def to_dicts(self, *, floats: bool = False) -> list[dict[str, Any]]:
        """The rows as dicts. `floats`: money as float, and NaN where it is unknown, as numpy takes it."""
        if not floats:
            return [dict(row) for row in self._rows]
        return [
            row | {name: float("nan" if row[name] is None else row[name]) for name in _FLOATS}
            for row in self._rows
        ]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.to_dicts()[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_dicts())

    def __len__(self) -> int:
        return len(self._rows)

    def to_csv(self, path: str | os.PathLike[str] | TextIO, *, encoding: str = "utf-8") -> None:
        """Write the rows as CSV into a file, which is replaced, or into an open one.

        Amounts are exact, and empty where they are unknown. A name that a spreadsheet would take for a
        formula, such as "=x", has an apostrophe before it. Excel needs `encoding="utf-8-sig"` for names
        beyond ASCII.
        """
        import csv

        if isinstance(path, str | os.PathLike):
            with open(path, "w", encoding=encoding, newline="") as file:
                self.to_csv(file)
            return
        write = csv.writer(path, lineterminator="\n").writerow
        write([*self.by, *self._total])
        for row in self._rows:
            write([_csv_cell(value) for value in row.values()])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw what each day cost (UTC), with matplotlib, the extra `plot`.

        The bars are stacked by what the report is grouped by, or else by agent. The baseline is a line.

        ax: where to draw; None: a new figure. Returns it. The ledger is read again if the report is not
        by "day". Raises `ConfigError` without matplotlib.
        """
        from ccroute.accounting.plot import plot

        parts: list[GroupBy] = [name for name in self.by if name != "day"] or ["agent"]
        report = self
        if set(self.by) != {"day", *parts}:
            report = Report(self._read(by=["day", *parts]), ["day", *parts], baseline=self._baseline)
        return plot(report._rows, parts, None if self._baseline is None else self._baseline_name, ax)

    def __str__(self) -> str:
        return "\n".join([*aligned(*self._table(self._rows)), *self._notes()])

    def __repr__(self) -> str:
        shown = self._rows[:MOST_SHOWN]
        return "\n".join([*aligned(*self._table(shown)), *self._notes(len(shown))])

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(RichTable(*self._table(self._rows)), *self._notes())

    def _repr_html_(self) -> str:
        shown = self._rows[:MOST_SHOWN]
        return html_table(*self._table(shown), notes=self._notes(len(shown)))

    def _notes(self, shown: int | None = None) -> list[str]:
        """The lines below a table."""
        notes, estimated = [], self._total_estimated
        if shown is not None and shown < len(self):
            notes.append(f"{len(self) - shown} more rows: print(report), or report.to_dicts()")
        if estimated["attempts"]:
            of = f"{estimated['attempts']} of {self._total['attempts']} attempts"
            notes.append(f"estimated: the tokens of {of}, which cost {rounded_usd(estimated['cost'])}")
        return notes

    def _table(
        self, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[list[str], list[list[str]], range, list[str] | None]:
        """The header, the rows, the columns of numbers, and the total unless it is the only row."""
        used = {c for row in self._rows for c, value in row.items() if value} | _ALWAYS
        if self._total["wait"] < _LEAST_WAIT:
            used.discard("wait")
        columns = [c for c in self._total if c in used - _HIDDEN]
        labels = ["total", *("" for _ in self.by[1:])]
        total = [*labels, *(_cell(self._total, column) for column in columns)]
        columns = [*self.by, *columns]
        cells = [[_cell(row, column) for column in columns] for row in rows]
        return columns, cells, range(len(self.by), len(columns)), total if cells and self.by else None


def _columns(tally: Tally, baseline: Price | None) -> dict[str, Any]:
    cost, usage = tally.known_cost, tally.usage
    baseline_cost = tally.cost_at(baseline) if baseline is not None and cost is not None else None
    saved = None if baseline_cost is None else baseline_cost - tally.cost
    percent = (
        (100 * saved / baseline_cost).quantize(Decimal("0.1"))
        if saved is not None and baseline_cost
        else None
    )
    p50, p95 = tally.percentiles(50, 95)
    return {
        "requests": tally.requests,
        "attempts": tally.attempts,
        "failures": tally.failures,
        "input": usage.input,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write_5m + usage.cache_write_1h,
        "output": usage.output,
        "cost": cost,
        "unknown_cost_requests": tally.unknown_cost_requests,
        "baseline_cost": baseline_cost,
        "saved": saved,
        "saved_percent": percent,
        "cache_hits": tally.cache_hits,
        "overrides": tally.overrides,
        "override_saved": tally.override_saved if tally.overrides_known or not tally.overrides else None,
        "p50": p50,
        "p95": p95,
        "wait": tally.wait / 1e6,
        "loads": tally.loads,
        "load_seconds": tally.load_time / 1e6,
    }


def _estimated(tally: Tally) -> dict[str, Any]:
    return {"attempts": tally.estimated, "cost": tally.estimated_cost}


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    # https://owasp.org/www-community/attacks/CSV_Injection
    is_formula = isinstance(value, str) and text.lstrip()[:1] in _FORMULA
    return f"'{text}" if is_formula else text


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if column == "cost":
        unknown = row["unknown_cost_requests"]
        known = [] if value is None else [rounded_usd(value)]
        return " + ".join([*known, *([f"{unknown} unknown"] if unknown else [])]) or "unknown"
    if value is None:
        return "-"
    if column == "wait":
        return f"{value:,.1f} s"
    if column == "loads" and value:
        return f"{value:,} in {row['load_seconds']:,.1f} s"
    if column in {"saved", "override_saved"}:
        return rounded_usd(value)
    if column == "saved_percent":
        return f"{value} %"
    if isinstance(value, float):
        return f"{value:.3f} s"
    return f"{value:,}" if isinstance(value, int) else str(value)


def group_by(given: GroupBy | Sequence[GroupBy]) -> tuple[GroupBy, ...]:
    """The parts that `by=` names. Raises `ValueError` for an unknown one."""
    parts: tuple[GroupBy, ...] = (given,) if isinstance(given, str) else tuple(given)
    known = get_args(GroupBy)
    for part in parts:
        if part not in known:
            raise ValueError(f'by= is one of {", ".join(known)}, or several of them, not "{part}"')
    return parts
