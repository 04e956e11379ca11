"""What was spent and what was saved, grouped as asked: rows of dicts, printed as an aligned table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, get_args

from ccroute.accounting.prices import cost
from ccroute.accounting.tally import Key, Tally
from ccroute.types import Price

GroupBy = Literal["agent", "group", "alias", "model", "backend", "day", "session"]
_SHOWN = (
    "requests",
    "failures",
    "input",
    "cache_read",
    "output",
    "cost",
    "saved",
    "saved_percent",
    "overrides",
    "p50",
)


class Report:
    """Sums of a ledger, one row per value of `by`, most expensive first.

    Money is USD as `Decimal`, latencies are seconds. `requests` are calls decided here, `attempts`
    every try, `failures` the tries that failed. `cost` leaves out attempts of unknown price, whose
    calls `unknown_cost_requests` counts; so does `baseline_cost`, what `baseline` would have cost for
    the same tokens. `saved` is `baseline_cost - cost`; both are `None` without a baseline.
    """

    def __init__(
        self,
        sums: Mapping[Key, Tally],
        by: GroupBy | Sequence[GroupBy] = "agent",
        *,
        baseline: Price | None = None,
    ) -> None:
        self.by: tuple[GroupBy, ...] = (by,) if isinstance(by, str) else tuple(by)
        known = get_args(GroupBy)
        if not self.by or not set(self.by) <= set(known):
            raise ValueError(f"by= is one of {', '.join(known)}, or a tuple of them, not {by!r}")
        groups: dict[tuple[str | None, ...], Tally] = {}
        for key, tally in sums.items():
            groups.setdefault(tuple(getattr(key, name) for name in self.by), Tally()).merge(tally)
        rows = [
            dict(zip(self.by, group, strict=True)) | _row(tally, baseline) for group, tally in groups.items()
        ]
        self._rows: list[dict[str, Any]] = sorted(rows, key=lambda row: (-row["cost"], -row["requests"]))

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dicts."""
        return [dict(row) for row in self._rows]

    def __str__(self) -> str:
        header, *rows = self._cells()
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        texts = len(self.by)

        def line(cells: Sequence[str]) -> str:
            padded = (
                c.ljust(w) if i < texts else c.rjust(w)
                for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join(padded).rstrip()

        return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header, *rows = self._cells()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cells(self) -> list[list[str]]:
        columns = [
            *self.by,
            *(c for c in _SHOWN if any(row[c] for row in self._rows) or c in {"requests", "cost"}),
        ]
        return [columns] + [[_cell(row, column) for column in columns] for row in self._rows]


def _row(tally: Tally, baseline: Price | None) -> dict[str, Any]:
    baseline_known = cost(tally.known, baseline)
    saved = None if baseline_known is None else baseline_known - tally.cost
    return {
        "requests": tally.requests,
        "attempts": tally.attempts,
        "failures": tally.failures,
        "input": tally.usage.input,
        "cache_read": tally.usage.cache_read,
        "cache_write": tally.usage.cache_write,
        "output": tally.usage.output,
        "cost": tally.cost,
        "unknown_cost_requests": tally.unknown_cost_requests,
        "baseline_cost": baseline_known,
        "saved": saved,
        "saved_percent": _percent(saved, baseline_known),
        "cache_hits": tally.cache_hits,
        "overrides": tally.overrides,
        "override_saved": tally.override_saved,
        "p50": tally.percentile(50),
        "p95": tally.percentile(95),
    }


def _percent(saved: Decimal | None, baseline: Decimal | None) -> Decimal | None:
    if saved is None or not baseline:
        return None
    return (100 * saved / baseline).quantize(Decimal("0.1"))


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None:
        return "-"
    if column == "cost":
        unknown = row["unknown_cost_requests"]
        return usd(value) + (f" + {unknown} unknown" if unknown else "")
    if column in {"saved", "override_saved"}:
        return usd(value)
    if column == "saved_percent":
        return f"{value} %"
    return f"{value:.3f} s" if isinstance(value, float) else str(value)


def usd(amount: Decimal) -> str:
    """`$0.0225`: at least cents, at most six digits, so that a cheap call is not shown as free."""
    digits = f"{amount:.6f}".rstrip("0")
    whole, _, cents = digits.partition(".")
    return f"${whole}.{cents.ljust(2, '0')}".replace("$-", "-$")
