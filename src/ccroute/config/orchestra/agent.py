"""One agent's entry, in a table or in a list, becomes an agent of the native table.

Prompts and other keys are not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from ccroute.config.foreign.builder import NOT_ROUTING, Builder
from ccroute.config.foreign.section import AnySpelling
from ccroute.config.foreign.servers import API_KEYS, SERVER_KEYS, URL_KEYS
from ccroute.config.foreign.spelling import folded, is_local_only, misspelt
from ccroute.config.orchestra.agent_endpoints import AgentEndpoints
from ccroute.config.orchestra.budgets import AGENT_SPENDS, is_budget, read_budget
from ccroute.config.orchestra.fallbacks import read_fallbacks
from ccroute.config.reading.source import Place
from ccroute.routing.names import slug

AGENT_KEYS: Final = {
    "model": "model",
    "fallback": "fallback",
    "fallbackModel": "fallback",
    "fallback_model": "fallback",
    "budget": "budget",
}
MAPPING: Final = "ccproxyMapping"
SWITCHES: Final = ("local_only", "enabled", "disabled")
AGENTS_ONLY: Final = frozenset({*AGENT_KEYS, *URL_KEYS, *API_KEYS} - {"budget"})
DESCRIPTIVE: Final = frozenset(
    {"dependencies", "description", "name", "phase", "prompt", "responsibilities", "role", "type"}
)
_KNOWN = (*AGENT_KEYS, *AGENT_SPENDS, "baseUrl", "url", "apiKey", MAPPING, *SWITCHES)
_MAPPING_KEYS = ("apiAlias", "ollama")

# Words that only look like a misspelled "model".
_WORDS = frozenset({"mode", "modes", "modal", "models"})
_PLACES = (*URL_KEYS, *API_KEYS, MAPPING)
"""Keys that say where an agent's model runs."""


def is_agent(entry: object) -> bool:
    return isinstance(entry, Mapping) and ("model" in entry or MAPPING in entry)


def misspelt_model(entry: Mapping[str, Any]) -> str | None:
    """The key that seems to be a misspelled "model" in an entry without a model."""
    words = _WORDS if AGENTS_ONLY.isdisjoint(entry) else ()
    for key, value in entry.items():
        if isinstance(value, str) and folded(key) not in words and misspelt(key, ("model",)):
            return key
    return None


class AgentReader:
    """Adds agents to the builder."""

    def __init__(self, builder: Builder, endpoints: AgentEndpoints) -> None:
        self._builder = builder
        self._endpoints = endpoints
        self._names: dict[str, str] = {}
        self._said: dict[str, object] = {}

    def read(
        self,
        name: str,
        entry: Mapping[str, Any],
        place: Place,
        group: str | None = None,
        local_only: bool | None = None,
        used: Collection[str] = (),
    ) -> str:
        """Add an agent and return its name. Another of the same name is a fault, unless it says the same.

        `local_only` of a group or of the file wins over a false one of the agent. `used` are keys that the
        caller reads.
        """
        builder = self._builder
        first = self._names.setdefault(slug(name), name)
        if first not in builder.agents:
            builder.comes_from(place, "agents", name)
        own = builder.local_only(entry, place)
        agent = self._routing(name, entry, place, used)
        if local_only or own is not None:
            agent["local_only"] = bool(local_only or own)
        if group is not None:
            agent["group"] = group
        says = (dict(agent), [entry.get(key) for key in _PLACES])
        if first not in builder.agents:
            self._said[name] = says
            builder.agents[name] = agent
            self._endpoints.add(name, entry, place)
            if isinstance(mapping := entry.get(MAPPING), Mapping | str) and mapping:
                self._alternatives(name, mapping, (*place, MAPPING))
            return name
        where = builder.at(builder.origin("agents", first))
        if self._said[first] == says:
            builder.ignore(place, f"is the agent at {where}")
        else:
            builder.fault(place, f"an agent of that name is also at {where}")
        return first

    def _routing(
        self, name: str, entry: Mapping[str, Any], place: Place, used: Collection[str]
    ) -> dict[str, Any]:
        builder = self._builder
        agent: dict[str, Any] = {}
        for key, value in entry.items():
            here, native = (*place, key), AGENT_KEYS.get(key)
            if native == "fallback":
                builder.comes_from(here, "agents", name, native)
                for model, origin in read_fallbacks(value, here, builder):
                    models = agent.setdefault(native, [])
                    builder.comes_from(origin, "agents", name, native, len(models))
                    builder.comes_from(origin, "agents", name, native, len(models), "model")
                    models.append(model)
            elif is_budget(key):
                continue
            elif native is not None:
                if (expanded := builder.expand(value, here)) is not None:
                    builder.comes_from(here, "agents", name, native)
                    agent[native] = expanded
            elif key in used:
                continue
            elif key in DESCRIPTIVE:
                builder.ignore(here, NOT_ROUTING)
            elif folded(key) == "provider" and not any(entry.get(each) for each in URL_KEYS):
                builder.warn(here, 'is not read: write the model as "provider/model", or give its baseUrl')
                builder.ignore(here, "the model's name, or a baseUrl, says where it runs")
            elif key not in SERVER_KEYS and key != MAPPING and not is_local_only(key):
                builder.pass_over(key, entry, place, _KNOWN)
        if (budget := read_budget(name, entry, place, builder)) is not None:
            agent["budget"] = budget
        return agent

    def _alternatives(self, name: str, mapping: Mapping[str, Any] | str, place: Place) -> None:
        """The alias at the proxy, then the model in Ollama: for an agent whose model has no target."""
        if isinstance(mapping, str):
            found = [(mapping, place)]
        else:
            section = AnySpelling(self._builder, (mapping, place), _MAPPING_KEYS)
            alias, model = section.text("apiAlias"), section.text("ollama")
            found = [(alias, section.place("apiAlias"))] if alias else []
            if model:
                found.append((f"ollama/{model.removeprefix('ollama/')}", section.place("ollama")))
        agent = self._builder.agents[name]
        if found and "model" not in agent:
            agent["model"], origin = found.pop(0)
            self._builder.comes_from(origin, "agents", name, "model")
        if found:
            self._builder.additions.alternatives[name] = [model for model, _ in found]
