"""Agents whose entry has the address of their model's server (`baseUrl`, `apiKey`).

Agents with the same address and key share one backend, and a model's name becomes an alias that leads there.
A name that is used at several addresses, or that other sources define, becomes no alias: its agents name the
deployment instead. Only an alias that the caller gives for the name wins over the agent's address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.servers import API_KEYS, URL_KEYS, Address, Server, name_of_host
from ccroute.config.reading.source import Place


class AgentEndpoints:
    """The servers that agents name."""

    def __init__(self, builder: Builder, external: ExternalNames) -> None:
        self._builder = builder
        self._external = external
        self._by_address: dict[Address, Server] = {}
        self._by_agent: dict[str, Server] = {}
        self._url_places: dict[str, Place] = {}

    def add(self, agent: str, entry: Mapping[str, Any], place: Place) -> None:
        """Find or make the backend at the address that the agent's entry gives, if it gives one."""
        url_key = next((key for key in URL_KEYS if entry.get(key)), None)
        if url_key is not None:
            self._url_places[agent] = (*place, url_key)
            address = Address.of(entry, place, self._builder)
            if address not in self._by_address:
                name = name_of_host(address, self._builder, self._external)
                self._by_address[address] = Server.add(name, address, entry, place, self._builder)
            self._by_agent[agent] = self._by_address[address]
            return
        for key in API_KEYS:
            if entry.get(key):
                self._builder.ignore((*place, key), "there is no baseUrl that it could be for")

    def name_models(self) -> None:
        """Give each model of these agents an alias, or name its deployment where it cannot have one."""
        models = {name: self._models(name, "model") for name in self._by_agent}
        fallbacks = {name: self._models(name, "fallback") for name in self._by_agent}
        taken = self._builder.aliases.keys() | self._external.aliases | self._external.chosen.keys()
        # A fallback that is no agent's model is looked for at the server of the agent's own model.
        claims = self._claims(models, taken)
        claims |= self._claims(fallbacks, taken | claims.keys())
        for model, found in claims.items():
            if len(found) == 1:
                ((deployment, agent),) = found.items()
                self._builder.alias(model, deployment, self._builder.origin("agents", agent))
        ambiguous = {(model, to) for model, found in claims.items() if len(found) > 1 for to in found}
        for name, server in self._by_agent.items():
            table = self._builder.agents[name]
            for model in models[name]:
                deployment = server.deployment(model)
                if model in self._external.chosen:
                    if self._external.chosen[model] not in (deployment, [deployment]):
                        text = f'is not used for "{model}", because the caller gives an alias for that name'
                        self._builder.warn(self._url_places[name], text)
                elif self._builder.aliases.get(model) != [deployment]:
                    table["model"] = deployment
            if fallbacks[name]:
                table["fallback"] = [
                    _renamed(given, to) if (model, to := server.deployment(model)) in ambiguous else given
                    for given, model in zip(table["fallback"], fallbacks[name], strict=True)
                ]

    def _claims(self, models: Mapping[str, Iterable[str]], taken: Iterable[str]) -> dict[str, dict[str, str]]:
        """By name: its deployments, each with the first agent that uses it."""
        claims: dict[str, dict[str, str]] = {}
        for agent, server in self._by_agent.items():
            for model in models[agent]:
                if model not in taken:
                    claims.setdefault(model, {}).setdefault(server.deployment(model), agent)
        return claims

    def _models(self, agent: str, key: str) -> list[str]:
        given = self._builder.agents[agent].get(key)
        models: list[Any] = list(map(_model, given)) if isinstance(given, list) else [given]
        # Checking the native table reports anything but a name.
        return models if all(isinstance(model, str) for model in models) else []


def _model(fallback: object) -> object:
    """A fallback's model, which may have triggers beside it."""
    return fallback["model"] if isinstance(fallback, dict) else fallback


def _renamed(fallback: object, model: str) -> object:
    return {**fallback, "model": model} if isinstance(fallback, dict) else model
