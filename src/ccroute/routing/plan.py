"""Makes the plan of a call: from its request and the tables, the candidates to try, in order.

One decision serves the call and `Router.explain`. It says of every candidate whether it may serve and, if
not, why not. Where no candidate is left, a call raises. A plan that is only shown does not, and draws
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ccroute.accounting.tokens import Prompt, TokenCounter, estimate
from ccroute.errors import CcrouteError, ContextWindowExceededError, EgressDeniedError
from ccroute.failures import TRIGGERS, Trigger
from ccroute.routing.balance import BY_TABLE, View, order, ranks
from ccroute.routing.load import Load
from ccroute.routing.scheduling.waiting_cost import WaitingCost, waiting_cost
from ccroute.routing.tables.aliases import Resolution
from ccroute.routing.tables.prices import price_of
from ccroute.routing.tables.tables import Candidate, Tables
from ccroute.types import Price, Request

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Limit

_log = logging.getLogger("ccroute")
_NO_LOAD = Load(lambda: 0.0)
"""The load of a router that has made no calls. Nothing is added to it."""

TOLERANCE = 1.25
"""How wrong an estimate may be: a prompt of up to 1.25 × the window is sent, and the server decides."""


class Tie(NamedTuple):
    """Candidates of the same group are drawn by weight."""

    group: Hashable
    weight: float


class Plan(NamedTuple):
    """Where a call may go, in order. `request` has the agent's parameter defaults. If `overridden`, the
    agent's model replaced the requested one; `requested_price` is its price, in USD per million tokens.

    prompt:     the prompt's length. It is known if a candidate's window is.
    considered: every candidate in order, also those that may not serve.
    left_out:   the names of those, each with the reason.
    denied:     what a call raises, because no candidate is left. Only in a plan that is shown.
    ties:       of a plan that is shown: the candidates that a call draws among, by their ids.
    limit:      the agent's rate limit.
    waiting:    what its waits cost, and how long it waits; None: as long as it has to.
    """

    request: Request
    agent: str | None
    group: str | None
    requested_model: str | None
    model: str
    overridden: bool
    candidates: Sequence[Candidate]
    triggers: Sequence[Trigger]
    reasons: tuple[str, ...]
    prompt: Prompt
    requested_price: Price | None = None
    considered: Sequence[Candidate] = ()
    left_out: Mapping[str, str] = MappingProxyType({})
    denied: CcrouteError | None = None
    ties: Mapping[int, Tie] = MappingProxyType({})
    limit: Limit | None = None
    waiting: WaitingCost | None = None


def make_plan(
    request: Request,
    tables: Tables,
    random: Callable[[], float] | None,
    count_tokens: TokenCounter = estimate,
    *,
    load: Load = _NO_LOAD,
) -> Plan:
    """Decide which deployments may serve `request`, in order.

    The agent's model wins over `model=` unless the router was built with `agent_override=False`. After its
    deployments come the fallback models: the call's own, or else the agent's and then the model's.
    Deployments whose context window is too small come last or are left out.
    Raises `UnknownAgentError`, `UnknownModelError`, `EgressDeniedError`, `ContextWindowExceededError`,
    `InvalidRequestError`.

    random: None for a plan that is only shown. Then nothing is drawn, the likeliest come first, and `denied`
            has the error that leaves no candidate.
    load:   the measured load, for the strategies `least-busy`, `latency` and `cost`.
    """
    chosen = tables.choose(request.agent, request.model)
    name, agent, model, overridden, fallbacks, known_reasons, limit, waiting = chosen
    reasons, prompt = list(known_reasons), Prompt()
    if agent.params:
        request = request.with_defaults(agent.params)
    if request.waiting_cost is not None or request.max_wait_free is not None:
        usd, longest = request.waiting_cost, request.max_wait_free
        waiting = waiting_cost(
            agent.waiting_cost if usd is None else usd, agent.max_wait_free if longest is None else longest
        )
    view = None
    if not tables.aliases.strategies <= BY_TABLE:
        view = View(request, load, prompt, count_tokens)
    if request.fallback is not None:
        fallbacks = tuple(request.fallback or ())
    groups, fixed = tables.chain((model, *fallbacks))
    ties: dict[int, Tie] = {}
    considered = _ordered(groups, random, view, ties) if fixed is None else fixed
    triggers = TRIGGERS if request.fallback else agent.triggers
    # Each check leaves candidates out. A budget's is at each attempt: until then others may spend it.
    left_out: dict[str, str] = {}
    denied: CcrouteError | None = None
    if agent.local_only:
        denied = _leave_out_remote(considered, name, left_out, reasons)
    if tables.has_windows and denied is None:
        candidates = _without(considered, left_out) if left_out else considered
        if any(c.deployment.info.context_window is not None for c in candidates):
            tokens, answer = prompt.count(count_tokens, request), request.max_tokens or 0
            considered, denied = _by_window(considered, tokens, answer, triggers, left_out, reasons)
    if denied is not None and random is not None:
        raise denied
    price = price_of(tables, request.model) if overridden and request.model else None
    return Plan(
        request,
        name,
        agent.group,
        request.model,
        model,
        overridden,
        _without(considered, left_out) if left_out else considered,
        triggers,
        tuple(reasons),
        prompt,
        price,
        considered,
        left_out,
        denied,
        ties,
        limit,
        waiting,
    )


def with_agent(request: Request, tables: Tables) -> Request:
    """The request with its agent's defaults, as a call would send it. Raises as `make_plan` does for an
    unknown agent or model."""
    chosen = tables.choose(request.agent, request.model)
    tables.resolve(chosen.model)
    return request.with_defaults(chosen.agent.params) if chosen.agent.params else request


def _ordered(
    groups: Sequence[tuple[Resolution, Sequence[Candidate]]],
    random: Callable[[], float] | None,
    view: View | None,
    ties: dict[int, Tie],
) -> Sequence[Candidate]:
    return [
        candidate
        for resolution, found in groups
        for candidate in (_balanced(found, resolution, random, view, ties) if len(found) > 1 else found)
    ]


def _balanced(
    found: Sequence[Candidate],
    resolution: Resolution,
    random: Callable[[], float] | None,
    view: View | None,
    ties: dict[int, Tie],
) -> Sequence[Candidate]:
    share: Mapping[str, float] = dict(zip(resolution.deployments, resolution.weights, strict=True))
    deployments = [candidate.deployment for candidate in found]
    weights = [share[deployment.name] * deployment.info.weight for deployment in deployments]
    strategy = resolution.strategy
    placed = None
    if view is not None and strategy not in BY_TABLE:
        placed = ranks(deployments, weights, strategy, random, view)
    if random is None and strategy != "ordered":
        for candidate, weight, rank in zip(found, weights, placed or [()] * len(found), strict=True):
            ties[id(candidate)] = Tie((id(found), rank), weight)
    return order(found, weights, strategy, random, placed)


def warn_of_remote(tables: Tables) -> None:
    """Log a warning for each `local_only` agent whose own models all run elsewhere: its calls are refused."""
    for name, agent in tables.agents.items():
        if not agent.local_only or (agent.model is None and tables.default_model is None):
            continue
        choice = tables.choose(name, None)
        chain = tables.chain((choice.model, *choice.fallbacks))
        found = [candidate.deployment for _, candidates in chain.groups for candidate in candidates]
        if not any(each.is_local for each in found):
            _log.warning(
                "agents.%s is local_only, but %s is not local, so its calls are refused: give it a model on "
                "a local backend, or set local=True for its backend if that runs on your own machines",
                name,
                ", ".join(dict.fromkeys(each.name for each in found)),
            )


def _without(candidates: Sequence[Candidate], left_out: Mapping[str, str]) -> Sequence[Candidate]:
    return [candidate for candidate in candidates if candidate.deployment.name not in left_out]


def _leave_out_remote(
    candidates: Sequence[Candidate], agent: str | None, left_out: dict[str, str], reasons: list[str]
) -> EgressDeniedError | None:
    """Leave out what is not local. Returns the error where nothing else is there."""
    for candidate in candidates:
        if not candidate.deployment.is_local:
            left_out[candidate.deployment.name] = (
                f"agent {agent} is local_only, and backend {candidate.deployment.backend.name} is not local"
            )
    if not left_out:
        return None
    denied = ", ".join(left_out)
    if any(candidate.deployment.name not in left_out for candidate in candidates):
        reasons.append(f"local_only: {denied} left out")
        return None
    return EgressDeniedError(
        f"agent {agent} is local_only and may not use {denied}: give it a model on a local backend, "
        "or build the backend with local=True if it runs on your own machines"
    )


def _by_window(
    considered: Sequence[Candidate],
    prompt: int,
    answer: int,
    triggers: Sequence[Trigger],
    left_out: dict[str, str],
    reasons: list[str],
) -> tuple[Sequence[Candidate], ContextWindowExceededError | None]:
    """The candidates, with those first whose window fits the answer, too; both have a number of tokens. Those
    whose window does not fit the prompt are left out. Returns the error, too, if it fits no window.

    A fallback model moves before the first choice only if `token_limit` is one of the triggers, and of its
    own.
    """
    candidates = _without(considered, left_out) if left_out else considered
    needed = prompt + answer
    overtaking = "token_limit" in triggers
    too_long = dict[str, str]()
    for candidate in candidates:
        window = candidate.deployment.info.context_window
        if window is not None and prompt > TOLERANCE * window:
            too_long[candidate.deployment.name] = (
                f"the prompt has about {prompt} tokens, its context window {window}"
            )

    def comes_late(candidate: Candidate) -> bool:
        return candidate.fallback and not (overtaking and "token_limit" in candidate.triggers)

    first_choices = [c for c in candidates if not comes_late(c)] or candidates
    if too_long and all(c.deployment.name in too_long for c in first_choices):
        for candidate in candidates:
            left_out[candidate.deployment.name] = too_long.get(
                candidate.deployment.name,
                "the prompt is too long for the model, and this fallback model is not for token_limit",
            )
        return considered, _too_long(prompt, max(map(_window, first_choices)))

    def place(candidate: Candidate) -> tuple[bool, bool]:
        return comes_late(candidate), is_tight(candidate, needed)

    left_out |= too_long
    ordered = sorted(_without(candidates, left_out) if left_out else candidates, key=place)
    if ordered != list(candidates):
        reasons.append(f"about {needed} tokens are needed: ordered by context window")
    # Those that are left out are shown where they would be.
    return sorted(considered, key=place) if left_out else ordered, None


def is_tight(candidate: Candidate, needed: int) -> bool:
    """Whether the window may be too small for prompt and answer, which need so many tokens."""
    return needed > _window(candidate)


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
