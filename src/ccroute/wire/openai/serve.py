"""Whole answers, errors and model lists as OpenAI's clients expect them.

Knows the shapes of answers; must not know HTTP. Streams are in `serve_stream.py`, requests in
`serve_request.py`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ccroute.types import JSON, Choice, Completion, FinishReason, Message, ModelInfo, ToolCall, Usage
from ccroute.wire.serving import KINDS, fault, prefixed, unique_id

ID: Final = "chatcmpl-"
_FINISH: Final = ("stop", "length", "tool_calls", "content_filter")


def dump_completion(completion: Completion) -> dict[str, Any]:
    """The body that answers a request that is not streamed.

    Thinking is in `reasoning_content`; `thinking_blocks`, `blocks` and `provider_fields` keep what the
    provider wants back, for a client that sends the message back as it came.
    """
    return {
        "id": prefixed(completion.id, ID),
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [_choice(choice, completion.id) for choice in completion.choices],
        "usage": dump_usage(completion.usage),
    }


def _choice(choice: Choice, answer: str) -> dict[str, JSON]:
    told = choice.message
    message: dict[str, JSON] = {"role": "assistant", "content": told.content, "refusal": None}
    if told.thinking:
        message["reasoning_content"] = told.thinking
    message |= kept(told)
    if told.tool_calls:
        message["tool_calls"] = [_call(call, answer) for call in told.tool_calls]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": finish(choice.finish_reason),
    }


def kept(message: Message) -> dict[str, JSON]:
    """What the provider wants back of a message, for a client that sends it back as it came."""
    whole = message.to_dict()
    return {name: whole[name] for name in ("thinking_blocks", "blocks", "provider_fields") if name in whole}


def _call(call: ToolCall, answer: str) -> dict[str, JSON]:
    return {**call.to_dict(), "id": unique_id(call, answer)}


def finish(reason: FinishReason | None) -> str:
    """OpenAI's word for why it ended; it has none for `other`, and clients know no more words."""
    return reason if reason in _FINISH else "stop"


def dump_usage(usage: Usage) -> dict[str, JSON]:
    """Usage in OpenAI's inclusive sense: cached is part of prompt, reasoning part of completion."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def dump_error(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body that answer an error; `error_headers` has what belongs to its headers."""
    told = fault(error)
    return told.status, error_body(told.status, told.message, code=told.code)


def error_body(status: int, message: str, *, code: str | None = None) -> dict[str, Any]:
    """The body of an error of the wrapper's own, such as a missing key (401)."""
    kind = KINDS.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def dump_models(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """The body that answers `GET /v1/models`. Patterns are left out: nobody can ask for `claude-*`."""
    return {"object": "list", "data": [_model(model) for model in models if model.kind != "pattern"]}


def _model(model: ModelInfo) -> Mapping[str, JSON]:
    entry: dict[str, JSON] = {"id": model.id, "object": "model", "created": 0, "owned_by": model.owned_by}
    if model.context_window is not None:
        entry["context_window"] = model.context_window
    return entry
