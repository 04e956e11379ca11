"""Decodes a streamed answer of Ollama: one JSON object in each line.

Knows the lines; must not know the request. An answer is complete only with `done: true`.
"""

from collections.abc import Callable
from typing import Final

from ccroute.types import JSON, Chunk
from ccroute.wire.decoding import BaseDecoder, check_error
from ccroute.wire.events import NDJSONParser
from ccroute.wire.ollama.decode import DONE, LOADED, is_done, nothing_asked, read_time, read_usage
from ccroute.wire.ollama.tags import ThoughtSplitter
from ccroute.wire.reading import answer_text, listed, load_object, text, wrong
from ccroute.wire.template import Template
from ccroute.wire.tools import read_calls

_CLOSING: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class Decoder(BaseDecoder):
    """Turns the bytes of one stream into chunks.

    The whole answer's `raw` holds the times of the last line, in ns. `loaded` is called with the model's
    name and its `load_duration`. `forwarded` is called with its name if another host runs it.
    """

    end_signal = "done: true"

    def __init__(
        self,
        *,
        loaded: Callable[[str, object], None] = lambda model, load: None,
        forwarded: Callable[[str], None] = lambda model: None,
    ) -> None:
        template = Template(b"content", varying=[b"created_at"])
        super().__init__(NDJSONParser(), template, DONE, read_usage)
        self._loaded, self._forwarded = loaded, forwarded
        self._splitter: ThoughtSplitter | None = ThoughtSplitter()  # until the answer itself begins

    def _take(self, block: bytes, chunks: list[Chunk]) -> str | None:
        if not block.strip():
            return None
        frame = load_object(block)
        message = frame.get("message")
        if "error" in frame or not message:
            check_error(frame, block)
        if not self._model:
            self._model = text(frame.get("model"))
            self._created = read_time(frame.get("created_at"))
            if frame.get("remote_host"):
                self._forwarded(self._model)
        only_text = self._take_message(message, block, chunks) if message else None
        if logprobs := frame.get("logprobs"):
            self._logprobs += listed(logprobs)
        if frame.get("done") is not False and is_done(frame):
            self._take_end(frame, chunks)
        return None if logprobs or self.done else only_text

    def _take_end(self, frame: dict[str, JSON], chunks: list[Chunk]) -> None:
        self._raw_usage, self._usage_is_final = frame, True
        self._finish = text(frame.get("done_reason")) or None
        if self._splitter is not None:
            thought, answer = self._splitter.end()
            self._add(chunks, answer, thought)
        if self._finish in LOADED and not (self._text or self._thinking or self._calls):
            nothing_asked()
        self._raw = {name: frame[name] for name in _CLOSING if name in frame} or None
        self.done = True
        self._loaded(self._model, frame.get("load_duration"))

    def _take_message(self, message: JSON, block: bytes, chunks: list[Chunk]) -> str | None:
        """Return the text of a message that holds nothing else."""
        if not isinstance(message, dict):
            wrong("a message is not an object", block)
        plain = message.get("content")
        if self._splitter is None and isinstance(plain, str) and len(message) == 2 and "role" in message:
            self._add(chunks, plain)
            return plain
        answer, thought = answer_text(plain), text(message.get("thinking"))
        if answer and self._splitter is not None:
            found, answer = self._splitter.feed(answer)
            thought += found
            if self._splitter.done:
                self._splitter = None
        entries = message.get("tool_calls")
        calls = read_calls(entries, first=len(self._calls)) if entries else []
        self._calls += calls
        self._add(chunks, answer, thought, tuple(call.whole() for call in calls))
        return None
