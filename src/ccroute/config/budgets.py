"""The budgets of all sources: the scope that each key means, and duplicates.

A scope is written as for `Router`: `router`, `session`, `session:x`, `agent:x`, `group:x` or `backend:x`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from ccroute.config.native.settings import BudgetTable, Settings
from ccroute.config.reading.source import Place, Source

_ALONE: Final = ("router", "session")
_PREFIXES: Final = ("agent", "group", "backend", "session")


class GivenBudget(NamedTuple):
    """A budget at its place in a source."""

    key: str
    table: BudgetTable
    source: Source
    at: Place


def given_budgets(settings: Settings, source: Source) -> Iterator[GivenBudget]:
    """The budgets of one source: its section's, and those of its agents and groups."""
    for key, table in settings.budgets.items():
        yield GivenBudget(key, table, source, ("budgets", key))
    for kind, section in (("agent", settings.agents), ("group", settings.groups)):
        for name, holder in section.items():
            if holder.budget is not None:
                yield GivenBudget(f"{kind}:{name}", holder.budget, source, (f"{kind}s", name, "budget"))


def by_scope(
    given: Iterable[GivenBudget], find_agent: Callable[[str], str]
) -> Iterator[tuple[str, GivenBudget]]:
    """The budgets with their scopes. Agents have their main name there. Two budgets of one source with the
    same scope are a fault."""
    earlier: dict[tuple[str, Source], Place] = {}
    for each in given:
        kind, _, name = each.key.partition(":")
        if kind not in _PREFIXES or not name:
            kind, name = "agent", each.key
        scope = each.key if each.key in _ALONE else f"{kind}:{find_agent(name) if kind == 'agent' else name}"
        first = earlier.setdefault((scope, each.source), each.at)
        if first is each.at:
            yield scope, each
        else:
            text = f"{kind} {name} has another budget at {each.source.where(first)}"
            each.source.faults.append((each.source.where(each.at), text))
