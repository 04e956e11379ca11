"""Bodies as OpenAI's Chat Completions sends them, for scripted servers. Values only: nothing here serves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CREATED = 1_767_225_600
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
DONE = b"data: [DONE]\n\n"


def usage(prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """Usage in OpenAI's inclusive sense: cached is part of prompt, reasoning part of completion."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def tool_call(name: str, arguments: str, *, id: str = "call_1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(
    text: str | None = "Hello there.",
    *,
    model: str = "gpt-4o-mini",
    usage: Mapping[str, Any] | None = USAGE,
    finish: str = "stop",
    tool_calls: Sequence[Mapping[str, Any]] = (),
    id: str = "chatcmpl-1",
    **message: Any,
) -> dict[str, Any]:
    """A whole completion; `message` are further fields of the message, such as reasoning_content."""
    said: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, **message}
    if tool_calls:
        said["tool_calls"] = list(tool_calls)
    body = {
        "id": id,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}],
        "system_fingerprint": "fp_1",
    }
    return body if usage is None else body | {"usage": dict(usage)}


def sse(data: object) -> bytes:
    """One server-sent event of JSON, without a space to spare."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def chunk(
    delta: Mapping[str, Any] | None,
    *,
    model: str = "gpt-4o-mini",
    finish: str | None = None,
    id: str = "chatcmpl-1",
    **more: Any,
) -> bytes:
    """One chunk of a stream; `delta=None` is the usage chunk, whose choices are empty."""
    choices = [] if delta is None else [{"index": 0, "delta": dict(delta), "finish_reason": finish}]
    head = {"id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model}
    return sse(head | {"choices": choices} | more)


def chat_sse(
    pieces: Iterable[str | Mapping[str, Any]] = ("Hello", " there", "."),
    *,
    model: str = "gpt-4o-mini",
    usage: Mapping[str, Any] | None = USAGE,
    finish: str | None = "stop",
    done: bool = True,
    id: str = "chatcmpl-1",
) -> list[bytes]:
    """A stream's events, one per item: role, pieces, finish, usage, [DONE].

    A piece is content (a str) or a whole delta (a mapping). `usage=None`, `finish=None` and `done=False`
    leave theirs out.
    """
    same = {"model": model, "id": id}
    events = [chunk({"role": "assistant", "content": ""}, **same)]
    events += [chunk({"content": piece} if isinstance(piece, str) else piece, **same) for piece in pieces]
    if finish is not None:
        events.append(chunk({}, finish=finish, **same))
    if usage is not None:
        events.append(chunk(None, usage=dict(usage), **same))
    return [*events, DONE] if done else events


def error(
    message: str = "Something is wrong.",
    *,
    type: str = "invalid_request_error",
    code: str | int | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}
