"""Agents in tables, alone or in groups: `{model, fallbackModel, baseUrl, apiKey, …}`.

A mapping with `model` is an agent. One without it that holds agents is a group, which may hold groups; an
agent belongs to the innermost one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccroute.config.foreign.builder import Builder, unknown_key
from ccroute.config.foreign.servers import SERVER_KEYS
from ccroute.config.foreign.spelling import is_local_only
from ccroute.config.orchestra.agent import (
    AGENTS_ONLY,
    DESCRIPTIVE,
    MAPPING,
    SWITCHES,
    AgentReader,
    is_agent,
    misspelt_model,
)
from ccroute.config.orchestra.budgets import pass_over_budget
from ccroute.config.orchestra.fallbacks import TABLE_KEYS
from ccroute.config.orchestra.lists import ListReader, is_list_of_agents
from ccroute.config.reading.source import Place

# Keys that only an orchestra's agents have.
_FOREIGN = SERVER_KEYS | DESCRIPTIVE | {"fallbackModel", "fallback_model", MAPPING}
_FALLBACK_ONLY = frozenset(TABLE_KEYS) - {"model", "triggers"}
_DEEPEST = 5
"""How many groups may be around an agent."""


def holds_agents(entries: Mapping[str, Any], *, native: bool) -> bool:
    """Whether there are agents, alone, in groups or in lists; with `native`, other than native agents."""
    return any(
        _is_group(entry)
        or is_list_of_agents(entry)
        or (is_agent(entry) and not (native and _is_native(entry)))
        for entry in entries.values()
    )


def _is_native(agent: Mapping[str, Any]) -> bool:
    """Whether an agent has no key that only an orchestra's agents have."""
    fallback = agent.get("fallback")
    tables = [
        each for each in (fallback if isinstance(fallback, list) else [fallback]) if isinstance(each, Mapping)
    ]
    return _FOREIGN.isdisjoint(agent) and not any(set(table) & _FALLBACK_ONLY for table in tables)


def _is_group(entry: object, levels: int = 2 * _DEEPEST) -> bool:
    """Whether it holds agents, directly or in groups. `params` belong to an agent."""
    if not isinstance(entry, Mapping) or is_agent(entry) or "params" in entry:
        return False
    inner = [value for value in entry.values() if isinstance(value, Mapping)]
    return any(is_agent(value) or misspelt_model(value) for value in inner) or (
        levels > 1 and any(_is_group(value, levels - 1) for value in inner)
    )


class GroupReader:
    """Walks through groups and agents."""

    def __init__(self, builder: Builder, agents: AgentReader, lists: ListReader) -> None:
        self._builder = builder
        self._agents = agents
        self._lists = lists

    def read(
        self, entries: Mapping[str, Any], place: Place, local_only: bool | None, groups: tuple[str, ...] = ()
    ) -> None:
        """Read everything at `place`. `local_only` of a group holds for all agents in it."""
        own = self._builder.local_only(entries, place)
        local_only = local_only if local_only or own is None else own
        if groups:
            group = self._builder.groups.setdefault(groups[-1], {})
            group |= {} if local_only is None else {"local_only": local_only}
        for name, entry in entries.items():
            here = (*place, name)
            if is_local_only(name):
                continue
            holds = is_agent(entry) or _is_group(entry) or is_list_of_agents(entry)
            if not holds and pass_over_budget(name, place, self._builder):
                continue
            if groups and name in AGENTS_ONLY:
                self._builder.warn(here, "is read for an agent, not for a group")
            elif place and is_list_of_agents(entry):
                self._lists.read(entry, here, local_only)
            elif not isinstance(entry, Mapping):
                self._builder.pass_over(name, entries, place, SWITCHES if groups else ("local_only",))
            elif not self._builder.takes_part(entry, here):
                continue
            elif is_agent(entry):
                self._agents.read(name, entry, here, groups[-1] if groups else None, local_only)
            elif not _is_group(entry):
                self._neither(entry, here, bool(groups) or bool(local_only))
            elif len(groups) == _DEEPEST:
                self._builder.fault(here, f"is a group too deep in others; {_DEEPEST} levels are read")
            else:
                self.read(entry, here, local_only, (*groups, name))

    def _neither(self, entry: Mapping[str, Any], place: Place, strict: bool) -> None:
        """Report an entry that is neither an agent nor a group, but may be a misspelled one.

        At the top there may be many other things, so there only `local_only` makes it a fault.
        """
        local_only = self._builder.local_only(entry, place)
        if (key := misspelt_model(entry)) is not None:
            text = unknown_key("model")
            if strict or local_only:
                self._builder.fault((*place, key), text)
            else:
                self._builder.warn((*place, key), f"{text} Without it this is no agent")
        elif local_only:
            self._builder.fault(place, "is local_only, but has no model, and no agents in it")
        else:
            self._builder.ignore(place, "has no model, and no agents in it")
