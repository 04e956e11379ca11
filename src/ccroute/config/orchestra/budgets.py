"""What the agents of a file, and all of them together, may spend.

Only what names a window of time is clear: `daily_budget`, `max_hourly_spend`, or a native `budget`.
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
"""Keys of agents without a window of time: of a call, a task, a day?"""
_WINDOWS: Final = {folded(key): window for key, window in AGENT_SPENDS.items()}
_INSIDE: Final = _WINDOWS | {"hourly": "hour", "daily": "day", "monthly": "month"}
_UNCLEAR: Final = frozenset(map(folded, UNCLEAR))
_NO_WINDOW: Final = 'it names no window of time: write "budget": {"usd": 5, "per": "day"}'

_MISPLACED: Final = (
    "it is read for an agent; others have one in cost_settings, or under budgets of a native file"
)

_Found = tuple[dict[str, Any], Place]


def is_budget(key: object) -> bool:
    """Whether an agent's key says what it may spend, clearly or not."""
    return key == "budget" or folded(key) in _WINDOWS or folded(key) in _UNCLEAR


def read_budget(name: str, entry: Mapping[str, Any], place: Place, builder: Builder) -> dict[str, Any] | None:
    """The native budget of an agent's entry; None if it has none. What is not clear is a warning."""
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
    """Whether a key of a group or of the file is a budget. Such a budget is not kept, with a warning."""
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
    """Let each budget use the fallbacks, where one of them is there for it: its triggers name `budget`."""
    for_all = _is_there(chain.from_iterable(builder.fallbacks.values()))
    for agent in builder.agents.values():
        if "budget" in agent and (for_all or _is_there(agent.get("fallback", ()))):
            agent["budget"].setdefault("then", "fallback")
    if for_all and "budgets" in builder.options:
        builder.options["budgets"]["router"]["then"] = "fallback"


def _is_there(fallbacks: Iterable[object]) -> bool:
    return any(isinstance(each, Mapping) and "budget" in each.get("triggers", ()) for each in fallbacks)
