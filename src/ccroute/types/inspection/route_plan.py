"""Where a call would go, and why: `router.explain()`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ccroute.display import RichTable, aligned, card, html_table, rounded_usd
from ccroute.types.inspection.stats import BudgetStats
from ccroute.types.route import Frozen

if TYPE_CHECKING:
    from rich.console import Group


class Candidate(Frozen):
    """A deployment that may serve the call.

    alias:          the model that led to it; a `fallback` model is tried only if the others fail.
    reason:         why the candidate is in the plan.
    allowed:        whether a call would ask it now; if not, `why_not` says why.
    probability:    of being the first that is asked, 0 to 1. Only random strategies have others than 0 and 1.
    worst_cost:     USD for the longest prompt and answer, with nothing from a cache; None if unknown.
    predicted_wait: seconds until its host would begin to answer: until it has a free slot and has loaded the
                    model. None if the host serves any number of calls.
    budget_left:    USD that its budgets have left, beside what is reserved; None without a budget in USD.
    context_window: tokens; None if unknown.
    input_price, output_price: USD per million tokens now, of prompts of usual length; None if unknown.
    price_source:   where they are from: "model", "router", "free" or "genai-prices"; None if unknown, and
                    then `why_unpriced` says why.
    """

    deployment: str
    backend: str
    alias: str
    fallback: bool = False
    reason: str = ""
    allowed: bool = True
    why_not: str | None = None
    probability: float = 0.0
    worst_cost: Decimal | None = None
    predicted_wait: float | None = None
    budget_left: Decimal | None = None
    context_window: int | None = None
    input_price: Decimal | None = None
    output_price: Decimal | None = None
    price_source: str | None = None
    why_unpriced: str = ""


class RoutePlan(Frozen):
    """Where a call would go, and why. Printed, it is a table.

    `requested_model` is the model that the call names, `model` the alias that is used; `overridden`: the
    agent's configured model replaces a different requested one. `estimated_tokens` is the prompt.
    `candidates` are in the order in which a call would try them; candidates that it would not ask are listed
    at their place. `reasons` are sentences about the whole plan. `budgets` are the budgets of its candidates.
    `timeout` is the call's time in seconds. `waiting_cost` (USD per hour) and `max_wait_free` (seconds) are
    the call's own, else its agent's.
    """

    agent: str | None = None
    requested_model: str | None = None
    model: str = ""
    overridden: bool = False
    estimated_tokens: int = 0
    candidates: tuple[Candidate, ...] = ()
    reasons: tuple[str, ...] = ()
    budgets: tuple[BudgetStats, ...] = ()
    timeout: float | None = None
    waiting_cost: Decimal | None = None
    max_wait_free: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON: money is a str."""
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        header, rows = self._cells()
        return "\n".join([self._title(), "", *aligned(header, rows, _numbers(header)), *self._notes()])

    __repr__ = __str__

    def __rich__(self) -> Group:
        from rich.console import Group  # rich calls this

        header, rows = self._cells()
        return Group(self._title(), "", RichTable(header, rows, _numbers(header)), *self._notes())

    def __rich_repr__(self) -> Iterator[object]:
        yield self._title()
        for each in self.candidates:
            yield each.deployment, each.reason if each.allowed else f"no: {each.why_not}"

    def _repr_html_(self) -> str:
        header, rows = self._cells()
        return card(
            self._title(), text="\n".join(self._notes()[1:]), table=html_table(header, rows, _numbers(header))
        )

    def _title(self) -> str:
        path = " → ".join(dict.fromkeys((self.agent or "-", self.requested_model or self.model, self.model)))
        facts = [f"about {self.estimated_tokens} tokens"]
        facts += ["overridden"] if self.overridden else []
        facts += [f"at most {self.timeout:g} s"] if self.timeout is not None else []
        return f"{path} ({', '.join(facts)})"

    def _notes(self) -> list[str]:
        notes = [*self.reasons, *map(str, self.budgets)]
        return ["", *notes] if notes else []

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        rows, place = [], 0
        has_waits = bool(self.waiting_cost) or self.max_wait_free is not None
        for each in self.candidates:
            place += each.allowed
            cost, left, window = each.worst_cost, each.budget_left, each.context_window
            rows.append(
                [
                    str(place) if each.allowed else "-",
                    each.deployment,
                    _percent(each.probability) if each.allowed else "",
                    *([_seconds(each.predicted_wait)] if has_waits else []),
                    "unknown" if cost is None else rounded_usd(cost),
                    *([] if not self.budgets else ["" if left is None else rounded_usd(left)]),
                    "unknown" if window is None else f"{window:,}",
                    each.reason if each.allowed else f"no: {each.why_not}",
                ]
            )
        budget = ["budget left"] if self.budgets else []
        wait = ["wait"] if has_waits else []
        return ["", "deployment", "first", *wait, "worst cost", *budget, "window", "why"], rows


def _numbers(header: Sequence[str]) -> Sequence[int]:
    """The columns of a plan's table that are aligned to the right."""
    return (0, *range(2, len(header) - 1))


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _percent(share: float) -> str:
    if 0 < share < 0.005 or 0.995 <= share < 1:
        return "<1 %" if share < 0.5 else ">99 %"
    return f"{share * 100:.0f} %"
