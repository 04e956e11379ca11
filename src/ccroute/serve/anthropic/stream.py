"""A stream in the form that Anthropic's clients expect: a message of blocks, one open at a time.

Must not know HTTP. Other servers may continue a tool call after they began the next one, so a block waits
until the blocks before it are complete.
"""

from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Final

from pydantic_core import to_json

from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.serve.answers import AnyStream, awrite_stream, sse, write_stream
from ccroute.serve.anthropic.answers import dump_error, dump_usage, head, stop, tool_use
from ccroute.types import JSON, Chunk, Completion, ToolCall
from ccroute.wire.reading import is_whole

_TEXT: Final[dict[str, JSON]] = {"type": "text", "text": ""}
_THINKING: Final[dict[str, JSON]] = {"type": "thinking", "thinking": "", "signature": ""}


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
        delta = {"delta": stop(completion), "usage": dump_usage(completion.usage)}
        last = _event("message_delta", **delta) + _event("message_stop")
        return self._begin() + self._write(last=True) + last

    def error(self, error: Exception) -> bytes:
        return sse(dump_error(error)[1], "error")

    def _begin(self) -> bytes:
        """The `message_start` event. The stream's id and model are unknown before its first chunk."""
        if self.begun:
            return b""
        self.begun = True
        message = head(self._stream.id, self._stream.model)
        usage = dump_usage(self._stream.usage.model_copy(update={"output": 0, "reasoning": 0}))
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
            block = self._calls[call.index] = _Block(tool_use(call, self._stream.id))
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
