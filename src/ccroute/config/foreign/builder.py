"""Builds the native table from another tool's file.

Knows where in the file each part comes from. Must not know the file's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from ccroute.config.additions import Additions, routed
from ccroute.config.foreign.spelling import as_switch, is_local_only, misspelt
from ccroute.config.reading.secrets import MISSING, Environment
from ccroute.config.reading.source import Place, Source
from ccroute.routing.tables.agents import OTHERS

NOT_ROUTING = "says nothing about which model answers"


class Builder:
    """Collects what becomes the native table. Secrets are expanded before anything is added.

    `options` are top-level keys such as `default_model`. `additions` is what no native table can say.
    """

    def __init__(self, environment: Environment, source: Source) -> None:
        self.environment = environment
        self.source = source
        self.at, self.fault, self.warn, self.ignore = source.at, source.fault, source.warn, source.ignore
        self.backends: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, list[str]] = {}
        self.agents: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.fallbacks: dict[str, list[str | dict[str, Any]]] = {}
        self.options: dict[str, Any] = {}
        self.additions = Additions()

    def table(self) -> dict[str, Any]:
        aliases = {name: found[0] if len(found) == 1 else found for name, found in self.aliases.items()}
        named = {"backends": self.backends, "aliases": aliases, "agents": self.agents, "groups": self.groups}
        return {**named, "fallbacks": self.fallbacks, **self.options}

    def alias(self, name: str, deployment: str, place: Place) -> None:
        """Add a deployment to an alias. Several are balanced."""
        deployments = self.aliases.setdefault(name, [])
        if deployment not in deployments:
            deployments.append(deployment)
        self.comes_from(place, "aliases", name)

    def expand(self, value: Any, place: Place) -> Any:
        """The value with variables replaced; None if one of them is not set."""
        expanded = self.environment.expand(value, place, self.source)
        return None if expanded is MISSING else expanded

    def is_faulty(self, place: Place) -> bool:
        """Whether a fault was found at a place or below it."""
        return self.source.faulty(self.at(place))

    def comes_from(self, place: Place, *native: str | int) -> None:
        """Report faults at `native`, a place in the table, at `place` in the file. The first call counts."""
        self.source.renamed.setdefault(native, place)

    def origin(self, *native: str) -> Place:
        return self.source.renamed[native]

    def takes_part(self, entry: object, place: Place) -> TypeGuard[Mapping[str, Any]]:
        """Whether it is a table that is not disabled. Otherwise it is noted as ignored."""
        if not isinstance(entry, Mapping):
            self.ignore(place, NOT_ROUTING)
            return False
        disabled = entry.get("enabled") is False or entry.get("disabled") is True
        if disabled:
            self.ignore(place, "is disabled")
        return not disabled

    def switch(self, value: Any, place: Place) -> bool:
        """The value as a boolean. Any other value is a fault, and counts as false."""
        expanded = self.environment.expand(value, place, self.source)
        if expanded is MISSING:
            return True
        switch = as_switch(expanded)
        if switch is None:
            self.fault(place, "should be true or false")
        return bool(switch)

    def local_only(self, entry: Mapping[str, Any], place: Place) -> bool | None:
        """Whether the entry sets `local_only`, in any spelling; None if it says nothing."""
        found = [self.switch(value, (*place, key)) for key, value in entry.items() if is_local_only(key)]
        return any(found) if found else None

    def pass_over(self, key: str, beside: Iterable[str], place: Place, known: Sequence[str]) -> None:
        """Note a key that is not read; warn if it looks like a misspelled one of `known`.

        A known key that is also given (`beside`) is not suggested.
        """
        here, meant = (*place, key), misspelt(key, known, beside)
        if is_local_only(key):
            self.fault(here, "belongs to an agent or to a group of agents")
        elif meant is None:
            self.ignore(here, NOT_ROUTING)
        elif is_local_only(meant):
            self.fault(here, unknown_key(meant))
        else:
            self.warn(here, unknown_key(meant))

    def option(self, key: str, value: Any, place: Place) -> None:
        """Set a key of the whole file."""
        self.options[key] = value
        self.comes_from(place, key)

    def fall_back(self, model: str, to: str | dict[str, Any], place: Place) -> None:
        """Add a fallback for a model, or for "*", all others."""
        models = self.fallbacks.setdefault(model, [])
        if to not in models and to != model:
            self.comes_from(place, "fallbacks", model)
            self.comes_from(place, "fallbacks", model, len(models))
            models.append(to)

    def retries(self, retries: int, place: Place) -> None:
        """Let a deployment be tried so many times again, and each fallback for all models once after it."""
        fallbacks = max(1, len(self.fallbacks.get(OTHERS, ())))
        tries = {"attempts": 1 + retries + fallbacks, "per_deployment": 1 + retries}
        self.option("retry", tries, place)

    def route(self, agent: str, choose: Callable[[str | None], str | None], place: Place) -> None:
        """Let `choose` give an agent's model from the model that this and earlier sources give it."""
        self.additions.routed[agent] = choose
        self.comes_from(place, *routed(agent))

    def leads_nowhere(self, names: Iterable[object], why: str) -> None:
        """Give the reason why names of this file have no target. It counts if no source gives them one."""
        self.additions.absent.update({name: why for name in names if isinstance(name, str)})


def unknown_key(meant: str) -> str:
    return f'unknown key, did you mean "{meant}"?'
