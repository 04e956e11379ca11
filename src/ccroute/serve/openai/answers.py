"""Answers, errors and model lists in the form that OpenAI's clients expect.

Must not know HTTP, nor a clock: the wrapper gives `created`.
"""

from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, Final

from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.serve.answers import (
    ERROR_TYPES,
    AnyStream,
    awrite_stream,
    describe_error,
    sse,
    unique_id,
    with_prefix,
    write_stream,
)
from ccroute.types import JSON, Choice, Chunk, Completion, FinishReason, Message, ModelInfo, ToolCall, Usage

_ID: Final = "chatcmpl-"
_FINISH: Final = ("stop", "length", "tool_calls", "content_filter")
_DONE: Final = b"data: [DONE]\n\n"


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
