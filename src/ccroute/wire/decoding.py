"""The interface of a stream decoder, and the code that ccroute's three decoders share.

Knows chunks and completions, and the rules of every wire: the first finish reason counts, and frames after
the end are ignored. Must not know any wire's frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar

from ccroute.errors import CcrouteError, ProtocolError
from ccroute.types import JSON, Choice, Chunk, Completion, FinishReason, Message, ToolCall, Usage
from ccroute.types.results import text_chunk
from ccroute.wire.errors.typed import parse_body, parse_error, typed_error
from ccroute.wire.events import END, MAX_EVENT, NDJSONParser, SSEParser, read_event
from ccroute.wire.reading import finish_reason, is_whole, shown
from ccroute.wire.template import Template
from ccroute.wire.tools import Call
from ccroute.wire.usage import estimate_deltas

P = TypeVar("P", bound=SSEParser | NDJSONParser)
ReadUsage: TypeAlias = Callable[[JSON, Callable[[], int]], Usage]


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed answer into chunks.

    `feed` returns the chunks that hold content (text, thinking, tool calls), in order, and raises
    the typed error of an error frame. `finish` is called at the end of the bytes: it returns the
    whole answer, or raises `ProtocolError` when the protocol's terminal signal never came.

    A decoder may also have `done` (later bytes cannot change the answer) and `partial()` (the answer so far,
    with estimated usage). ccroute's own decoders have both.
    """

    def feed(self, data: bytes) -> list[Chunk]: ...

    def finish(self) -> Completion: ...


class BaseDecoder(ABC, Generic[P]):
    """A `StreamDecoder` over the lines or blocks of lines that a parser cuts. A wire adds how to take one and
    what remains at the end, its finish reasons, and a function that reads its usage."""

    end_signal = "a finish reason"

    def __init__(
        self,
        parser: P,
        reasons: Mapping[str, FinishReason],
        read_usage: ReadUsage,
        provider: str = "",
    ) -> None:
        self.done = False  # whether later bytes cannot change the answer
        self._parser: P = parser
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
        self._finish: str | None = None
        self._raw: JSON = None

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes. Raises the typed error of an error frame. If `data` holds
        content before that frame, `finish` raises it instead."""
        chunks: list[Chunk] = []
        try:
            for block in self._parser.feed(data):
                if self.done:
                    break
                self._take(block, chunks)
        except CcrouteError as error:
            self._fail(error)
            if not chunks:
                raise
        return chunks

    def finish(self) -> Completion:
        """Return the whole answer. Raises the stream's error, or `ProtocolError` if the end never came."""
        if not self.done:
            try:
                self._take_rest()
            except CcrouteError as error:
                self._fail(error)
        if self._failure:
            raise self._failure
        if not self._succeeded():
            raise ProtocolError(f"the stream ended without {self.end_signal}: the answer is not complete")
        return self._completion(self._finish_reason(), self._read_usage(self._raw_usage, self._estimate))

    def partial(self) -> Completion:
        """Return the answer so far, with estimated output tokens."""
        usage, output = self._read_usage(self._raw_usage, self._estimate), self._estimate()
        known = {"output": output, "reasoning": min(usage.reasoning, output), "estimated": True}
        return self._completion(None, usage.model_copy(update=known))

    @abstractmethod
    def _take(self, block: bytes, chunks: list[Chunk]) -> None:
        """Store the content of one line or block of lines, and append its chunks to `chunks`."""

    @abstractmethod
    def _take_rest(self) -> None:
        """Store what the parser still holds at the end of the bytes."""

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
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=(Choice(message=self._message(), finish_reason=reason, logprobs=logprobs),),
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
        return Message(**fields | self._further())

    def _further(self) -> dict[str, JSON]:
        """Return the message fields that this wire fills in its own way."""
        return {}

    def _fail(self, error: CcrouteError) -> None:
        self._failure = error
        self.done = True


class EventDecoder(BaseDecoder[SSEParser]):
    """A decoder of server-sent events. A wire adds `_take_event`, and the key of its texts."""

    def __init__(
        self, key: bytes, reasons: Mapping[str, FinishReason], read_usage: ReadUsage, provider: str = ""
    ) -> None:
        super().__init__(SSEParser(), reasons, read_usage, provider)
        self._template = Template(key)

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes. Raises the typed error of an error frame. If `data` holds
        content before that frame, `finish` raises it instead."""
        parser = self._parser
        # The common case, one event in one read: 1.1 µs, 1.9 through the parser, which must look for its end.
        if (
            data.endswith(END)
            and len(data) <= MAX_EVENT
            and not (parser.pending or parser.after_cr or self.done)
        ):
            text = self._template.text(data[: -len(END)])
            if text is not None:
                chunks: list[Chunk] = []
                self._add(chunks, text)
                return chunks
        return super().feed(data)

    def _take(self, block: bytes, chunks: list[Chunk]) -> None:
        text = self._template.text(block)
        if text is not None:
            self._add(chunks, text)
        elif event := read_event(block):
            text = self._take_event(*event, chunks)
            if text is not None:
                self._template.learn(block, text)

    def _take_rest(self) -> None:
        for kind, data in self._parser.end():
            self._take_event(kind, data, [])

    @abstractmethod
    def _take_event(self, kind: str, data: bytes, chunks: list[Chunk]) -> str | None:
        """Store the content of one event, and append its chunks to `chunks`.

        Returns the text of an event that says nothing else: events that differ only in their text are then
        read without this method.
        """


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
