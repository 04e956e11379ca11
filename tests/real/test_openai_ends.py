"""How answers of OpenAI-compatible servers end, fail and are counted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.conftest import Caller
from tests.real.openai_wire import (
    AZURE,
    CALL,
    GEMINI,
    MOONSHOT,
    OPENAI,
    OPENROUTER,
    answer_with,
    complaint,
    streamed,
    whole,
)
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer, stream
from tests.wire.support import as_json, delta, sse

from ccroute import OpenAIBackend, Price, Router
from ccroute.errors import (
    ContextWindowExceededError,
    ProtocolError,
    ServerError,
    StreamInterruptedError,
)
from ccroute.types import Model

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
def test_a_setting_trusts_a_server_without_finish_reasons() -> None:
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
    "an overflow reported as a finish reason, with zero usage: the client asks again for ever",
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
    inside = answer_with(**{**usage, "completion_tokens": 700})
    assert (inside.usage.output, inside.usage.reasoning) == (700, 500)


@complaint(
    "https://github.com/mozilla-ai/any-llm/issues/1290",
    "Gemini's thoughts are in total_tokens only: prompt and completion are less than the total",
)
@complaint(
    "https://github.com/router-for-me/CLIProxyAPI/issues/5733",
    "completion_tokens 0 with 60 reasoning tokens",
)
def test_thoughts_that_are_only_in_the_total_are_charged() -> None:
    usage = answer_with(prompt_tokens=20, completion_tokens=198, total_tokens=623).usage
    assert (usage.output, usage.reasoning, usage.estimated) == (603, 405, False)
    details = {"reasoning_tokens": 60}
    usage = answer_with(
        prompt_tokens=21, completion_tokens=0, total_tokens=81, completion_tokens_details=details
    ).usage
    assert (usage.output, usage.reasoning) == (60, 60)


@complaint(
    "https://github.com/NousResearch/hermes-agent/issues/61871",
    "DeepSeek tells cache hits in prompt_cache_hit_tokens, which nobody reads",
)
def test_deepseeks_cache_hits_are_read() -> None:
    usage = answer_with(
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
