"""Reads a whole chat completion. `stream.py` uses the readers of usage and finish reasons.

Knows the answer's shape as OpenAI and its imitators send it; must not know the request.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ccroute.types import JSON, Choice, Completion, FinishReason, ToolCall, Usage
from ccroute.types.results import new_choice, new_completion, new_message
from ccroute.types.route import with_billing
from ccroute.wire.decoding import check_error, fail
from ccroute.wire.openai.provider_fields import USUAL, of_message
from ccroute.wire.reading import finish_reason, load_object, mapping, text, unix_time, wrong
from ccroute.wire.tools import whole_calls
from ccroute.wire.usage import STANDARD_TERMS, check_used, counts, estimate_choices, read_billing, usage

FINISH: Final[Mapping[str, FinishReason]] = {
    # "": some servers send none. eos_token, stop_sequence: TGI. end_turn: Claude behind gateways.
    **dict.fromkeys(("", "stop", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_calls"),
    **dict.fromkeys(("content_filter", "refusal"), "content_filter"),
    # Gemini's own words, which its OpenAI-compatible address passes on
    **dict.fromkeys(("safety", "image_safety", "recitation", "blocklist"), "content_filter"),
    **dict.fromkeys(("prohibited_content", "spii"), "content_filter"),
}
"""Servers' finish reasons in canonical form. Others (vLLM's `abort`, `repetition`) become `other`."""
USUAL_TIERS: Final = (None, *STANDARD_TERMS["service_tier"])
"""The `service_tier` of answers at the usual price."""
_OVERFLOW: Final = "model_context_window_exceeded"
"""Z.ai's finish reason if the prompt left no room for an answer. With an answer it means `length`."""
_BILLING: Final = frozenset({"cost", "cost_in_usd_ticks", "server_tool_use", "service_tier"})
"""Fields of a usage that are about the bill, not about tokens."""
_TEXT: Final = frozenset({"role", "content"})
_FAILED: Final = ("error", "network_error")
"""Finish reasons of an answer that failed, from the server or passed on by OpenRouter."""


def decode(body: bytes, *, provider: str = "") -> Completion:
    """Return the answer of a response with status 200. Raises the error that it reports, or `ProtocolError`.

    `provider` is the host that answers. Its own fields are kept under this name, to be sent back to it.
    """
    frame = load_object(body)
    entries = frame.get("choices")
    if "error" in frame or not entries:
        check_error(frame, body)
    if not isinstance(entries, list) or not entries:
        wrong("the answer holds no choices", body)
    choices = [_choice(entry, index, body, provider) for index, entry in enumerate(entries)]
    used, reason = frame.get("usage"), text(entries[0].get("finish_reason"))
    if not reason:
        check_used(used, body)
    if (tier := frame.get("service_tier")) not in USUAL_TIERS:
        used = {**mapping(used), "service_tier": tier}
    return new_completion(
        id=text(frame.get("id")),
        created=unix_time(frame.get("created")),
        model=text(frame.get("model")),
        choices=tuple(choices),
        usage=read_usage(used, lambda: estimate_choices(choices)),
        raw_finish_reason=reason or None,
        raw=frame,
    )


def _choice(entry: JSON, index: int, body: bytes, provider: str) -> Choice:
    message = entry.get("message") if isinstance(entry, dict) else None
    if not isinstance(message, dict):
        if isinstance(entry, dict):
            read_reason(entry, body)
        wrong("a choice of the answer holds no message")
    content, refusal, thoughts = message.get("content"), "", ""
    calls: tuple[ToolCall, ...] = ()
    fields: Mapping[str, JSON] = {}
    if not isinstance(content, str) or not message.keys() <= _TEXT:  # many answers are only a text
        content, refusal, thoughts = plain(content), text(message.get("refusal")), thinking(message)
        if entries := call_entries(message):
            calls = whole_calls(entries, provider=provider)
        if provider and (calls or not message.keys() <= USUAL):
            fields = of_message(message, has_calls=bool(calls))
    reason = read_reason(entry, body, spoke=bool(content or calls))
    return new_choice(
        index=index,
        message=new_message(
            content=content or refusal or content,
            tool_calls=calls or None,
            thinking=thoughts or None,
            provider_fields={provider: fields} if fields else {},
        ),
        finish_reason="content_filter" if refusal else finish_reason(reason, FINISH, calls),
        logprobs=entry.get("logprobs"),
    )


def read_reason(choice: Mapping[str, JSON], body: bytes, *, spoke: bool = False) -> str:
    """Return the server's finish reason of a choice. Raises the typed error of a choice that failed, which
    OpenRouter reports within it under HTTP 200. `spoke`: the choice holds text or calls."""
    if error := choice.get("error"):
        fail({"error": error}, body)
    reason, native = text(choice.get("finish_reason")), choice.get("native_finish_reason")
    if reason in _FAILED or native in _FAILED:
        fail({"error": f"the answer ended with finish_reason {text(native) or reason!r}"}, body)
    if reason == _OVERFLOW and not spoke:
        fail({"error": {"code": "context_length_exceeded", "message": f"finish_reason {reason!r}"}}, body)
    return reason


def read_usage(raw: JSON, output_estimate: Callable[[], int]) -> Usage:
    """Return usage in disjoint buckets. OpenAI's prompt includes cached tokens, its completion thinking."""
    raw = mapping(raw)
    known, details = counts(raw), counts(raw.get("prompt_tokens_details"))
    prompt, output = known.get("prompt_tokens"), known.get("completion_tokens")
    answered = counts(raw.get("completion_tokens_details"))
    reasoning = answered.get("reasoning_tokens", 0)
    # The fields of OpenAI, Moonshot and DeepSeek.
    cached = (
        details.get("cached_tokens") or known.get("cached_tokens") or known.get("prompt_cache_hit_tokens", 0)
    )
    # A server may report more cached tokens than the prompt has. No bucket may become negative.
    read = min(cached, prompt or 0)
    written = min(details.get("cache_write_tokens", 0), (prompt or 0) - read)
    if prompt is not None and output is not None:
        # xAI and Gemini count thinking beside the completion, Gemini without a name. The total shows it.
        beside = known.get("total_tokens", 0) - prompt - output
        if beside > 0 and beside == (reasoning or beside) and beside != read + written:
            output, reasoning = output + beside, beside
    used = usage(
        input=None if prompt is None else prompt - read - written,
        cache_read=read,
        cache_write_5m=written,
        output=output,
        reasoning=reasoning,
        output_estimate=output_estimate,
    )
    has_audio = bool(details.get("audio_tokens") or answered.get("audio_tokens"))
    if has_audio or not raw.keys().isdisjoint(_BILLING):
        return with_billing(used, read_billing(raw, audio=has_audio))
    return used


def plain(content: JSON) -> str | None:
    """Return a message's content as text. It may be a str, null or (Mistral) a list of parts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        wrong("a message's content is neither a text nor a list of parts")
    return "".join(text(mapping(part).get("text")) for part in content)


def thinking(message: Mapping[str, JSON]) -> str:
    """Return the model's thinking: `reasoning_content` (DeepSeek, llama.cpp), `reasoning` (vLLM, OpenRouter),
    `reasoning_text` (Copilot), or (Mistral) parts of the content."""
    thought = message.get("reasoning_content") or message.get("reasoning") or message.get("reasoning_text")
    if thought:
        return text(thought)
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    thoughts = (mapping(part).get("thinking") for part in content)
    return "".join(plain(part) or "" for part in thoughts if isinstance(part, str | list))


def call_entries(message: Mapping[str, JSON]) -> JSON:
    """Return the tool calls of a message or delta, also from the older field `function_call`."""
    legacy = message.get("function_call")
    return message.get("tool_calls") or ([{"function": legacy}] if legacy else [])
