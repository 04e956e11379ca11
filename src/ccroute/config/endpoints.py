"""`llm_routing.endpoints` of an orchestra file: servers, each with the names that it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccroute.config.draft import NOT_ROUTING, Draft
from ccroute.config.servers import SERVER_KEYS, URL_KEYS, Address, Server
from ccroute.config.source import Place

_PLACE = ("llm_routing", "endpoints")


def read_endpoints(routing: object, draft: Draft) -> None:
    """Each endpoint becomes a backend, and its `models` and `aliases` become aliases.

    A model's id is a name as well, where no endpoint gives that name to another model.
    """
    endpoints = routing.get("endpoints") if isinstance(routing, Mapping) else None
    if not isinstance(routing, Mapping) or not isinstance(endpoints, Mapping):
        draft.fault(_PLACE, "should be a table of endpoints")
        return
    for key in routing:
        if key != "endpoints":
            draft.ignore(("llm_routing", key), NOT_ROUTING)
    ids: list[tuple[str, str, Place]] = []
    for name, endpoint in endpoints.items():
        if draft.takes_part(endpoint, (*_PLACE, name)):
            ids += _read_endpoint(name, endpoint, (*_PLACE, name), draft)
    named = frozenset(draft.aliases)
    for model, deployment, place in ids:
        if model not in named:
            draft.alias(model, deployment, place)


def _read_endpoint(
    name: str, endpoint: Mapping[str, Any], place: Place, draft: Draft
) -> list[tuple[str, str, Place]]:
    """Add its backend and its names. Returns its model ids, each with its deployment and its place."""
    if not any(key in endpoint for key in URL_KEYS):
        draft.fault((*place, "url"), "is missing")
    server = Server.add(Address.of(endpoint, place, draft), endpoint, place, draft, name=name)
    models = _names(endpoint, "models", place, draft)
    aliases = _names(endpoint, "aliases", place, draft)
    # An alias may stand for a short name of the same endpoint.
    named = [
        ("models", models),
        ("aliases", {alias: models.get(name, name) for alias, name in aliases.items()}),
    ]
    ids = []
    for section, names in named:
        for short, model in names.items():
            draft.alias(short, server.deployment(model), (*place, section, short))
            ids.append((model, server.deployment(model), (*place, section, short)))
    for key in endpoint:
        if key not in SERVER_KEYS and key not in {"models", "aliases"}:
            draft.ignore((*place, key), NOT_ROUTING)
    return ids


def _names(endpoint: Mapping[str, Any], section: str, place: Place, draft: Draft) -> dict[str, str]:
    names = draft.expand(endpoint.get(section, {}), (*place, section))
    if not isinstance(names, Mapping):
        draft.fault((*place, section), "should be a table of names and model ids")
        return {}
    for name, model in names.items():
        if not isinstance(model, str):
            draft.fault((*place, section, name), "should be a model id")
    return {name: model for name, model in names.items() if isinstance(model, str)}
