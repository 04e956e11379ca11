"""Reports about Ollama: what it takes, what it sends, and what it does not say."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.ollama import FakeOllama, ScriptedReply, line
from tests.support.ollama import Model as Installed
from tests.support.scripted import Hang, ScriptedServer, Wait, answer, stream
from tests.wire.support import as_json, lines, run, sse

from ccroute import Model, OllamaBackend, OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.types import Request, Usage
from ccroute.wire import openai
from ccroute.wire.ollama import Decoder, decode

complaint = pytest.mark.complaint

OLLAMA = OllamaBackend("local")
HI: Mapping[str, Any] = {"role": "user", "content": "hi"}
LOOK: Mapping[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
END: Mapping[str, Any] = {
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
}


def body(*messages: Any, model: str = "qwen3", backend: OllamaBackend = OLLAMA, **options: Any) -> Any:
    """What is sent."""
    return json.loads(backend.encode(Request(messages=messages or (HI,), **options), model, False).body)


def said(content: str = "", **more: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": content, **more}, "done": False}


def schema_sent(schema: Any) -> Any:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return body(tools=[tool])["tools"][0]["function"]["parameters"]


# -- messages --------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/ollama/ollama/issues/17774", "a system message that is not the first is a 500 at Qwen"
)
@complaint(
    "https://github.com/Mochocyang/QMAI/issues/58",
    "two leading system messages are a 500 at Qwen3.6 on Ollama",
)
@complaint("https://github.com/ollama/ollama/issues/18241", "a second system message is a Jinja exception")
def test_there_is_one_system_message_and_it_comes_first() -> None:
    one, two, late = (
        {"role": "system", "content": text} for text in ("You are terse.", "Cite.", "Time is short.")
    )
    sent = body(one, two, HI, late)["messages"]
    assert sent == [{"role": "system", "content": "You are terse.\n\nCite.\n\nTime is short."}, HI]


@complaint(
    "https://github.com/aliasrobotics/cai/issues/76", "tool arguments as a string are a 400 at /api/chat"
)
@complaint(
    "https://github.com/BerriAI/litellm/issues/33678",
    "broken arguments in the history are a 500 a turn later",
)
@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ('{"path": "a"}{"path": "b"}', {"arguments": '{"path": "a"}{"path": "b"}'}),
    ],
)
def test_arguments_of_earlier_calls_are_objects(written: str, sent: object) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": written}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert body(HI, turn)["messages"][1]["tool_calls"][0]["function"]["arguments"] == sent


@complaint(
    "https://github.com/can1357/oh-my-pi/issues/7465",
    "done_reason load is taken for an empty success and retried",
)
@complaint(
    "https://github.com/langchain-ai/langchain/issues/31482",
    "an agent always ends with done_reason load and no text",
)
def test_an_answer_that_only_loads_the_model_is_not_tried_again(caller: Caller) -> None:
    loaded = {**END, "done_reason": "load"}
    with (
        ScriptedServer([answer(json=loaded)] * 3) as server,
        Router([OllamaBackend("o", server.url)]) as router,
    ):
        with pytest.raises(errors.InvalidRequestError, match="only loaded the model"):
            caller.complete(router, messages=[{"role": "system", "content": "s"}], model="o/m")
    assert len(server.requests) == 1


# -- tools -----------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/ollama/ollama/issues/8095",
    "format with tools: the model can call none, without a word",
)
@complaint(
    "https://github.com/ollama/ollama-python/issues/546", "tools are never invoked when format is given"
)
@complaint(
    "https://github.com/ollama/ollama/issues/11185",
    "format json and tools: the call is written into the text",
)
def test_a_schema_with_tools_is_refused_by_name_or_dropped_in_sight(caller: Caller) -> None:
    call = {"function": {"name": "look", "arguments": {}}}
    options = {"model": "o/m", "tools": [LOOK], "response_format": FORMAT}
    with FakeOllama(["m"], says=ScriptedReply((), tool_calls=[call])) as server:
        with Router([OllamaBackend("o", server.url)]) as router:
            with pytest.raises(errors.InvalidRequestError, match="response_format"):
                caller.complete(router, "hi", **options)
        with Router([OllamaBackend("o", server.url)], drop_params=True) as router:
            reply = caller.complete(router, "hi", **options)
    assert reply.tool_calls
    assert any("response_format dropped" in reason for reason in reply.route.reasons)
    assert "format" not in server.chats[0]


@complaint(
    "https://github.com/ollama/ollama/issues/13750", "format with tools works at ollama.com, not on one's own"
)
def test_ollamas_own_cloud_takes_a_schema_with_tools() -> None:
    request = Request(messages=(HI,), tools=[LOOK], response_format=FORMAT)
    assert OLLAMA.refusals(request, "gpt-oss:120b-cloud") == {}
    assert (
        OllamaBackend("cloud", "https://ollama.com", api_key="example-key").refusals(request, "gpt-oss:120b")
        == {}
    )
    assert list(OLLAMA.refusals(request, "gpt-oss:20b")) == ["response_format"]


@complaint(
    "https://github.com/ollama/ollama/pull/10091",
    "$defs of a tool are dropped, and the model invents the structure",
)
@complaint(
    "https://github.com/generative-computing/mellea/issues/404",
    "a pydantic model as a tool's parameter is not seen",
)
def test_references_in_a_tool_are_replaced_by_what_they_stand_for() -> None:
    city = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = {"type": "object", "properties": {"to": {"$ref": "#/$defs/City"}}, "$defs": {"City": city}}
    assert schema_sent(schema) == {"type": "object", "properties": {"to": city}}


@complaint("https://github.com/ollama/ollama/issues/10328", "an empty list for a tool's properties is a 400")
@complaint(
    "https://github.com/ollama/ollama/issues/18051", "an object under a tool property's required is a 400"
)
def test_what_ollamas_types_cannot_hold_is_not_sent() -> None:
    odd = {"type": "object", "properties": {}, "required": {"circle": ["radius"]}}
    assert schema_sent({"type": "object", "properties": [], "required": []})["properties"] == {}
    assert schema_sent({"type": "object", "properties": {"p": odd}})["properties"]["p"] == {
        "type": "object",
        "properties": {},
    }


@complaint(
    "https://github.com/ollama/ollama/pull/14932",
    "a stream is silent while a tool call is composed, and times out",
)
@complaint("https://github.com/ollama/ollama/issues/11633", "tool calls come in a single piece")
def test_a_stream_with_tools_may_be_silent_during_a_tool_call(caller: Caller) -> None:
    call = {"id": "c", "function": {"index": 0, "name": "look", "arguments": {"text": "long"}}}
    steps = stream([line(said("Now.")), Wait(0.06), line(said(tool_calls=[call])), line(END)])
    with ScriptedServer([steps]) as server, Router([OllamaBackend("o", server.url)]) as router:
        heard = caller.stream(router, "hi", model="o/m", tools=[LOOK], timeout=Timeout(idle=0.03))
    assert heard.error is None
    assert heard.completion.tool_calls[0].function.arguments == '{"text":"long"}'


@complaint("https://github.com/ollama/ollama/issues/15457", "all calls of a stream have index 0")
@complaint("https://github.com/vercel/ai/pull/14277", "calls with the same index are merged into broken JSON")
def test_calls_with_the_same_index_stay_apart_on_both_of_its_apis() -> None:
    functions = [{"name": "look", "arguments": {"at": place}} for place in ("a", "b")]
    native = [said(tool_calls=[{"function": {"index": 0, **function}}]) for function in functions]
    imitated = [
        {
            "id": f"call_{i}",
            "index": 0,
            "function": {**function, "arguments": json.dumps(function["arguments"])},
        }
        for i, function in enumerate(functions)
    ]
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in imitated]
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    for completion in (
        run(Decoder(), lines(*native, END))[1],
        run(openai.Decoder(), sse(*deltas, finish, "[DONE]"))[1],
    ):
        assert [json.loads(call.function.arguments)["at"] for call in completion.tool_calls] == ["a", "b"]
        assert completion.finish_reason == "tool_calls"


@complaint("https://github.com/kenlasko/monize/pull/405", "a model without a tool template answers 400")
def test_missing_tools_are_the_callers_mistake() -> None:
    error_body = as_json({"error": "registry.ollama.ai/library/Qwen3.5:0.8b does not support tools"})
    error = OLLAMA.classify(400, {}, error_body)
    assert isinstance(error, errors.InvalidRequestError)
    assert "does not support tools" in str(error)


# -- thinking --------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/ollama/ollama/issues/8875", "thoughts stand in the answer between <think> tags"
)
@complaint(
    "https://github.com/RooCodeInc/Roo-Code/issues/1087",
    "think tags of deepseek-r1 are not split from the answer",
)
def test_thoughts_in_the_text_are_split_from_the_answer() -> None:
    whole = decode(as_json({**END, "message": {"content": "<think>\nhm\n</think>\n\nHello"}}))
    streamed = run(Decoder(), lines(*map(said, ("<think>", "\nhm\n", "</think>", "\n\nHello")), END))[1]
    for completion in (whole, streamed):
        assert (completion.thinking, completion.text) == ("hm\n", "Hello")


@complaint(
    "https://github.com/ollama/ollama/issues/15831", "levels of think are words that a server may not know"
)
@pytest.mark.parametrize(("effort", "think"), [("minimal", True), ("max", True), ("none", False)])
def test_a_level_is_only_sent_to_models_that_take_levels(effort: str, think: bool) -> None:
    assert body(reasoning_effort=effort)["think"] is think
    assert body(reasoning_effort="max", model="gpt-oss:20b")["think"] == "high"


# -- the window ------------------------------------------------------------------------------------------


@complaint("https://github.com/ollama/ollama/issues/17889", "40,960 are declared and 4,096 served")
@complaint(
    "https://github.com/NousResearch/hermes-agent/pull/5929",
    "the trained window is shown, and 2,048 tokens are served",
)
@complaint(
    "https://github.com/ollama/ollama/issues/10829", "the Modelfile's num_ctx wins over OLLAMA_CONTEXT_LENGTH"
)
def test_the_reported_window_is_the_one_that_is_served() -> None:
    installed = [Installed("qwen3:14b", context_length=40_960), Installed("mistral-small3.1", num_ctx=4096)]
    with FakeOllama(installed) as server, Router([OllamaBackend("o", server.url)]) as router:
        before = {model.id: model.context_window for model in router.discover()}
        router.complete("hi", model="o/qwen3:14b")
        after = {model.id: model.context_window for model in router.discover()}
    assert before == {"o/qwen3:14b": None, "o/mistral-small3.1": 4096}
    assert after == {"o/qwen3:14b": 4096, "o/mistral-small3.1": 4096}


@complaint(
    "https://github.com/Stirling-Tools/Stirling-PDF/pull/7770",
    "a prompt is clipped at its front without a word",
)
@complaint("https://github.com/ollama/ollama/issues/3839", "nothing tells that a prompt was cut")
def test_the_server_is_asked_not_to_truncate() -> None:
    assert {name: body()[name] for name in ("truncate", "shift")} == {"truncate": False, "shift": False}


@complaint(
    "https://github.com/Aider-AI/aider/issues/4687",
    "a num_ctx that drifts reloads the model at every request",
)
def test_the_window_that_is_sent_never_drifts() -> None:
    backend = OllamaBackend("o", models={"m": Model(context_window=8192)})
    prompts = ({"role": "user", "content": "x" * length} for length in (1, 30_000))
    assert [body(each, model="m", backend=backend)["options"] for each in prompts] == [{"num_ctx": 8192}] * 2


@complaint(
    "https://github.com/dyad-sh/dyad/issues/3498",
    "an overflow of Ollama's cloud tells the excess, not the window",
)
def test_the_excess_is_not_taken_for_the_window() -> None:
    error_body = "prompt too long; exceeded max context length by 540451 tokens (ref: 00ad71bb)"
    error = OLLAMA.classify(400, {}, as_json({"error": error_body}))
    assert isinstance(error, errors.ContextWindowExceededError)
    assert error.limit is None


# -- names, memory, loads --------------------------------------------------------------------------------


@complaint(
    "https://github.com/iDiagoValeta/localOllamaRAG/issues/129",
    "name and name:latest are taken for two models",
)
@complaint(
    "https://github.com/lucagrippa/obsidian-ai-tagger/issues/37",
    "the listed name:latest is not the name one types",
)
def test_both_names_of_a_model_are_one(caller: Caller) -> None:
    with FakeOllama(["coder"]) as server:
        backend = OllamaBackend("o", server.url, models={"coder:latest": Model(context_window=2048)})
        with Router([backend], {"a": ["o/coder", "o/coder:latest"]}) as router:
            routes = [caller.complete(router, "hi", model=name).route for name in ("a", "o/coder:latest")]
            [listed] = [model.id for model in router.discover()]
    assert {route.deployment for route in routes} == {listed} == {"o/coder"}
    assert [chat["options"]["num_ctx"] for chat in server.chats] == [2048, 2048]


@complaint("https://github.com/karakeep-app/karakeep/issues/2409", 'keep_alive "-1" fails at every call')
@complaint("https://github.com/open-webui/open-webui/issues/753", 'keep_alive "-1": missing unit in duration')
def test_a_bad_keep_alive_is_refused_when_the_backend_is_made() -> None:
    with pytest.raises(errors.ConfigError, match="write the number -1"):
        OllamaBackend(keep_alive="-1")
    assert body(backend=OllamaBackend(keep_alive=-1))["keep_alive"] == -1


@complaint(
    "https://github.com/rsynnot/magic-lists-for-navidrome/issues/34",
    "a timeout cancels the load, every time",
)
@complaint(
    "https://github.com/danny-avila/LibreChat/issues/3330", "prompts end before Ollama has loaded the model"
)
def test_a_timeout_shorter_than_a_load_is_logged(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    slow = {**END, "model": "m", "message": {"content": "x"}, "load_duration": 15_400_000_000}
    with ScriptedServer([answer(json=slow), [Hang()]]) as server:
        with Router([OllamaBackend("o", server.url)], retry=RetryPolicy(attempts=1)) as router:
            caller.complete(router, "hi", model="o/m")
            with pytest.raises(errors.BackendTimeoutError, match=r"shorter than the load \(15\.4 s"):
                caller.complete(router, "hi", model="o/m", timeout=Timeout(first=0.02))
    assert [record.levelno for record in caplog.records if "15.4 s" in record.getMessage()] == [
        logging.WARNING
    ]


# -- how answers end -------------------------------------------------------------------------------------


@complaint(
    "https://github.com/ollama/ollama/pull/18374",
    "an answer that repeats itself is cut and looks like a success",
)
@complaint(
    "https://github.com/ollama/ollama/issues/18359",
    "a stream of a repeated token ends without done and without error",
)
def test_an_answer_that_was_cut_is_no_success() -> None:
    with pytest.raises(errors.ProtocolError, match="done: false"):
        decode(as_json(said(" same" * 31)))
    with pytest.raises(errors.ProtocolError, match="without done: true"):
        run(Decoder(), lines(*[said(" same")] * 31))
    error_body = OLLAMA.classify(
        500, {}, as_json({"error": "prediction aborted, token repeat limit reached"})
    )
    assert isinstance(error_body, errors.ServerError)
    cut = {
        "choices": [{"message": {"content": " same"}, "finish_reason": None}],
        "usage": {"prompt_tokens": 0},
    }
    with pytest.raises(errors.ProtocolError):
        OpenAIBackend("v1", base_url="http://localhost:11434").decode(200, {}, as_json(cut))


@complaint(
    "https://github.com/ollama/ollama-vscode/pull/61", "a stream ends with a done_reason and without done"
)
def test_a_reason_to_be_done_is_an_end() -> None:
    last = {"message": {"role": "assistant", "content": ""}, "done_reason": "stop"}
    assert run(Decoder(), lines(said("Hello"), last))[1].finish_reason == "stop"
    assert decode(as_json({"message": {"content": "Hello"}, "done_reason": "stop"})).text == "Hello"


@complaint(
    "https://github.com/BerriAI/litellm/issues/25825", "an answer cut by its limit is reported as stop"
)
def test_an_answer_cut_by_its_limit_says_so() -> None:
    cut = {**END, "done_reason": "length"}
    assert decode(as_json(cut)).finish_reason == run(Decoder(), lines(cut))[1].finish_reason == "length"


@complaint("https://github.com/pepperoni21/ollama-rs/pull/357", "an error line inside a stream is swallowed")
@complaint(
    "https://github.com/ollama/ollama/issues/14093", "a runner that crashed is a 500, or a line of the stream"
)
def test_an_error_inside_a_stream_is_one(caller: Caller) -> None:
    broke = {"error": "an error was encountered while running the model: unexpected EOF"}
    steps = stream([line(said("Hello! How")), line(broke)])
    with ScriptedServer([steps]) as server, Router([OllamaBackend("o", server.url)]) as router:
        heard = caller.stream(router, "hi", model="o/m")
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert heard.error.partial is not None
    assert heard.error.partial.text == "Hello! How"
    assert "unexpected EOF" in str(heard.error)


# -- counts and refusals ---------------------------------------------------------------------------------


@complaint(
    "https://github.com/ollama/ollama/issues/3427", "prompt_eval_count is absent when the prompt is cached"
)
@complaint(
    "https://github.com/ollama/ollama/issues/17943",
    "the cached part of the prompt is listed apart, and counted twice",
)
def test_prompts_are_counted_once_also_where_they_were_cached() -> None:
    counts = {"prompt_eval_count": 100, "prompt_eval_cached_count": 80, "eval_count": 2}
    assert decode(as_json({**END, **counts})).usage == Usage(input=20, cache_read=80, output=2)
    unsaid = decode(as_json({**END, "eval_count": 2})).usage
    assert (unsaid.input, unsaid.estimated) == (0, True)


@complaint(
    "https://github.com/ollama/ollama/issues/3269", "a host name that Ollama does not know is a bare 403"
)
def test_a_bare_403_says_what_to_do() -> None:
    error = OLLAMA.classify(403, {}, b"")
    assert isinstance(error, errors.PermissionDeniedError)
    assert 'headers={"host": "localhost"}' in str(error)
    refused = OLLAMA.classify(
        403, {}, as_json({"error": "ollama cloud is disabled: remote model is unavailable"})
    )
    assert "host" not in str(refused)


@complaint("https://github.com/continuedev/continue/issues/3203", 'temperature "0" as a text has no effect')
def test_a_parameter_of_the_wrong_kind_is_refused_by_name(caller: Caller) -> None:
    with Router([OLLAMA]) as router:
        with pytest.raises(errors.InvalidRequestError, match="temperature must be a number, not str"):
            caller.complete(router, "hi", model="local/m", temperature="0")
