"""A whole chat completion, and the readings of usage and finish reasons it shares with the stream.

Knows the answer's shape as OpenAI and its imitators send it; must not know the request.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ccroute.types import JSON, Choice, Completion, FinishReason, Message, Usage
from ccroute.wire.decoding import fail, finish_reason
from ccroute.wire.errors import is_error
from ccroute.wire.openai.provider_fields import of_message
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
    "max_tokens": "length",  # Gemini, Claude behind gateways
    "model_context_window_exceeded": "length",
    "end_turn": "stop",
    "tool_use": "tool_calls",
    **dict.fromkeys(
        (
            "content_filter",
            "refusal",
            # Gemini's own words, which its OpenAI-compatible address passes on
            "safety",
            "image_safety",
            "recitation",
            "blocklist",
            "prohibited_content",
            "spii",
        ),
        "content_filter",
    ),
}
"""What servers say, in canonical form; what is not here (vLLM's `abort`, `repetition`) is `other`."""
_OVERFLOW: Final = "model_context_window_exceeded"
"""Z.ai's finish reason where the prompt left no room for an answer; beside one it is a length."""


_FAILED: Final = frozenset({"error", "network_error"})
"""Finish reasons, a server's own or one that OpenRouter passes on, by which an answer is cut or missing."""


def decode(body: bytes, *, prompt_estimate: int = 0, provider: str = "") -> Completion:
    """The answer of a 200. Raises the error it reports, or `ProtocolError`.

    `prompt_estimate` is in tokens, for servers that do not tell. `provider` is the host that answers: what
    only it knows is kept under this name, to be sent back to it.
    """
    frame = load_object(body)
    if is_error(frame):
        fail(frame, body)
    if is_broken_off(frame):
        wrong("the server broke the answer off: it says neither why it ended nor what it used", body)
    entries = frame.get("choices")
    if not isinstance(entries, list) or not entries:
        wrong("the answer holds no choices", body)
    choices = tuple(_choice(entry, index, body, provider) for index, entry in enumerate(entries))
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


def _choice(entry: JSON, index: int, body: bytes, provider: str) -> Choice:
    told = entry.get("message") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(told, dict):
        if isinstance(entry, dict):
            check_choice(entry, body)
        wrong("a choice of the answer holds no message")
    content, refusal = plain(told.get("content")), text(told.get("refusal"))
    calls = whole_calls(call_entries(told), provider=provider)
    check_choice(entry, body, spoke=bool(content or calls))
    fields = of_message(told, has_calls=bool(calls)) if provider else None
    further: dict[str, JSON] = {"provider_fields": {provider: fields}} if fields else {}
    reason = read_finish(text(entry.get("finish_reason")), calls)
    return Choice(
        index=index,
        message=Message(
            content=content or refusal or content,
            tool_calls=calls or None,
            thinking=thinking(told) or None,
            **further,
        ),
        finish_reason="content_filter" if refusal else reason,
        logprobs=entry.get("logprobs"),
    )


def read_finish(raw: str | None, calls: Sequence[object]) -> FinishReason:
    """The finish reason in canonical form. None in a complete answer is `stop`, and so is `tool_calls` where
    there is none (vLLM)."""
    reason = finish_reason((raw or "stop").lower(), FINISH, calls)
    return "stop" if reason == "tool_calls" and not calls else reason


def check_choice(choice: Mapping[str, JSON], body: bytes, *, spoke: bool = False) -> None:
    """Raise the typed error of a choice that failed, which OpenRouter reports inside it under HTTP 200.
    `spoke` is whether it holds text or calls."""
    if error := choice.get("error"):
        fail({"error": error}, body)
    reason, native = text(choice.get("finish_reason")), text(choice.get("native_finish_reason"))
    if reason in _FAILED or native in _FAILED:
        fail({"error": f"the answer ended with finish_reason {native or reason!r}"}, body)
    if not spoke and reason == _OVERFLOW:
        fail({"error": {"code": "context_length_exceeded", "message": f"finish_reason {_OVERFLOW!r}"}}, body)


def read_usage(told: JSON, prompt_estimate: int, output_estimate: int, *, partial: bool = False) -> Usage:
    """Usage in disjoint buckets: OpenAI's prompt includes the cached part, its completion the thoughts."""
    told = mapping(told)
    details = mapping(told.get("prompt_tokens_details"))
    prompt = count(told.get("prompt_tokens"))
    # Cached more than there was is nonsense: clamped, so that no bucket is negative.
    read = min(_cached(told, details), prompt or 0)
    written = min(count(details.get("cache_write_tokens")) or 0, (prompt or 0) - read)
    output = count(told.get("completion_tokens"))
    reasoning = count(mapping(told.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    total = count(told.get("total_tokens"))
    if prompt is not None and output is not None and total is not None:
        # xAI and Gemini count thoughts beside the completion, Gemini without naming them: the total tells.
        beside = total - prompt - output
        if beside > 0 and beside == (reasoning or beside) and beside != read + written:
            output, reasoning = output + beside, beside
    return usage(
        input=None if prompt is None else prompt - read - written,
        cache_read=read,
        cache_write_5m=written,
        output=None if partial else output,
        reasoning=reasoning,
        prompt_estimate=prompt_estimate,
        output_estimate=output_estimate,
    )


def _cached(told: Mapping[str, JSON], details: Mapping[str, JSON]) -> int:
    """Tokens read from a cache: OpenAI's place, Moonshot's, DeepSeek's."""
    cached = count(details.get("cached_tokens")) or count(told.get("cached_tokens"))
    return cached or count(told.get("prompt_cache_hit_tokens")) or 0


def plain(content: JSON) -> str | None:
    """A message's content as text: it is a str, null, or (Mistral) a list of parts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        wrong("a message's content is neither a text nor a list of parts")
    return "".join(text(mapping(part).get("text")) for part in content)


def thinking(message: Mapping[str, JSON]) -> str:
    """What the model thought: `reasoning_content` (DeepSeek, llama.cpp), `reasoning` (vLLM, OpenRouter),
    `reasoning_text` (Copilot), or (Mistral) parts of the content."""
    thought = message.get("reasoning_content") or message.get("reasoning") or message.get("reasoning_text")
    content = message.get("content")
    if not thought and isinstance(content, list):
        thoughts = (mapping(part).get("thinking") for part in content)
        return "".join(plain(part) or "" for part in thoughts if isinstance(part, str | list))
    return text(thought)


def call_entries(message: Mapping[str, JSON]) -> JSON:
    """The tool calls of a message or delta, also in the form they had before `tool_calls`."""
    legacy = message.get("function_call")
    return message.get("tool_calls") or ([{"function": legacy}] if legacy else [])
