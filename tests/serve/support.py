"""What the tests of the serving side share: streams made by hand, sync and async."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from types import ModuleType
from typing import Any

from ccroute.serve import anthropic, openai
from ccroute.types import Choice, Chunk, Completion, Function, Message, ToolCall, Usage

SERVED: dict[str, ModuleType] = {"openai": openai, "anthropic": anthropic}


def call(name: str, arguments: str = "", *, id: str = "", index: int = 0) -> ToolCall:
    return ToolCall(id=id, function=Function(name=name, arguments=arguments), index=index)


def answer(text: str | None = "Hello there.", *, finish: Any = "stop", **more: Any) -> Completion:
    """A whole answer; of `more`, what belongs to its message goes there."""
    own = ("tool_calls", "thinking", "thinking_blocks", "provider_fields")
    inner = {name: more.pop(name) for name in own if name in more}
    choice = Choice(
        message=Message(content=text, **inner), finish_reason=finish, logprobs=more.pop("logprobs", None)
    )
    facts = {"id": "x1", "model": "m", "created": 7, "usage": Usage(input=11, output=7), **more}
    return Completion(choices=(choice,), **facts)


class FakeStream:
    """A stream of these chunks; an exception among them is raised where it stands."""

    def __init__(self, chunks: Iterable[Chunk | Exception], completion: Completion | None = None) -> None:
        self._chunks = list(chunks)
        self.completion = completion or answer()
        self.id, self.model = self.completion.id, self.completion.model
        self.usage = Usage()
        self.closed = 0

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def close(self) -> None:
        self.closed += 1


class FakeAsyncStream(FakeStream):
    def __aiter__(self) -> AsyncIterator[Chunk]:
        async def each() -> AsyncIterator[Chunk]:
            for chunk in iter(self):
                yield chunk

        return each()

    async def aclose(self) -> None:
        self.close()


def dumped(wire: str, stream: FakeAsyncStream, mode: str = "sync", **options: Any) -> list[bytes]:
    """All the pieces that `dump_stream`, or its async twin, makes of a stream."""
    if mode == "sync":
        return list(SERVED[wire].dump_stream(stream, **options))

    async def each() -> list[bytes]:
        return [piece async for piece in SERVED[wire].adump_stream(stream, **options)]

    return asyncio.run(each())


def frames(pieces: Iterable[bytes]) -> list[Any]:
    """The data of each event, decoded; `[DONE]` as it is."""
    found = []
    for event in b"".join(pieces).decode().split("\n\n")[:-1]:
        data = event.partition("data: ")[2]
        found.append(data if data == "[DONE]" else json.loads(data))
    return found
