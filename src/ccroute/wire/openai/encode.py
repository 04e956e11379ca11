"""A request as OpenAI's chat completions want it: nearly the canonical form itself.

Knows the body's field names and how servers differ in them (`Dialect`); must not know which server it is
for. What belongs to other wires (thinking, cache control) is taken out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ccroute.types import JSON, Request
from ccroute.wire.fields import foreign, given, merged, wants_schema
from ccroute.wire.schemas import put_strict

_AS_THEY_ARE: Final = (
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "stop",
    "seed",
    "user",
    "tool_choice",
    "response_format",
)
_FOREIGN: Final = frozenset({"thinking", "thinking_blocks", "blocks", "cache_control", "is_error"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an OpenAI-compatible server differs from the others.

    max_tokens:     its name for the limit; OpenAI's newer models know only the long one, TGI only the short.
    include_usage:  whether a stream may ask for usage at its end.
    json_schema:    whether `response_format` may hold a schema.
    top_k:          whether it knows `top_k`; OpenAI itself refuses it.
    developer_role: whether it knows the role `developer`; otherwise `system` is sent.
    top_effort:     its word for `reasoning_effort="max"`.
    unknown:        further parameters it refuses or silently ignores.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    include_usage: bool = True
    json_schema: bool = True
    top_k: bool = False
    developer_role: bool = False
    top_effort: str = "xhigh"
    unknown: frozenset[str] = frozenset()


PLAIN: Final = Dialect()
"""What nearly every server understands."""


def refusals(request: Request, dialect: Dialect = PLAIN) -> dict[str, str]:
    """The parameters that were given but cannot be carried, each with the reason."""
    why = dict.fromkeys(sorted(dialect.unknown), "this server does not know it")
    if not dialect.top_k:
        why["top_k"] = "OpenAI's API does not know it; use top_p"
    if not dialect.json_schema and wants_schema(request):
        why["response_format"] = "this server knows no json_schema; use {'type': 'json_object'}"
    refused = {name: reason for name, reason in why.items() if given(getattr(request, name))}
    return refused | foreign(request, "openai") if request.extra or request.tools else refused


def encode(request: Request, model: str, *, stream: bool, dialect: Dialect = PLAIN) -> dict[str, Any]:
    """The JSON body. `request` holds nothing that `refusals` names."""
    body: dict[str, JSON] = {"model": model, "messages": [_message(m, dialect) for m in request.messages]}
    if request.max_tokens is not None:
        body[dialect.max_tokens] = request.max_tokens
    for name in _AS_THEY_ARE:
        value = getattr(request, name)
        if given(value):
            body[name] = value
    put_strict(body, official=dialect.developer_role)
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = (
            dialect.top_effort if request.reasoning_effort == "max" else request.reasoning_effort
        )
    if request.tools:
        body["tools"] = [_own(tool) for tool in request.tools]
        if request.parallel_tool_calls is not None:  # refused by OpenAI where there are no tools
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if stream:
        body["stream"] = True
        if dialect.include_usage:
            body["stream_options"] = {"include_usage": True}
    return merged(body, request, "stream_options")


def _message(message: Mapping[str, JSON], dialect: Dialect) -> dict[str, JSON]:
    own = _own(message)
    if own["role"] == "developer" and not dialect.developer_role:
        own["role"] = "system"
    if isinstance(own.get("content"), list | tuple):
        own["content"] = [_own(part) for part in own["content"]]
    return own


def _own(thing: Mapping[str, JSON]) -> dict[str, JSON]:
    """A copy without what other wires need."""
    return {name: value for name, value in thing.items() if name not in _FOREIGN}
