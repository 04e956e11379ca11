"""Bodies as Anthropic's Messages API sends them, for scripted servers. Values only: nothing here serves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MODEL = "claude-sonnet-4-20250514"
USAGE = {"input_tokens": 11, "output_tokens": 7}


def usage(input: int, output: int, *, read: int = 0, write_5m: int = 0, write_1h: int = 0) -> dict[str, Any]:
    """Usage in Anthropic's sense: `input` excludes what the cache read and wrote."""
    return {
        "input_tokens": input,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
        "output_tokens": output,
        "service_tier": "standard",
    }


def tool_use(name: str, input: Mapping[str, Any], *, id: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": dict(input)}


def message(
    text: str | Sequence[Mapping[str, Any]] = "Hello there.",
    *,
    model: str = MODEL,
    usage: Mapping[str, Any] = USAGE,
    stop: str | None = "end_turn",
    id: str = "msg_1",
) -> dict[str, Any]:
    """A whole message of one text block, or of these blocks."""
    blocks = [{"type": "text", "text": text}] if isinstance(text, str) else [dict(block) for block in text]
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": dict(usage),
    }


def event(kind: str, **data: Any) -> bytes:
    """One named server-sent event."""
    body = json.dumps({"type": kind, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {body}\n\n".encode()


def block_sse(index: int, start: Mapping[str, Any], deltas: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """One content block: its start, its deltas, its stop."""
    return [
        event("content_block_start", index=index, content_block=dict(start)),
        *(event("content_block_delta", index=index, delta=dict(delta)) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def text_block(pieces: Iterable[str], *, index: int = 0) -> list[bytes]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block_sse(index, {"type": "text", "text": ""}, deltas)


def thinking_block(pieces: Iterable[str], signature: str = "c2ln", *, index: int = 0) -> list[bytes]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas.append({"type": "signature_delta", "signature": signature})
    return block_sse(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas)


def tool_block(name: str, pieces: Iterable[str], *, id: str = "toolu_1", index: int = 0) -> list[bytes]:
    """A tool call whose input arrives in pieces of JSON; no pieces stand for an empty input."""
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block_sse(index, tool_use(name, {}, id=id), deltas)


def message_sse(
    pieces: Iterable[str] = ("Hello", " there", "."),
    *,
    blocks: Iterable[Sequence[bytes]] | None = None,
    model: str = MODEL,
    usage: Mapping[str, Any] = USAGE,
    stop: str = "end_turn",
    id: str = "msg_1",
) -> list[bytes]:
    """A stream's events, one per item: one text block of these pieces, or these blocks, and a ping."""
    first = dict(usage) | {"output_tokens": 1}
    opening = message([], model=model, usage=first, stop=None, id=id)
    body = [text_block(pieces)] if blocks is None else blocks
    return [
        event("message_start", message=opening),
        event("ping"),
        *(item for block in body for item in block),
        event(
            "message_delta",
            delta={"stop_reason": stop, "stop_sequence": None},
            usage={"output_tokens": usage["output_tokens"]},
        ),
        event("message_stop"),
    ]


def error(message: str = "Overloaded", *, type: str = "overloaded_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


def error_event(message: str = "Overloaded", *, type: str = "overloaded_error") -> bytes:
    """The same inside a stream, under HTTP 200."""
    return event("error", error={"type": type, "message": message})
