"""Decodes a streamed chat completion.

Knows the frames of `data:` lines; must not know the request. An answer is complete with a finish reason and
without an error frame. `[DONE]` alone proves nothing, because several servers also send it after an error.
More content may follow a finish reason that comes before or with content: some servers end the thinking with
one, others send one in every frame.
"""

from collections.abc import Mapping

from ccroute.types import JSON, Chunk, FinishReason
from ccroute.wire.decoding import BaseDecoder, check_error, is_frame
from ccroute.wire.events import SSEParser, read_event
from ccroute.wire.openai.decode import (
    FINISH,
    USUAL_TIERS,
    call_entries,
    decode,
    plain,
    read_reason,
    read_usage,
    thinking,
)
from ccroute.wire.openai.provider_fields import THOUGHTS, USUAL, add_delta, of_message
from ccroute.wire.reading import listed, load_object, mapping, text, unix_time, wrong
from ccroute.wire.template import Template
from ccroute.wire.tools import CallDeltas


class Decoder(BaseDecoder):
    """Turns the bytes of one stream into chunks.

    `provider` is the host that answers. Its own fields are kept under this name. `finish_required`: `[DONE]`
    after content needs a finish reason before it.
    """

    def __init__(self, *, provider: str = "", finish_required: bool = True) -> None:
        template = Template(b"content", varying=[b"obfuscation", b"p"])
        super().__init__(SSEParser(), template, FINISH, read_usage, provider)
        self._finish_required = finish_required
        self._fields: dict[str, JSON] = {}
        self._thoughts_name = ""
        self._went_on = False  # there was content after an early finish reason
        self._said_done = False
        self._deltas = CallDeltas()
        self._calls = self._deltas.calls
        self._refused = False
        self._tier: JSON = None

    def _take(self, block: bytes, chunks: list[Chunk]) -> str | None:
        event = read_event(block)
        if event is None:
            return None
        kind, data = event
        if data.startswith(b"[DONE]"):
            self.done = self._said_done = True
            return None
        if kind != "message" and not is_frame(kind, data, decode):
            return None
        frame = load_object(data or b"{}")  # an event without data says nothing
        choices = frame.get("choices")
        if "error" in frame or not choices:
            check_error(frame, data)
        if not self._id:
            self._id = text(frame.get("id"))
            self._model = self._model or text(frame.get("model"))
            self._created = self._created or unix_time(frame.get("created"))
        if (tier := frame.get("service_tier")) is not None:
            self._tier = tier
        if used := frame.get("usage"):
            self._raw_usage = used  # the last one counts: vLLM can put usage on every frame
            if self._tier not in USUAL_TIERS:
                self._raw_usage = {**mapping(used), "service_tier": self._tier}
        only_text = self._take_choice(choices, data, chunks) if choices and not self._ended else None
        if used:
            self._usage_is_final = self._finish is not None and (self._ended or not choices)
        return only_text

    def _take_choice(self, choices: JSON, data: bytes, chunks: list[Chunk]) -> str | None:
        choice = choices[0] if isinstance(choices, list) else None
        delta = (choice.get("delta") or choice.get("message") or {}) if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict):
            wrong("a choice or its delta is not an object", data)
        if choice.get("index"):
            return None  # ccroute asks for one answer
        before = len(chunks)
        said, reason, logprobs = delta.get("content"), choice.get("finish_reason"), choice.get("logprobs")
        only_text = said if isinstance(said, str) and len(delta) == 1 else None
        if only_text is not None:
            self._add(chunks, only_text)
        else:
            self._take_delta(delta, chunks)
        if logprobs:
            self._logprobs += listed(mapping(logprobs).get("content"))
        if len(chunks) > before:
            self._went_on = self._finish is not None
        if reason or "error" in choice:
            self._take_end(choice, data, speaks=len(chunks) > before)
        return None if reason or logprobs else only_text

    def _take_end(self, choice: Mapping[str, JSON], data: bytes, *, speaks: bool) -> None:
        spoke = bool(self._text or self._calls)
        reason = read_reason(choice, data, spoke=spoke)
        self._went_on = False
        self._finish = reason or self._finish
        self._ended = self._finish is not None and spoke and not speaks
        if not self._raw_usage and (used := choice.get("usage")):  # Moonshot has it here
            self._raw_usage, self._usage_is_final = used, self._ended
        self._template.forget()  # the next text must be seen to come after this end

    def _take_delta(self, delta: Mapping[str, JSON], chunks: list[Chunk]) -> None:
        thought, refusal = thinking(delta), text(delta.get("refusal"))
        said = plain(delta.get("content")) or refusal
        entries = call_entries(delta)
        calls = self._deltas.add(entries) if entries else ()
        self._refused = self._refused or bool(refusal)
        if self._provider and not delta.keys() <= USUAL:
            add_delta(self._fields, delta)
        if thought and not self._thoughts_name:
            self._thoughts_name = next((name for name in THOUGHTS if delta.get(name)), "")
        self._add(chunks, said, thought, calls)

    def _succeeded(self) -> bool:
        if self._finish is not None:
            return not self._went_on or self._said_done
        said_something = bool(self._text or self._thinking or self._calls)
        return self._said_done and said_something and not self._finish_required

    def _finish_reason(self) -> FinishReason:
        return "content_filter" if self._refused else super()._finish_reason()

    def _further(self) -> dict[str, JSON]:
        fields = of_message(self._fields, has_calls=False)
        if self._calls and self._thoughts_name and self._provider:
            fields[self._thoughts_name] = "".join(self._thinking)
        return {"provider_fields": {self._provider: fields}} if fields else {}
