"""The interface of a stream decoder, and the code that ccroute's three decoders share.

Knows chunks and completions, and the rules of every wire: the first finish reason counts, and frames after
the end are ignored. Must not know any wire's frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from ccroute.errors import CcrouteError, ProtocolError
from ccroute.types import JSON, Chunk, Completion, FinishReason, Message, ToolCall, Usage
from ccroute.types.results import new_choice, new_completion, new_message, text_chunk
from ccroute.wire.errors.typed import parse_body, parse_error, typed_error
from ccroute.wire.events import MAX_EVENT, Blocks
from ccroute.wire.reading import finish_reason, is_whole, shown
from ccroute.wire.template import Template
from ccroute.wire.tools import Call
from ccroute.wire.usage import estimate_deltas


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed answer into chunks.

    `feed` returns the chunks that hold content (text, thinking, tool calls), in order, and raises
    the typed error of an error frame. If the same bytes hold content before that frame, it returns the
    content, and `finish` raises the error. `finish` is called at the end of the bytes: it returns the
    whole answer, or raises `ProtocolError` when the protocol's terminal signal never came.

    A decoder may also have `done` (later bytes cannot change the answer) and `partial()` (the answer so far,
    with estimated usage). ccroute's own decoders have both.
    """

    def feed(self, data: bytes) -> list[Chunk]: ...

    def finish(self) -> Completion: ...


class BaseDecoder(ABC):
    """A `StreamDecoder` over the blocks of a parser. A wire adds `_take`, a template of the blocks that hold
    only text, its finish reasons, and a function that reads its usage."""

    end_signal = "a finish reason"

    def __init__(
        self,
        parser: Blocks,
        template: Template,
        reasons: Mapping[str, FinishReason],
        read_usage: Callable[[JSON, Callable[[], int]], Usage],
        provider: str = "",
    ) -> None:
        self.done = False  # whether later bytes cannot change the answer
        self._parser, self._template = parser, template
        self._reasons, self._read_usage, self._provider = reasons, read_usage, provider
        self._ended = False  # a finish reason or similar came: later frames hold no content
        self._failure: CcrouteError | None = None
        self._id = self._model = ""
        self._created = 0
        self._text: list[str] = []  # pieces, in the order they came
        self._thinking: list[str] = []
        self._calls: list[Call] = []
        self._logprobs: list[JSON] = []
        self._raw_usage: JSON = {}
        self._usage_is_final = False  # it came with the answer's end, so it says what the answer cost
        self._finish: str | None = None
        self._raw: JSON = None

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes. Raises the typed error of an error frame. If `data` holds
        content before that frame, `finish` raises it instead."""
        chunks: list[Chunk] = []
        parser, template = self._parser, self._template
        if len(data) <= MAX_EVENT and not (parser.pending or parser.after_cr or self.done):
            # Usually a read is one block that holds only text. Through the parser, which must look for the
            # block's end, that costs 1.9 µs and not 1.2.
            text = template.text(data, parser.separator)
            if text is not None:
                self._add(chunks, text)
                return chunks
        try:
            for block in parser.feed(data):
                if self.done:
                    break
                text = template.text(block)
                if text is not None:
                    self._add(chunks, text)
                elif (text := self._take(block, chunks)) is not None:
                    template.learn(block, text)
        except CcrouteError as error:
            self._fail(error)
            if not chunks:
                raise
        return chunks

    def finish(self) -> Completion:
        """Return the whole answer. Raises the stream's error, or `ProtocolError` if the end never came."""
        if not self.done:
            try:
                for block in self._parser.end():
                    self._take(block, [])
            except CcrouteError as error:
                self._fail(error)
        if self._failure:
            raise self._failure
        if not self._succeeded():
            raise ProtocolError(f"the stream ended without {self.end_signal}: the answer is not complete")
        return self._completion(self._finish_reason(), self._read_usage(self._raw_usage, self._estimate))

    def partial(self) -> Completion:
        """Return the answer so far. Its output tokens are estimated, unless the server had already said what
        the whole answer used. A count that came in between (vLLM can send one with each chunk) is a lower
        bound."""
        usage = self._read_usage(self._raw_usage, self._estimate)
        if not self._usage_is_final:
            known = {"output": max(usage.output, self._estimate()), "estimated": True}
            usage = usage.model_copy(update=known)
        return self._completion(None, usage)

    @abstractmethod
    def _take(self, block: bytes, chunks: list[Chunk]) -> str | None:
        """Store the content of one block, and append its chunks to `chunks`.

        Returns the text of a block that holds only text: the template learns it, and blocks that differ from
        it in nothing else do not come here.
        """

    def _add(
        self, chunks: list[Chunk], text: str, thinking: str = "", calls: tuple[ToolCall, ...] = ()
    ) -> None:
        """Add a piece of the answer, and append its chunk to `chunks`."""
        if text:
            self._text.append(text)
        if thinking or calls:
            if thinking:
                self._thinking.append(thinking)
            chunks.append(Chunk(text=text, thinking=thinking, tool_calls=calls))
        elif text:
            chunks.append(text_chunk(text))

    def _succeeded(self) -> bool:
        return self.done

    def _finish_reason(self) -> FinishReason:
        return finish_reason(self._finish, self._reasons, self._calls)

    def _estimate(self) -> int:
        """Estimate the output tokens from the received deltas."""
        pieces = estimate_deltas(self._text) + estimate_deltas(self._thinking)
        return pieces + sum(estimate_deltas([call.name, *call.pieces]) for call in self._calls)

    def _completion(self, reason: FinishReason | None, usage: Usage) -> Completion:
        logprobs = {"content": self._logprobs} if self._logprobs else None
        return new_completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=(new_choice(message=self._message(), finish_reason=reason, logprobs=logprobs),),
            usage=usage,
            raw_finish_reason=self._finish,
            raw=self._raw,
        )

    def _message(self) -> Message:
        calls = tuple(call.whole(self._provider) for call in self._calls)
        fields: dict[str, Any] = {
            "content": "".join(self._text) if self._text or not calls else None,
            "thinking": "".join(self._thinking) or None,
            "tool_calls": calls or None,
        }
        return new_message(**fields | self._further())

    def _further(self) -> dict[str, JSON]:
        """Return the message fields that this wire fills in its own way."""
        return {}

    def _fail(self, error: CcrouteError) -> None:
        self._failure = error
        self.done = True


def fail(frame: JSON, body: bytes) -> NoReturn:
    """Raise the typed error of an error frame, or of an error body under HTTP 200."""
    payload = parse_error(frame)
    payload.body = shown(body) or None
    raise typed_error(payload)


def check_error(frame: dict[str, JSON], body: bytes) -> None:
    """Raise the typed error of a frame, or of a body under HTTP 200, if it reports one."""
    if frame.get("error") or frame.get("object") == "error" or frame.get("type") == "error":
        fail(frame, body)


def is_frame(kind: str, data: bytes, decode: Callable[[bytes], Completion]) -> bool:
    """Whether a server-sent event of the named `kind` holds a JSON object.

    Raises the typed error of an event of kind `error`. A whole body instead of a stream also raises: the
    error that `decode` finds in it, else `ProtocolError`.
    """
    if kind == "error":
        raise typed_error(parse_body(data))
    if kind == "body":
        decode(data)
        raise ProtocolError("the server sent a whole answer though a stream was asked for")
    return is_whole(data)
