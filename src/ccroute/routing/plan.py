"""Makes the plan of a call: from its request and the tables, the candidates to try, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ccroute.accounting.tokens import estimate
from ccroute.errors import ContextWindowExceededError, EgressDeniedError
from ccroute.failures import TRIGGERS, Trigger
from ccroute.routing.aliases import Resolution
from ccroute.routing.balance import BY_TABLE, View, order, ranks
from ccroute.routing.load import Load
from ccroute.routing.prices import price_of
from ccroute.routing.rate_limits import Limit
from ccroute.routing.tables import Candidate, Tables
from ccroute.types import Price, Request

_NO_LOAD = Load(lambda: 0.0)
"""The load of a router that has made no calls. Nothing is added to it."""

TOLERANCE = 1.25
"""How wrong an estimate may be: a prompt of up to 1.25 × the window is sent, and the server decides."""


class Plan(NamedTuple):
    """Where a call may go, in order. `request` has the agent's parameter defaults. If `overridden`, the
    agent's model replaced the requested one; `requested_price` is its price, in USD per million tokens.
    `limit` is the agent's."""

    request: Request
    agent: str | None
    group: str | None
    requested_model: str | None
    model: str
    overridden: bool
    candidates: Sequence[Candidate]
    triggers: Sequence[Trigger]
    reasons: tuple[str, ...]
    requested_price: Price | None = None
    limit: Limit | None = None


def make_plan(
    request: Request,
    tables: Tables,
    random: Callable[[], float],
    count_tokens: Callable[[Request], int] = estimate,
    *,
    load: Load = _NO_LOAD,
) -> Plan:
    """Decide which deployments may serve `request`, in order.

    The agent's model wins over `model=` unless the router was built with `agent_override=False`. After its
    deployments come the fallback models: the call's own, or else the agent's and then the model's.
    Deployments whose context window is too small come last or are left out.
    Raises `UnknownAgentError`, `UnknownModelError`, `EgressDeniedError`, `ContextWindowExceededError`,
    `InvalidRequestError`.

    load: the measured load, for the strategies `least-busy`, `latency` and `cost`.
    """
    chosen = tables.choose(request.agent, request.model)
    name, agent, model, overridden, fallbacks, known_reasons, limit = chosen
    reasons = list(known_reasons)
    if agent.params:
        request = request.with_defaults(agent.params)
    view = None
    if not tables.aliases.strategies <= BY_TABLE:
        count_tokens = _cached(count_tokens)
        view = View(request, load, count_tokens)
    if request.fallback is not None:
        fallbacks = tuple(request.fallback or ())
    groups, fixed = tables.chain((model, *fallbacks))
    candidates = _ordered(groups, random, view) if fixed is None else fixed
    if agent.local_only:
        candidates = _only_local(candidates, name, reasons)
    triggers = TRIGGERS if request.fallback else agent.triggers
    if tables.has_windows:
        candidates = _by_window(candidates, request, triggers, count_tokens, reasons)
    price = price_of(tables, request.model) if overridden and request.model else None
    return Plan(
        request,
        name,
        agent.group,
        request.model,
        model,
        overridden,
        candidates,
        triggers,
        tuple(reasons),
        price,
        limit,
    )


def with_agent(request: Request, tables: Tables) -> Request:
    """The request with its agent's defaults, as a call would send it. Raises as `make_plan` does for an
    unknown agent or model."""
    chosen = tables.choose(request.agent, request.model)
    tables.resolve(chosen.model)
    return request.with_defaults(chosen.agent.params) if chosen.agent.params else request


def _cached(count: Callable[[Request], int]) -> Callable[[Request], int]:
    """`count` for one request only, called at most once: a tokenizer is slow."""
    known: list[int] = []

    def counted(request: Request) -> int:
        if not known:
            known.append(count(request))
        return known[0]

    return counted


def _ordered(
    groups: Sequence[tuple[Resolution, Sequence[Candidate]]], random: Callable[[], float], view: View | None
) -> Sequence[Candidate]:
    return [
        candidate
        for resolution, found in groups
        for candidate in (_balanced(found, resolution, random, view) if len(found) > 1 else found)
    ]


def _balanced(
    found: Sequence[Candidate],
    resolution: Resolution,
    random: Callable[[], float],
    view: View | None,
) -> Sequence[Candidate]:
    share: Mapping[str, float] = dict(zip(resolution.deployments, resolution.weights, strict=True))
    deployments = [candidate.deployment for candidate in found]
    weights = [share[deployment.name] * deployment.info.weight for deployment in deployments]
    strategy = resolution.strategy
    placed = None
    if view is not None and strategy not in BY_TABLE:
        placed = ranks(deployments, weights, strategy, random, view)
    return order(found, weights, strategy, random, placed)


def _only_local(
    candidates: Sequence[Candidate], agent: str | None, reasons: list[str]
) -> Sequence[Candidate]:
    local = [candidate for candidate in candidates if candidate.deployment.is_local]
    denied = ", ".join(
        candidate.deployment.name for candidate in candidates if not candidate.deployment.is_local
    )
    if not local:
        raise EgressDeniedError(
            f"agent {agent} is local_only and may not use {denied}: give it a model on a local backend, "
            "or build the backend with local=True if it runs on your own machines"
        )
    if denied:
        reasons.append(f"local_only: {denied} left out")
    return local


def _by_window(
    candidates: Sequence[Candidate],
    request: Request,
    triggers: Sequence[Trigger],
    count: Callable[[Request], int],
    reasons: list[str],
) -> Sequence[Candidate]:
    """The candidates whose window fits the prompt. First come the ones that also fit the answer.

    A fallback model moves before the first choice only if `token_limit` is one of the triggers. Raises
    `ContextWindowExceededError` if the prompt fits no window.
    """
    if all(candidate.deployment.info.context_window is None for candidate in candidates):
        return candidates
    prompt = count(request)
    needed = prompt + (request.max_tokens or 0)
    overtaking = "token_limit" in triggers
    first_choices = [c for c in candidates if overtaking or not c.fallback]
    if not any(prompt <= TOLERANCE * _window(c) for c in first_choices):
        raise _too_long(prompt, max(map(_window, first_choices)))
    possible = [c for c in candidates if prompt <= TOLERANCE * _window(c)]
    ordered = sorted(possible, key=lambda c: (c.fallback and not overtaking, needed > _window(c)))
    if ordered != list(candidates):
        reasons.append(f"about {needed} tokens are needed: ordered by context window")
    return ordered


def _window(candidate: Candidate) -> float:
    window = candidate.deployment.info.context_window
    return float("inf") if window is None else window


def _too_long(prompt: int, limit: float) -> ContextWindowExceededError:
    error = ContextWindowExceededError(
        f"the prompt has about {prompt} tokens, the largest context window {limit:.0f}: shorten it, "
        "or give the agent a fallback model with a larger window"
    )
    error.estimated, error.limit = prompt, int(limit)
    return error
