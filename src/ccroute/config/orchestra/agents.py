"""Recognises an orchestra file and reads its agents.

Nested groups: agents `{model, fallbackModel, baseUrl, apiKey, …}`, alone or in groups, at the top or
under `agents`; a group may hold groups, and an agent belongs to the innermost one. Flat: `agents`, and in
`llm_routing` the endpoints with the names that each one knows.

Everything else in these files is noted as ignored, and prompts are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccroute.config.foreign.builder import NOT_ROUTING, Builder, unknown_key
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.servers import API_KEYS, SERVER_KEYS, URL_KEYS
from ccroute.config.foreign.spelling import folded, is_local_only, misspelt
from ccroute.config.orchestra.agent_endpoints import AgentEndpoints
from ccroute.config.orchestra.endpoints import read_endpoints
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Place, Source

# Keys that only the native shape has, and keys that only an orchestra's agents have.
_NATIVE = frozenset({"aliases", "backends", "baseline", "default_model", "fallbacks", "groups", "prices"})
_DESCRIPTIVE = frozenset(
    {"dependencies", "description", "name", "phase", "prompt", "responsibilities", "role", "type"}
)
_FOREIGN = SERVER_KEYS | _DESCRIPTIVE | {"fallbackModel", "fallback_model"}
AGENT_KEYS = {"model": "model", "fallbackModel": "fallback", "fallback_model": "fallback", "budget": "budget"}
_SWITCHES = ("local_only", "enabled", "disabled")
_KNOWN = (*AGENT_KEYS, "baseUrl", "url", "apiKey", *_SWITCHES)
_AGENTS_ONLY = frozenset({*AGENT_KEYS, *URL_KEYS, *API_KEYS})
_DEEPEST = 5
"""How many groups may be around an agent."""

# Words that only look like a misspelled "model", and keys that only an agent has.
_WORDS = frozenset({"mode", "modes", "modal", "models"})
_AGENT_SIGNS = _AGENTS_ONLY - {"budget"}


def is_orchestra(document: Mapping[str, Any]) -> bool:
    """Whether the document has one of these shapes."""
    if "llm_routing" in document:
        return True
    if not _NATIVE.isdisjoint(document):
        return False
    _, entries = _entries(document)
    nested = isinstance(document.get("agents"), Mapping)
    return any(
        _is_group(entry) or (_is_agent(entry) and not (nested and _FOREIGN.isdisjoint(entry)))
        for entry in entries.values()
    )


def translate(
    document: Mapping[str, Any], environment: Environment, source: Source, external: ExternalNames
) -> dict[str, Any]:
    """The native table of the document, with secrets expanded."""
    builder = Builder(environment, source)
    if "llm_routing" in document:
        read_endpoints(document["llm_routing"], builder)
    endpoints = AgentEndpoints(builder, external)
    place, entries = _entries(document)
    local_only = bool(place) and builder.local_only(document, ())
    for key in document if place else ():
        if key not in {"agents", "llm_routing"} and not is_local_only(key):
            builder.pass_over(key, document, (), ("agents", "llm_routing", "local_only"))
    _Reader(builder, endpoints).read(entries, place, local_only)
    endpoints.name_models()
    return builder.table()


def _entries(document: Mapping[str, Any]) -> tuple[Place, Mapping[str, Any]]:
    """Agents and groups by name, and the place they are in."""
    agents = document.get("agents")
    if isinstance(agents, Mapping):
        return ("agents",), agents
    return (), {key: entry for key, entry in document.items() if key not in {"agents", "llm_routing"}}


def _is_agent(entry: object) -> bool:
    return isinstance(entry, Mapping) and "model" in entry


def _is_group(entry: object, levels: int = 2 * _DEEPEST) -> bool:
    """Whether it holds agents, directly or in groups. `params` belong to an agent."""
    if not isinstance(entry, Mapping) or "model" in entry or "params" in entry:
        return False
    inner = [value for value in entry.values() if isinstance(value, Mapping)]
    return any(_is_agent(value) or _misspelt_model(value) for value in inner) or (
        levels > 1 and any(_is_group(value, levels - 1) for value in inner)
    )


def _misspelt_model(entry: Mapping[str, Any]) -> str | None:
    """The key that seems to be a misspelled "model" in an entry without a model."""
    words = _WORDS if _AGENT_SIGNS.isdisjoint(entry) else ()
    for key, value in entry.items():
        if isinstance(value, str) and folded(key) not in words and misspelt(key, ("model",)):
            return key
    return None


class _Reader:
    """Walks through groups and agents."""

    def __init__(self, builder: Builder, endpoints: AgentEndpoints) -> None:
        self._builder = builder
        self._endpoints = endpoints

    def read(
        self, entries: Mapping[str, Any], place: Place, local_only: bool, groups: tuple[str, ...] = ()
    ) -> None:
        """Read everything at `place`. `local_only` of a group holds for all agents in it."""
        local_only |= self._builder.local_only(entries, place)
        if groups:
            group = self._builder.groups.setdefault(groups[-1], {})
            group |= {"local_only": True} if local_only else {}
        for name, entry in entries.items():
            here = (*place, name)
            if is_local_only(name):
                continue
            if groups and name in _AGENTS_ONLY:
                self._builder.warn(here, "is read for an agent, not for a group")
            elif not isinstance(entry, Mapping):
                self._builder.pass_over(name, entries, place, _SWITCHES if groups else ("local_only",))
            elif not self._builder.takes_part(entry, here):
                continue
            elif _is_agent(entry):
                self._agent(name, entry, here, groups[-1] if groups else None, local_only)
            elif not _is_group(entry):
                self._neither(entry, here, bool(groups) or local_only)
            elif len(groups) == _DEEPEST:
                self._builder.fault(here, f"is a group too deep in others; {_DEEPEST} levels are read")
            else:
                self.read(entry, here, local_only, (*groups, name))

    def _agent(
        self, name: str, entry: Mapping[str, Any], place: Place, group: str | None, local_only: bool
    ) -> None:
        builder = self._builder
        local_only |= builder.local_only(entry, place)
        if name in builder.agents:
            first = builder.at(builder.origin("agents", name))
            builder.fault(place, f"an agent of that name is also at {first}")
            return
        builder.comes_from(place, "agents", name)
        agent = builder.agents[name] = {}
        for key, value in entry.items():
            native = AGENT_KEYS.get(key)
            if native is None:
                if key in _DESCRIPTIVE:
                    builder.ignore((*place, key), NOT_ROUTING)
                elif key not in SERVER_KEYS and not is_local_only(key):
                    builder.pass_over(key, entry, place, _KNOWN)
            elif (expanded := builder.expand(value, (*place, key))) is not None:
                builder.comes_from((*place, key), "agents", name, native)
                if native == "fallback" and isinstance(expanded, str):
                    expanded = [expanded]
                    builder.comes_from((*place, key), "agents", name, native, 0)
                agent[native] = expanded
        if local_only:
            agent["local_only"] = True
        if group is not None:
            agent["group"] = group
        self._endpoints.add(name, entry, place)

    def _neither(self, entry: Mapping[str, Any], place: Place, strict: bool) -> None:
        """Report an entry that is neither an agent nor a group, but may be a misspelled one.

        At the top there may be many other things, so there only `local_only` makes it a fault.
        """
        local_only = self._builder.local_only(entry, place)
        if (key := _misspelt_model(entry)) is not None:
            text = unknown_key("model")
            if strict or local_only:
                self._builder.fault((*place, key), text)
            else:
                self._builder.warn((*place, key), f"{text} Without it this is no agent")
        elif local_only:
            self._builder.fault(place, "is local_only, but has no model, and no agents in it")
        else:
            self._builder.ignore(place, "has no model, and no agents in it")
