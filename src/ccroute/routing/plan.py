"""Request + tables → the candidates to try, in order, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ccroute.accounting.tokens import estimate
from ccroute.errors import EgressDeniedError, InvalidRequestError
from ccroute.routing.agents import TRIGGERS, Agent, Trigger
from ccroute.routing.aliases import AliasTable, Resolution
from ccroute.routing.balance import order
from ccroute.routing.tables import Candidate, Deployment, Tables
from ccroute.routing.windows import by_window
from ccroute.types import Request

_NOBODY = Agent()


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


def make_plan(
    request: Request,
    tables: Tables,
    random: Callable[[], float],
    count_tokens: Callable[[Request], int] = estimate,
) -> Plan:
    """Decide who may serve `request`, in order.

    The agent's model wins over `model=` unless the router was built with `agent_override=False`;
    then come the other deployments of that alias, then the fallback models; what the prompt does not
    fit into comes last or not at all. Raises `UnknownAgentError`, `UnknownModelError`,
    `EgressDeniedError`, `ContextWindowExceededError`, `InvalidRequestError`.
    """
    name, agent, reasons = _who(request, tables)
    model, overridden = _which(request, agent, tables)
    if overridden:
        reasons.append(f'agent {name} uses "{model}", not the requested "{request.model}"')
    candidates = _candidates(request, agent, model, tables, random)
    if agent.local_only:
        candidates = _only_local(candidates, name, reasons)
    if agent.params:
        request = request.with_defaults(agent.params)
    triggers = TRIGGERS if request.fallback else agent.triggers
    candidates = by_window(candidates, request, triggers, count_tokens, reasons)
    return Plan(
        request=request,
        agent=name,
        group=agent.group,
        requested_model=request.model,
        model=model,
        overridden=overridden,
        candidates=candidates,
        triggers=triggers,
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
    local = [candidate for candidate in candidates if candidate.deployment.is_local]
    denied = ", ".join(
        candidate.deployment.name for candidate in candidates if not candidate.deployment.is_local
    )
    if not local:
        raise EgressDeniedError(
            f"agent {agent} is local_only and may not use {denied}: give it a model on a local backend, "
            "or build the backend with local=True if it is in the house"
        )
    if denied:
        reasons.append(f"local_only: {denied} left out")
    return local
