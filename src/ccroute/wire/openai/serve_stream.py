"""A stream of chunks as OpenAI's clients expect it: role, deltas, finish, usage, `[DONE]`.

Knows the chunks' shape; must not know HTTP, nor a clock: `created` is the wrapper's to say.
"""

from collections.abc import AsyncGenerator, Generator
from typing import Final

from ccroute.types import JSON, Chunk, Completion, ToolCall
from ccroute.wire.openai.serve import ID, dump_error, dump_usage, finish, kept
from ccroute.wire.serving import (
    AsyncChunkStream,
    ChunkStream,
    Named,
    awritten,
    prefixed,
    sse,
    unique_id,
    written,
)

_DONE: Final = b"data: [DONE]\n\n"


def dump_stream(
    stream: ChunkStream, *, include_usage: bool = False, created: int = 0
) -> Generator[bytes, None, None]:
    """The bytes that answer a streamed request. `stream` is closed however this ends.

    An error before the first bytes is raised; take them before you answer 200. After them it becomes an
    error frame, with no `[DONE]`. `created` is a Unix time.
    """
    return written(stream, _Frames(stream, include_usage, created))


def adump_stream(
    stream: AsyncChunkStream, *, include_usage: bool = False, created: int = 0
) -> AsyncGenerator[bytes, None]:
    """`dump_stream` of an `AsyncStream`."""
    return awritten(stream, _Frames(stream, include_usage, created))


class _Frames:
    def __init__(self, stream: Named, include_usage: bool, created: int) -> None:
        self._stream = stream
        self._include_usage = include_usage
        self._created = created
        self._head: dict[str, JSON] = {}
        self._begun_calls: set[int] = set()

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
        return begin + self._frame(self._choice(delta))

    def end(self, completion: Completion) -> bytes:
        begin = b"" if self._head else self._begin("")
        told = completion.choices[0]
        # What the provider wants back is known only as a whole.
        delta = kept(told.message)
        if calls := [self._kept(call) for call in told.message.tool_calls or () if call.provider_fields]:
            delta["tool_calls"] = calls
        last = self._choice(delta, finish(told.finish_reason))
        if told.logprobs:
            last["logprobs"] = told.logprobs
        frames = begin + self._frame(last)
        if self._include_usage:
            frames += sse({**self._head, "choices": [], "usage": dump_usage(completion.usage)})
        return frames + _DONE

    def failed(self, error: Exception) -> bytes:
        return sse(dump_error(error)[1])

    def _begin(self, content: str | None) -> bytes:
        """The role; before the first chunk nobody knows whose answer this is."""
        self._head = {
            "id": prefixed(self._stream.id, ID),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._stream.model,
        }
        if self._include_usage:
            self._head["usage"] = None
        return self._frame(self._choice({"role": "assistant", "content": content}))

    def _choice(self, delta: dict[str, JSON], reason: str | None = None) -> dict[str, JSON]:
        return {"index": 0, "delta": delta, "finish_reason": reason}

    def _frame(self, choice: dict[str, JSON]) -> bytes:
        return sse({**self._head, "choices": [choice]})

    def _kept(self, call: ToolCall) -> dict[str, JSON]:
        """A call's last delta; clients add up arguments without looking whether there are any."""
        told = {"provider_fields": dict(call.provider_fields)}
        return {"index": call.index, "function": {"arguments": ""}, **told}

    def _call(self, call: ToolCall) -> dict[str, JSON]:
        """A call's delta: id and type come once, the name too unless it comes late."""
        function = {"arguments": call.function.arguments}
        if call.function.name:
            function = {"name": call.function.name, **function}
        if call.index in self._begun_calls:
            return {"index": call.index, "function": function}
        self._begun_calls.add(call.index)
        id = unique_id(call, self._stream.id)
        return {"index": call.index, "id": id, "type": "function", "function": function}
