"""A streamed chat completion.

Knows the frames of `data:` lines; must not know the request. Success is a finish reason without an error
frame: `[DONE]` alone proves nothing, because several servers send it after an error too.
"""

from collections.abc import Mapping

from ccroute.types import JSON, Chunk, FinishReason, Usage
from ccroute.wire.decoding import BaseDecoder, fail, is_frame
from ccroute.wire.errors import is_error
from ccroute.wire.events import Event, SSEParser
from ccroute.wire.openai.decode import FINISH, call_entries, decode, plain, read_usage, thinking
from ccroute.wire.reading import listed, load_object, mapping, text, unix_time, wrong
from ccroute.wire.template import Template
from ccroute.wire.tools import CallDeltas


class Decoder(BaseDecoder[Event]):
    """Turns the bytes of one stream into chunks. `prompt_estimate` is in tokens."""

    finish_words = FINISH

    def __init__(self, prompt_estimate: int = 0) -> None:
        super().__init__(SSEParser(), prompt_estimate)
        self._deltas = CallDeltas()
        self._calls = self._deltas.calls
        self._template = Template(b"content")
        self._told_usage: JSON = None
        self._refused = False

    def _take(self, event: Event, chunks: list[Chunk]) -> None:
        kind, data = event
        if not self._ended and (piece := self._template.text(data)) is not None:
            self._say(piece, chunks)
            return
        if data.startswith(b"[DONE]"):
            self._done = True
            return
        if kind != "message" and not is_frame(kind, data, decode):
            return
        frame = load_object(data or b"{}")  # an event without data says nothing
        if is_error(frame):
            fail(frame, data)
        if not self._id:
            self._take_head(frame)
        if told := frame.get("usage"):
            self._told_usage = told  # the last one wins: vLLM can put it on every frame
        if not self._ended and (choices := frame.get("choices")):
            self._take_choice(choices, data, chunks)

    def _take_head(self, frame: Mapping[str, JSON]) -> None:
        self._id = text(frame.get("id"))
        self._model = self._model or text(frame.get("model"))
        self._created = self._created or unix_time(frame.get("created"))

    def _take_choice(self, choices: JSON, data: bytes, chunks: list[Chunk]) -> None:
        choice = choices[0] if isinstance(choices, list) else None
        delta = (choice.get("delta") or {}) if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict):
            wrong("a choice or its delta is not an object", data)
        if choice.get("index"):
            return  # one answer was asked for; further ones are only in a whole answer
        said, reason, logprobs = delta.get("content"), choice.get("finish_reason"), choice.get("logprobs")
        if isinstance(said, str) and len(delta) == 1:
            self._say(said, chunks)
            if not (reason or logprobs):
                self._template.learn(data, said)
        else:
            self._take_delta(delta, chunks)
        if logprobs:
            self._logprobs += listed(mapping(logprobs).get("content"))
        if reason:
            self._finish = text(reason)
            self._ended = True

    def _take_delta(self, delta: Mapping[str, JSON], chunks: list[Chunk]) -> None:
        thought, refusal = thinking(delta), text(delta.get("refusal"))
        said = plain(delta.get("content")) or refusal
        entries = call_entries(delta)
        calls = self._deltas.add(entries) if entries else ()
        self._refused = self._refused or bool(refusal)
        if said:
            self._text.append(said)
        if thought:
            self._thinking.append(thought)
        if said or thought or calls:
            chunks.append(Chunk(text=said, thinking=thought, tool_calls=calls))

    def _finish_reason(self) -> FinishReason:
        return "content_filter" if self._refused else super()._finish_reason()

    def _usage(self, *, partial: bool = False) -> Usage:
        return read_usage(self._told_usage, self._prompt_estimate, self._estimate(), partial=partial)
