"""`llmGateway`: providers, and rules for which of them answers.

A rule for a tier such as "opus" makes an alias of it, also for its versions ("opus-4.1"). A rule for an agent
sends the agent's model to the provider. The chain gives every model fallbacks. What is asked of a provider is
its own name of the model; else its default model, if the model is a tier; else the model as it is.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from ccroute.backends.registry import registered, well_known
from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.section import AnySpelling, Section
from ccroute.config.foreign.servers import Server
from ccroute.config.orchestra.providers import Provider, read_provider
from ccroute.config.reading.source import Place
from ccroute.config.references import target_names
from ccroute.routing.names import did_you_mean
from ccroute.routing.tables.agents import OTHERS

ROUTING_KEYS: Final = ("defaultProvider", "agentRules", "modelTierRules", "fallbackChain")
_KEYS = ("enabled", "disabled", "providers", "routing")
_TIERS: Final = ("opus", "sonnet", "haiku")
"""Names that are no provider's, whatever the file says about them."""
_PATTERN: Final = frozenset("*?")
_VERSION = r"-\d[\d.]*"


def read_gateway(table: object, place: Place, builder: Builder, external: ExternalNames) -> None:
    """Read the whole section, after the agents of the file."""
    if builder.takes_part(table, place):
        gateway = _Gateway(AnySpelling(builder, (table, place), _KEYS), builder, external)
        gateway.name_models()
        gateway.route_agents()


class _Gateway:
    """The enabled providers, and the rules that name them."""

    def __init__(self, section: Section, builder: Builder, external: ExternalNames) -> None:
        self._builder = builder
        self._external = external
        self._providers: dict[str, Provider] = {}
        self._unused: set[str] = set()
        providers, place = section.layer("providers")
        for name, table in providers.items():
            here = (*place, name)
            if external.is_callers(name):
                builder.ignore(here, "the caller gives a backend of that name")
            elif builder.takes_part(table, here) and (provider := read_provider(name, table, here, builder)):
                self._providers[name] = provider
            else:
                self._unused.add(name)
        self._routing = AnySpelling(builder, section.layer("routing"), ROUTING_KEYS)
        self._rules = {name: (to, place) for name, to, place in self._routing.texts("modelTierRules")}
        self._versioned = {*_TIERS, *self._rules}
        self._tiers = self._versioned.union(*(provider.names for provider in self._providers.values()))
        self._chain = [
            (provider, place)
            for name, place in self._routing.entries("fallbackChain")
            if (provider := self._find(name, place))
        ]
        self._default = next(
            (self._find(name, place) for name, place in self._routing.entries("defaultProvider")), None
        )

    def name_models(self) -> None:
        """Aliases for the tiers and the providers' own names, their fallbacks, and the default model."""
        for to, place in self._fallbacks(None):
            self._builder.fall_back(OTHERS, to, place)
        chain = [provider for provider, _ in self._chain]
        preferred = [*filter(None, [self._default]), *chain, *self._providers.values()]
        used = self._used()
        for name in sorted(self._tiers):
            provider = next((each for each in preferred if name in each.names), None)
            origin: Place = provider.place if provider else ()
            if name in self._rules:
                to, origin = self._rules[name]
                provider = self._find(to, origin)
            if provider and (deployment := self._asked(provider, name)):
                versions = [f"re:{re.escape(name)}{_VERSION}"] if name in self._versioned else []
                for alias in (name, *versions):
                    self._builder.aliases[alias] = [deployment]
                    self._builder.comes_from(origin, "aliases", alias)
                for model in (name, *(model for model in used if self._base(model) == name)):
                    self._fall_back(model, model)
        if self._default and self._default.default:
            place = self._routing.place("defaultProvider")
            self._builder.option(
                "default_model", self._default.server.deployment(self._default.default), place
            )
        self._retries()

    def route_agents(self) -> None:
        """Send the agents that a rule names to the rule's provider."""
        models = sorted(self._tiers.union(self._used()))
        for agent, to, place in self._routing.texts("agentRules"):
            if provider := self._find(to, place):
                self._builder.route(agent, partial(self._asked, provider), place)
                asked: dict[str, list[str]] = {}
                for model in models:
                    asked.setdefault(self._asked(provider, model) or model, []).append(model)
                for deployment, alike in asked.items():
                    # Where one model answers for several tiers, nothing says which of them is meant.
                    if len({tuple(self._fallbacks(model)) for model in alike}) == 1:
                        self._fall_back(deployment, alike[0])

    def _used(self) -> list[str]:
        """The models of the file's agents."""
        models = (agent.get("model") for agent in self._builder.agents.values())
        return list(dict.fromkeys(model for model in models if isinstance(model, str)))

    def _find(self, name: object, place: Place) -> Provider | None:
        """The provider that a rule names; None if it is disabled. An unknown one is a fault."""
        if not isinstance(name, str):
            self._builder.fault(place, "should be a provider's name")
        elif name in self._providers:
            return self._providers[name]
        elif name in self._unused:
            self._builder.ignore(place, "its provider is disabled")
        elif name in well_known() or self._external.is_backend(name):
            known = registered().get(name)
            return Provider(Server(name, (f"{name}/", *(known.model_prefixes if known else ()))), place)
        else:
            close = did_you_mean(name, [*self._providers, *self._unused])
            self._builder.fault(place, f'unknown provider "{name}"{close}')
        return None

    def _base(self, model: str) -> str | None:
        """The tier that a model is a version of: "opus" of "opus-4.1"."""
        name = re.sub(f"{_VERSION}$", "", model)
        return name if name != model and name in self._versioned else None

    def _own_name(self, provider: Provider, model: str | None) -> str | None:
        """The provider's name of a model, or of the tier that it is a version of."""
        return provider.names.get(model or "") or provider.names.get(self._base(model or "") or "")

    def _asked(self, provider: Provider, model: str | None) -> str | None:
        """The deployment that answers for a model at a provider; None if nothing says which."""
        name = self._own_name(provider, model)
        if name is None and model is not None:
            targets = target_names(self._external.chosen.get(model))
            if targets and all(target.startswith(f"{provider.server.backend}/") for target in targets):
                return model  # the caller says what it is at this provider
            is_tier = model in self._tiers or self._base(model) is not None
            name = provider.default if is_tier and provider.default else model
        name = name or provider.default
        return None if name is None else provider.server.deployment(name)

    def _fallbacks(self, model: str | None) -> list[tuple[str, Place]]:
        """A deployment at each provider of the chain, with its place; of None: for all models."""
        found = []
        for provider, place in self._chain:
            if name := self._own_name(provider, model) or provider.default:
                found.append((provider.server.deployment(name), place))
            elif model is None:
                self._builder.ignore(place, "this provider has no defaultModel")
        return found

    def _fall_back(self, name: str, model: str) -> None:
        """Give `name` the fallbacks of `model`, where they are not those of all models.

        A pattern has those of all models, because fallbacks are looked up by names.
        """
        if not _PATTERN.isdisjoint(name) or name.startswith("re:"):
            return
        found, known = self._fallbacks(model), self._builder.fallbacks
        if name not in known and [to for to, _ in found] != known.get(OTHERS, []):
            for to, place in found:
                self._builder.fall_back(name, to, place)

    def _retries(self) -> None:
        """The router's retries are those of the providers, where these agree."""
        said = {
            provider.retries: provider
            for provider in self._providers.values()
            if provider.retries is not None
        }
        if len(said) == 1:
            ((retries, provider),) = said.items()
            self._builder.retries(retries, (*provider.place, "maxRetries"))
        for provider in said.values() if len(said) > 1 else ():
            text = "providers have the same number of retries here, and those of the file differ"
            self._builder.ignore((*provider.place, "maxRetries"), text)
