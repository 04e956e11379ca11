"""The request as one deployment gets it: with its model's defaults, and without what it cannot take.

Knows the request and the deployment; must not know how it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from ccroute.errors import InvalidRequestError
from ccroute.flow.attempt.context import AttemptContext
from ccroute.types import JSON, Request
from ccroute.types.request import EXTRA
from ccroute.wire.fields import LeftOut, given, without

_NONE: frozenset[str] = frozenset()


def carried_request(attempt: AttemptContext) -> Request:
    """The request of an attempt. Notes in the attempt what differs from what was asked.

    Raises `InvalidRequestError` for what the deployment cannot carry, unless dropping was asked for. A
    default of the model is dropped without that: the call did not ask for it.
    """
    plan, deployment = attempt.plan, attempt.candidate.deployment
    backend, info, state, request = deployment.backend, deployment.info, attempt.state, plan.request
    wants_limit = backend.usual_output is not None and request.max_tokens is None
    if info.params or info.drops or (wants_limit and plan.prompt.tokens is not None):
        request = _by_model(attempt)
    refused = backend.refusals(request, deployment.model)
    may_drop = state.drop_params or backend.drop_params
    known = state.refused_parameters.of(deployment, request) if may_drop or attempt.defaults else _NONE
    if not may_drop:
        known &= attempt.defaults
    if known:
        attempt.refused_before = known
        refused = {**dict.fromkeys(sorted(known), "the server refused it"), **refused}
    if refused:
        if not may_drop:
            lost = [
                f"{name} ({why})"
                for name, why in refused.items()
                if not isinstance(why, LeftOut) and name not in known
            ]
            if lost:
                raise InvalidRequestError(
                    f"cannot carry {'; '.join(lost)}. Leave it out, or set drop_params=True"
                )
        for name, why in refused.items():
            attempt.note_change(f"{name} dropped, {why}")
        request = without(request, refused)
    attempt.asks_for_format = request.response_format is not None
    return request


def _by_model(attempt: AttemptContext) -> Request:
    """The request without the model's `drops`, and with its `params` where no others are given."""
    request, info = attempt.plan.request, attempt.deployment.info
    drops = info.drops or ()
    fields = {name.removeprefix(EXTRA) for name in drops if name.startswith(EXTRA)} & request.extra.keys()
    if dropped := [*given(request, drops), *sorted(fields)]:
        for name in dropped:
            attempt.note_change(f"{name} dropped, the model's drops name it")
        request = without(request, dict.fromkeys(dropped, ""))
    params = info.params or {}
    defaults = {
        name: value
        for name, value in params.items()
        if name not in drops and getattr(request, name) in (None, {})
    }
    if request.max_tokens is None and "max_tokens" not in drops:
        _put_limit(defaults, attempt)
    return _with_fitting(request, defaults, attempt) if defaults else request


def _put_limit(defaults: dict[str, JSON], attempt: AttemptContext) -> None:
    """Bound a default of `max_tokens` by what the model can answer with, and what the prompt leaves of its
    window. An API that wants a limit gets the model's longest answer, so that is bounded too."""
    info, usual = attempt.deployment.info, attempt.deployment.backend.usual_output
    wanted: int | None = defaults.pop("max_tokens", None)
    most = info.max_output or usual
    limit = wanted if wanted is not None or usual is None else most
    if limit is None:
        return
    if most is not None and limit > most:
        attempt.note_change(f"max_tokens {limit} → {most}, the most this model answers with")
        limit = most
    prompt, window = attempt.plan.prompt.tokens, info.context_window
    if prompt is not None and window is not None and limit > (left := _left(window, prompt)):
        if left >= 1:
            rest = f"what about {prompt} tokens of prompt leave of the context window"
            attempt.note_change(f"max_tokens {limit} → {left}, {rest}")
            limit = left
        elif usual is None:  # the server decides
            attempt.note_change(f"max_tokens {limit} dropped, the prompt alone has about {prompt} tokens")
            return
    if wanted is not None or limit != most:
        defaults["max_tokens"] = limit


def _left(window: int, prompt: int) -> int:
    """The tokens that a prompt leaves for the answer. A quarter of the prompt, or of what is left if that is
    less, is kept back: the prompt is estimated, and servers refuse a limit that is one token too high."""
    left = window - prompt
    return left - min(prompt, left) // 4


def _with_fitting(request: Request, defaults: Mapping[str, JSON], attempt: AttemptContext) -> Request:
    """The request with those defaults that the deployment takes together with it."""
    backend, model = attempt.deployment.backend, attempt.deployment.model
    filled = request.with_defaults(defaults)
    if backend.refusals(filled, model):
        refused = backend.refusals(request, model).keys()
        filled = request
        for name, value in defaults.items():
            tried = filled.with_defaults({name: value})
            new = {
                other: why
                for other, why in backend.refusals(tried, model).items()
                if other not in refused and not isinstance(why, LeftOut)
            }
            if new:
                why = new.get(name) or "; ".join(f"with it {other}: {why}" for other, why in new.items())
                attempt.note_change(f"{name} of the model's params dropped, {why}")
            else:
                filled = tried
    attempt.defaults = frozenset(name for name in defaults if getattr(filled, name) is not None)
    return filled
