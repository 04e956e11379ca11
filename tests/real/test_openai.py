"""Reports about servers that speak OpenAI's chat completions: what they take, and what they send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer, stream
from tests.wire.support import as_json, delta, run, sse

from ccroute import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend, Price, Router
from ccroute.errors import (
    ContextWindowExceededError,
    InvalidRequestError,
    ProtocolError,
    ServerError,
    StreamInterruptedError,
)
from ccroute.types import Completion, Message, Model, Request
from ccroute.wire import anthropic as anthropic_server
from ccroute.wire import openai as openai_server

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
    told = tuple(each.to_dict() if isinstance(each, Message) else each for each in messages)
    return json.loads(backend.encode(Request(messages=told or (HI,), **options), model, streamed).body)


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


def told(**usage: Any) -> Completion:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    return OPENAI.decode(200, {}, as_json({"choices": [choice], "usage": usage}))


# -- fields that go back to the provider they came from ------------------------------------------------------


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
@pytest.mark.parametrize("next_one", [GROQ, MISTRAL, OPENAI, AZURE, OpenAIBackend("vllm", preset="vllm")])
def test_a_providers_own_fields_reach_no_other_provider(next_one: Backend) -> None:
    for reply in thoughts_and_a_call(DEEPSEEK):
        again = assistant(body(next_one, HI, reply.message, RESULT))
        assert again.keys() == {"role", "content", "tool_calls"}


@complaint(
    "https://github.com/BerriAI/litellm/issues/30835",
    "Mistral refuses a conversation that holds another provider's reasoning_content",
)
def test_fields_that_a_caller_copied_from_elsewhere_do_not_reach_mistral() -> None:
    copied = {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning_details": [{}]}
    assert assistant(body(MISTRAL, HI, copied)) == {"role": "assistant", "content": "x"}


SIGNED = {"extra_content": {"google": {"thought_signature": "EjQKMg"}}}


@complaint(
    "https://github.com/securo-finance/securo/issues/884",
    "Gemini refuses a call without the thought_signature that it came with",
)
def test_gemini_gets_the_signature_of_its_call_back_and_nobody_else_does() -> None:
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
def test_thoughts_are_read_under_each_name_and_go_back_under_the_same(name: str) -> None:
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


# -- how answers end -----------------------------------------------------------------------------------------


@complaint(
    "https://github.com/open-webui/open-webui/issues/16377",
    "finish_reason stop on a chunk of thoughts, content follows: the answer was empty",
)
def test_a_finish_of_the_thoughts_does_not_end_the_answer() -> None:
    reply = streamed(
        OPENAI, delta("stop", reasoning_content="hm"), delta(content="Hel"), delta(content="lo"), "[DONE]"
    )
    assert (reply.text, reply.thinking, reply.finish_reason) == ("Hello", "hm", "stop")
    with pytest.raises(ProtocolError, match="ended without"):
        streamed(OPENAI, delta("stop", reasoning_content="hm"), delta(content="Hel"))


@complaint(
    "https://github.com/su-kaka/gcli2api/issues/403",
    "finish_reason stop on every chunk: only the first piece was read",
)
def test_a_finish_reason_in_every_chunk_ends_nothing() -> None:
    frames = [delta("stop", reasoning_content="hm"), *(delta("stop", content=text) for text in "abc")]
    assert streamed(OPENAI, *frames, "[DONE]").text == streamed(OPENAI, *frames).text == "abc"


@complaint(
    "https://github.com/sgl-project/sglang/issues/3912",
    'SGLang sends finish_reason "" on every chunk',
)
@complaint("https://github.com/alfredapp/openai-workflow/issues/38", "finish_reason is missing in the chunks")
def test_an_empty_or_missing_finish_reason_is_none() -> None:
    missing = {"choices": [{"index": 0, "delta": {"content": "b"}}]}
    assert streamed(OPENAI, delta("", content="a"), missing, delta("stop")).text == "ab"


@complaint(
    "https://github.com/jakobdylanc/llmcord/issues/84",
    "some servers end a stream with [DONE] and never send a finish reason",
)
@complaint("https://github.com/qualcomm/GenieX/issues/1243", 'finish_reason is "" even in the last chunk')
@complaint(
    "https://github.com/can1357/oh-my-pi/issues/9433",
    "[DONE] without a finish reason is complete, an end without [DONE] is not",
)
def test_a_server_that_never_says_why_it_ends_can_be_trusted_by_a_setting() -> None:
    frames = [delta("", content="Hel"), delta("", content="lo")]
    with pytest.raises(ProtocolError, match="finish reason"):
        streamed(OPENAI, *frames, "[DONE]")
    lenient = OpenAIBackend("own", base_url="http://localhost:1", finish_required=False)
    assert streamed(lenient, *frames, "[DONE]").finish_reason == "stop"
    assert streamed(lenient, delta(tool_calls=[CALL]), "[DONE]").finish_reason == "tool_calls"
    for cut in (frames, ["[DONE]"], [delta(role="assistant"), "[DONE]"]):
        with pytest.raises(ProtocolError):
            streamed(lenient, *cut)


@complaint(
    "https://github.com/pydantic/pydantic-ai/issues/6610",
    "a stream that just ends is taken for complete, a whole answer without a reason is",
)
def test_a_stream_without_an_end_is_cut_and_a_whole_answer_is_whole() -> None:
    with pytest.raises(ProtocolError, match="not complete"):
        streamed(OPENAI, delta(content="Hel"))
    assert whole(OPENAI, None, content="Hello").finish_reason == "stop"


@complaint(
    "https://github.com/CommandCodeAI/command-code/issues/785",
    "a gateway ends the stream in the middle of a call's arguments",
)
def test_a_call_with_cut_arguments_is_never_an_answer() -> None:
    cut = {**CALL, "function": {"name": "look", "arguments": '{"a'}}
    with pytest.raises(ProtocolError):
        streamed(OPENAI, delta(tool_calls=[{"index": 0, **cut}]))


@complaint(
    "https://github.com/vllm-project/vllm/issues/53255", "finish_reason tool_calls where there is no call"
)
def test_tool_calls_without_a_call_is_stop() -> None:
    replies = [
        whole(OPENAI, "tool_calls", content="x", tool_calls=[]),
        streamed(OPENAI, delta(content="x"), delta("tool_calls")),
    ]
    for reply in replies:
        assert (reply.finish_reason, reply.raw_finish_reason) == ("stop", "tool_calls")


@complaint(
    "https://github.com/ai-dynamo/dynamo/issues/4153",
    "finish tool_calls, then a chunk with finish stop: the calls were thrown away",
)
@complaint(
    "https://github.com/QwenLM/qwen-code/issues/2402", "a second, empty finishing chunk loses the call"
)
@pytest.mark.parametrize("second", ["stop", "tool_calls"])
def test_a_second_finish_changes_nothing(second: str) -> None:
    first = delta("tool_calls", tool_calls=[{"index": 0, **CALL}])
    reply = streamed(OPENAI, first, delta(second, content="", role="assistant"), "[DONE]")
    assert (len(reply.tool_calls), reply.finish_reason) == (1, "tool_calls")


@complaint(
    "https://github.com/HKUDS/Vibe-Trading/pull/308",
    "Gemini's own finish reasons in capitals: a blocked answer was an empty success",
)
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MAX_TOKENS", "length"),
        ("STOP", "stop"),
    ],
)
def test_finish_reasons_in_capitals_are_understood(raw: str, reason: str) -> None:
    assert whole(GEMINI, raw, content="x").finish_reason == reason
    assert streamed(GEMINI, delta(content="x"), delta(raw)).finish_reason == reason


@complaint(
    "https://github.com/earendil-works/pi/issues/1937",
    "Z.ai reports an overflow as finish_reason model_context_window_exceeded under 200",
)
@complaint(
    "https://github.com/anomalyco/opencode/issues/18813",
    "an overflow told as a finish reason, with zero usage: the client asks again for ever",
)
def test_an_overflow_that_is_a_finish_reason_is_an_overflow() -> None:
    raw = "model_context_window_exceeded"
    with pytest.raises(ContextWindowExceededError):
        whole(OPENAI, raw, content="")
    with pytest.raises(ContextWindowExceededError):
        streamed(OPENAI, delta(role="assistant"), delta(raw), "[DONE]")
    assert whole(OPENAI, raw, content="long").finish_reason == "length"


# -- failures under HTTP 200 ---------------------------------------------------------------------------------

NETWORK = {"finish_reason": "stop", "native_finish_reason": "network_error"}


@complaint(
    "https://github.com/earendil-works/pi/issues/8511",
    "OpenRouter: an empty answer with native_finish_reason network_error is a success",
)
def test_a_network_error_behind_openrouter_falls_back(caller: Caller) -> None:
    lost = {"choices": [{"message": {"role": "assistant", "content": ""}, **NETWORK}]}
    frame = {"choices": [{"index": 0, "delta": {"content": ""}, **NETWORK}]}
    bad = [answer(json=lost), stream([sse(frame, "[DONE]")])]
    good = [answer(json=chat("well")), stream([sse(delta(content="well"), delta("stop"), "[DONE]")])]
    with ScriptedServer(bad) as first, ScriptedServer(good) as second:
        backends = [
            OpenAIBackend("openrouter", base_url=first.url, preset="openrouter"),
            OpenAIBackend("other", base_url=second.url),
        ]
        with Router(backends) as router:
            call: dict[str, Any] = {"model": "openrouter/m", "fallback": ["other/m"]}
            reply = caller.complete(router, "hi", **call)
            assert (reply.text, reply.route.fallback) == ("well", True)
            assert caller.stream(router, "hi", **call).text == "well"


@complaint(
    "https://github.com/maximhq/bifrost/issues/5425",
    "OpenRouter answers 200 with choices[0].error: the part that came is a success",
)
@pytest.mark.parametrize(
    "failed",
    [
        {"finish_reason": "error", "error": {"code": 502, "message": "Upstream went away"}},
        {"finish_reason": "error"},
        {"finish_reason": "stop", "error": {"code": 502, "message": "Upstream went away"}},
        {"finish_reason": None, "error": {"code": 502, "message": "Upstream went away"}},
        NETWORK,
    ],
)
def test_a_choice_that_failed_is_never_an_answer(failed: dict[str, Any]) -> None:
    with pytest.raises(ServerError):
        OPENROUTER.decode(200, {}, as_json({"choices": [{"message": {"content": "Hel"}, **failed}]}))
    decoder = OPENROUTER.decoder(200, {})
    begun = decoder.feed(sse(delta(content="Hel"), {"choices": [{"index": 0, "delta": {}, **failed}]}))
    assert [chunk.text for chunk in begun] == ["Hel"]
    with pytest.raises(ServerError):
        decoder.finish()


@complaint(
    "https://github.com/maximhq/bifrost/issues/5425",
    "OpenRouter answers 200 with choices[0].error: the part that came is a success",
)
def test_a_stream_whose_choice_fails_is_interrupted(caller: Caller) -> None:
    failed = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"message": "gone"}}
    with ScriptedServer([stream([sse(delta(content="Hel"), {"choices": [failed]}, "[DONE]")])]) as server:
        with Router([OpenAIBackend("b", base_url=server.url)]) as router:
            heard = caller.stream(router, "hi", model="b/m")
    assert isinstance(heard.error, StreamInterruptedError)
    assert heard.text == "Hel"


# -- usage ---------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/Wei-Shaw/sub2api/issues/5771",
    "xAI counts reasoning outside completion_tokens, and it is not charged",
)
def test_reasoning_beside_the_completion_is_charged(caller: Caller) -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1700,
        "completion_tokens_details": {"reasoning_tokens": 500},
    }
    with ScriptedServer([answer(json=chat("x", usage=usage))]) as server:
        models = {"grok-4": Model(price=Price(3, 15))}
        with Router([OpenAIBackend("xai", base_url=server.url, models=models)]) as router:
            reply = caller.complete(router, "hi", model="xai/grok-4")
    assert (reply.usage.output, reply.usage.reasoning) == (700, 500)
    assert reply.cost == Decimal("0.0135")
    inside = told(**{**usage, "completion_tokens": 700})
    assert (inside.usage.output, inside.usage.reasoning) == (700, 500)


@complaint(
    "https://github.com/mozilla-ai/any-llm/issues/1290",
    "Gemini's thoughts are in total_tokens only: prompt and completion are less than the total",
)
@complaint(
    "https://github.com/router-for-me/CLIProxyAPI/issues/5733",
    "completion_tokens 0 with 60 reasoning tokens",
)
def test_thoughts_that_only_the_total_tells_are_charged() -> None:
    usage = told(prompt_tokens=20, completion_tokens=198, total_tokens=623).usage
    assert (usage.output, usage.reasoning, usage.estimated) == (603, 405, False)
    details = {"reasoning_tokens": 60}
    usage = told(
        prompt_tokens=21, completion_tokens=0, total_tokens=81, completion_tokens_details=details
    ).usage
    assert (usage.output, usage.reasoning) == (60, 60)


@complaint(
    "https://github.com/NousResearch/hermes-agent/issues/61871",
    "DeepSeek tells cache hits in prompt_cache_hit_tokens, which nobody reads",
)
def test_deepseeks_cache_hits_are_read() -> None:
    usage = told(
        prompt_tokens=100, completion_tokens=5, prompt_cache_hit_tokens=80, prompt_cache_miss_tokens=20
    ).usage
    assert (usage.cache_read, usage.input) == (80, 20)


@complaint(
    "https://github.com/earendil-works/pi/issues/2017",
    "Moonshot tells a stream's usage inside the choice",
)
def test_moonshots_usage_is_found_in_the_choice() -> None:
    last = delta("stop")
    last["choices"][0]["usage"] = {"prompt_tokens": 10, "completion_tokens": 4, "cached_tokens": 6}
    usage = streamed(MOONSHOT, delta(content="x"), last, "[DONE]").usage
    assert (usage.input, usage.cache_read, usage.output) == (4, 6, 4)


# -- parameters that a model does not take -------------------------------------------------------------------


@complaint(
    "https://github.com/musistudio/claude-code-router/issues/849",
    "gpt-5 answers 400 to any temperature but 1",
)
@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini-2025-08-07", "o3", "o4-mini", "o1-2024-12-17"])
def test_sampling_is_refused_by_name_or_dropped_visibly(caller: Caller, model: str) -> None:
    told = refused(OPENAI, model, temperature=0.0, top_p=0.5, presence_penalty=1.0, logprobs=True)
    assert told.keys() == {"temperature", "top_p", "presence_penalty", "logprobs"}
    assert model in told["temperature"]
    assert "Model(" in told["temperature"]
    with ScriptedServer([answer(json=chat("x"))]) as server:
        with Router([OpenAIBackend("b", base_url=server.url)], drop_params=True) as router:
            reply = caller.complete(router, "hi", model=f"b/{model}", temperature=0.0)
        assert "temperature" not in server.requests[0].json
    assert any("temperature dropped" in reason for reason in reply.route.reasons)


@complaint(
    "https://github.com/musistudio/claude-code-router/issues/849",
    "gpt-5 answers 400 to any temperature but 1",
)
def test_what_the_model_does_anyway_is_no_loss_and_a_users_own_facts_win() -> None:
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
    told = refused(OPENAI, "gpt-5.4", tools=[LOOK], reasoning_effort="low")
    assert told.keys() == {"reasoning_effort"}
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
def test_dashscope_is_told_by_its_own_flag() -> None:
    dashscope = OpenAIBackend("q", base_url="https://dashscope.aliyuncs.com/compatible-mode/v1")
    assert body(dashscope, model="qwen3-32b", reasoning_effort="none")["enable_thinking"] is False


@complaint("https://github.com/HKUDS/nanobot/issues/3939", "Kimi refuses thinking beside reasoning_effort")
def test_kimi_is_told_once() -> None:
    sent = body(MOONSHOT, model="kimi-k2.6", reasoning_effort="medium")
    assert sent["thinking"] == {"type": "enabled"}
    assert "reasoning_effort" not in sent


@complaint(
    "https://github.com/deepseek-ai/DeepSeek-V3/issues/1376",
    "DeepSeek refuses a forced tool while it thinks, which it does unasked",
)
def test_a_forced_tool_switches_off_thinking_that_nobody_asked_for() -> None:
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


# -- messages ------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/OpenHands/OpenHands/issues/7700",
    "an image in a tool result is refused by OpenAI and Azure",
)
@pytest.mark.parametrize("backend", [OPENAI, AZURE])
def test_a_screenshot_goes_into_a_user_message_behind_the_results(backend: Backend) -> None:
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
    sent = body(backend, *kwargs["messages"])["messages"]
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
def test_a_screenshot_at_the_end_makes_a_user_message_and_text_stays_with_the_result() -> None:
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
@pytest.mark.parametrize("preset", ["vllm", "llamacpp", "tgi", "localai"])
def test_a_chat_template_gets_one_system_message(preset: Any) -> None:
    backend = OpenAIBackend("own", preset=preset)
    for told in ((FIRST, LATER, HI), (FIRST, HI, LATER), (HI, FIRST, LATER)):
        sent = body(backend, *told)["messages"]
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


# -- odd frames ----------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/microsoft/agent-framework/pull/5734", "Azure: delta is null in the finishing chunk"
)
@complaint("https://github.com/BerriAI/litellm/issues/4429", "choices is null in a chunk")
@complaint(
    "https://github.com/InternLM/MindSearch/issues/310",
    "Azure's first chunk has no choices, and an empty id and model",
)
def test_null_and_empty_frames_say_nothing() -> None:
    first = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]}
    last = {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}
    reply = streamed(AZURE, first, {"choices": None}, delta(content="x"), last, "[DONE]")
    assert (reply.text, reply.finish_reason, reply.id, reply.model) == ("x", "stop", "c1", "m")


@complaint(
    "https://github.com/AtomicBot-ai/atomic-agent/pull/268",
    "calls without an index but with ids of their own are merged into one",
)
@complaint("https://github.com/ai-dynamo/dynamo/pull/4723", "parallel calls all come with index 0")
@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}])
def test_a_new_id_is_a_new_call(index: dict[str, Any]) -> None:
    pieces = [delta(tool_calls=[{**index, **CALL, "id": id}]) for id in ("a", "b")]
    assert [call.id for call in streamed(OPENAI, *pieces, delta("tool_calls")).tool_calls] == ["a", "b"]


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
    assert (b"api-key", b"example-key") in backend.header_list(http)


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
