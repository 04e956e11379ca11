"""Decodes a streamed answer of the Messages API.

Knows the frames from `message_start` to `message_stop`; must not know the request. An answer is complete at
`message_stop` without an error frame. Usage in `message_delta` is cumulative: it is never added.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ccroute.types import JSON, Chunk
from ccroute.wire.anthropic.decode import STOP, decode, kept_blocks, merged_usage, read_usage
from ccroute.wire.anthropic.encode import SCHEMA_TOOL
from ccroute.wire.anthropic.turns import THINKING
from ccroute.wire.decoding import BaseDecoder, check_error, is_frame
from ccroute.wire.events import SSEParser, read_event
from ccroute.wire.reading import answer_text, load_object, mapping, text, wrong
from ccroute.wire.template import Template
from ccroute.wire.tools import Call, as_object, as_text
from ccroute.wire.usage import counts


class _Part:
    """A content block. `begin` is the index of its first text in the decoder's pieces of text. `pieces` holds
    its thinking or its input, and is shared with its `call`."""

    __slots__ = ("begin", "block", "call", "has_input", "pieces", "signature")

    def __init__(self, block: dict[str, JSON], begin: int) -> None:
        self.block, self.begin = block, begin
        self.call: Call | None = None
        self.has_input = False  # it calls a tool of the caller or of the provider
        self.pieces = [text(block.get("thinking"))]
        self.signature = text(block.get("signature"))

    def whole(self, pieces: list[str]) -> dict[str, JSON]:
        """Return the block as it must be sent back. `pieces` are the pieces of its text."""
        kind = self.block.get("type")
        if kind == "text":
            return {**self.block, "text": "".join(pieces)}
        if kind == "thinking":
            return {**self.block, "thinking": "".join(self.pieces), "signature": self.signature}
        return {**self.block, "input": as_object("".join(self.pieces))} if self.has_input else self.block


class Decoder(BaseDecoder):
    """Turns the bytes of one stream into chunks."""

    end_signal = "message_stop"

    def __init__(self) -> None:
        super().__init__(SSEParser(), Template(b"text"), STOP, read_usage)
        self._parts: list[_Part] = []
        self._open: dict[int | None, _Part] = {}  # by the block's index
        self._answer: _Part | None = None  # the block that calls the schema's tool
        self._before = 0  # the pieces of text before it, which do not belong to the answer

    def _take(self, block: bytes, chunks: list[Chunk]) -> str | None:
        event = read_event(block)
        if event is None:
            return None
        kind, data = event
        if kind not in _FRAMES and kind != "message" and not is_frame(kind, data, decode):
            return None
        frame = load_object(data or b"{}")  # an event without data says nothing
        take = _FRAMES.get(text(frame.get("type")) or kind)
        if "error" in frame or not take:
            check_error(frame, data)
        return take(self, frame, data, chunks) if take else None

    def _start(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        message = mapping(frame.get("message"))
        self._id = text(message.get("id"))
        self._model = text(message.get("model"))
        # Only `message_delta` has the final count of output tokens.
        self._raw_usage = {**mapping(message.get("usage")), "output_tokens": None}

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
            self._write(answer_text(block.get("text")), chunks)
        elif kind in THINKING:
            self._add(chunks, "", part.pieces[0])
        elif block.get("name") == SCHEMA_TOOL:
            if self._answer is None:
                self._answer, self._before = part, len(self._text)
                self._template.forget()  # from now on, each text is parsed
        elif kind == "tool_use":
            part.call = call = Call(len(self._calls), text(block.get("id")))
            part.has_input, part.pieces = True, call.pieces
            self._calls.append(call)
            chunks.append(Chunk(tool_calls=(call.grown("", text(block.get("name"))),)))
        else:
            part.has_input, part.pieces = "input" in block, []  # of a tool that the provider runs
        # Usually empty; some servers send the whole input here.
        if block.get("input"):
            self._grow(part, as_text(block["input"]), chunks)

    def _block_delta(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> str | None:
        delta, index = frame.get("delta"), frame.get("index")
        if not isinstance(delta, dict) or not isinstance(index, int):
            wrong("a block's delta has no index or is not an object", data)
        if self._ended:
            return None
        kind, part = delta.get("type"), self._open.get(index) or _Part({}, 0)
        if kind == "text_delta":
            piece = answer_text(delta.get("text"))
            self._write(piece, chunks)
            return piece if self._answer is None else None
        if kind == "input_json_delta":
            self._grow(part, text(delta.get("partial_json")), chunks)
        elif kind in ("thinking_delta", "signature_delta"):
            self._think(part, delta, chunks)
        elif kind == "citations_delta":
            part.block["citations"] = [*(part.block.get("citations") or ()), delta.get("citation")]
        return None

    def _write(self, piece: str, chunks: list[Chunk]) -> None:
        """Add a piece of text. Text beside the schema's tool does not belong to the answer."""
        if self._answer is None:
            self._add(chunks, piece)

    def _grow(self, part: _Part, arguments: str, chunks: list[Chunk]) -> None:
        if part is self._answer:
            self._add(chunks, arguments)
        elif part.call and arguments:
            chunks.append(Chunk(tool_calls=(part.call.grown(arguments),)))
        elif part.has_input:
            part.pieces.append(arguments)

    def _think(self, part: _Part, delta: Mapping[str, JSON], chunks: list[Chunk]) -> None:
        piece, signature = text(delta.get("thinking")), text(delta.get("signature"))
        self._add(chunks, "", piece)
        if not part.has_input:
            part.pieces.append(piece)
        if signature:
            part.signature += signature
            chunks.append(Chunk(signature=signature))

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
        """Mark the end of a text block if another text block follows: text chunks cannot show it. A block
        with citations was already marked at its end."""
        last = self._parts[-1] if self._parts else None
        if last is not None and last.block.get("type") == "text" and not last.block.get("citations"):
            whole = last.whole(self._text[last.begin :])
            if whole["text"]:
                chunks.append(Chunk(block=whole))

    def _delta(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        self._raw_usage = merged_usage(self._raw_usage, mapping(frame.get("usage")))
        if not self._ended and (reason := text(mapping(frame.get("delta")).get("stop_reason"))):
            self._finish = reason
            self._ended = True
            self._template.forget()
        self._usage_is_final = self._ended and "output_tokens" in counts(self._raw_usage)

    def _stop(self, frame: Mapping[str, JSON], data: bytes, chunks: list[Chunk]) -> None:
        self.done = True

    def _further(self) -> dict[str, JSON]:
        ends = [part.begin for part in self._parts[1:]] + [len(self._text)]
        blocks = [
            part.whole(self._text[part.begin : end]) for part, end in zip(self._parts, ends, strict=False)
        ]
        answer = {} if self._answer is None else {"content": "".join(self._text[self._before :])}
        return kept_blocks(blocks) | answer


_Take = Callable[[Decoder, Mapping[str, JSON], bytes, list[Chunk]], str | None]

_FRAMES: Final[Mapping[str, _Take]] = {
    "message_start": Decoder._start,
    "content_block_start": Decoder._block_start,
    "content_block_delta": Decoder._block_delta,
    "content_block_stop": Decoder._block_stop,
    "message_delta": Decoder._delta,
    "message_stop": Decoder._stop,
}
"""The method for each type of frame. Others (`ping`, unknown ones) are ignored."""
