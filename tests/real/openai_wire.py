"""What the reports about OpenAI-compatible servers share: backends, what they send, what they read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.wire.support import as_json, run, sse

from ccroute import Backend, OpenAIBackend
from ccroute.types import Completion, Message, Request

complaint = pytest.mark.complaint

OPENAI = OpenAIBackend(api_key="example-key")
AZURE = OpenAIBackend("azure", base_url="https://me.openai.azure.com", preset="azure")
DEEPSEEK = OpenAIBackend("deepseek", preset="deepseek", api_key="example-key")
MOONSHOT = OpenAIBackend("moonshot", preset="moonshot", api_key="example-key")
MISTRAL = OpenAIBackend("mistral", preset="mistral", api_key="example-key")
OPENROUTER = OpenAIBackend("openrouter", preset="openrouter", api_key="example-key")
LITELLM = OpenAIBackend("litellm", preset="litellm")
VLLM = OpenAIBackend("vllm", preset="vllm")
LLAMACPP = OpenAIBackend("llamacpp", preset="llamacpp")
GEMINI = OpenAIBackend("gemini", base_url="https://generativelanguage.googleapis.com/v1beta/openai")
GROQ = OpenAIBackend("groq", base_url="https://api.groq.com/openai/v1")
GROK = OpenAIBackend("xai", base_url="https://api.x.ai/v1")

HI: Mapping[str, Any] = {"role": "user", "content": "hi"}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "a cat"}
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def body(backend: Backend, *messages: Any, model: str = "m", streamed: bool = False, **options: Any) -> Any:
    """What is sent; a `Message` among the messages is an answer that came before."""
    sent = tuple(each.to_dict() if isinstance(each, Message) else each for each in messages)
    return json.loads(backend.encode(Request(messages=sent or (HI,), **options), model, streamed).body)


def refused(backend: Backend, model: str, **options: Any) -> Mapping[str, str]:
    return backend.refusals(Request(messages=(HI,), **options), model)


def whole(backend: Backend, finish: str | None = "stop", **message: Any) -> Completion:
    choice = {"message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return backend.decode(200, {}, as_json({"choices": [choice]}))


def streamed(backend: Backend, *frames: Any) -> Completion:
    return run(backend.decoder(200, {}), sse(*frames))[1]  # type: ignore[arg-type]  # ours have partial()


def assistant(sent: Any) -> dict[str, Any]:
    """The one assistant message of a body."""
    (message,) = [message for message in sent["messages"] if message["role"] == "assistant"]
    return dict(message)


def answer_with(**usage: Any) -> Completion:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    return OPENAI.decode(200, {}, as_json({"choices": [choice], "usage": usage}))
