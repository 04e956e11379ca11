"""Recognises an orchestra file by its content, and lets the reader of each of its sections build one table.

Sections: agents, alone or in groups (`agents` or the top); lists of agents; `llm_routing`; `llmGateway`; and
a gateway's rules. Everything else is noted as ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccroute.config.additions import Translated
from ccroute.config.foreign.builder import NOT_ROUTING, Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.spelling import folded, is_local_only
from ccroute.config.orchestra.agent import AgentReader, is_agent
from ccroute.config.orchestra.agent_endpoints import AgentEndpoints
from ccroute.config.orchestra.budgets import let_fall_back, pass_over_budget
from ccroute.config.orchestra.endpoints import read_endpoints
from ccroute.config.orchestra.gateway import read_gateway
from ccroute.config.orchestra.groups import GroupReader, holds_agents
from ccroute.config.orchestra.lists import ARCHITECT, ListReader, lists_at_top
from ccroute.config.orchestra.rules import RULE_KEYS, has_rules, is_rule, read_rules
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Source

# Keys that only the native shape has.
_NATIVE = frozenset({"aliases", "backends", "baseline", "default_model", "fallbacks", "groups", "prices"})
_SECTIONS = {"llmrouting": "llm_routing", "llmgateway": "llmGateway"}
_TOP = ("agents", *_SECTIONS.values(), *RULE_KEYS, "local_only")
_NAMES = frozenset({"agents", "routing"})


def is_orchestra(document: Mapping[str, Any]) -> bool:
    """Whether the document has one of these shapes."""
    if _sections(document) or has_rules(document) or lists_at_top(document):
        return True
    if not _NATIVE.isdisjoint(document):
        return False
    agents = document.get("agents")
    if isinstance(agents, Mapping):
        return holds_agents(agents, native=True) or is_agent(document.get(ARCHITECT))
    return holds_agents({key: entry for key, entry in document.items() if key != "agents"}, native=False)


def translate(
    document: Mapping[str, Any], environment: Environment, source: Source, external: ExternalNames
) -> Translated:
    """The native table of the document, with secrets expanded, and its other rules."""
    builder = Builder(environment, source)
    sections = _sections(document)
    if routing := sections.get("llmrouting"):
        needed = document.keys() <= {routing, "agents"} and not document.get("agents")
        read_endpoints(document[routing], routing, builder, needed=needed)
    endpoints = AgentEndpoints(builder, external)
    agents = AgentReader(builder, endpoints)
    lists = ListReader(builder, agents)
    _read_agents(document, builder, GroupReader(builder, agents, lists), lists)
    lists.name_types()
    if gateway := sections.get("llmgateway"):
        read_gateway(document[gateway], (gateway,), builder, external)
    endpoints.name_models()
    read_rules(document, builder, external)
    let_fall_back(builder)
    return builder.table(), builder.additions


def _sections(document: Mapping[str, Any]) -> dict[str, str]:
    """The document's keys of the sections that may be beside agents."""
    return {name: key for key in document if (name := folded(key)) in _SECTIONS}


def _read_agents(
    document: Mapping[str, Any], builder: Builder, groups: GroupReader, lists: ListReader
) -> None:
    sections = set(_sections(document).values())
    rest = {key: entry for key, entry in document.items() if key not in sections and not is_rule(key, entry)}
    in_lists, agents = lists_at_top(rest), rest.get("agents")
    in_table = isinstance(agents, Mapping) and (not in_lists or holds_agents(agents, native=False))
    if not in_table and not in_lists:
        groups.read({key: entry for key, entry in rest.items() if key != "agents"}, (), None)
        return
    local_only = builder.local_only(rest, ())
    named = {
        key: entry
        for key, entry in rest.items()
        if is_agent(entry) and (key == ARCHITECT or (in_lists and "name" in entry))
    }
    read = {*named, *in_lists, *(["agents"] if in_table else [])}
    for key in rest:
        if folded(key) in _NAMES and key not in read:
            builder.ignore((key,), NOT_ROUTING)  # a word that others use as well
        elif key not in read and not is_local_only(key) and not pass_over_budget(key, (), builder):
            builder.pass_over(key, document, (), _TOP)
    for key, entry in rest.items():
        if key == "agents" and in_table:
            groups.read(entry, (key,), local_only)
        elif key in in_lists:
            lists.read(entry, (key,), local_only)
        elif key in named and builder.takes_part(entry, (key,)):
            lists.read_one(entry, (key,), local_only, key)
