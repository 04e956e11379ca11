"""The budgets of the agents of a file, and of all of them together.

A budget is read only if it names a window of time: `daily_budget`, `max_hourly_spend`, or a native `budget`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.section import Section
from ccroute.config.foreign.spelling import folded
from ccroute.config.reading.source import Place

SPENDS: Final = {"max_hourly_spend": "hour", "max_daily_spend": "day", "max_monthly_spend": "month"}
"""The keys of `cost_settings`."""
AGENT_SPENDS: Final = SPENDS | {
    f"{word}{what}": window
    for word, window in (("hourly", "hour"), ("daily", "day"), ("monthly", "month"))
    for what in ("_budget", "_budget_usd", "_cost_limit")
}
UNCLEAR: Final = (
    "max_budget",
    "max_budget_usd",
    "budget_usd",
    "budget_limit",
    "cost_limit",
    "max_cost",
    "max_cost_usd",
)
"""Keys of agents that name no window of time: they may be for a call, a task or a day."""
_WINDOWS: Final = {folded(key): window for key, window in AGENT_SPENDS.items()}
_INSIDE: Final = _WINDOWS | {"hourly": "hour", "daily": "day", "monthly": "month"}
_UNCLEAR: Final = frozenset(map(folded, UNCLEAR))
_NO_WINDOW: Final = 'it names no window of time: write "budget": {"usd": 5, "per": "day"}'

_MISPLACED: Final = (
    "it is read for an agent; others have one in cost_settings, or under budgets of a native file"
)

_Found = tuple[dict[str, Any], Place]


def is_budget(key: object) -> bool:
    """Whether a key of an agent is a budget, with or without a window of time."""
    return key == "budget" or folded(key) in _WINDOWS or folded(key) in _UNCLEAR


def read_budget(name: str, entry: Mapping[str, Any], place: Place, builder: Builder) -> dict[str, Any] | None:
    """The native budget of an agent's entry; None if it has none. Warns of budgets without a window."""
    found = list(_found(entry, place, builder))
    for _, other in found[1:]:
        _pass_over(other, f"an agent has one budget, which is {found[0][1][-1]} here", builder)
    if not found:
        return None
    budget, here = found[0]
    builder.comes_from(here, "agents", name, "budget")
    if here[-1] != "budget":
        builder.comes_from(here, "agents", name, "budget", "usd")
    return budget


def pass_over_budget(key: str, place: Place, builder: Builder) -> bool:
    """Whether a key of a group or of the file is a budget. It is ignored with a warning."""
    found = is_budget(key) or key == "budgets"
    if found:
        _pass_over((*place, key), _MISPLACED, builder)
    return found


def _found(entry: Mapping[str, Any], place: Place, builder: Builder) -> Iterator[_Found]:
    for key, value in entry.items():
        here = (*place, key)
        if key == "budget" and isinstance(value, Mapping):
            yield from _in_table(value, here, builder)
        elif window := _WINDOWS.get(folded(key)):
            yield from _spend(value, window, here, builder)
        elif is_budget(key) and value is not None:
            _pass_over(here, _NO_WINDOW, builder)


def _in_table(table: Mapping[str, Any], place: Place, builder: Builder) -> Iterator[_Found]:
    """The native form, or `{"daily": 5}`."""
    if not {"usd", "tokens"}.isdisjoint(table):
        yield builder.expand(dict(table), place), place
        return
    for key, value in table.items():
        if window := _INSIDE.get(folded(key)):
            yield from _spend(value, window, (*place, key), builder)
        else:
            _pass_over((*place, key), _NO_WINDOW, builder)


def _spend(value: object, window: str, place: Place, builder: Builder) -> Iterator[_Found]:
    if (usd := builder.expand(value, place)) is not None:
        yield {"usd": usd, "per": window}, place


def _pass_over(place: Place, reason: str, builder: Builder) -> None:
    builder.warn(place, f"is not kept: {reason}")
    builder.ignore(place, reason)


def read_spends(section: Section, builder: Builder) -> None:
    """The budget of all calls, from `cost_settings`."""
    found = [(key, usd) for key in SPENDS if (usd := section.get(key)) is not None]
    for key, usd in found[:1]:
        builder.option("budgets", {"router": {"usd": usd, "per": SPENDS[key]}}, section.place(key))
        builder.comes_from(section.place(key), "budgets", "router")
        builder.comes_from(section.place(key), "budgets", "router", "usd")
    for key, _ in found[1:]:
        _pass_over(section.place(key), f"a router has one budget, which is {found[0][0]} here", builder)


def let_fall_back(builder: Builder) -> None:
    """Set `then` of each budget to "fallback", if a fallback has `budget` among its triggers."""
    for_all = _any_for_budgets(chain.from_iterable(builder.fallbacks.values()))
    for agent in builder.agents.values():
        if "budget" in agent and (for_all or _any_for_budgets(agent.get("fallback", ()))):
            agent["budget"].setdefault("then", "fallback")
    if for_all and "budgets" in builder.options:
        builder.options["budgets"]["router"]["then"] = "fallback"


def _any_for_budgets(fallbacks: Iterable[object]) -> bool:
    return any(isinstance(each, Mapping) and "budget" in each.get("triggers", ()) for each in fallbacks)
