"""What a model or a server does not take, and how its thinking is switched."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Caller
from tests.real.openai_wire import (
    AZURE,
    DEEPSEEK,
    GROK,
    GROQ,
    HI,
    LITELLM,
    LOOK,
    MISTRAL,
    MOONSHOT,
    OPENAI,
    OPENROUTER,
    VLLM,
    assistant,
    body,
    complaint,
    refused,
    streamed,
    whole,
)
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer
from tests.wire.support import delta

from ccroute import Backend, OpenAIBackend, Router
from ccroute.serve import openai as openai_server
from ccroute.types import Model

# -- parameters that a model does not take -------------------------------------------------------------------


@complaint(
    "https://github.com/musistudio/claude-code-router/issues/849",
    "gpt-5 answers 400 to any temperature but 1",
)
@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini-2025-08-07", "o3", "o4-mini", "o1-2024-12-17"])
def test_sampling_is_refused_by_name_or_dropped_visibly(caller: Caller, model: str) -> None:
    refusals = refused(OPENAI, model, temperature=0.0, top_p=0.5, presence_penalty=1.0, logprobs=True)
    assert refusals.keys() == {"temperature", "top_p", "presence_penalty", "logprobs"}
    assert model in refusals["temperature"]
    assert "Model(" in refusals["temperature"]
    with ScriptedServer([answer(json=chat("x"))]) as server:
        with Router([OpenAIBackend("b", base_url=server.url)], drop_params=True) as router:
            reply = caller.complete(router, "hi", model=f"b/{model}", temperature=0.0)
        assert "temperature" not in server.requests[0].json
    assert any("temperature dropped" in reason for reason in reply.route.reasons)


@complaint(
    "https://github.com/BerriAI/litellm/issues/12680",
    "a configured max_tokens and the prompt exceed vLLM's window: 400",
)
@pytest.mark.parametrize(("prompt", "limit"), [(1077, 32_000), (1077, 32_768), (16_000, 32_768)])
def test_a_default_limit_leaves_room_for_the_prompt(caller: Caller, prompt: int, limit: int) -> None:
    model = Model(context_window=32_768, params={"max_tokens": limit})
    with ScriptedServer([answer(json=chat("x"))]) as server:
        backend = OpenAIBackend("b", base_url=server.url, preset="vllm", models={"writer": model})
        with Router([backend]) as router:
            caller.complete(router, "word" * (prompt * 4 // 5), model="b/writer")  # estimated a fifth too low
        assert server.requests[0].json["max_tokens"] + prompt <= 32_768


@complaint(
    "https://github.com/musistudio/claude-code-router/issues/849",
    "gpt-5 answers 400 to any temperature but 1",
)
def test_what_a_model_does_by_default_may_be_left_out() -> None:
    assert refused(OPENAI, "gpt-5", temperature=1, top_p=1, presence_penalty=0, logprobs=False) == {}
    assert body(OPENAI, model="gpt-5", temperature=1, presence_penalty=0) == body(OPENAI, model="gpt-5")
    own = OpenAIBackend(models={"gpt-5": Model(sampling="any", refuses=())}, api_key="example-key")
    assert refused(own, "gpt-5", temperature=0.2, stop="x") == {}
    named = OpenAIBackend(
        "azure", base_url="https://me.openai.azure.com", models={"prod": Model(sampling="none")}
    )
    assert refused(named, "prod", temperature=0.2).keys() == {"temperature"}
    assert refused(OPENAI, "gpt-4o", temperature=0.2, stop=["x"]) == {}


@complaint(
    "https://github.com/brainlid/langchain/pull/419", "gpt-5.2 takes top_p only while it does not think"
)
def test_sampling_is_taken_while_the_model_does_not_think() -> None:
    assert refused(OPENAI, "gpt-5.2", top_p=0.5, reasoning_effort="none") == {}
    assert refused(OPENAI, "gpt-5.2", top_p=0.5) == {}  # its default
    assert refused(OPENAI, "gpt-5.2", top_p=0.5, reasoning_effort="low").keys() == {"top_p"}


@complaint("https://github.com/khoj-ai/khoj/issues/1377", "gpt-5.6 refuses a temperature of 0.8")
def test_newer_models_refuse_sampling_too() -> None:
    for model in ("gpt-5.6-luna", "gpt-5.5", "openai/gpt-5.6", "gpt-6-astra"):
        assert refused(OPENROUTER, model, temperature=0.8).keys() == {"temperature"}


@complaint(
    "https://github.com/skydiscover-ai/skydiscover/issues/15",
    "Claude behind LiteLLM refuses temperature together with top_p",
)
def test_claude_behind_a_gateway_takes_one_of_temperature_and_top_p() -> None:
    for model in (
        "aws/claude-sonnet-4-6",
        "us.anthropic.claude-opus-4-5-v1:0",
        "anthropic/claude-sonnet-4.5",
    ):
        assert refused(LITELLM, model, temperature=0.5, top_p=0.9).keys() == {"top_p"}
        assert refused(LITELLM, model, temperature=0.5) == {}
    assert refused(LITELLM, "claude-opus-4-7", temperature=0.5).keys() == {"temperature"}


@complaint("https://github.com/BittnerPierre/AI-Agent-Casebook/issues/133", "gpt-5 refuses stop")
@complaint(
    "https://github.com/plmbr/notebook-intelligence/issues/397",
    "gpt-5.4 refuses stop, gpt-5.4-mini takes it",
)
@complaint("https://github.com/BerriAI/litellm/issues/12635", "grok-4 refuses stop")
def test_stop_is_refused_where_the_model_does() -> None:
    for model in ("gpt-5", "o3", "o4-mini", "gpt-5.4", "grok-4"):
        assert refused(OPENAI, model, stop=["END"]).keys() == {"stop"}
    for model in ("gpt-5.4-mini", "o1", "gpt-4.1"):
        assert refused(OPENAI, model, stop=["END"]) == {}


@complaint(
    "https://github.com/miaoxworld/NativeTavern/issues/83",
    "grok refuses presence_penalty, even 0",
)
def test_a_neutral_penalty_is_not_sent_where_it_is_refused() -> None:
    model = "grok-4.20-non-reasoning"
    assert "presence_penalty" not in body(GROK, model=model, presence_penalty=0.0)
    assert refused(GROK, model, presence_penalty=0.0) == {}
    assert refused(GROK, model, presence_penalty=0.5).keys() == {"presence_penalty"}


@complaint(
    "https://github.com/NousResearch/hermes-agent/pull/12668",
    "kimi-k2.5 fixes its temperature at Moonshot, and takes any at other servers",
)
def test_the_same_model_may_take_more_elsewhere() -> None:
    assert refused(MOONSHOT, "kimi-k2.5", temperature=0.6).keys() == {"temperature"}
    assert refused(VLLM, "moonshotai/Kimi-K2.5", temperature=0.6) == {}


@complaint(
    "https://github.com/griptape-ai/ComfyUI-Griptape/issues/312",
    "gpt-5 refuses max_tokens and wants max_completion_tokens",
)
@complaint(
    "https://github.com/caozhiyuan/copilot-api/issues/164",
    "Copilot refuses max_tokens for newer models of OpenAI",
)
def test_openais_newer_models_get_their_name_of_the_limit_everywhere() -> None:
    gateway = OpenAIBackend("copilot", base_url="https://api.githubcopilot.com")
    for backend in (OPENAI, AZURE, gateway):
        sent = body(backend, model="gpt-5.1", max_tokens=7)
        assert sent["max_completion_tokens"] == 7
        assert "max_tokens" not in sent
        assert refused(backend, "gpt-5.1", max_tokens=7) == {}
    assert body(gateway, model="gpt-4o", max_tokens=7)["max_tokens"] == 7


@complaint(
    "https://github.com/HKUDS/nanobot/issues/2548",
    "Volcengine refuses max_tokens beside max_completion_tokens",
)
def test_only_one_limit_is_sent() -> None:
    sent = body(GROQ, max_tokens=7, extra={"max_completion_tokens": 9})
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 9)


@complaint("https://github.com/openai/swarm/issues/30", "parallel_tool_calls without tools is refused")
def test_nothing_is_said_of_tools_where_there_are_none() -> None:
    sent = body(OPENAI, tools=[], tool_choice="auto", parallel_tool_calls=False)
    assert sent.keys() == {"model", "messages"}


@complaint("https://github.com/evalstate/fast-agent/issues/279", "o4-mini refuses parallel_tool_calls")
def test_parallel_tool_calls_is_refused_by_name() -> None:
    assert refused(OPENAI, "o4-mini", tools=[LOOK], parallel_tool_calls=False).keys() == {
        "parallel_tool_calls"
    }


@complaint("https://github.com/vllm-project/vllm/pull/39780", "vLLM refuses an empty list of tools")
@complaint("https://github.com/partITech/php-mistral/issues/76", "Mistral refuses an empty list of tools")
@complaint("https://github.com/microsoft/call-center-ai/issues/399", "Azure refuses an empty list of tools")
@pytest.mark.parametrize("backend", [VLLM, MISTRAL, AZURE])
def test_an_empty_list_of_tools_that_a_client_sends_goes_no_further(backend: Backend) -> None:
    parsed = openai_server.parse_request({"model": "m", "messages": [HI], "tools": [], "tool_choice": "auto"})
    sent = body(backend, **{name: parsed.kwargs.get(name) for name in ("tools", "tool_choice")})
    assert not sent.keys() & {"tools", "tool_choice"}


@complaint(
    "https://github.com/microsoft/autogen/issues/5814",
    "DashScope refuses an assistant message with an empty list of calls",
)
def test_an_empty_list_of_calls_is_left_out() -> None:
    empty = {"role": "assistant", "content": "x", "tool_calls": []}
    assert assistant(body(GROQ, HI, empty)) == {"role": "assistant", "content": "x"}


@complaint("https://github.com/openai/openai-agents-python/issues/442", "Mistral refuses stream_options")
@complaint(
    "https://github.com/microsoft/semantic-kernel/issues/10510",
    "an Azure endpoint refuses stream_options",
)
def test_stream_options_is_left_out_where_it_is_refused() -> None:
    assert "stream_options" not in body(MISTRAL, streamed=True)
    assert "stream_options" not in body(AZURE, streamed=True, extra={"stream_options": None})


@complaint("https://github.com/LostRuins/koboldcpp/issues/643", "an explicit null crashes the server")
@complaint("https://github.com/livekit/agents/pull/3966", "gpt-5.1 refuses a null reasoning_effort")
def test_null_is_never_sent() -> None:
    parsed = openai_server.parse_request(
        {"model": "m", "messages": [HI], "stop": None, "reasoning_effort": None, "min_p": None}
    )
    kwargs: dict[str, Any] = {**parsed.kwargs}
    del kwargs["messages"], kwargs["model"]
    assert body(OPENAI, **kwargs).keys() == {"model", "messages"}


@complaint("https://github.com/BerriAI/litellm/issues/3286", "a blank stop sequence is a 400")
@complaint("https://github.com/BerriAI/litellm/issues/18921", "more than four stop sequences are a 400")
def test_stop_sequences_are_what_the_server_takes() -> None:
    assert body(OPENAI, stop=["", "END"])["stop"] == ["END"]
    assert not body(OPENAI, stop=[""]).keys() & {"stop"}
    assert not body(OPENAI, stop="").keys() & {"stop"}
    five = ["a", "b", "c", "d", "e"]
    for backend in (OPENAI, AZURE):
        assert "at most 4" in refused(backend, "gpt-4o", stop=five)["stop"]
        assert refused(backend, "gpt-4o", stop=[*five[:4], ""]) == {}
    assert body(VLLM, stop=five)["stop"] == five


# -- how hard to think ---------------------------------------------------------------------------------------


@complaint("https://github.com/anomalyco/opencode/issues/4451", "gpt-5.1 refuses the effort minimal")
@complaint("https://github.com/getzep/graphiti/issues/1395", "gpt-5.4-mini refuses the effort minimal")
@complaint(
    "https://github.com/egoist/chatwise-releases/issues/1257",
    "gpt-5.2-chat takes only the effort medium",
)
@pytest.mark.parametrize(
    ("model", "effort", "word"),
    [
        ("gpt-5", "minimal", "minimal"),
        ("gpt-5.1", "minimal", "low"),
        ("gpt-5.4-mini", "minimal", "low"),
        ("gpt-5.1", "max", "high"),
        ("gpt-5.2", "max", "xhigh"),
        ("gpt-5.6", "max", "max"),
        ("gpt-5.2-chat-latest", "high", "medium"),
        ("gpt-5.2-chat-latest", "low", "medium"),
        ("gpt-5.1", "none", "none"),
        ("mistral-medium-3-5", "low", "high"),
        ("some-new-model", "max", "xhigh"),
    ],
)
def test_an_effort_is_said_in_the_nearest_word_that_the_model_takes(
    model: str, effort: Any, word: str
) -> None:
    assert refused(OPENAI, model, reasoning_effort=effort) == {}
    assert body(OPENAI, model=model, reasoning_effort=effort)["reasoning_effort"] == word


@complaint("https://github.com/Kilo-Org/cloud/pull/3807", "Kimi Code refuses the effort none")
def test_thinking_that_cannot_be_switched_off_is_refused_by_name() -> None:
    own = OpenAIBackend(
        "kimi", base_url="https://api.kimi.com/coding/v1", models={"k": Model(efforts=("minimal", "low"))}
    )
    for backend, model in ((own, "k"), (OPENAI, "gpt-5"), (OPENAI, "o3"), (VLLM, "gpt-oss-20b")):
        why = refused(backend, model, reasoning_effort="none")
        assert "cannot be switched off" in why["reasoning_effort"]


@complaint(
    "https://github.com/neavo/LinguaGacha/issues/771",
    "grok's model without thoughts refuses reasoning_effort, even none",
)
def test_none_at_a_model_that_does_not_think_sends_nothing() -> None:
    for backend, model in ((GROK, "grok-4.20-0309-non-reasoning"), (OPENAI, "gpt-4o")):
        assert "reasoning_effort" not in body(backend, model=model, reasoning_effort="none")
        assert refused(backend, model, reasoning_effort="none") == {}
        assert "does not think" in refused(backend, model, reasoning_effort="low")["reasoning_effort"]


@complaint(
    "https://github.com/pipecat-ai/pipecat/issues/4043",
    "gpt-5.4 refuses function tools beside reasoning_effort",
)
def test_an_effort_beside_tools_is_refused_where_the_model_does() -> None:
    refusals = refused(OPENAI, "gpt-5.4", tools=[LOOK], reasoning_effort="low")
    assert refusals.keys() == {"reasoning_effort"}
    assert refused(OPENAI, "gpt-5.4", tools=[LOOK], reasoning_effort="none") == {}
    assert refused(OPENAI, "gpt-5.4", reasoning_effort="low") == {}
    assert refused(OPENAI, "gpt-5", tools=[LOOK], reasoning_effort="low") == {}


@complaint(
    "https://github.com/FellouAI/eko/issues/281", "reasoning_effort none does not stop DeepSeek's thinking"
)
def test_thinking_is_switched_in_each_servers_own_way() -> None:
    off = body(DEEPSEEK, model="deepseek-v4-pro", reasoning_effort="none")
    assert off["thinking"] == {"type": "disabled"}
    assert "reasoning_effort" not in off
    on = body(DEEPSEEK, model="deepseek-v4-pro", reasoning_effort="minimal")
    assert (on["thinking"], on["reasoning_effort"]) == ({"type": "enabled"}, "low")
    templated = OpenAIBackend("vllm", preset="vllm", models={"qwen3": Model(thinking="template")})
    sent = body(templated, model="qwen3", reasoning_effort="none", extra={"chat_template_kwargs": {"x": 1}})
    assert sent["chat_template_kwargs"] == {"enable_thinking": False, "x": 1}
    assert "reasoning_effort" not in sent


@complaint("https://github.com/OpenBMB/UltraRAG/issues/287", "DashScope ignores chat_template_kwargs")
@complaint(
    "https://github.com/infiniflow/ragflow/issues/8972",
    "DashScope refuses whole calls of models that think",
)
def test_dashscope_gets_its_own_thinking_flag() -> None:
    dashscope = OpenAIBackend("q", base_url="https://dashscope.aliyuncs.com/compatible-mode/v1")
    assert body(dashscope, model="qwen3-32b", reasoning_effort="none")["enable_thinking"] is False


@complaint("https://github.com/HKUDS/nanobot/issues/3939", "Kimi refuses thinking beside reasoning_effort")
def test_kimi_gets_one_thinking_parameter() -> None:
    sent = body(MOONSHOT, model="kimi-k2.6", reasoning_effort="medium")
    assert sent["thinking"] == {"type": "enabled"}
    assert "reasoning_effort" not in sent


@complaint(
    "https://github.com/deepseek-ai/DeepSeek-V3/issues/1376",
    "DeepSeek refuses a forced tool while it thinks, which it does unasked",
)
def test_a_forced_tool_switches_off_default_thinking() -> None:
    forced: dict[str, Any] = {"tools": [LOOK], "tool_choice": "required"}
    assert body(DEEPSEEK, **forced)["thinking"] == {"type": "disabled"}
    assert "thinking" not in body(DEEPSEEK, tools=[LOOK], tool_choice="auto")
    assert refused(DEEPSEEK, "m", reasoning_effort="high", **forced).keys() == {"tool_choice"}


@complaint(
    "https://github.com/epam/ai-dial-adapter-openai/issues/395",
    "Mistral's thinking models send content as a list with parts of thoughts",
)
def test_thoughts_in_a_list_of_parts_are_read() -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    said = [{"type": "text", "text": "Hello"}]
    replies = [
        whole(MISTRAL, content=[*thought, *said]),
        streamed(MISTRAL, delta(content=thought), delta(content=said), delta("stop")),
    ]
    for reply in replies:
        assert (reply.thinking, reply.text) == ("hm", "Hello")
