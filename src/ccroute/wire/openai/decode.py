"""A whole chat completion, and the readings of usage and finish reasons it shares with the stream.

Knows the answer's shape as OpenAI and its imitators send it; must not know the request.
"""

from collections.abc import Mapping
from typing import Final

from ccroute.types import JSON, Choice, Completion, FinishReason, Message, Usage
from ccroute.wire.decoding import fail, finish_reason
from ccroute.wire.errors import is_error
from ccroute.wire.reading import load_object, mapping, text, unix_time, wrong
from ccroute.wire.tools import whole_calls
from ccroute.wire.usage import count, estimate_message, is_broken_off, usage

FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos_token": "stop",  # TGI
    "stop_sequence": "stop",  # TGI
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""What servers say, in canonical form; what is not here (vLLM's `abort`, `repetition`) is `other`."""


def decode(body: bytes, *, prompt_estimate: int = 0) -> Completion:
    """The answer of a 200. Raises the error it reports, or `ProtocolError`.

    `prompt_estimate` is in tokens, for servers that do not tell.
    """
    frame = load_object(body)
    if is_error(frame):
        fail(frame, body)
    if is_broken_off(frame):
        wrong("the server broke the answer off: it says neither why it ended nor what it used", body)
    entries = frame.get("choices")
    if not isinstance(entries, list) or not entries:
        wrong("the answer holds no choices", body)
    choices = tuple(_choice(entry, index) for index, entry in enumerate(entries))
    return Completion(
        id=text(frame.get("id")),
        created=unix_time(frame.get("created")),
        model=text(frame.get("model")),
        choices=choices,
        usage=read_usage(
            frame.get("usage"), prompt_estimate, sum(estimate_message(choice.message) for choice in choices)
        ),
        raw_finish_reason=text(entries[0].get("finish_reason")) or None,
        raw=frame,
    )


def _choice(entry: JSON, index: int) -> Choice:
    told = entry.get("message") if isinstance(entry, dict) else None
    if not isinstance(told, dict):
        wrong("a choice of the answer holds no message")
    content, refusal = plain(told.get("content")), text(told.get("refusal"))
    calls = whole_calls(call_entries(told))
    reason = finish_reason(text(entry.get("finish_reason")), FINISH, calls)
    return Choice(
        index=index,
        message=Message(
            content=content or refusal or content, tool_calls=calls or None, thinking=thinking(told) or None
        ),
        finish_reason="content_filter" if refusal else reason,
        logprobs=entry.get("logprobs"),
    )


def read_usage(told: JSON, prompt_estimate: int, output_estimate: int, *, partial: bool = False) -> Usage:
    """Usage in disjoint buckets: OpenAI's prompt includes the cached part, its completion the thoughts."""
    told = mapping(told)
    details = mapping(told.get("prompt_tokens_details"))
    prompt = count(told.get("prompt_tokens"))
    # Cached more than there was is nonsense: clamped, so that no bucket is negative.
    read = min(count(details.get("cached_tokens")) or 0, prompt or 0)
    written = min(count(details.get("cache_write_tokens")) or 0, (prompt or 0) - read)
    return usage(
        input=None if prompt is None else prompt - read - written,
        cache_read=read,
        cache_write_5m=written,
        output=None if partial else count(told.get("completion_tokens")),
        reasoning=count(mapping(told.get("completion_tokens_details")).get("reasoning_tokens")) or 0,
        prompt_estimate=prompt_estimate,
        output_estimate=output_estimate,
    )


def plain(content: JSON) -> str | None:
    """A message's content as text: it is a str, null, or (Mistral) a list of parts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        wrong("a message's content is neither a text nor a list of parts")
    return "".join(text(mapping(part).get("text")) for part in content)


def thinking(message: Mapping[str, JSON]) -> str:
    """What the model thought: `reasoning_content` (DeepSeek, llama.cpp) or `reasoning` (vLLM, OpenRouter)."""
    return text(message.get("reasoning_content")) or text(message.get("reasoning"))


def call_entries(message: Mapping[str, JSON]) -> JSON:
    """The tool calls of a message or delta, also in the form they had before `tool_calls`."""
    legacy = message.get("function_call")
    return message.get("tool_calls") or ([{"function": legacy}] if legacy else [])
