"""Whole answers, errors and model lists in the form that Anthropic's clients expect. Must not know HTTP."""

import re
from collections.abc import Iterable
from typing import Any, Final

from ccroute.errors import ContextWindowExceededError
from ccroute.serve.answers import ERROR_TYPES, describe_error, unique_id, with_prefix
from ccroute.types import JSON, Completion, FinishReason, Message, ModelInfo, ToolCall, Usage
from ccroute.wire.anthropic.decode import STOP
from ccroute.wire.reading import mapping
from ccroute.wire.tools import as_object

_BAD_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
_STOP: Final[dict[FinishReason | None, str]] = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_UNKNOWN_TIME: Final = "1970-01-01T00:00:00Z"


def dump_completion(completion: Completion) -> dict[str, Any]:
    """The body that answers a request without streaming."""
    return {
        **head(completion.id, completion.model),
        "content": _blocks(completion.message, completion.id),
        **stop(completion),
        "usage": dump_usage(completion.usage),
    }


def head(id: str, model: str) -> dict[str, JSON]:
    """The fields that an answer begins with."""
    return {"id": with_prefix(id, "msg_"), "type": "message", "role": "assistant", "model": model}


def _blocks(message: Message, answer_id: str) -> list[JSON]:
    if message.blocks:
        return [dict(block) for block in message.blocks]
    blocks: list[JSON] = [dict(block) for block in message.thinking_blocks]
    if message.thinking and not blocks:  # another provider's: it has no signature
        blocks.append({"type": "thinking", "thinking": message.thinking, "signature": ""})
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    blocks += [
        {**tool_use(call, answer_id), "input": as_object(call.function.arguments)}
        for call in message.tool_calls or ()
    ]
    return blocks


def tool_use(call: ToolCall, answer_id: str) -> dict[str, JSON]:
    """The block of a call, without its input."""
    id = unique_id(call, answer_id)
    if not id.startswith("toolu_"):
        id = "toolu_" + _BAD_ID.sub("_", id.removeprefix("call_"))
    return {"type": "tool_use", "id": id, "name": call.function.name, "input": {}}


def stop(completion: Completion) -> dict[str, JSON]:
    """Why the answer ended: the provider's own word if Anthropic has it and it is still true."""
    reason, word = completion.finish_reason, completion.raw_finish_reason or ""
    if word != "pause_turn" and (word not in STOP or STOP[word] != reason):
        word = _STOP.get(reason, "end_turn")
    sequence = mapping(completion.raw).get("stop_sequence") if word == "stop_sequence" else None
    return {"stop_reason": word, "stop_sequence": sequence}


def dump_usage(usage: Usage) -> dict[str, JSON]:
    """Usage as Anthropic counts: `input_tokens` excludes tokens read from or written to the cache."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def dump_error(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body that answer an error. `error_headers` gives the headers."""
    status, code, message = describe_error(error)
    if isinstance(error, ContextWindowExceededError):
        message = f"prompt is too long: {_tokens(error)}{message}"  # clients search for these words
    return (529 if status == 503 else status), error_body(status, message, code=code)


def _tokens(error: ContextWindowExceededError) -> str:
    known = error.estimated is not None and error.limit is not None
    return f"{error.estimated} tokens > {error.limit} maximum; " if known else ""


def error_body(status: int, message: str, *, code: str | None = None) -> dict[str, Any]:
    """The body of an error of the wrapper's own, such as a missing key (401)."""
    error: dict[str, JSON] = {"type": ERROR_TYPES.get(status, "api_error"), "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error}


def dump_models(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """The body that answers `GET /v1/models`. Patterns such as `claude-*` are left out: they are no names."""
    data = [_model(model) for model in models if model.kind != "pattern"]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None, **ends}


def dump_count_tokens(tokens: int) -> dict[str, Any]:
    """The body that answers `POST /v1/messages/count_tokens`."""
    return {"input_tokens": tokens}


def _model(model: ModelInfo) -> dict[str, JSON]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": _UNKNOWN_TIME,
        "lifecycle": "active",
        "max_input_tokens": model.context_window,
    }
