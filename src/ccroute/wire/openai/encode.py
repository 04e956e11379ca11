"""Writes a request for OpenAI's chat completions: nearly the canonical form itself.

Knows the body's field names, the differences of servers (`Dialect`) and of models (`Model`); must not know
the server.
"""

from collections.abc import Sequence
from typing import Any, Final

from ccroute.types import JSON, Model, Request
from ccroute.types.request import PARAMETERS
from ccroute.wire.fields import NOT_GIVEN, foreign, given, merged, wants_schema
from ccroute.wire.openai.dialect import PLAIN, Dialect
from ccroute.wire.openai.messages import encoded, without_marks
from ccroute.wire.openai.parameters import neutral_parameters, put_effort, refused_parameters

_BY_ITSELF: Final = {"max_tokens", "seed", "stop", "reasoning_effort", "extra"}
_WITH_TOOLS: Final = {"tools", "tool_choice", "parallel_tool_calls"}
_AS_THEY_ARE: Final = PARAMETERS - _BY_ITSELF - _WITH_TOOLS
_NOTHING: Final = Model()
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def refusals(
    request: Request, dialect: Dialect = PLAIN, model: str = "the model", facts: Model = _NOTHING
) -> dict[str, str]:
    """Return the given parameters that the server cannot take, each with the reason."""
    why: dict[str, str] = {}
    if dialect.unknown:
        why = dict.fromkeys(given(request, sorted(dialect.unknown)), "this server does not know it")
    if request.top_k is not None and not dialect.top_k:
        why["top_k"] = "OpenAI's API does not know it; use top_p"
    if request.response_format and not dialect.json_schema and wants_schema(request):
        why["response_format"] = "this server knows no json_schema; use {'type': 'json_object'}"
    if request.stop and dialect.most_stops and (stops := sum(map(bool, request.stops))) > dialect.most_stops:
        why["stop"] = f"this server takes at most {dialect.most_stops} stop sequences, not {stops}"
    if facts.sampling or facts.refuses or request.reasoning_effort:
        why |= refused_parameters(request, model, dialect, facts)
    return why | foreign(request, "openai") if request.extra or request.tools else why


def encode(
    request: Request,
    model: str,
    *,
    stream: bool,
    dialect: Dialect = PLAIN,
    facts: Model = _NOTHING,
    provider: str = "",
) -> dict[str, Any]:
    """Return the JSON body. `request` holds nothing that `refusals` names. `provider` is the host."""
    body: dict[str, JSON] = {"model": model, "messages": encoded(request.messages, dialect, provider)}
    if request.max_tokens is not None:
        is_renamed = "max_tokens" in (facts.refuses or ())
        body["max_completion_tokens" if is_renamed else dialect.max_tokens] = request.max_tokens
    for name, value in vars(request).items():
        if name in _AS_THEY_ARE and value not in NOT_GIVEN:
            body[name] = value
    if request.response_format:
        from ccroute.wire.schemas import put_strict  # not every program uses it

        put_strict(body, official=dialect.developer_role)
    if facts.sampling or facts.refuses:
        for name in neutral_parameters(request, facts):
            body.pop(name, None)
    if request.seed is not None:
        body[dialect.seed] = request.seed
    if request.stop and (stops := _stops(request.stop)):
        body["stop"] = stops
    if request.reasoning_effort or request.tools:
        put_effort(body, request, dialect, facts)
    if request.tool_choice and (request.tools or request.tool_choice not in ("auto", "none")):
        body["tool_choice"] = request.tool_choice
    if request.tools:
        body["tools"] = [without_marks(tool, dialect) for tool in request.tools]
        if request.parallel_tool_calls is not None:  # refused by OpenAI where there are no tools
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if stream:
        body["stream"] = True
        if dialect.include_usage:
            body["stream_options"] = {"include_usage": True}
    return _with_extra(body, request) if request.extra else body


def _with_extra(body: dict[str, JSON], request: Request) -> dict[str, JSON]:
    body = merged(body, request, "stream_options", "chat_template_kwargs")
    for limit, other in (_LIMITS, _LIMITS[::-1]):
        if limit in request.extra and other not in request.extra:
            body.pop(other, None)  # Volcengine refuses both
    # None in `extra` removes a field that a server does not know; OpenAI refuses null for many.
    return {name: value for name, value in body.items() if value is not None}


def _stops(stop: str | Sequence[str]) -> str | list[str]:
    """Return the stop sequences without empty ones, which OpenAI refuses."""
    return stop if isinstance(stop, str) else [each for each in stop if each]
