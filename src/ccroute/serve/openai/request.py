"""Reads a client's chat completion request. Its form is nearly ccroute's own.

Must not know which backend will answer. A field that ccroute does not know goes into `extra`, to backends
of the same API: clients set `min_p` or `chat_template_kwargs` so.
"""

from collections.abc import Mapping
from typing import Final

from ccroute.serve.body import Fields, ParsedRequest, bad, call_options, is_number, load
from ccroute.types import JSON
from ccroute.wire.fields import OfWire

_SIMPLE: Final = {
    **dict.fromkeys(("model", "user"), Fields.text),
    **dict.fromkeys(("max_tokens", "top_k", "seed", "top_logprobs"), Fields.integer),
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), Fields.number),
    **dict.fromkeys(("logprobs", "parallel_tool_calls"), Fields.flag),
    **dict.fromkeys(("response_format", "metadata"), Fields.object),
}
_EFFORTS: Final = {
    **{effort: effort for effort in ("none", "minimal", "low", "medium", "high", "max")},
    "xhigh": "max",
}
_THINKING: Final = ("reasoning_content", "reasoning")


def parse_request(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """The keyword arguments for `Router.complete` or `Router.stream` from a `POST /v1/chat/completions`.

    Raises `InvalidRequestError` that names the place, also for `n` above 1.
    """
    fields = load(body)
    kwargs: dict[str, JSON] = {"messages": _messages(fields)}
    kwargs |= {name: read(fields, name) for name, read in _SIMPLE.items()}
    limit = fields.integer("max_completion_tokens")
    if limit is not None:
        kwargs["max_tokens"] = limit
    kwargs["stop"] = fields.text("stop") if isinstance(fields.raw.get("stop"), str) else fields.texts("stop")
    kwargs["logit_bias"] = _logit_bias(fields)
    kwargs["reasoning_effort"] = _effort(fields)
    kwargs["tools"] = [_tool(tool) for tool in fields.objects("tools")] or None
    kwargs["tool_choice"] = _tool_choice(fields)
    if fields.integer("n") not in (None, 1):
        bad("n", "must be 1: send one request for each answer")
    stream = fields.flag("stream") or False
    include_usage = fields.fields("stream_options").flag("include_usage") or False
    kwargs["extra"] = OfWire("openai", fields.rest) if fields.rest else None
    return ParsedRequest(call_options(kwargs), stream, include_usage)


def _messages(fields: Fields) -> list[dict[str, JSON]] | None:
    if fields.raw.get("messages") is None:
        return None
    return [_message(message) for message in fields.objects("messages")]


def _message(fields: Fields) -> dict[str, JSON]:
    """The message, its thinking under ccroute's name. Checks the parts that encoders rely on."""
    thinking = [fields.text(name) for name in _THINKING]
    message = {name: value for name, value in fields.raw.items() if name not in _THINKING}
    fields.text("tool_call_id")
    if fields.raw.get("role") == "assistant":
        if known := fields.text("thinking") or thinking[0] or thinking[1]:
            message["thinking"] = known
        for name in ("thinking_blocks", "blocks"):
            for block in fields.objects(name):
                block.required("type")
        fields.object("provider_fields")
        for call in fields.objects("tool_calls"):
            call.text("id")
            call.object("provider_fields")
            if call.raw.get("type") != "custom":
                function = call.fields("function")
                function.required("name")
                function.text("arguments")
    return message


def _tool(fields: Fields) -> Mapping[str, JSON]:
    """The tool unchanged. A tool that is not a function is one that the server runs."""
    if fields.raw.get("type") == "function":
        function = fields.fields("function")
        function.required("name")
        function.text("description")
        function.object("parameters")
    return fields.raw


def _tool_choice(fields: Fields) -> str | Mapping[str, JSON] | None:
    if isinstance(fields.raw.get("tool_choice"), str):
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
