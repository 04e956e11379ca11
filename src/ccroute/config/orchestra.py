"""`orchestra-config.json`: what orchestrators wrote before ccroute, read as the native shape.

Nested groups: agents `{model, fallbackModel, baseUrl, apiKey, …}`, alone or in groups, at the top or
under `agents`. Flat: `agents`, and in `llm_routing` the endpoints with the names that each one knows.

Knows what these files mean. What they hold besides is noted as ignored, and prompts are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ccroute.config.draft import NOT_ROUTING, Draft
from ccroute.config.endpoints import read_endpoints
from ccroute.config.homes import Homes
from ccroute.config.secrets import Environment
from ccroute.config.servers import SERVER_KEYS
from ccroute.config.source import Place, Source

# Keys that only the native shape has, and keys that only an orchestra's agents have.
_NATIVE = frozenset({"aliases", "backends", "baseline", "default_model", "groups", "prices"})
_FOREIGN = SERVER_KEYS | {
    "dependencies",
    "description",
    "fallbackModel",
    "fallback_model",
    "name",
    "phase",
    "prompt",
    "responsibilities",
    "role",
    "type",
}
_AGENT_KEYS = {
    "model": "model",
    "fallbackModel": "fallback",
    "fallback_model": "fallback",
    "localOnly": "local_only",
    "local_only": "local_only",
    "budget": "budget",
}


def is_orchestra(document: Mapping[str, Any]) -> bool:
    """Whether it has one of these shapes, by what it holds."""
    if "llm_routing" in document:
        return True
    if not _NATIVE.isdisjoint(document):
        return False
    nested = isinstance(document.get("agents"), Mapping)
    return any(
        _is_group(entry) or (_is_agent(entry) and not (nested and _FOREIGN.isdisjoint(entry)))
        for entry in _entries(document).values()
    )


def translate(document: Mapping[str, Any], environment: Environment, source: Source) -> dict[str, Any]:
    """The native table that says the same, with secrets expanded."""
    draft = Draft(environment, source)
    if "llm_routing" in document:
        read_endpoints(document["llm_routing"], draft)
    if "agents" in document:
        for key in document:
            if key not in {"agents", "llm_routing"}:
                draft.ignore((key,), NOT_ROUTING)
    homes = Homes(draft)
    for name, entry in _entries(document).items():
        place: Place = ("agents", name) if "agents" in document else (name,)
        if not _is_group(entry):
            _read_agent(name, entry, place, None, draft, homes)
        elif draft.takes_part(entry, place):
            draft.groups[name] = {}
            for member, inner in entry.items():
                _read_agent(member, inner, (*place, member), name, draft, homes)
    homes.name_models()
    return draft.table()


def _entries(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Agents and groups by name."""
    agents = document.get("agents")
    if isinstance(agents, Mapping):
        return agents
    return {key: entry for key, entry in document.items() if key not in {"agents", "llm_routing"}}


def _is_agent(entry: object) -> bool:
    return isinstance(entry, Mapping) and "model" in entry


def _is_group(entry: object) -> bool:
    return isinstance(entry, Mapping) and not _is_agent(entry) and any(map(_is_agent, entry.values()))


def _read_agent(
    name: str, entry: object, place: Place, group: str | None, draft: Draft, homes: Homes
) -> None:
    if not draft.takes_part(entry, place):
        return
    if not _is_agent(entry):
        draft.ignore(place, "has no model, and no agents in it")
    elif name in draft.agents:
        draft.ignore(place, "an agent of that name comes before it")
    else:
        draft.comes_from(place, "agents", name)
        draft.agents[name] = dict(_agent(name, entry, place, draft))
        if group is not None:
            draft.agents[name]["group"] = group
        homes.settle(name, entry, place)


def _agent(name: str, entry: Mapping[str, Any], place: Place, draft: Draft) -> Iterator[tuple[str, Any]]:
    """Its native keys and values."""
    for key, value in entry.items():
        native = _AGENT_KEYS.get(key)
        if native is None:
            if key not in SERVER_KEYS:
                draft.ignore((*place, key), NOT_ROUTING)
        elif (expanded := draft.expand(value, (*place, key))) is not None:
            draft.comes_from((*place, key), "agents", name, native)
            if native == "fallback" and isinstance(expanded, str):
                expanded = [expanded]
                draft.comes_from((*place, key), "agents", name, native, 0)
            yield native, expanded
