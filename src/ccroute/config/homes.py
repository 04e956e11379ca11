"""Agents that say themselves where their model is (`baseUrl`, `apiKey`).

Agents with the same address and key share one backend. A model's name then leads there; a name that
is used at several addresses leads nowhere by itself, and its agents name the deployment instead. So
do those whose model's name is defined elsewhere; only an alias that the caller gives for it wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ccroute.config.draft import Draft
from ccroute.config.elsewhere import Elsewhere
from ccroute.config.servers import API_KEYS, URL_KEYS, Address, Server
from ccroute.config.source import Place


class Homes:
    """The servers that agents name, and whose they are."""

    def __init__(self, draft: Draft, elsewhere: Elsewhere) -> None:
        self._draft = draft
        self._elsewhere = elsewhere
        self._servers: dict[Address, Server] = {}
        self._home: dict[str, Server] = {}
        self._said: dict[str, Place] = {}

    def settle(self, agent: str, entry: Mapping[str, Any], place: Place) -> None:
        """Find or make the backend at the address that the agent's entry gives, if it gives one."""
        said = next((key for key in URL_KEYS if entry.get(key)), None)
        if said is not None:
            self._said[agent] = (*place, said)
            address = Address.of(entry, place, self._draft)
            if address not in self._servers:
                self._servers[address] = Server.add(address, entry, place, self._draft, self._elsewhere)
            self._home[agent] = self._servers[address]
            return
        for key in API_KEYS:
            if entry.get(key):
                self._draft.ignore((*place, key), "there is no baseUrl that it could be for")

    def name_models(self) -> None:
        """Give each model that these agents use its alias, or name its deployment where it has none."""
        used = {name: self._models(name, "model") for name in self._home}
        spare = {name: self._models(name, "fallback") for name in self._home}
        taken = self._draft.aliases.keys() | self._elsewhere.aliases | self._elsewhere.chosen.keys()
        # A fallback that no agent uses as its model is looked for where the agent's own model is.
        claims = self._claims(used, taken)
        claims |= self._claims(spare, taken | claims.keys())
        for model, found in claims.items():
            if len(found) == 1:
                ((deployment, agent),) = found.items()
                self._draft.alias(model, deployment, self._draft.origin("agents", agent))
        for name, server in self._home.items():
            table = self._draft.agents[name]
            for model in used[name]:
                if self._chosen(name, model, server.deployment(model)):
                    continue
                if self._draft.aliases.get(model) != [server.deployment(model)]:
                    table["model"] = server.deployment(model)
            if spare[name]:
                table["fallback"] = [self._fallback(model, server, claims) for model in spare[name]]

    def _chosen(self, agent: str, model: str, deployment: str) -> bool:
        """Whether the caller says where that very name leads; a warning if elsewhere than the agent does."""
        target = self._elsewhere.chosen.get(model)
        if target is not None and target not in (deployment, [deployment]):
            self._draft.warn(
                self._said[agent],
                f'is not used for "{model}", because the caller gives an alias for that name',
            )
        return target is not None

    def _claims(self, models: Mapping[str, Iterable[str]], taken: Iterable[str]) -> dict[str, dict[str, str]]:
        """Each name's deployments, and the first agent that wants each of them."""
        claims: dict[str, dict[str, str]] = {}
        for agent, server in self._home.items():
            for model in models[agent]:
                if model not in taken:
                    claims.setdefault(model, {}).setdefault(server.deployment(model), agent)
        return claims

    def _fallback(self, model: str, server: Server, claims: Mapping[str, Mapping[str, str]]) -> str:
        deployment = server.deployment(model)
        ambiguous = len(claims.get(model, ())) > 1
        return deployment if ambiguous and deployment in claims[model] else model

    def _models(self, agent: str, key: str) -> list[str]:
        given = self._draft.agents[agent].get(key)
        models: list[Any] = given if isinstance(given, list) else [given]
        # Anything but a name is a fault that the native table has.
        return models if all(isinstance(model, str) for model in models) else []
