"""A streamed answer of Ollama's: one JSON object a line.

Knows the lines; must not know the request. Success is `done: true`; a stream may just end without it.
"""

from collections.abc import Mapping
from typing import Final

from ccroute.types import JSON, Chunk, FinishReason, Usage
from ccroute.wire.decoding import BaseDecoder, fail, finish_reason
from ccroute.wire.errors import is_error
from ccroute.wire.events import NDJSONParser
from ccroute.wire.ollama.decode import DONE, read_time, read_usage
from ccroute.wire.reading import listed, load_object, said, text, wrong
from ccroute.wire.tools import Call, whole_calls

_CLOSING: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class Decoder(BaseDecoder[bytes]):
    """Turns the bytes of one stream into chunks. `prompt_estimate` is in tokens.

    The whole answer's `raw` holds what the last line told of time, in ns: `load_duration` is the cost of
    a model swap.
    """

    end_signal = "done: true"

    def __init__(self, prompt_estimate: int = 0) -> None:
        super().__init__(NDJSONParser(), prompt_estimate)
        self._last: dict[str, JSON] = {}

    def _take(self, event: bytes, chunks: list[Chunk]) -> None:
        frame = load_object(event)
        if is_error(frame):
            fail(frame, event)
        if not self._model:
            self._model = text(frame.get("model"))
            self._created = read_time(frame.get("created_at"))
        if message := frame.get("message"):
            if not isinstance(message, dict):
                wrong("a message is not an object", event)
            self._take_message(message, chunks)
        if logprobs := frame.get("logprobs"):
            self._logprobs += listed(logprobs)
        if frame.get("done") is True:
            self._last = frame
            self._finish = text(frame.get("done_reason")) or None
            self._raw = {name: frame[name] for name in _CLOSING if name in frame} or None
            self._ended = self._done = True

    def _take_message(self, message: Mapping[str, JSON], chunks: list[Chunk]) -> None:
        plain = message.get("content")
        if isinstance(plain, str) and len(message) == 2 and "role" in message:  # nearly every line
            self._say(plain, chunks)
            return
        answer, thought = said(message.get("content")), text(message.get("thinking"))
        calls = whole_calls(message.get("tool_calls") or [], first=len(self._calls))
        if calls or thought:
            if answer:
                self._text.append(answer)
            if thought:
                self._thinking.append(thought)
            for call in calls:
                self._calls.append(Call(call.index, call.id, call.function.name))
                self._calls[-1].grown(call.function.arguments)
            chunks.append(Chunk(text=answer, thinking=thought, tool_calls=calls))
        else:
            self._say(answer, chunks)

    def _finish_reason(self) -> FinishReason:
        return finish_reason(self._finish or "stop", DONE, self._calls)

    def _usage(self, *, partial: bool = False) -> Usage:
        return read_usage(self._last, self._prompt_estimate, self._estimate(), partial=partial)
