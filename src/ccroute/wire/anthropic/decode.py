"""A whole answer of Anthropic's, and the readings of blocks and usage it shares with the stream.

Knows content blocks; must not know the request: the forced tool of a schema is known by its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ccroute.types import JSON, Choice, Completion, FinishReason, Function, Message, ToolCall, Usage
from ccroute.wire.anthropic.encode import SCHEMA_TOOL
from ccroute.wire.decoding import fail, finish_reason
from ccroute.wire.errors import is_error
from ccroute.wire.reading import load_object, mapping, said, text, wrong
from ccroute.wire.tools import as_text
from ccroute.wire.usage import count, estimate_message, is_broken_off, usage

STOP: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Anthropic's words in canonical form; what is not here (`pause_turn`) is `other`."""


def decode(body: bytes, *, prompt_estimate: int = 0) -> Completion:
    """The answer of a 200. Raises the error it reports, or `ProtocolError`.

    `prompt_estimate` is in tokens, for servers that do not tell.
    """
    frame = load_object(body)
    if is_error(frame):
        fail(frame, body)
    if is_broken_off(frame):
        wrong("the server broke the answer off: it says neither why it ended nor what it used", body)
    blocks = frame.get("content")
    if blocks is None and frame.get("stop_reason"):  # Ollama, of an answer without content
        blocks = []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        wrong("the answer holds no list of content blocks", body)
    message = read_message(blocks)
    raw = text(frame.get("stop_reason")) or None
    answered = any(block.get("name") == SCHEMA_TOOL for block in blocks)
    return Completion(
        id=text(frame.get("id")),
        model=text(frame.get("model")),
        choices=(Choice(message=message, finish_reason=read_stop(raw, message.tool_calls, answered)),),
        usage=read_usage(mapping(frame.get("usage")), prompt_estimate, estimate_message(message)),
        raw_finish_reason=raw,
        raw=frame,
    )


def read_message(blocks: Iterable[Mapping[str, JSON]]) -> Message:
    """The message of some blocks; thinking is kept as it came too, because it is replayed so."""
    answer: list[str] = []
    thought: list[str] = []
    kept: list[Mapping[str, JSON]] = []
    calls: list[ToolCall] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            answer.append(said(block.get("text")))
        elif kind in ("thinking", "redacted_thinking"):
            thought.append(text(block.get("thinking")))
            kept.append(block)
        elif kind == "tool_use":
            arguments = as_text(block.get("input")) or "{}"
            if block.get("name") == SCHEMA_TOOL:
                answer.append(arguments)
            else:
                calls.append(_call(block, arguments, len(calls)))
    return Message(
        content="".join(answer) if answer or not calls else None,
        tool_calls=tuple(calls) or None,
        thinking="".join(thought) or None,
        thinking_blocks=tuple(kept),
    )


def read_stop(raw: str | None, calls: Sequence[object] | None, answered: bool) -> FinishReason:
    """Why it ended. `answered`: it called the schema's tool, which alone is no tool call but the answer."""
    if raw == "tool_use" and answered and not calls:
        return "stop"
    return finish_reason(raw, STOP, calls or ())


def read_usage(
    told: Mapping[str, JSON], prompt_estimate: int, output_estimate: int, *, partial: bool = False
) -> Usage:
    """Usage in disjoint buckets; Anthropic's `input_tokens` excludes the cached parts already."""
    lifetimes = mapping(told.get("cache_creation"))
    hour = count(lifetimes.get("ephemeral_1h_input_tokens")) or 0
    written = count(told.get("cache_creation_input_tokens"))
    if written is None:
        written = hour + (count(lifetimes.get("ephemeral_5m_input_tokens")) or 0)
    hour = min(hour, written)
    return usage(
        input=count(told.get("input_tokens")),
        cache_read=count(told.get("cache_read_input_tokens")) or 0,
        cache_write_5m=written - hour,
        cache_write_1h=hour,
        output=None if partial else count(told.get("output_tokens")),
        reasoning=count(mapping(told.get("output_tokens_details")).get("thinking_tokens")) or 0,
        prompt_estimate=prompt_estimate,
        output_estimate=output_estimate,
    )


def _call(block: Mapping[str, JSON], arguments: str, index: int) -> ToolCall:
    function = Function(name=text(block.get("name")), arguments=arguments)
    return ToolCall(id=text(block.get("id")) or f"call_{index}", function=function, index=index)
