"""Rules of a gateway that name models for agents, limits for all calls, and models for bad times.

`agent_model_overrides` and `enable_agent_override` of a router's file; `routing`, `fallback_providers`,
`cost_settings` and `performance_settings` of a gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import partial
from typing import Any, Final

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.section import AnySpelling, Section
from ccroute.config.foreign.spelling import folded
from ccroute.config.orchestra.budgets import SPENDS, read_spends
from ccroute.routing.tables.agents import OTHERS

RULE_KEYS: Final = (
    "agent_model_overrides",
    "enable_agent_override",
    "routing",
    "fallback_providers",
    "cost_settings",
    "performance_settings",
)
ROUTING_KEYS: Final = ("agent_rules", "workload_rules", "default_model", "budget_model", "offline_model")
PERFORMANCE_KEYS: Final = ("request_timeout", "max_retries", "requests_per_minute")
_NAMES = frozenset(map(folded, RULE_KEYS))


def has_rules(document: Mapping[str, Any]) -> bool:
    """Whether the document has one of these sections."""
    return any(is_rule(key, value) for key, value in document.items())


def is_rule(key: object, value: object) -> bool:
    """Whether a top-level key is one of these sections. `routing` is a word that others use as well."""
    name = folded(key)
    if name != "routing":
        return name in _NAMES
    known = set(map(folded, ROUTING_KEYS))
    return isinstance(value, Mapping) and any(folded(each) in known for each in value)


def read_rules(document: Mapping[str, Any], builder: Builder, external: ExternalNames) -> None:
    """Read these sections, after the agents of the file."""
    sections = {key: value for key, value in document.items() if is_rule(key, value)}
    top = AnySpelling(builder, (sections, ()), RULE_KEYS)
    if (switch := top.flag("enable_agent_override")) is not None:
        builder.option("agent_override", switch, top.place("enable_agent_override"))
    _overrides(top, "agent_model_overrides", builder)
    routing = AnySpelling(builder, top.layer("routing"), ROUTING_KEYS)
    _overrides(routing, "agent_rules", builder)
    if "workload_rules" in routing:
        text = "a call names an agent or a model, and no workload"
        routing.ignore("workload_rules", text)
    if default := routing.text("default_model"):
        builder.option("default_model", default, routing.place("default_model"))
    _fallbacks(top, routing, builder, builder.aliases.keys() | external.aliases | external.chosen.keys())
    read_spends(AnySpelling(builder, top.layer("cost_settings"), tuple(SPENDS)), builder)
    _performance(AnySpelling(builder, top.layer("performance_settings"), PERFORMANCE_KEYS), builder)


def _overrides(section: Section, key: str, builder: Builder) -> None:
    for agent, model, place in section.texts(key):
        if "*" in agent or "?" in agent:
            builder.warn(place, "is not used: a pattern names no agent")
        else:
            builder.route(agent, partial(_constant, model), place)


def _constant(model: str, _: str | None) -> str:
    return model


def _fallbacks(top: Section, routing: Section, builder: Builder, names: Set[str]) -> None:
    for to, place in top.entries("fallback_providers"):
        match to:
            case {"provider": str(provider), "model": str(model)}:
                builder.fall_back(OTHERS, f"{provider}/{model}", place)
            case str() if "/" in to or to in names:
                builder.fall_back(OTHERS, to, place)
            case _:
                builder.ignore(place, "names no model that could answer")
    for key, trigger in (("offline_model", "availability"), ("budget_model", "budget")):
        if name := routing.text(key):
            builder.fall_back(OTHERS, {"model": name, "triggers": [trigger]}, routing.place(key))


def _performance(section: Section, builder: Builder) -> None:
    if "request_timeout" in section:
        place = section.place("request_timeout")
        builder.option("timeout", {"total": section.get("request_timeout")}, place)
        builder.comes_from(place, "timeout", "total")
    if (retries := section.whole("max_retries")) is not None:
        builder.retries(retries, section.place("max_retries"))
    if (rpm := section.whole("requests_per_minute", least=1)) is not None:
        builder.additions.every_agent["rpm"] = rpm
