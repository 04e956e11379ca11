"""What the wire's tests share: fixtures, the three wires by name, streams made by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from ccroute.types import Chunk, Completion, Request
from ccroute.wire import anthropic, ollama, openai
from ccroute.wire.decoding import BaseDecoder

FIXTURES = Path(__file__).parent / "fixtures"

WIRES: dict[str, ModuleType] = {"openai": openai, "anthropic": anthropic, "ollama": ollama}

STREAMS = {
    "openai": "openai_tools.sse",
    "anthropic": "anthropic_thinking_tools.sse",
    "ollama": "ollama_thinking_tools.ndjson",
}
WHOLES = {"openai": "openai_whole.json", "anthropic": "anthropic_whole.json", "ollama": "ollama_whole.json"}


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def sse(*frames: object) -> bytes:
    """Frames as `data:` lines; a str is sent as it is."""
    lines = [frame if isinstance(frame, str) else json.dumps(frame) for frame in frames]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def named(*frames: dict[str, Any]) -> bytes:
    """Anthropic's events, each named by its type."""
    return "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in frames).encode()


def lines(*frames: object) -> bytes:
    return "".join(f"{json.dumps(frame)}\n" for frame in frames).encode()


def delta(finish: str | None = None, **fields: object) -> dict[str, Any]:
    """A chunk of OpenAI's with one choice."""
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def run(decoder: BaseDecoder, *pieces: bytes) -> tuple[list[Chunk], Completion]:
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return chunks, decoder.finish()


def asked(*messages: dict[str, Any], **options: Any) -> Request:
    return Request(messages=messages or ({"role": "user", "content": "hi"},), **options)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces that end at the places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]
