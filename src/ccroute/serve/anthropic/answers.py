"""Answers, errors and model lists in the form that Anthropic's clients expect. Must not know HTTP.

A streamed message has one open block at a time. Other servers may continue a tool call after they began the
next one, so a block waits until the blocks before it are complete.
"""

import re
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from typing import Any, Final

from pydantic_core import to_json

from ccroute.errors import ContextWindowExceededError
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
from ccroute.types import JSON, Chunk, Completion, FinishReason, Message, ModelInfo, ToolCall, Usage
from ccroute.wire.anthropic.decode import STOP
from ccroute.wire.reading import is_whole, mapping
from ccroute.wire.tools import as_object

_BAD_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
_STOP: Final[dict[FinishReason | None, str]] = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_UNKNOWN_TIME: Final = "1970-01-01T00:00:00Z"
_TEXT: Final[dict[str, JSON]] = {"type": "text", "text": ""}
_THINKING: Final[dict[str, JSON]] = {"type": "thinking", "thinking": "", "signature": ""}


def dump_completion(completion: Completion) -> dict[str, Any]:
    """The body that answers a request without streaming."""
    return {
        **_head(completion.id, completion.model),
        "content": _blocks(completion.message, completion.id),
        **_stop(completion),
        "usage": _usage(completion.usage),
    }


def dump_stream(stream: Stream[Any]) -> Generator[bytes, None, None]:
    """The bytes that answer a streamed request. `stream` is closed however this ends.

    An error before the first bytes is raised, so take them before you answer 200. A later error becomes an
    `error` event. `message_start` holds the prompt's tokens, estimated where the backend reports them only
    at the end.
    """
    return write_stream(stream, _Writer(stream))


def adump_stream(stream: AsyncStream[Any]) -> AsyncGenerator[bytes, None]:
    """`dump_stream` of an `AsyncStream`."""
    return awrite_stream(stream, _Writer(stream))


def dump_error(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body that answer an error. `error_headers` gives the headers."""
    status, code, message = describe_error(error)
    if isinstance(error, ContextWindowExceededError):
        sizes = (
            f"{error.estimated} tokens > {error.limit} maximum; " if error.estimated and error.limit else ""
        )
        message = f"prompt is too long: {sizes}{message}"  # clients search for these words
    return (529 if status == 503 else status), error_body(status, message, code=code)


def error_body(status: int, message: str, *, code: str | None = None) -> dict[str, Any]:
    """The body of an error of the wrapper's own, such as a missing key (401)."""
    error: dict[str, JSON] = {"type": ERROR_TYPES.get(status, "api_error"), "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error}


def dump_models(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """The body that answers `GET /v1/models`. Patterns such as `claude-*` are left out: they are no names."""
    data = [_model(model) for model in models if model.kind != "pattern"]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None, **ends}


def dump_count_tokens(tokens: int) -> dict[str, Any]:
    """The body that answers `POST /v1/messages/count_tokens`."""
    return {"input_tokens": tokens}


def _head(id: str, model: str) -> dict[str, JSON]:
    """The fields that an answer begins with."""
    return {"id": with_prefix(id, "msg_"), "type": "message", "role": "assistant", "model": model}


def _blocks(message: Message, answer_id: str) -> list[JSON]:
    if message.blocks:
        return [dict(block) for block in message.blocks]
    blocks: list[JSON] = [dict(block) for block in message.thinking_blocks]
    if message.thinking and not blocks:  # another provider's: it has no signature
        blocks.append({"type": "thinking", "thinking": message.thinking, "signature": ""})
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    blocks += [
        {**_tool_use(call, answer_id), "input": as_object(call.function.arguments)}
        for call in message.tool_calls or ()
    ]
    return blocks


def _tool_use(call: ToolCall, answer_id: str) -> dict[str, JSON]:
    """The block of a call, without its input."""
    id = unique_id(call, answer_id)
    if not id.startswith("toolu_"):
        id = "toolu_" + _BAD_ID.sub("_", id.removeprefix("call_"))
    return {"type": "tool_use", "id": id, "name": call.function.name, "input": {}}


def _stop(completion: Completion) -> dict[str, JSON]:
    """Why the answer ended: the provider's own word if Anthropic has it and it is still true."""
    reason, word = completion.finish_reason, completion.raw_finish_reason or ""
    if word != "pause_turn" and (word not in STOP or STOP[word] != reason):
        word = _STOP.get(reason, "end_turn")
    sequence = mapping(completion.raw).get("stop_sequence") if word == "stop_sequence" else None
    return {"stop_reason": word, "stop_sequence": sequence}


def _usage(usage: Usage) -> dict[str, JSON]:
    """Usage as Anthropic counts: `input_tokens` excludes tokens read from or written to the cache."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def _model(model: ModelInfo) -> dict[str, JSON]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": _UNKNOWN_TIME,
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
    }


class _Block:
    """A content block and its deltas that are not written yet. A closed block takes no more deltas."""

    __slots__ = ("_input", "closed", "deltas", "kind", "start")

    def __init__(self, start: dict[str, JSON]) -> None:
        self.start = start
        self.kind = start["type"]
        self.deltas: list[dict[str, JSON]] = []
        self.closed = False
        self._input: list[str] = []

    def grow(self, kind: str, name: str, piece: str) -> None:
        self.deltas.append({"type": kind, name: piece})

    def grow_input(self, call: ToolCall) -> None:
        self.start["name"] = self.start["name"] or call.function.name  # the name may come late
        if call.function.arguments:
            self._input.append(call.function.arguments)
            self.grow("input_json_delta", "partial_json", call.function.arguments)

    def named(self) -> bool:
        """Whether it can begin: a tool's block begins with its name."""
        return self.kind != "tool_use" or bool(self.start["name"])

    def complete(self) -> bool:
        """Whether it is complete, given that another block has begun."""
        return self.kind != "tool_use" or is_whole("".join(self._input).encode())


class _Writer:
    def __init__(self, stream: AnyStream) -> None:
        self._stream = stream
        self.begun = False
        self._waiting: deque[_Block] = deque()  # the first of them is being written
        self._calls: dict[int, _Block] = {}
        self._index = 0
        self._open = False

    def chunk(self, chunk: Chunk) -> bytes:
        if chunk.thinking:
            self._last(_THINKING).grow("thinking_delta", "thinking", chunk.thinking)
        if chunk.signature:
            block = self._last(_THINKING, closed=True)  # a signature may come in pieces
            block.grow("signature_delta", "signature", chunk.signature)
            block.closed = True
        if chunk.text:
            self._last(_TEXT).grow("text_delta", "text", chunk.text)
        for call in chunk.tool_calls:
            self._call(call).grow_input(call)
        if chunk.block is not None:
            self._provider_block(chunk.block)
        return self._begin() + self._write() if self._waiting else b""

    def end(self, completion: Completion) -> bytes:
        delta = {"delta": _stop(completion), "usage": _usage(completion.usage)}
        last = _event("message_delta", **delta) + _event("message_stop")
        return self._begin() + self._write(last=True) + last

    def error(self, error: Exception) -> bytes:
        return sse(dump_error(error)[1], "error")

    def _begin(self) -> bytes:
        """The `message_start` event. The stream's id and model are unknown before its first chunk."""
        if self.begun:
            return b""
        self.begun = True
        message = _head(self._stream.id, self._stream.model)
        usage = _usage(self._stream.usage.model_copy(update={"output": 0, "reasoning": 0}))
        message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return _event("message_start", message=message)

    def _last(self, start: dict[str, JSON], *, closed: bool = False) -> _Block:
        """The last block if it is of the kind of `start` and may still grow, else a new block."""
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.kind != start["type"] or (last.closed and not closed):
            self._waiting.append(last := _Block(start))
        return last

    def _call(self, call: ToolCall) -> _Block:
        block = self._calls.get(call.index)
        if block is None:
            block = self._calls[call.index] = _Block(_tool_use(call, self._stream.id))
            self._waiting.append(block)
        return block

    def _provider_block(self, block: Mapping[str, JSON]) -> None:
        """A block in the provider's own form. Clients expect the input of its tools as a delta. The text of a
        text block was written before: only its citations are left."""
        if block.get("type") == "text":
            text = self._last(_TEXT)
            text.deltas += [
                {"type": "citations_delta", "citation": each} for each in block.get("citations") or ()
            ]
            text.closed = True
            return
        given = block.get("input")
        self._waiting.append(_Block(dict(block) if given is None else {**block, "input": {}}))
        if given:
            self._waiting[-1].grow("input_json_delta", "partial_json", to_json(given).decode())

    def _write(self, *, last: bool = False) -> bytes:
        """The bytes of all blocks up to the first that may still grow, or of all blocks."""
        frames: list[bytes] = []
        while self._waiting:
            block = self._waiting[0]
            if not (last or block.named()):
                break
            if not self._open:
                self._open = True
                frames.append(_event("content_block_start", index=self._index, content_block=block.start))
            frames += [_event("content_block_delta", index=self._index, delta=each) for each in block.deltas]
            block.deltas.clear()
            if not last and (len(self._waiting) == 1 or not block.complete()):
                break
            frames.append(_event("content_block_stop", index=self._index))
            self._waiting.popleft()
            self._index += 1
            self._open = False
        return b"".join(frames)


def _event(kind: str, **data: JSON) -> bytes:
    return sse({"type": kind, **data}, kind)
