"""A router's backends, aliases and agents, checked against each other: the input of every plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from ccroute.accounting import PriceBook
from ccroute.backends import Backend
from ccroute.errors import ConfigError, InvalidRequestError, RequestError, UnknownModelError
from ccroute.failures import TRIGGERS, Trigger
from ccroute.http.origin import Origin
from ccroute.routing.names import did_you_mean
from ccroute.routing.scheduling.waiting_cost import WaitingCost, waiting_cost
from ccroute.routing.tables.agents import (
    OTHERS,
    Agent,
    AgentTable,
    Fallback,
    checked_fallbacks,
    model_faults,
    model_of,
)
from ccroute.routing.tables.aliases import AliasTable, Resolution, Strategy
from ccroute.routing.tables.deployments import Deployment, limit_of, make_deployment
from ccroute.types import ModelInfo

if TYPE_CHECKING:
    from ccroute.routing.budgets.table import BudgetTable
    from ccroute.routing.rate_limits import Limit
    from ccroute.types import Budget

UnknownAgent = Literal["error", "default"]
"""For a call whose agent is not configured: the call fails, or goes on without an agent."""

MAX_KNOWN = 10_000
"""Deployments remembered at most: callers may name any `backend/model`."""
_MOST_REMEMBERED = 1024
"""Pairs of agent and model, and chains of models, that are remembered at most."""
_NO_AGENT = Agent()


class Candidate(NamedTuple):
    """A deployment that may serve the call, the alias that led to it, and the reason for its place.

    triggers: of a fallback model: the failures that it may be used for, if the plan has them too.
    strategy: how the deployments of its alias are balanced.
    """

    deployment: Deployment
    alias: str
    fallback: bool
    reason: str
    triggers: Sequence[Trigger] = TRIGGERS
    strategy: Strategy = "weighted"


class Chain(NamedTuple):
    """The candidates of a model and then of its fallback models, each deployment once for one trigger.

    groups: for each of the models, its resolution and its candidates.
    fixed:  all of them in order; None if some have to be balanced.
    """

    groups: Sequence[tuple[Resolution, Sequence[Candidate]]]
    fixed: Sequence[Candidate] | None


class Choice(NamedTuple):
    """The agent and the model that a call's `agent=` and `model=` lead to.

    overridden: the agent's model replaced a different one that the caller requested.
    fallbacks:  the models to try after it, unless the call gives its own.
    limit:      the agent's.
    waiting:    what the agent says of its waits.
    """

    name: str | None
    agent: Agent
    model: str
    overridden: bool
    fallbacks: tuple[str | Fallback, ...]
    reasons: tuple[str, ...]
    limit: Limit | None
    waiting: WaitingCost | None


class Tables:
    """The input of every plan. Never changed, only replaced as a whole.

    Raises `ConfigError` with every fault: two backends with one name, and aliases, agents and fallbacks that
    lead to backends or models that do not exist.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        aliases: AliasTable,
        agents: AgentTable,
        *,
        fallbacks: Mapping[str, Sequence[str | Fallback]] | None = None,
        default_model: str | None = None,
        agent_override: bool = True,
        unknown_agent: UnknownAgent = "error",
        prices: PriceBook | None = None,
        budgets: Mapping[str, Budget] | None = None,
    ) -> None:
        self.backends: dict[str, Backend] = {backend.name: backend for backend in backends}
        self.aliases = aliases
        self.agents = agents
        self.default_model = default_model
        self.agent_override = agent_override
        self.unknown_agent = unknown_agent
        self.prices = PriceBook() if prices is None else prices
        self.has_windows = False
        """Whether the context window of any deployment is known."""
        self.choose: Callable[[str | None, str | None], Choice] = lru_cache(_MOST_REMEMBERED)(self._choose)
        """What a call's `agent=` and `model=` lead to. Raises as `make_plan` does for an unknown agent or no
        model."""
        self._deployments: dict[str, Deployment] = {}
        self._first_models: dict[Origin, str] = {}  # what a host that loads models was first used for
        self.resolve: Callable[[str], tuple[Resolution, Sequence[Deployment]]] = lru_cache(MAX_KNOWN)(
            self._resolve
        )
        """`AliasTable.resolve` for this router's backends, and the deployments it names."""
        self.chain: Callable[[tuple[str | Fallback, ...]], Chain] = lru_cache(_MOST_REMEMBERED)(self._chain)
        """The candidates of a model and its fallback models."""
        if unknown_agent not in get_args(UnknownAgent):
            raise ConfigError(f'unknown_agent is "error" or "default", not {unknown_agent!r}')
        self.fallbacks, faults = checked_fallbacks(fallbacks)
        faults += self._faults(backends)
        self.budgets: BudgetTable | None = None
        if budgets:
            from ccroute.routing.budgets.table import BudgetTable  # most routers have none

            try:
                self.budgets = BudgetTable(budgets, agents, self.backends)
            except ConfigError as error:
                faults += error.faults
        if faults:
            raise ConfigError(*faults)
        for name in self.aliases.deployments():
            self.deployment(name)
        self.other_fallbacks = self.fallbacks.get(OTHERS, ())

    def _choose(self, agent: str | None, requested: str | None) -> Choice:
        found, reasons = self.agents.find(agent) if agent is not None else None, list[str]()
        if agent is not None and found is None:
            if self.unknown_agent == "error":
                raise self.agents.unknown(agent)
            reasons.append(f'agent "{agent}" is not configured: treated as no agent')
        name, settings = found or (agent, _NO_AGENT)
        model = requested if requested is not None else self.default_model
        if settings.model is not None and (self.agent_override or requested is None):
            model = settings.model
        if model is None:
            raise InvalidRequestError(
                "no model: give model= or agent=, or build the router with default_model="
            )
        overridden = requested is not None and model != requested
        if overridden:
            reasons.append(f'agent {name} uses "{model}", not the requested "{requested}"')
        fallbacks = (*settings.fallback, *self.fallbacks.get(model, self.other_fallbacks))
        limit = None if name is None else limit_of("agent", name, name, settings.rpm, None)
        waiting = waiting_cost(settings.waiting_cost, settings.max_wait_free)
        return Choice(name, settings, model, overridden, fallbacks, tuple(reasons), limit, waiting)

    def _resolve(self, name: str) -> tuple[Resolution, Sequence[Deployment]]:
        resolution = self.aliases.resolve(name, self.backends)
        weights: dict[Deployment, float] = {}  # two names of one model share their weight
        for target, weight in zip(resolution.deployments, resolution.weights, strict=True):
            if target.partition("/")[0] not in self.backends:  # a pattern's match may name any
                raise UnknownModelError(name, hint=f"{target} names no backend of this router")
            deployment = self.deployment(target)
            weights[deployment] = weights.get(deployment, 0.0) + weight
        names = tuple(deployment.name for deployment in weights)
        return resolution._replace(deployments=names, weights=tuple(weights.values())), tuple(weights)

    def _chain(self, models: tuple[str | Fallback, ...]) -> Chain:
        groups: list[tuple[Resolution, list[Candidate]]] = []
        covered: dict[str, set[Trigger]] = {}  # by deployment, the triggers it is a candidate for
        for place, model in enumerate(models):
            alias = model_of(model)
            triggers: Sequence[Trigger] = TRIGGERS if isinstance(model, str) else model.triggers
            resolution, deployments = self.resolve(alias)
            reason = f'fallback "{alias}"' if place else f'model "{alias}"'
            found = []
            for each in deployments:
                before = covered.setdefault(each.name, set())
                new: list[Trigger] = [trigger for trigger in triggers if trigger not in before]
                before.update(new)
                if new:
                    found.append(Candidate(each, alias, place > 0, reason, new, resolution.strategy))
            groups.append((resolution, found))
        is_fixed = all(len(found) <= 1 for _, found in groups)
        return Chain(groups, tuple(each for _, found in groups for each in found) if is_fixed else None)

    def deployment(self, name: str) -> Deployment:
        """The deployment with this name, made at its first use. Its backend must exist.

        Where a server has several names for one model, the deployment has the one that was used first.
        """
        known = self._deployments.get(name)
        if known is None:
            backend_name, _, model = name.partition("/")
            if not model.isprintable():
                raise InvalidRequestError("a model name holds control characters")
            backend = self.backends[backend_name]
            usual = f"{backend_name}/{backend.names(model)[0]}"
            known = self._deployments.get(usual)
            if known is None:
                known = make_deployment(name, backend, model, self.prices)
                self._note_model(backend, model)
                self.has_windows = self.has_windows or known.info.context_window is not None
            if len(self._deployments) < MAX_KNOWN:
                self._deployments[usual] = self._deployments[name] = known
        return known

    def _note_model(self, backend: Backend, model: str) -> None:
        """Tell the backends of a host when calls use a second model there."""
        if not (backend.loads_models and (runner := backend.runner(model))):
            return
        if self._first_models.setdefault(backend.origin, runner) != runner and not backend.shares_host:
            for each in self.backends.values():
                if each.origin == backend.origin:
                    each.shares_host = True

    def known_deployments(self) -> list[str]:
        """The names of the deployments in aliases, agents, fallbacks, `default_model` and the backends'
        `models`."""
        described = (f"{b.name}/{model}" for b in self.backends.values() for model in b.models)
        agents = [agent for _, agent in self.agents.items()]
        fallbacks = [each for agent in agents for each in agent.fallback]
        fallbacks += [each for models in self.fallbacks.values() for each in models]
        named = [*(agent.model for agent in agents), *map(model_of, fallbacks), self.default_model]
        asked = (each for name in named if name is not None for each in self.resolve(name)[0].deployments)
        patterns = (each for targets in self.aliases.pattern_targets().values() for each in targets)
        fixed = (each for each in patterns if "*" not in each and "\\" not in each)
        found = (*self.aliases.deployments(), *asked, *(each for each in fixed if each not in self.aliases))
        return list(dict.fromkeys(self.deployment(name).name for name in (*found, *described)))

    def models(self) -> list[ModelInfo]:
        """Every name a caller may ask for: the aliases in their order, then the known deployments.

        An alias's context window is the largest of its deployments'.
        """
        patterns = self.aliases.pattern_targets()
        found = []
        for name in self.aliases:
            targets = patterns[name] if name in patterns else self.resolve(name)[0].deployments
            found.append(_model_info(name, "pattern" if name in patterns else "alias", targets, self))
        described = (f"{b.name}/{model}" for b in self.backends.values() for model in b.models)
        for name in dict.fromkeys(
            self.deployment(name).name for name in (*self.aliases.deployments(), *described)
        ):
            if name not in self.aliases:
                found.append(_model_info(name, "deployment", (name,), self))
        return found

    def _faults(self, backends: Sequence[Backend]) -> Iterator[str]:
        names = [backend.name for backend in backends]
        yield from (f'backends: two are named "{name}"' for name in self.backends if names.count(name) > 1)
        for owner in backends:
            for model, info in owner.models.items():
                yield from (f"backends.{owner.name}.models.{model}.{fault}" for fault in model_faults(info))
        for deployment, used_by in self.aliases.deployments().items():
            backend = deployment.partition("/")[0]
            if backend not in self.backends:
                where = ", ".join(f"aliases.{name}" for name in used_by)
                close = did_you_mean(backend, self.backends)
                yield f'{where}: unknown backend "{backend}" in {deployment}{close}'
        for name, targets in self.aliases.pattern_targets().items():
            for target in targets:
                backend = target.partition("/")[0]  # with a backslash, it depends on the match
                if "\\" not in backend and backend not in self.backends and target not in self.aliases:
                    yield f'aliases.{name}: unknown backend "{backend}"{did_you_mean(backend, self.backends)}'
        unknown: dict[str, list[str]] = {}
        for name, agent in self.agents.items():
            for model in filter(None, (agent.model, *map(model_of, agent.fallback))):
                unknown.setdefault(model, []).append(f"agents.{name}")
        for name, models in self.fallbacks.items():
            for model in (*(() if name == OTHERS else (name,)), *map(model_of, models)):
                unknown.setdefault(model, []).append(f"fallbacks.{name}")
        if self.default_model is not None:
            unknown.setdefault(self.default_model, []).append("default_model")
        for model, used_by in unknown.items():
            try:
                self.resolve(model)
            except RequestError as error:
                yield f"{', '.join(dict.fromkeys(used_by))}: {error}"


def _model_info(
    name: str, kind: Literal["alias", "deployment", "pattern"], targets: Sequence[str], tables: Tables
) -> ModelInfo:
    owners = dict.fromkeys(target.partition("/")[0] for target in targets)
    known = [] if kind == "pattern" else [tables.deployment(target) for target in targets]
    windows = (each.info.context_window for each in known)
    prices = {(each.price, each.price_source) for each in known}
    price, source = prices.pop() if len(prices) == 1 else (None, None)
    return ModelInfo(
        id=name,
        kind=kind,
        deployments=tuple(targets),
        owned_by=", ".join(owners),
        context_window=max((window for window in windows if window is not None), default=None),
        input_price=None if price is None else price.input,
        output_price=None if price is None else price.output,
        price_source=source,
    )
