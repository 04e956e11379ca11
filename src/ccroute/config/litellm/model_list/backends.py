"""Gives every entry a backend. Entries with the same server and the same budget share one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any, TypeAlias

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.servers import free_name
from ccroute.config.litellm.model_list.entries import Entry

_Identity: TypeAlias = tuple[str, str, int]
"""A value that is equal for entries with the same server and the same budget."""


class _Shared:
    """Entries behind one server, each model with one set of facts."""

    def __init__(self, identity: _Identity) -> None:
        self.identity = identity
        self.entries: list[Entry] = []
        self.facts: dict[str, Mapping[str, Any]] = {}

    def takes(self, entry: Entry) -> bool:
        return self.facts.get(entry.model, entry.facts.table) == entry.facts.table

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.facts[entry.model] = entry.facts.table


def add_backends(
    entries: Iterable[Entry],
    builder: Builder,
    external: ExternalNames,
    limited: Collection[str],
) -> None:
    """Add the backends, and set the backend of each entry.

    A model that entries describe differently needs a second backend of the same server, and so do entries
    with budgets of their own and those of `limited` providers.
    """
    shared: dict[_Identity, list[_Shared]] = {}
    aliases: dict[str, set[tuple[_Identity, str]]] = {}
    for entry in entries:
        provider = entry.provider if entry.provider in limited else ""
        identity = (entry.server.identity, provider, 0 if entry.budget is None else id(entry))
        aliases.setdefault(entry.name, set()).add((identity, entry.model))
        alike = shared.setdefault(identity, [])
        place = next((each for each in alike if each.takes(entry)), None)
        if place is None:
            alike.append(place := _Shared(identity))
        place.add(entry)
    for each in chain.from_iterable(shared.values()):
        name = _name(each, builder, external, aliases)
        _add(name, each, builder)
        for entry in each.entries:
            entry.backend = name


def _name(
    shared: _Shared,
    builder: Builder,
    external: ExternalNames,
    aliases: Mapping[str, set[tuple[_Identity, str]]],
) -> str:
    """A name that no other server has, and with which no deployment has the name of another alias, or one
    that another entry's wildcard has.

    `aliases` are the file's, each with the servers and models that it leads to.
    """
    server = shared.entries[0].server
    models = {f"/{model}": {(shared.identity, model)} for model in shared.facts}
    others = external.aliases | external.chosen.keys()
    url, key = server.options["base_url"], server.options.get("api_key")
    wild = [name for name, leads in aliases.items() if "*" in name and shared.identity not in dict(leads)]

    def is_free(name: str) -> bool:
        if name in builder.backends or name in external.backends or external.takes(name, url, key):
            return False
        if any(each.startswith(f"{name}/") for each in wild):
            return False
        deployments = {f"{name}{model}": only for model, only in models.items()}
        return others.isdisjoint(deployments) and all(
            aliases.get(each, only) == only for each, only in deployments.items()
        )

    free = free_name(server.name, is_free)
    builder.additions.implied.add(free)
    return free


def _add(name: str, shared: _Shared, builder: Builder) -> None:
    first = shared.entries[0]
    table = builder.backends[name] = dict(first.server.options)
    slots = [entry.slots for entry in shared.entries if entry.slots]
    if slots:
        table["max_concurrency"] = min(slots)
    models: dict[str, dict[str, Any]] = {}
    if first.server.warning is not None:
        builder.warn((*first.place, "litellm_params"), first.server.warning)
    builder.comes_from((*first.place, "litellm_params"), "backends", name)
    for at, place in first.server.places.items():
        builder.comes_from(place, "backends", name, *at)
    for entry in shared.entries:
        if not entry.facts.table or entry.model in models:
            continue
        models[entry.model] = dict(entry.facts.table)
        native = ("backends", name, "models", entry.model)
        builder.comes_from(entry.place, *native)
        for fact, place in entry.facts.places.items():
            builder.comes_from(place, *native, *fact.split("."))
    if models:
        table["models"] = models
