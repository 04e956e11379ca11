"""`llm_routing.endpoints` of an orchestra file: servers, each with the names that it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ccroute.config.foreign.builder import Builder, unknown_key
from ccroute.config.foreign.servers import SERVER_KEYS, URL_KEYS, Address, Server
from ccroute.config.foreign.spelling import misspelt
from ccroute.config.reading.source import Place

_KNOWN = ("url", "baseUrl", "apiKey", "models", "aliases", "enabled", "disabled")


def read_endpoints(routing: object, key: str, builder: Builder, *, needed: bool) -> None:
    """Each endpoint becomes a backend, and its `models` and `aliases` become aliases.

    A model's id is a name as well, where no endpoint gives that name to another model. With `needed`, the
    file has nothing else that says where models run.
    """
    table = routing if isinstance(routing, Mapping) else {}
    if table and not builder.takes_part(table, (key,)):
        return
    endpoints, place = table.get("endpoints"), (key, "endpoints")
    if not isinstance(endpoints, Mapping):
        wrong = next((each for each in table if endpoints is None and misspelt(each, ("endpoints",))), None)
        if wrong is not None:
            builder.fault((key, wrong), unknown_key("endpoints"))
        elif needed or endpoints is not None:
            builder.fault(place, "should be a table of endpoints")
        else:
            builder.ignore((key,), "has no endpoints")
        return
    for each in table:
        if each not in {"endpoints", "enabled", "disabled"}:
            builder.pass_over(each, (), (key,), ("endpoints",))
    ids: list[tuple[str, str, Place]] = []
    for name, endpoint in endpoints.items():
        if builder.takes_part(endpoint, (*place, name)):
            ids += _read_endpoint(name, endpoint, (*place, name), builder)
        elif isinstance(endpoint, Mapping):
            for short, model in _all_names(endpoint):
                builder.leads_nowhere((short, model), f"{builder.at((*place, name))} is disabled")
    named = frozenset(builder.aliases)
    for model, deployment, origin in ids:
        if model not in named:
            builder.alias(model, deployment, origin)


def _read_endpoint(
    name: str, endpoint: Mapping[str, Any], place: Place, builder: Builder
) -> list[tuple[str, str, Place]]:
    """Add its backend and its names. Returns its model ids, each with its deployment and its place."""
    if not any(key in endpoint for key in URL_KEYS):
        builder.fault((*place, "url"), "is missing")
    server = Server.add(name, Address.of(endpoint, place, builder), endpoint, place, builder)
    models = _names(endpoint, "models", place, builder)
    aliases = _names(endpoint, "aliases", place, builder)
    # An alias may stand for a short name of the same endpoint.
    for alias, (model, origin) in aliases.items():
        if model in models:
            aliases[alias] = (models[model][0], origin)
    ids = []
    for names in (models, aliases):
        for short, (model, origin) in names.items():
            builder.alias(short, server.deployment(model), origin)
            ids.append((model, server.deployment(model), origin))
    for key in endpoint:
        if key not in SERVER_KEYS and key not in {"models", "aliases"}:
            builder.pass_over(key, endpoint, place, _KNOWN)
    return ids


def _all_names(endpoint: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    """The names of an endpoint that is not read, each with its model id."""
    for names in (endpoint.get("models"), endpoint.get("aliases")):
        if isinstance(names, Mapping):
            yield from names.items()
        elif isinstance(names, list):
            yield from ((name, name) for name in names)


def _names(
    endpoint: Mapping[str, Any], section: str, place: Place, builder: Builder
) -> dict[str, tuple[str, Place]]:
    """By name: a model id and its place in the file. In a list, a model's id is its name."""
    place = (*place, section)
    given = builder.expand(endpoint.get(section, {}), place)
    entries: list[tuple[str | int, object]] = []
    if isinstance(given, Mapping):
        entries += given.items()
    elif isinstance(given, list) and section == "models":
        entries += enumerate(given)
    else:
        builder.fault(place, "should be a table of names and model ids")
    names = {}
    for key, model in entries:
        if isinstance(model, str):
            names[model if isinstance(key, int) else key] = (model, (*place, key))
        else:
            builder.fault((*place, key), "should be a model id")
    return names
