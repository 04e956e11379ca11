"""Messages and calls that OpenAI-compatible servers refuse, and Azure's APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.real.openai_wire import (
    AZURE,
    CALL,
    DEEPSEEK,
    GROQ,
    HI,
    LLAMACPP,
    MISTRAL,
    MOONSHOT,
    OPENAI,
    OPENROUTER,
    PIXEL,
    RESULT,
    VLLM,
    assistant,
    body,
    complaint,
    streamed,
    whole,
)
from tests.wire.support import delta

from ccroute import Backend, OpenAIBackend, Router
from ccroute.errors import (
    InvalidRequestError,
)
from ccroute.serve import anthropic as anthropic_server
from ccroute.types import Request

# -- messages ------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/OpenHands/OpenHands/issues/7700",
    "an image in a tool result is refused by OpenAI and Azure",
)
def test_a_screenshot_goes_into_a_user_message_behind_the_results() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    asked = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "look"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "a", "name": "shot", "input": {}},
                    {"type": "tool_use", "id": "b", "name": "size", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [picture]},
                    {"type": "tool_result", "tool_use_id": "b", "content": "3 kB"},
                    {"type": "text", "text": "What is it?"},
                ],
            },
        ],
    }
    kwargs = anthropic_server.parse_request(asked).kwargs
    sent = body(OPENAI, *kwargs["messages"])["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert "image_url" not in json.dumps(sent[2:4])
    assert [message["tool_call_id"] for message in sent[2:4]] == ["a", "b"]
    assert [part["type"] for part in sent[4]["content"]] == ["text", "image_url", "text"]
    assert "a" in sent[4]["content"][0]["text"]
    assert sent[4]["content"][1:] == [PIXEL, {"type": "text", "text": "What is it?"}]


@complaint(
    "https://github.com/OpenHands/OpenHands/issues/7700",
    "an image in a tool result is refused by OpenAI and Azure",
)
def test_only_the_image_of_a_last_tool_result_moves_to_a_message() -> None:
    parts = [{"type": "text", "text": "before"}, PIXEL]
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    sent = body(OPENAI, HI, called, {**RESULT, "content": parts})["messages"]
    assert sent[2] == {**RESULT, "content": parts[:1]}
    assert sent[3]["role"] == "user"
    assert sent[3]["content"][-1] == PIXEL
    later = body(OPENAI, called, {**RESULT, "content": parts}, {"role": "assistant", "content": "a cat"})
    assert [message["role"] for message in later["messages"]] == ["assistant", "tool", "user", "assistant"]
    kept = body(OPENROUTER, HI, called, {**RESULT, "content": parts})["messages"]
    assert kept[2] == {**RESULT, "content": parts}


@complaint(
    "https://github.com/vercel/ai/issues/13744",
    "an answer of thoughts only is sent back as content null and refused",
)
def test_an_answer_of_thoughts_only_can_be_sent_back() -> None:
    for reply in (whole(VLLM, reasoning="hm"), streamed(VLLM, delta(reasoning="hm"), delta("length"))):
        assert assistant(body(OPENAI, HI, reply.message, HI)) == {"role": "assistant", "content": ""}
        for strict in (MISTRAL, MOONSHOT):  # which refuse an empty message
            assert [message["role"] for message in body(strict, HI, reply.message, HI)["messages"]] == [
                "user",
                "user",
            ]


@complaint(
    "https://github.com/ggml-org/llama.cpp/issues/13178",
    "llama.cpp: content null beside calls breaks Qwen's template",
)
def test_a_template_never_sees_null() -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert assistant(body(LLAMACPP, HI, called, RESULT))["content"] == ""
    assert assistant(body(OPENAI, HI, called, RESULT))["content"] is None


FIRST, LATER = {"role": "system", "content": "Be kind."}, {"role": "developer", "content": "Be brief."}


@complaint(
    "https://github.com/vllm-project/vllm/issues/41114",
    "vLLM: a system message that is not the first breaks Qwen's template",
)
@complaint(
    "https://github.com/raullenchai/Rapid-MLX/issues/1543",
    "two leading system messages break Qwen's template",
)
def test_a_chat_template_gets_one_system_message() -> None:
    backend = OpenAIBackend("own", preset="vllm")
    for messages in ((FIRST, LATER, HI), (FIRST, HI, LATER), (HI, FIRST, LATER)):
        sent = body(backend, *messages)["messages"]
        assert sent == [{"role": "system", "content": "Be kind.\n\nBe brief."}, HI]
    parts = {"role": "system", "content": [{"type": "text", "text": "x"}]}
    assert body(backend, FIRST, parts, HI)["messages"][0]["content"] == [
        {"type": "text", "text": "Be kind."},
        {"type": "text", "text": "x"},
    ]
    assert body(OPENAI, FIRST, HI, LATER)["messages"] == [FIRST, HI, LATER]


@complaint("https://github.com/earendil-works/pi/issues/1048", "DeepSeek refuses the role developer")
@complaint("https://github.com/bramses/chatgpt-md/issues/189", "other servers refuse the role developer")
@pytest.mark.parametrize("backend", [DEEPSEEK, GROQ, VLLM, OPENROUTER])
def test_the_developer_is_called_system_elsewhere(backend: Backend) -> None:
    assert body(backend, LATER, HI)["messages"][0]["role"] == "system"


@complaint("https://github.com/vercel/ai/issues/5171", "OpenAI refuses ids of calls above 40 characters")
@complaint(
    "https://github.com/Portkey-AI/gateway/issues/1062", "Azure refuses a gateway's ids of 44 characters"
)
@complaint(
    "https://github.com/openclaw/openclaw/issues/57672",
    "Mistral wants ids of exactly nine letters and digits",
)
def test_ids_of_other_providers_are_made_to_fit() -> None:
    long = "portkey-6aa6db90-1b84-4155-9f32-f658c97d6b1b"
    called = {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": long}, CALL]}
    results = ({**RESULT, "tool_call_id": long}, RESULT)
    for backend in (OPENAI, AZURE, MISTRAL, GROQ):
        sent = body(backend, HI, called, *results)["messages"]
        ids = [call["id"] for call in sent[1]["tool_calls"]]
        assert ids == [sent[2]["tool_call_id"], sent[3]["tool_call_id"]]
        assert len(set(ids)) == 2
        if backend is GROQ:
            assert ids == [long, "call_1"]
        elif backend is MISTRAL:
            assert all(len(id) == 9 and id.isalnum() for id in ids)
        else:
            assert len(ids[0]) <= 40
            assert ids[1] == "call_1"


@complaint(
    "https://github.com/yutori-ai/yutori-sdk-python/pull/251",
    "calls that come without an id all get the same one",
)
@complaint(
    "https://github.com/anomalyco/opencode/pull/25925", "calls with an index and no id crash the client"
)
def test_calls_without_an_id_get_different_ones() -> None:
    bare = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    replies = [
        whole(OPENAI, tool_calls=[bare, bare]),
        streamed(OPENAI, delta(tool_calls=[{"index": 0, **bare}, {"index": 1, **bare}]), delta("stop")),
    ]
    for reply in replies:
        assert len({call.id for call in reply.tool_calls if call.id}) == 2


@complaint(
    "https://github.com/vllm-project/vllm/issues/43851",
    'arguments "null" in the history are refused by vLLM and Vertex',
)
@complaint(
    "https://github.com/Lexus2016/hermes-agent-evolution/pull/1170",
    "a tool without parameters is called with empty arguments",
)
@pytest.mark.parametrize("arguments", ["null", "", " ", None, [], {}])
def test_arguments_are_always_an_object(arguments: Any) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    history = {"role": "assistant", "content": "", "tool_calls": [call]}
    sent = assistant(body(VLLM, HI, history))["tool_calls"][0]["function"]["arguments"]
    assert sent == "{}"


# -- Azure ---------------------------------------------------------------------------------------------------


@complaint("https://github.com/BerriAI/litellm/issues/13527", "Azure's v1 API cannot be used")
@pytest.mark.parametrize(
    "backend",
    [
        OpenAIBackend("a", base_url="https://me.openai.azure.com/openai/v1/", api_key="example-key"),
        OpenAIBackend("a", base_url="https://me.openai.azure.com", api_key="example-key"),
        OpenAIBackend(
            "a", base_url="https://me.openai.azure.com/openai/v1", preset="azure", api_key="example-key"
        ),
    ],
)
def test_azures_v1_api_is_spoken(backend: OpenAIBackend) -> None:
    http = backend.encode(Request(messages=(HI,), max_tokens=7), "prod", False)
    assert backend.target(http) == "/openai/v1/chat/completions"
    assert json.loads(http.body) == {"model": "prod", "messages": [HI], "max_completion_tokens": 7}
    assert (b"api-key", b"example-key") in backend.auth_headers(http)[0]


@complaint(
    "https://github.com/BerriAI/litellm/issues/8855",
    "old versions of Azure's API refuse max_completion_tokens",
)
def test_an_old_version_of_azures_api_gets_the_old_name() -> None:
    old = OpenAIBackend("a", base_url="https://me.openai.azure.com", api_version="2024-06-01")
    assert body(old, max_tokens=7, streamed=True).keys() == {"model", "messages", "max_tokens", "stream"}
    new = OpenAIBackend("a", base_url="https://me.openai.azure.com", api_version="2024-10-21")
    assert body(new, max_tokens=7)["max_completion_tokens"] == 7


@complaint(
    "https://github.com/musistudio/claude-code-router/issues/849",
    "gpt-5 answers 400 to any temperature but 1",
)
def test_a_refused_parameter_says_what_to_do() -> None:
    with Router([OPENAI]) as router, pytest.raises(InvalidRequestError) as caught:
        router.complete("hi", model="openai/gpt-5", temperature=0.0)
    assert "gpt-5" in str(caught.value)
    assert "drop_params=True" in str(caught.value)
