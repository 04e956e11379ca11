"""Request + tables → the candidates to try, in order, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ccroute.backends import Backend
from ccroute.errors import ConfigError, EgressDeniedError, InvalidRequestError, UnknownModelError
from ccroute.routing.agents import TRIGGERS, Agent, AgentTable, Trigger
from ccroute.routing.aliases import AliasTable, Resolution
from ccroute.routing.balance import order
from ccroute.routing.names import did_you_mean
from ccroute.types import Model, Request

_NOBODY = Agent()


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """One model behind one backend; `name` is `backend/model`."""

    name: str
    backend: Backend
    model: str
    info: Model


class Candidate(NamedTuple):
    """A deployment that may serve the call, the alias it came by, and why it stands where it does."""

    deployment: Deployment
    alias: str
    fallback: bool
    reason: str


class Plan(NamedTuple):
    """Where a call may go. `request` has the agent's parameter defaults filled in."""

    request: Request
    agent: str | None
    group: str | None
    requested_model: str | None
    model: str
    overridden: bool
    candidates: Sequence[Candidate]
    triggers: Sequence[Trigger]
    reasons: tuple[str, ...]


class Tables:
    """Everything a plan is made from; replaced as a whole, never changed.

    Raises `ConfigError` with every fault: backends named twice, aliases and agents that lead to
    backends or models that do not exist.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        aliases: AliasTable,
        agents: AgentTable,
        *,
        default_model: str | None = None,
        agent_override: bool = True,
        unknown_agent: Literal["error", "default"] = "error",
    ) -> None:
        self.backends: dict[str, Backend] = {backend.name: backend for backend in backends}
        self.aliases = aliases
        self.agents = agents
        self.default_model = default_model
        self.agent_override = agent_override
        self.unknown_agent = unknown_agent
        self._deployments: dict[str, Deployment] = {}
        if faults := list(self._faults(backends)):
            raise ConfigError(*faults)

    def resolve(self, name: str) -> Resolution:
        """`AliasTable.resolve` among this router's backends; every deployment's backend exists."""
        resolution = self.aliases.resolve(name, self.backends)
        for deployment in resolution.deployments:
            if deployment.partition("/")[0] not in self.backends:  # a pattern's match may name any
                raise UnknownModelError(name, hint=f"{deployment} names no backend of this router")
        return resolution

    def deployment(self, name: str) -> Deployment:
        """The deployment of that name; made once, at its first use."""
        known = self._deployments.get(name)
        if known is None:
            backend_name, _, model = name.partition("/")
            if not model.isprintable():
                raise InvalidRequestError("a model name holds control characters")
            backend = self.backends[backend_name]
            known = self._deployments[name] = Deployment(name, backend, model, backend.model(model))
        return known

    def _faults(self, backends: Sequence[Backend]) -> Iterator[str]:
        names = [backend.name for backend in backends]
        yield from (f'backends: two are named "{name}"' for name in self.backends if names.count(name) > 1)
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
            for model in (agent.model, *agent.fallback):
                if model is not None:
                    unknown.setdefault(model, []).append(f"agents.{name}")
        if self.default_model is not None:
            unknown.setdefault(self.default_model, []).append("default_model")
        for model, used_by in unknown.items():
            try:
                self.resolve(model)
            except UnknownModelError as error:
                yield f"{', '.join(used_by)}: {error}"


def make_plan(request: Request, tables: Tables, random: Callable[[], float]) -> Plan:
    """Decide who may serve `request`, in order.

    The agent's model wins over `model=` unless the router was built with `agent_override=False`;
    then come the other deployments of that alias, then the fallback models. Raises
    `UnknownAgentError`, `UnknownModelError`, `EgressDeniedError`, `InvalidRequestError`.
    """
    name, agent, reasons = _who(request, tables)
    model, overridden = _which(request, agent, tables)
    if overridden:
        reasons.append(f'agent {name} uses "{model}", not the requested "{request.model}"')
    candidates = _candidates(request, agent, model, tables, random)
    if agent.local_only:
        candidates = _only_local(candidates, name, reasons)
    return Plan(
        request=request.with_defaults(agent.params) if agent.params else request,
        agent=name,
        group=agent.group,
        requested_model=request.model,
        model=model,
        overridden=overridden,
        candidates=candidates,
        triggers=TRIGGERS if request.fallback else agent.triggers,
        reasons=tuple(reasons),
    )


def _who(request: Request, tables: Tables) -> tuple[str | None, Agent, list[str]]:
    if request.agent is None:
        return None, _NOBODY, []
    found = tables.agents.find(request.agent)
    if found is not None:
        return *found, []
    if tables.unknown_agent == "error":
        raise tables.agents.unknown(request.agent)
    return request.agent, _NOBODY, [f'agent "{request.agent}" is not configured: treated as no agent']


def _which(request: Request, agent: Agent, tables: Tables) -> tuple[str, bool]:
    """The model's name, and whether it replaces a different one that the caller named."""
    if agent.model is not None and (tables.agent_override or request.model is None):
        return agent.model, request.model is not None and request.model != agent.model
    model = request.model if request.model is not None else tables.default_model
    if model is None:
        raise InvalidRequestError("no model: give model= or agent=, or build the router with default_model=")
    return model, False


def _candidates(
    request: Request, agent: Agent, model: str, tables: Tables, random: Callable[[], float]
) -> list[Candidate]:
    fallbacks = agent.fallback if request.fallback is None else request.fallback or ()
    seen: set[str] = set()
    candidates: list[Candidate] = []
    for alias in (model, *fallbacks):
        is_fallback = alias is not model
        resolution = tables.resolve(alias)
        found = [tables.deployment(name) for name in resolution.deployments if name not in seen]
        seen.update(resolution.deployments)
        for deployment in _balanced(found, resolution, tables.aliases, random) if found else ():
            reason = f'fallback "{alias}"' if is_fallback else f'model "{alias}"'
            candidates.append(Candidate(deployment, alias, is_fallback, reason))
    return candidates


def _balanced(
    found: Sequence[Deployment], resolution: Resolution, aliases: AliasTable, random: Callable[[], float]
) -> Sequence[Deployment]:
    if len(found) == 1:
        return found
    share: Mapping[str, float] = dict(zip(resolution.deployments, resolution.weights, strict=True))
    weights = [share[deployment.name] * deployment.info.weight for deployment in found]
    return order(found, weights, aliases.strategy, random)


def _only_local(candidates: list[Candidate], agent: str | None, reasons: list[str]) -> list[Candidate]:
    local = [candidate for candidate in candidates if candidate.deployment.backend.local]
    denied = ", ".join(c.deployment.name for c in candidates if not c.deployment.backend.local)
    if not local:
        raise EgressDeniedError(
            f"agent {agent} is local_only and may not use {denied}: give it a model on a local backend"
        )
    if denied:
        reasons.append(f"local_only: {denied} left out")
    return local
