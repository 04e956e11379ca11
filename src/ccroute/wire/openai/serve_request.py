"""A client's chat completion request in canonical form, which is nearly its own.

Knows the body's fields; must not know who will answer. A field that ccroute does not know goes on in `extra`
to backends of the same API: that is how clients set `min_p` or `chat_template_kwargs`.
"""

from collections.abc import Mapping
from typing import Final

from ccroute.types import JSON
from ccroute.wire.fields import OfWire
from ccroute.wire.serving import Fields, ParsedRequest, bad, is_number, load, options

_TEXTS: Final = ("model", "user")
_INTEGERS: Final = ("max_tokens", "top_k", "seed", "top_logprobs")
_NUMBERS: Final = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_FLAGS: Final = ("logprobs", "parallel_tool_calls")
_OBJECTS: Final = ("response_format", "metadata")
_EFFORTS: Final = {
    **{effort: effort for effort in ("none", "minimal", "low", "medium", "high", "max")},
    "xhigh": "max",
}
_THOUGHTS: Final = ("reasoning_content", "reasoning")


def parse_request(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """The keywords for `Router.complete` or `Router.stream` that a `POST /v1/chat/completions` asks for.

    Raises `InvalidRequestError` naming the place, also for `n` above 1.
    """
    fields = load(body)
    kwargs: dict[str, JSON] = {"messages": _messages(fields)}
    kwargs |= {name: fields.text(name) for name in _TEXTS}
    kwargs |= {name: fields.integer(name) for name in _INTEGERS}
    kwargs |= {name: fields.number(name) for name in _NUMBERS}
    kwargs |= {name: fields.flag(name) for name in _FLAGS}
    kwargs |= {name: fields.object(name) for name in _OBJECTS}
    limit = fields.integer("max_completion_tokens")
    if limit is not None:
        kwargs["max_tokens"] = limit
    kwargs["stop"] = fields.text("stop") if isinstance(fields.told.get("stop"), str) else fields.texts("stop")
    kwargs["logit_bias"] = _logit_bias(fields)
    kwargs["reasoning_effort"] = _effort(fields)
    kwargs["tools"] = [_tool(tool) for tool in fields.objects("tools")] or None
    kwargs["tool_choice"] = _tool_choice(fields)
    if fields.integer("n") not in (None, 1):
        bad("n", "must be 1: ask again for another answer")
    stream = fields.flag("stream") or False
    include_usage = fields.fields("stream_options").flag("include_usage") or False
    kwargs["extra"] = OfWire("openai", fields.rest) if fields.rest else None
    return ParsedRequest(options(kwargs), stream, include_usage)


def _messages(fields: Fields) -> list[dict[str, JSON]] | None:
    if fields.told.get("messages") is None:
        return None
    return [_message(message) for message in fields.objects("messages")]


def _message(fields: Fields) -> dict[str, JSON]:
    """The message, its thinking in canonical form; what the wires build on is checked."""
    thoughts = [fields.text(name) for name in _THOUGHTS]
    message = {name: value for name, value in fields.told.items() if name not in _THOUGHTS}
    fields.text("tool_call_id")
    if fields.told.get("role") == "assistant":
        thinking = fields.text("thinking") or thoughts[0] or thoughts[1]
        if thinking:
            message["thinking"] = thinking
        for name in ("thinking_blocks", "blocks"):
            for block in fields.objects(name):
                block.needed("type")
        fields.object("provider_fields")
        for call in fields.objects("tool_calls"):
            call.text("id")
            call.object("provider_fields")
            if call.told.get("type") != "custom":
                function = call.fields("function")
                function.needed("name")
                function.text("arguments")
    return message


def _tool(fields: Fields) -> Mapping[str, JSON]:
    """The tool as it came; tools that are no functions are their server's own."""
    if fields.told.get("type") == "function":
        function = fields.fields("function")
        function.needed("name")
        function.text("description")
        function.object("parameters")
    return fields.told


def _tool_choice(fields: Fields) -> str | Mapping[str, JSON] | None:
    if isinstance(fields.told.get("tool_choice"), str):
        return fields.text("tool_choice")
    choice = fields.object("tool_choice")
    Fields(choice or {}, "tool_choice").fields("function").text("name")
    return choice


def _logit_bias(fields: Fields) -> Mapping[str, float] | None:
    bias = fields.object("logit_bias")
    if bias is not None and not all(is_number(value) for value in bias.values()):
        bad("logit_bias", "must map tokens to numbers")
    return bias


def _effort(fields: Fields) -> str | None:
    effort = fields.text("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        bad("reasoning_effort", f"must be one of {', '.join(_EFFORTS)}")
    return None if effort is None else _EFFORTS[effort]
