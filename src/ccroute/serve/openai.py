"""A server's side of OpenAI's API: `/v1/chat/completions` and `/v1/models`. No I/O.

`parse_request` reads a body, whose form is nearly ccroute's own; the dumps write one. Must not know which
backend will answer, nor a clock: the wrapper gives `created`. A field that ccroute does not know goes into
`extra`, to backends of the same API: clients set `min_p` or `chat_template_kwargs` so.
"""

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from typing import Any, Final

from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.serve.answers import (
    ERROR_TYPES,
    AnyStream,
    awrite_stream,
    describe_error,
    error_headers,
    sse,
    unique_id,
    with_prefix,
    write_stream,
)
from ccroute.serve.body import Fields, ParsedRequest, bad, call_options, is_number, load_fields
from ccroute.types import JSON, Choice, Chunk, Completion, FinishReason, Message, ModelInfo, ToolCall, Usage
from ccroute.wire.fields import OfWire

__all__ = [
    "ParsedRequest",
    "adump_stream",
    "dump_completion",
    "dump_error",
    "dump_models",
    "dump_stream",
    "error_body",
    "error_headers",
    "parse_request",
]

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
_ID: Final = "chatcmpl-"
_FINISH: Final = ("stop", "length", "tool_calls", "content_filter")
_DONE: Final = b"data: [DONE]\n\n"


def parse_request(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """The keyword arguments for `Router.complete` or `Router.stream` from a `POST /v1/chat/completions`.

    Raises `InvalidRequestError` that names the place, also for `n` above 1.
    """
    fields = load_fields(body)
    kwargs: dict[str, JSON] = {"messages": None}
    if fields.raw.get("messages") is not None:
        kwargs["messages"] = [_message(message) for message in fields.objects("messages")]
    kwargs |= {name: read(fields, name) for name, read in _SIMPLE.items()}
    limit = fields.integer("max_completion_tokens")
    if limit is not None:
        kwargs["max_tokens"] = limit
    kwargs["stop"] = fields.text("stop") if isinstance(fields.raw.get("stop"), str) else fields.texts("stop")
    kwargs["logit_bias"] = bias = fields.object("logit_bias")
    if bias is not None and not all(is_number(value) for value in bias.values()):
        bad("logit_bias", "must map tokens to numbers")
    kwargs["reasoning_effort"] = _effort(fields)
    kwargs["tools"] = [_tool(tool) for tool in fields.objects("tools")] or None
    kwargs["tool_choice"] = _tool_choice(fields)
    if fields.integer("n") not in (None, 1):
        bad("n", "must be 1: send one request for each answer")
    stream = fields.flag("stream") or False
    include_usage = fields.fields("stream_options").flag("include_usage") or False
    kwargs["extra"] = OfWire("openai", fields.rest) if fields.rest else None
    return ParsedRequest(call_options(kwargs), stream, include_usage)


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


def _effort(fields: Fields) -> str | None:
    effort = fields.text("reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        bad("reasoning_effort", f"must be one of {', '.join(_EFFORTS)}")
    return None if effort is None else _EFFORTS[effort]


def dump_completion(completion: Completion) -> dict[str, Any]:
    """The body that answers a request without streaming.

    Thinking is in `reasoning_content`. `thinking_blocks`, `blocks` and `provider_fields` hold what the
    provider needs in the next request, for clients that send the message back unchanged.
    """
    return {
        "id": with_prefix(completion.id, _ID),
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [_choice(choice, completion.id) for choice in completion.choices],
        "usage": _usage(completion.usage),
    }


def dump_stream(
    stream: Stream[Any], *, include_usage: bool = False, created: int = 0
) -> Generator[bytes, None, None]:
    """The bytes that answer a streamed request: role, deltas, finish, usage, `[DONE]`.

    `created` is a Unix time. `stream` is closed however this ends. An error before the first bytes is
    raised, so take them before you answer 200. A later error becomes an error frame without `[DONE]`.
    """
    return write_stream(stream, _Writer(stream, include_usage, created))


def adump_stream(
    stream: AsyncStream[Any], *, include_usage: bool = False, created: int = 0
) -> AsyncGenerator[bytes, None]:
    """`dump_stream` of an `AsyncStream`."""
    return awrite_stream(stream, _Writer(stream, include_usage, created))


def dump_error(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body that answer an error. `error_headers` gives the headers."""
    status, code, message = describe_error(error)
    return status, error_body(status, message, code=code)


def error_body(status: int, message: str, *, code: str | None = None) -> dict[str, Any]:
    """The body of an error of the wrapper's own, such as a missing key (401)."""
    kind = ERROR_TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def dump_models(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """The body that answers `GET /v1/models`. Patterns such as `claude-*` are left out: they are no names."""
    return {"object": "list", "data": [_model(model) for model in models if model.kind != "pattern"]}


def _model(model: ModelInfo) -> dict[str, JSON]:
    entry: dict[str, JSON] = {"id": model.id, "object": "model", "created": 0, "owned_by": model.owned_by}
    if model.context_window is not None:
        entry["context_window"] = model.context_window
    return entry


def _choice(choice: Choice, answer_id: str) -> dict[str, JSON]:
    answer = choice.message
    message: dict[str, JSON] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    message |= _provider_parts(answer)
    if answer.tool_calls:
        calls = [{**call.to_dict(), "id": unique_id(call, answer_id)} for call in answer.tool_calls]
        message["tool_calls"] = calls
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": _finish(choice.finish_reason),
    }


def _provider_parts(message: Message) -> dict[str, JSON]:
    """The parts of a message that its provider needs in the next request."""
    whole = message.to_dict()
    return {name: whole[name] for name in ("thinking_blocks", "blocks", "provider_fields") if name in whole}


def _finish(reason: FinishReason | None) -> str:
    """OpenAI's word for why the answer ended. It has none for `other`, and clients accept no other words."""
    return reason if reason in _FINISH else "stop"


def _usage(usage: Usage) -> dict[str, JSON]:
    """Usage as OpenAI counts: prompt includes cached tokens, completion includes reasoning."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


class _Writer:
    def __init__(self, stream: AnyStream, include_usage: bool, created: int) -> None:
        self._stream = stream
        self._include_usage = include_usage
        self._created = created
        self._head: dict[str, JSON] = {}
        self._begun_calls: set[int] = set()

    @property
    def begun(self) -> bool:
        return bool(self._head)

    def chunk(self, chunk: Chunk) -> bytes:
        delta: dict[str, JSON] = {}
        if chunk.thinking:
            delta["reasoning_content"] = chunk.thinking
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.tool_calls:
            delta["tool_calls"] = [self._call(call) for call in chunk.tool_calls]
        if not delta:
            return b""
        begin = b"" if self._head else self._begin(None if chunk.tool_calls else "")
        return begin + self._frame(delta)

    def end(self, completion: Completion) -> bytes:
        begin = b"" if self._head else self._begin("")
        choice = completion.choices[0]
        # Known only now. Clients append arguments without checking that there are any.
        delta = _provider_parts(choice.message)
        calls: list[JSON] = [
            {
                "index": call.index,
                "function": {"arguments": ""},
                "provider_fields": dict(call.provider_fields),
            }
            for call in choice.message.tool_calls or ()
            if call.provider_fields
        ]
        if calls:
            delta["tool_calls"] = calls
        logprobs = {"logprobs": choice.logprobs} if choice.logprobs else {}
        frames = begin + self._frame(delta, finish_reason=_finish(choice.finish_reason), **logprobs)
        if self._include_usage:
            frames += sse({**self._head, "choices": [], "usage": _usage(completion.usage)})
        return frames + _DONE

    def error(self, error: Exception) -> bytes:
        return sse(dump_error(error)[1])

    def _begin(self, content: str | None) -> bytes:
        """The frame with the role. The stream's id and model are unknown before its first chunk."""
        self._head = {
            "id": with_prefix(self._stream.id, _ID),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._stream.model,
        }
        if self._include_usage:
            self._head["usage"] = None
        return self._frame({"role": "assistant", "content": content})

    def _frame(self, delta: dict[str, JSON], **more: JSON) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
        return sse({**self._head, "choices": [choice]})

    def _call(self, call: ToolCall) -> dict[str, JSON]:
        """A call's delta: id and type once, the name once (it may come later)."""
        function = {"arguments": call.function.arguments}
        if call.function.name:
            function = {"name": call.function.name, **function}
        if call.index in self._begun_calls:
            return {"index": call.index, "function": function}
        self._begun_calls.add(call.index)
        id = unique_id(call, self._stream.id)
        return {"index": call.index, "id": id, "type": "function", "function": function}
