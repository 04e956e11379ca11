"""Agents in lists: `codingAgents` and any other `…Agents`, and the `architect` beside them.

An agent's id is the slug of its `name`. Its `type` is a second name, if no other agent has that type or name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ccroute.config.foreign.builder import Builder, unknown_key
from ccroute.config.foreign.spelling import folded, misspelt
from ccroute.config.orchestra.agent import AgentReader, is_agent, misspelt_model
from ccroute.config.reading.source import Place
from ccroute.routing.names import slug

ARCHITECT = "architect"


def is_list_of_agents(value: object) -> bool:
    """Whether it is a list with at least one agent."""
    return isinstance(value, list | tuple) and any(
        is_agent(entry) or (isinstance(entry, Mapping) and misspelt_model(entry)) for entry in value
    )


def lists_at_top(document: Mapping[str, Any]) -> list[str]:
    """The keys of a document's lists of agents."""
    return [
        key for key, value in document.items() if folded(key).endswith("agents") and is_list_of_agents(value)
    ]


class ListReader:
    """Adds the agents of lists, and their second names when all agents are known."""

    def __init__(self, builder: Builder, agents: AgentReader) -> None:
        self._builder = builder
        self._agents = agents
        self._second: list[tuple[str, str, Place]] = []

    def read(self, entries: Sequence[object], place: Place, local_only: bool | None) -> None:
        for i, entry in enumerate(entries):
            if self._builder.takes_part(entry, (*place, i)):
                self.read_one(entry, (*place, i), local_only)

    def read_one(
        self, entry: Mapping[str, Any], place: Place, local_only: bool | None, key: str = ""
    ) -> None:
        """Add one agent. `key` is its key where it is in no list: another second name."""
        name = entry.get("name") or entry.get("id") or key
        agent = slug(name) if isinstance(name, str) else ""
        if not agent:
            wrong = next((each for each in entry if misspelt(each, ("name",))), "name")
            text = "should be a name" if name else unknown_key("name") if wrong != "name" else "is missing"
            self._builder.fault((*place, wrong), text)
            return
        if not is_agent(entry) and (key_of_model := misspelt_model(entry)) is not None:
            self._builder.fault((*place, key_of_model), unknown_key("model"))
        agent = self._agents.read(agent, entry, place, local_only=local_only, used=("name", "id", "type"))
        seconds = ((entry.get("type"), (*place, "type")), (key, place))
        self._second += [(each, agent, at) for each, at in seconds if isinstance(each, str) and each]

    def name_types(self) -> None:
        """Give each agent the second names that only it has."""
        places = {(slug(name), agent): place for name, agent, place in reversed(self._second)}
        taken = Counter(name for name, _ in places) + Counter(map(slug, self._builder.agents))
        for (name, agent), place in reversed(places.items()):
            if name and taken[name] == 1:
                self._builder.agents[agent].setdefault("other_names", []).append(name)
                self._builder.comes_from(place, "agents", agent, "other_names")
            elif name != agent:
                self._builder.ignore(place, "is no second name, because several agents have it")
