"""`orchestra-config.json`: what orchestrators wrote before ccroute, read as the native shape.

Nested groups: agents `{model, fallbackModel, baseUrl, apiKey, …}`, alone or in groups, at the top or
under `agents`; a group may hold groups, and an agent's is the innermost. Flat: `agents`, and in
`llm_routing` the endpoints with the names that each one knows.

Knows what these files mean. What they hold besides is noted as ignored, and prompts are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ccroute.config.draft import NOT_ROUTING, Draft, unknown_key
from ccroute.config.elsewhere import Elsewhere
from ccroute.config.endpoints import read_endpoints
from ccroute.config.homes import Homes
from ccroute.config.secrets import Environment
from ccroute.config.servers import API_KEYS, SERVER_KEYS, URL_KEYS
from ccroute.config.source import Place, Source
from ccroute.config.spelling import folded, is_local_only, misspelt

# Keys that only the native shape has, and keys that only an orchestra's agents have.
_NATIVE = frozenset({"aliases", "backends", "baseline", "default_model", "fallbacks", "groups", "prices"})
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
    "budget": "budget",
}
_SWITCHES = ("local_only", "enabled", "disabled")
_KNOWN = (*_AGENT_KEYS, "baseUrl", "url", "apiKey", *_SWITCHES)
_AGENTS_ONLY = frozenset({*_AGENT_KEYS, *URL_KEYS, *API_KEYS})
_DEEPEST = 5
"""Groups around an agent."""

# Words of their own that look like a misspelled "model", and keys that only an agent has.
_WORDS = frozenset({"mode", "modes", "modal", "models"})
_TELLING = _AGENTS_ONLY - {"budget"}


def is_orchestra(document: Mapping[str, Any]) -> bool:
    """Whether it has one of these shapes, by what it holds."""
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
    document: Mapping[str, Any], environment: Environment, source: Source, elsewhere: Elsewhere
) -> dict[str, Any]:
    """The native table that says the same, with secrets expanded."""
    draft = Draft(environment, source)
    if "llm_routing" in document:
        read_endpoints(document["llm_routing"], draft)
    homes = Homes(draft, elsewhere)
    place, entries = _entries(document)
    local_only = False
    if place:
        local_only = draft.local_only(document, ())
        for key in document:
            if key not in {"agents", "llm_routing"} and not is_local_only(key):
                draft.pass_over(key, document, (), ("agents", "llm_routing", "local_only"))
    _Reader(draft, homes).read(entries, place, local_only)
    homes.name_models()
    return draft.table()


def _entries(document: Mapping[str, Any]) -> tuple[Place, Mapping[str, Any]]:
    """Agents and groups by name, and the place they are in."""
    agents = document.get("agents")
    if isinstance(agents, Mapping):
        return ("agents",), agents
    return (), {key: entry for key, entry in document.items() if key not in {"agents", "llm_routing"}}


def _is_agent(entry: object) -> bool:
    return isinstance(entry, Mapping) and "model" in entry


def _is_group(entry: object, levels: int = 2 * _DEEPEST) -> bool:
    """Whether it holds agents, be it in groups. `params` are an agent's, whatever they hold."""
    if not isinstance(entry, Mapping) or "model" in entry or "params" in entry:
        return False
    inner = [value for value in entry.values() if isinstance(value, Mapping)]
    return any(_is_agent(value) or _nearly_model(value) for value in inner) or (
        levels > 1 and any(_is_group(value, levels - 1) for value in inner)
    )


def _nearly_model(entry: Mapping[str, Any]) -> str | None:
    """The key that seems to be a misspelled "model" of an agent, if it has none."""
    words = _WORDS if _TELLING.isdisjoint(entry) else ()
    for key, value in entry.items():
        meant = isinstance(value, str) and folded(key) not in words and misspelt(key, ("model",))
        if meant and "model" not in entry:
            return key
    return None


class _Reader:
    """Walks through groups and agents."""

    def __init__(self, draft: Draft, homes: Homes) -> None:
        self._draft = draft
        self._homes = homes

    def read(
        self, entries: Mapping[str, Any], place: Place, local_only: bool, groups: tuple[str, ...] = ()
    ) -> None:
        """Everything at `place`. What says `local_only` for a group says so for all agents in it."""
        local_only |= self._draft.local_only(entries, place)
        if groups:
            group = self._draft.groups.setdefault(groups[-1], {})
            group |= {"local_only": True} if local_only else {}
        for name, entry in entries.items():
            here = (*place, name)
            if is_local_only(name):
                continue
            if groups and name in _AGENTS_ONLY:
                self._draft.warn(here, "is read of an agent, not of a group")
            elif not isinstance(entry, Mapping):
                self._draft.pass_over(name, entries, place, _SWITCHES if groups else ("local_only",))
            elif not self._draft.takes_part(entry, here):
                continue
            elif _is_agent(entry):
                self._agent(name, entry, here, groups[-1] if groups else None, local_only)
            elif not _is_group(entry):
                self._neither(entry, here, bool(groups) or local_only)
            elif len(groups) == _DEEPEST:
                self._draft.fault(here, f"is a group too deep in others; {_DEEPEST} levels are read")
            else:
                self.read(entry, here, local_only, (*groups, name))

    def _agent(
        self, name: str, entry: Mapping[str, Any], place: Place, group: str | None, local_only: bool
    ) -> None:
        draft = self._draft
        local_only |= draft.local_only(entry, place)
        if name in draft.agents:
            first = draft.at(draft.origin("agents", name))
            draft.fault(place, f"an agent of that name is also at {first}")
            return
        draft.comes_from(place, "agents", name)
        agent = draft.agents[name] = dict(_settings(name, entry, place, draft))
        if local_only:
            agent["local_only"] = True
        if group is not None:
            agent["group"] = group
        self._homes.settle(name, entry, place)

    def _neither(self, entry: Mapping[str, Any], place: Place, strict: bool) -> None:
        """What is neither an agent nor a group, though it may have been meant for one.

        At the top there may be much else, so there only privacy makes that a fault.
        """
        local_only = self._draft.local_only(entry, place)
        if (key := _nearly_model(entry)) is not None:
            text = unknown_key("model")
            if strict or local_only:
                self._draft.fault((*place, key), text)
            else:
                self._draft.warn((*place, key), f"{text} Without it this is no agent")
        elif local_only:
            self._draft.fault(place, "is local_only, but has no model, and no agents in it")
        else:
            self._draft.ignore(place, "has no model, and no agents in it")


def _settings(name: str, entry: Mapping[str, Any], place: Place, draft: Draft) -> Iterator[tuple[str, Any]]:
    """An agent's native keys and values."""
    for key, value in entry.items():
        native = _AGENT_KEYS.get(key)
        if native is None:
            if key in _FOREIGN - SERVER_KEYS:
                draft.ignore((*place, key), NOT_ROUTING)
            elif key not in SERVER_KEYS and not is_local_only(key):
                draft.pass_over(key, entry, place, _KNOWN)
        elif (expanded := draft.expand(value, (*place, key))) is not None:
            draft.comes_from((*place, key), "agents", name, native)
            if native == "fallback" and isinstance(expanded, str):
                expanded = [expanded]
                draft.comes_from((*place, key), "agents", name, native, 0)
            yield native, expanded
