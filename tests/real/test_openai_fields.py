"""Fields that only one provider knows: they go back to it, and to nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.real.openai_wire import (
    CALL,
    DEEPSEEK,
    GEMINI,
    GROQ,
    HI,
    LITELLM,
    LOOK,
    MISTRAL,
    MOONSHOT,
    OPENAI,
    OPENROUTER,
    RESULT,
    VLLM,
    assistant,
    body,
    complaint,
    streamed,
    whole,
)
from tests.wire.support import delta

from ccroute import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend
from ccroute.types import Completion


def thoughts_and_a_call(backend: Backend) -> list[Completion]:
    """The same answer, whole and streamed."""
    return [
        whole(backend, "tool_calls", reasoning_content="I must look.", tool_calls=[CALL]),
        streamed(
            backend,
            delta(reasoning_content="I must "),
            delta(reasoning_content="look."),
            delta(tool_calls=[{"index": 0, **CALL}]),
            delta("tool_calls"),
            "[DONE]",
        ),
    ]


@complaint(
    "https://github.com/earendil-works/pi/issues/3636",
    "DeepSeek refuses a tool loop without its reasoning_content",
)
def test_deepseek_gets_its_thoughts_back_with_the_call() -> None:
    for reply in thoughts_and_a_call(DEEPSEEK):
        again = assistant(body(DEEPSEEK, HI, reply.message, RESULT))
        assert again["reasoning_content"] == "I must look."
        assert again["tool_calls"] == [CALL]
        stored = json.loads(json.dumps(reply.message.to_dict()))
        assert assistant(body(DEEPSEEK, HI, stored, RESULT)) == again


@complaint(
    "https://github.com/NousResearch/hermes-agent/pull/15228",
    "DeepSeek wants reasoning_content in every assistant message, also in those that another model wrote",
)
def test_deepseek_gets_the_field_in_every_assistant_message() -> None:
    assert assistant(body(DEEPSEEK, HI, {"role": "assistant", "content": "x"}))["reasoning_content"] == ""
    plain = whole(DEEPSEEK, content="hello", reasoning_content="hm")
    assert assistant(body(DEEPSEEK, HI, plain.message, HI))["reasoning_content"] == "hm"


@complaint(
    "https://github.com/mastra-ai/mastra/issues/12592",
    "Kimi refuses a call without reasoning_content, also one that another model made",
)
def test_kimi_gets_thoughts_with_every_call() -> None:
    foreign = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert assistant(body(MOONSHOT, HI, foreign, RESULT))["reasoning_content"].strip()
    for reply in thoughts_and_a_call(MOONSHOT):
        assert assistant(body(MOONSHOT, HI, reply.message, RESULT))["reasoning_content"] == "I must look."


@complaint(
    "https://github.com/tashfeenahmed/freellmapi/issues/1070",
    "reasoning_content of one provider is refused by the next (Groq, Cerebras)",
)
@complaint(
    "https://github.com/BerriAI/litellm/issues/30835",
    "Mistral refuses a conversation that holds another provider's reasoning_content",
)
@pytest.mark.parametrize("next_one", [GROQ, MISTRAL, OPENAI, OpenAIBackend("vllm", preset="vllm")])
def test_a_providers_own_fields_reach_no_other_provider(next_one: Backend) -> None:
    for reply in thoughts_and_a_call(DEEPSEEK):
        again = assistant(body(next_one, HI, reply.message, RESULT))
        assert again.keys() == {"role", "content", "tool_calls"}


@complaint(
    "https://github.com/BerriAI/litellm/issues/30835",
    "Mistral refuses a conversation that holds another provider's reasoning_content",
)
def test_fields_of_other_providers_do_not_reach_mistral() -> None:
    copied = {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning_details": [{}]}
    assert assistant(body(MISTRAL, HI, copied)) == {"role": "assistant", "content": "x"}


SIGNED = {"extra_content": {"google": {"thought_signature": "EjQKMg"}}}


@complaint(
    "https://github.com/securo-finance/securo/issues/884",
    "Gemini refuses a call without the thought_signature that it came with",
)
def test_only_gemini_gets_the_signature_of_its_call_back() -> None:
    replies = [
        whole(GEMINI, "tool_calls", tool_calls=[{**CALL, **SIGNED}]),
        streamed(GEMINI, delta(tool_calls=[{**CALL, **SIGNED}]), delta("stop")),
    ]
    for reply in replies:
        assert reply.tool_calls[0].provider_fields == {"generativelanguage.googleapis.com": SIGNED}
        stored = json.loads(json.dumps(reply.message.to_dict()))
        assert assistant(body(GEMINI, HI, stored, RESULT))["tool_calls"] == [{**CALL, **SIGNED}]
        assert assistant(body(OPENAI, HI, stored, RESULT))["tool_calls"] == [CALL]
        on_claude = body(AnthropicBackend(api_key="example-key"), HI, reply.message, RESULT)
        assert "thought_signature" not in json.dumps(on_claude)
        assert "thought_signature" not in json.dumps(body(OllamaBackend(), HI, reply.message, RESULT))


@complaint(
    "https://github.com/noho/dayu-agent/pull/57",
    "Gemini leaves out the index of parallel calls, each with its own signature",
)
def test_parallel_calls_without_index_keep_their_own_signatures() -> None:
    def piece(id: str, mark: str) -> Any:
        return delta(tool_calls=[{**CALL, "id": id, "extra_content": {"google": mark}}])

    reply = streamed(GEMINI, piece("a", "1"), piece("b", "2"), delta("tool_calls"))
    sent = assistant(body(GEMINI, HI, reply.message))["tool_calls"]
    assert [(call["id"], call["extra_content"]) for call in sent] == [
        ("a", {"google": "1"}),
        ("b", {"google": "2"}),
    ]


DETAILS = [
    {"type": "reasoning.text", "text": "I must look.", "signature": "s", "index": 0},
    {"type": "reasoning.encrypted", "data": "AAAA", "id": "rs_1", "index": 1},
]


@complaint(
    "https://github.com/OpenHands/software-agent-sdk/issues/1500",
    "OpenRouter's reasoning_details are dropped, and the next turn is refused",
)
def test_openrouter_gets_its_reasoning_details_back() -> None:
    first, second = {**DETAILS[0], "text": "I must ", "signature": None}, {**DETAILS[0], "text": "look."}
    replies = [
        whole(OPENROUTER, "tool_calls", tool_calls=[CALL], reasoning_details=DETAILS),
        streamed(
            OPENROUTER,
            delta(reasoning="I must ", reasoning_details=[first]),
            delta(reasoning="look.", reasoning_details=[second]),
            delta(tool_calls=[{"index": 0, **CALL}], reasoning_details=[DETAILS[1]]),
            delta("tool_calls"),
        ),
    ]
    for reply in replies:
        assert assistant(body(OPENROUTER, HI, reply.message, RESULT))["reasoning_details"] == DETAILS
        assert "reasoning_details" not in assistant(body(GROQ, HI, reply.message, RESULT))


@complaint(
    "https://github.com/vercel/ai/issues/10573",
    "the same reasoning item sent twice is refused by OpenAI behind OpenRouter",
)
def test_a_reasoning_item_that_is_said_twice_is_kept_once() -> None:
    reply = streamed(
        OPENROUTER,
        delta(reasoning_details=[DETAILS[1]]),
        delta(tool_calls=[{"index": 0, **CALL}], reasoning_details=[DETAILS[1]]),
        delta(tool_calls=[{"index": 1, **CALL, "id": "call_2"}], reasoning_details=[DETAILS[1]]),
        delta("tool_calls"),
    )
    assert assistant(body(OPENROUTER, HI, reply.message))["reasoning_details"] == [DETAILS[1]]


@complaint(
    "https://github.com/vllm-project/vllm/pull/50624",
    "vLLM renamed reasoning_content to reasoning, and clients lost every thought",
)
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "reasoning_text"])
def test_thoughts_go_back_under_the_name_they_came_with(name: str) -> None:
    reply = streamed(VLLM, delta(**{name: "hm"}), delta(tool_calls=[CALL]), delta("tool_calls"))
    assert reply.thinking == whole(VLLM, **{name: "hm"}).thinking == "hm"
    assert assistant(body(VLLM, HI, reply.message, RESULT))[name] == "hm"


CACHED = {"cache_control": {"type": "ephemeral"}}


@complaint(
    "https://github.com/anomalyco/opencode/issues/39009",
    "cache_control is stripped before OpenRouter and LiteLLM, and Claude bills the full price",
)
@pytest.mark.parametrize("gateway", [OPENROUTER, LITELLM])
def test_cache_marks_reach_gateways_to_claude(gateway: Backend) -> None:
    sent = body(
        gateway,
        {"role": "system", "content": "s", **CACHED},
        {"role": "user", "content": [{"type": "text", "text": "t", **CACHED}]},
        tools=[{**LOOK, **CACHED}],
    )
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "s", **CACHED}]
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "t", **CACHED}]
    assert sent["tools"] == [{**LOOK, **CACHED}]
    assert "cache_control" not in json.dumps(body(VLLM, {"role": "system", "content": "s", **CACHED}))
