"""Which candidates a prompt fits into, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ccroute.errors import ContextWindowExceededError
from ccroute.routing.agents import Trigger
from ccroute.routing.tables import Candidate
from ccroute.types import Request

TOLERANCE = 1.25
"""How far an estimate may be wrong: up to so many times a window, the server decides."""


def by_window(
    candidates: list[Candidate],
    request: Request,
    triggers: Sequence[Trigger],
    count: Callable[[Request], int],
    reasons: list[str],
) -> list[Candidate]:
    """The candidates, those first whose window holds prompt and answer, without those it cannot fit.

    A fallback model is moved before the first choice only where `token_limit` is one of its
    triggers. Raises `ContextWindowExceededError` when the prompt fits nowhere.
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
    if ordered != candidates:
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
