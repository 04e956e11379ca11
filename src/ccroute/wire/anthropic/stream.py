"""A streamed answer of Anthropic's.

Knows the frames from `message_start` to `message_stop`; must not know the request. Success is
`message_stop` without an error frame. Usage in `message_delta` is cumulative: it is never added.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ccroute.types import JSON, Chunk, FinishReason, Message, Usage
from ccroute.wire.anthropic.decode import decode, is_plain, merged_usage, read_stop, read_usage
from ccroute.wire.anthropic.encode import SCHEMA_TOOL
from ccroute.wire.anthropic.turns import THINKING
from ccroute.wire.decoding import BaseDecoder, fail, is_frame
from ccroute.wire.errors import is_error
from ccroute.wire.events import Event, SSEParser
from ccroute.wire.reading import load_object, mapping, said, text, wrong
from ccroute.wire.template import Template
from ccroute.wire.tools import Call, as_object, as_text


class _Thought:
    """A thinking block that is still growing; redacted ones come whole."""

    __slots__ = ("_block", "pieces", "signature")

    def __init__(self, block: dict[str, JSON]) -> None:
        self._block = block
        self.pieces = [text(block.get("thinking"))]
        self.signature = text(block.get("signature"))

    def whole(self) -> dict[str, JSON]:
        """The block as it must be replayed."""
        if self._block.get("type") != "thinking":
            return self._block
        return {**self._block, "thinking": "".join(self.pieces), "signature": self.signature}


class _Part:
    """A block at its place in the answer. `begin` is where its text begins in the decoder's pieces, `held`
    what grows apart from them: a call, thoughts, or the input of a tool that the provider runs."""

    __slots__ = ("begin", "block", "held")

    def __init__(self, block: dict[str, JSON], begin: int, held: Call | _Thought | None = None) -> None:
        self.block, self.begin, self.held = block, begin, held

    def whole(self, pieces: list[str]) -> dict[str, JSON]:
        """The block as it must be replayed; `pieces` are those of its text."""
        if isinstance(self.held, _Thought):
            return self.held.whole()
        if isinstance(self.held, Call):
            return {**self.block, "input": as_object(self.held.arguments)}
        return {**self.block, "text": "".join(pieces)} if self.block.get("type") == "text" else self.block


class Decoder(BaseDecoder[Event]):
    """Turns the bytes of one stream into chunks. `prompt_estimate` is in tokens."""

    end_signal = "message_stop"

    def __init__(self, prompt_estimate: int = 0) -> None:
        super().__init__(SSEParser(), prompt_estimate)
        self._parts: list[_Part] = []
        self._open: dict[int | None, _Part] = {}  # by the block's index
        self._answer: int | None = None  # the index of the block that calls the schema's tool
        self._before = 0  # how many pieces of text came before it: they are no part of the answer
        self._told_usage: dict[str, JSON] = {}
        self._template = Template(b"text")

    def _take(self, event: Event, chunks: list[Chunk]) -> None:
        kind, data = event
        if not self._ended and (piece := self._template.text(data)) is not None:
            self._say(piece, chunks)
            return
        if kind not in _FRAMES and kind != "message" and not is_frame(kind, data, decode):
            return
        frame = load_object(data or b"{}")  # an event without data says nothing
        if is_error(frame):
            fail(frame, data)
        take = _FRAMES.get(text(frame.get("type")) or kind)
        if take:
            take(self, frame, data, chunks)

    def _start(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        message = mapping(frame.get("message"))
        self._id = text(message.get("id"))
        self._model = text(message.get("model"))
        # The output so far is not the output: only `message_delta` tells that.
        self._told_usage = {**mapping(message.get("usage")), "output_tokens": None}

    def _block_start(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        block, index = frame.get("content_block"), frame.get("index")
        if not isinstance(block, dict) or not isinstance(index, int):
            wrong("a content block has no index or is not an object", data)
        if self._ended:
            return
        kind = block.get("type")
        if kind == "text" or block.get("name") == SCHEMA_TOOL:
            self._end_text(chunks)
        part = self._open[index] = _Part(block, len(self._text))
        self._parts.append(part)
        if kind == "text":
            self._write(said(block.get("text")), chunks)
        elif kind in THINKING:
            part.held = _Thought(block)
            self._think(text(block.get("thinking")), chunks)
        elif block.get("name") == SCHEMA_TOOL:
            if self._answer is None:
                self._answer, self._before = index, len(self._text)
                self._template = Template(b"text")  # texts are looked at from now on
        elif kind == "tool_use":
            part.held = call = Call(len(self._calls), text(block.get("id")), text(block.get("name")))
            self._calls.append(call)
            chunks.append(Chunk(tool_calls=(call.begun(),)))
        elif "input" in block:  # of a tool that the provider runs
            part.held = Call(0)
        # Empty at first, as a rule; some servers send the whole input here.
        if block.get("input"):
            self._grow(index, as_text(block["input"]), chunks)

    def _block_delta(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        delta, index = frame.get("delta"), frame.get("index")
        if not isinstance(delta, dict) or not isinstance(index, int):
            wrong("a block's delta has no index or is not an object", data)
        if self._ended:
            return
        kind = delta.get("type")
        if kind == "text_delta":
            piece = said(delta.get("text"))
            self._write(piece, chunks)
            if self._answer is None:
                self._template.learn(data, piece)
        elif kind == "input_json_delta":
            self._grow(index, text(delta.get("partial_json")), chunks)
        elif kind in ("thinking_delta", "signature_delta"):
            self._grow_thought(index, delta, chunks)
        elif kind == "citations_delta":
            self._cite(index, delta.get("citation"))

    def _write(self, piece: str, chunks: list[Chunk]) -> None:
        """Add a text's piece; beside the schema's tool it says nothing that belongs to the answer."""
        if self._answer is None:
            self._say(piece, chunks)

    def _grow(self, index: int, arguments: str, chunks: list[Chunk]) -> None:
        part = self._open.get(index)
        if index == self._answer:
            self._say(arguments, chunks)
        elif part is not None and isinstance(call := part.held, Call) and arguments:
            grown = call.grown(arguments)
            if part.block["type"] == "tool_use":
                chunks.append(Chunk(tool_calls=(grown,)))

    def _grow_thought(self, index: int, delta: Mapping[str, JSON], chunks: list[Chunk]) -> None:
        piece, signature = text(delta.get("thinking")), text(delta.get("signature"))
        part = self._open.get(index)
        if part is not None and isinstance(part.held, _Thought):
            part.held.pieces.append(piece)
            part.held.signature += signature
        self._think(piece, chunks)
        if signature:
            chunks.append(Chunk(signature=signature))

    def _cite(self, index: int, citation: JSON) -> None:
        part = self._open.get(index)
        if part is not None:
            part.block["citations"] = [*(part.block.get("citations") or ()), citation]

    def _block_stop(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        index = frame.get("index")
        part = self._open.get(index) if isinstance(index, int) else None
        if part is None:
            return
        if part.block.get("type") not in ("text", "thinking", "tool_use"):
            del self._open[index]
            chunks.append(Chunk(block=part.whole([])))
        elif part.block.get("citations"):
            del self._open[index]
            chunks.append(Chunk(block=part.whole(self._text[part.begin :])))

    def _end_text(self, chunks: list[Chunk]) -> None:
        """Tell that a text block ends where another one follows at once: its chunks cannot say so. One with
        citations was told at its end."""
        last = self._parts[-1] if self._parts else None
        if last is not None and last.block.get("type") == "text" and not last.block.get("citations"):
            whole = last.whole(self._text[last.begin :])
            if whole["text"]:
                chunks.append(Chunk(block=whole))

    def _think(self, piece: str, chunks: list[Chunk]) -> None:
        if piece:
            self._thinking.append(piece)
            chunks.append(Chunk(thinking=piece))

    def _delta(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        self._told_usage = merged_usage(self._told_usage, mapping(frame.get("usage")))
        if not self._ended and (reason := text(mapping(frame.get("delta")).get("stop_reason"))):
            self._finish = reason
            self._ended = True

    def _stop(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        self._done = True

    def _succeeded(self) -> bool:
        return self._done

    def _message(self) -> Message:
        ends = [part.begin for part in self._parts[1:]] + [len(self._text)]
        blocks = [
            part.whole(self._text[part.begin : end]) for part, end in zip(self._parts, ends, strict=False)
        ]
        kept = tuple(block for block in blocks if block.get("type") in THINKING)
        told: dict[str, JSON] = {"thinking_blocks": kept, "blocks": () if is_plain(blocks) else tuple(blocks)}
        if self._answer is not None:
            told["content"] = "".join(self._text[self._before :])
        return super()._message().model_copy(update=told)

    def _finish_reason(self) -> FinishReason:
        return read_stop(self._finish, self._calls, self._answer is not None)

    def _usage(self, *, partial: bool = False) -> Usage:
        return read_usage(self._told_usage, self._prompt_estimate, self._estimate(), partial=partial)


_Take = Callable[[Decoder, Mapping[str, JSON], bytes, list[Chunk]], None]

_FRAMES: Final[Mapping[str, _Take]] = {
    "message_start": Decoder._start,
    "content_block_start": Decoder._block_start,
    "content_block_delta": Decoder._block_delta,
    "content_block_stop": Decoder._block_stop,
    "message_delta": Decoder._delta,
    "message_stop": Decoder._stop,
}
"""What each frame does. Others (`ping`, unknown ones) do nothing."""
