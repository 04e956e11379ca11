"""Reports by users of servers that speak OpenAI's and Anthropic's API; here, ccroute is that server."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.conftest import Caller
from tests.serve.support import frames
from tests.support import anthropic_like as like
from tests.support import openai_like
from tests.support.scripted import ScriptedServer, answer, stream

from ccroute import AnthropicBackend, Backend, Completion, OllamaBackend, OpenAIBackend, Router
from ccroute.errors import InvalidRequestError
from ccroute.serve import anthropic, openai
from ccroute.types import Request
from ccroute.wire.fields import without
from wrapper import Wrapper

complaint = pytest.mark.complaint

CLAUDE = AnthropicBackend("claude", api_key="a-test-key")
WITH_BETA = AnthropicBackend(
    "b", api_key="a-test-key", headers={"anthropic-beta": "context-management-2025-06-27"}
)
VLLM = OpenAIBackend("vllm", base_url="http://vllm.test", preset="vllm")
OLLAMA = OllamaBackend("mini")
USER = {"role": "user", "content": "hi"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [USER]}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


def parsed(wire: Any = anthropic, **given: Any) -> Request:
    kwargs = dict(wire.parse_request({**ASK, **given}).kwargs)
    return Request(**kwargs)


def body(backend: Backend, request: Request, model: str = "m") -> Any:
    return json.loads(backend.encode(request, model, False).body)


def served(backend: Backend, model: str = "m", wire: Any = anthropic, **given: Any) -> list[Any]:
    """The events that a client gets who asks for a stream."""
    request = wire.parse_request({**ASK, "model": f"{backend.name}/{model}", "stream": True, **given})
    with Router([backend]) as router:
        return frames(wire.dump_stream(router.stream(**request.kwargs)))


@contextmanager
def wrapped(backend: Backend) -> Iterator[Wrapper]:
    """The example wrapper over one backend."""
    with Router([backend], {"m": f"{backend.name}/m"}) as router, Wrapper(router, None) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(server: Wrapper, path: str, given: Any) -> tuple[int, Any]:
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        link.request("POST", path, json.dumps(given))
        reply = link.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        link.close()


# -- usage ---------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/sgl-project/sglang/issues/20830",
    "message_start said 0 input tokens, which breaks Claude Code's compaction",
)
def test_message_start_has_the_backends_own_prompt_count() -> None:
    with ScriptedServer([stream(like.message_sse(usage=like.usage(15, 7, read=20_000)))]) as server:
        events = served(AnthropicBackend("claude", api_key="a-test-key", base_url=server.url))
    usage = events[0]["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (15, 20_000)


@complaint(
    "https://github.com/sgl-project/sglang/issues/20830",
    "message_start said 0 input tokens, which breaks Claude Code's compaction",
)
def test_message_start_has_an_estimate_where_usage_comes_last() -> None:
    long = [{"role": "user", "content": "word " * 4000}]
    with ScriptedServer([stream(openai_like.chat_sse(usage=openai_like.usage(4321, 7)))]) as server:
        events = served(OpenAIBackend("vllm", base_url=server.url), messages=long)
    assert 2500 < events[0]["message"]["usage"]["input_tokens"] < 7500
    assert events[-2]["usage"]["input_tokens"] == 4321, "what is true comes at the end"


@complaint(
    "https://github.com/Alishahryar1/free-claude-code/issues/209",
    "Claude Code dies where usage is missing in message_start, message_delta or the message",
)
def test_usage_is_always_there_and_whole() -> None:
    untold = openai_like.chat_sse(usage=None)
    with ScriptedServer([stream(untold)]) as server:
        events = served(OpenAIBackend("vllm", base_url=server.url))
    for usage in (events[0]["message"]["usage"], events[-2]["usage"]):
        assert {type(usage["input_tokens"]), type(usage["output_tokens"])} == {int}
    assert anthropic.dump_completion(Completion())["usage"]["input_tokens"] == 0


@complaint(
    "https://github.com/decolua/9router/issues/2337",
    "count_tokens was missing, or counted only texts: Claude Code never compacts",
)
def test_count_tokens_counts_system_tools_and_results() -> None:
    call = like.tool_use("read", {"path": "a" * 4000})
    found = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "line\n" * 2000}
    given = {
        "model": "m",
        "system": "s" * 4000,
        "tools": [{"name": "read", "description": "d" * 4000, "input_schema": {"type": "object"}}],
        "messages": [USER, {"role": "assistant", "content": [call]}, {"role": "user", "content": [found]}],
    }
    with wrapped(VLLM) as server:
        status, counted = post(server, "/v1/messages/count_tokens?beta=true", given)
    assert status == 200
    assert counted["input_tokens"] > 5000


@complaint(
    "https://github.com/Wei-Shaw/claude-relay-service/issues/731",
    "fifty count_tokens requests in a second, passed on, used up the rate limit",
)
def test_count_tokens_is_answered_without_asking_the_backend() -> None:
    with ScriptedServer() as backend, wrapped(OpenAIBackend("vllm", base_url=backend.url)) as server:
        assert {post(server, "/v1/messages/count_tokens", ASK)[0] for _ in range(20)} == {200}
        assert backend.requests == []


# -- fields of one API only ----------------------------------------------------------------------------------


@complaint(
    "https://github.com/anthropics/claude-code/issues/21612",
    "context_management is a 400 at others, and at Anthropic without its beta header",
)
def test_anthropics_fields_reach_only_an_anthropic_backend(caller: Caller) -> None:
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    request = parsed(context_management=edits, container="c1", service_tier="auto")
    for backend in (VLLM, OLLAMA):
        assert set(backend.refusals(request, "m")) == {"context_management", "container", "service_tier"}
    assert list(CLAUDE.refusals(request, "claude-opus-4-8")) == ["context_management"]
    assert "anthropic-beta" in CLAUDE.refusals(request, "claude-opus-4-8")["context_management"]
    assert WITH_BETA.refusals(request, "claude-opus-4-8") == {}
    sent = body(WITH_BETA, request, "claude-opus-4-8")
    assert (sent["context_management"], sent["container"], sent["service_tier"]) == (edits, "c1", "auto")
    with ScriptedServer([answer(json=openai_like.chat())]) as server:
        vllm = OpenAIBackend("vllm", base_url=server.url)
        kwargs = {**anthropic.parse_request({**ASK, "context_management": edits}).kwargs, "model": "vllm/m"}
        with Router([vllm]) as strict, pytest.raises(InvalidRequestError, match="context_management"):
            caller.complete(strict, **kwargs)
        with Router([vllm], drop_params=True) as router:
            reply = caller.complete(router, **kwargs)
        assert "context_management" not in server.requests[0].json
    assert any("context_management dropped" in reason for reason in reply.route.reasons)


@complaint(
    "https://github.com/anthropics/claude-code/issues/11678",
    "tools carried input_examples, which backends refuse",
)
def test_extras_of_tools_reach_anthropic_only() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}, "input_examples": [{}], "defer_loading": True}
    request = parsed(tools=[tool])
    for backend in (VLLM, OLLAMA, AnthropicBackend("gateway", base_url="http://gateway.test")):
        left = without(request, backend.refusals(request, "m"))
        assert not any(
            name in json.dumps(body(backend, left)) for name in ("input_examples", "defer_loading")
        )
    assert CLAUDE.refusals(request, "m") == {}
    assert body(CLAUDE, request)["tools"] == [tool]


@complaint(
    "https://github.com/livekit/agents/pull/3966",
    "reasoning_effort: null is a 400 at gpt-5.1",
)
def test_a_clients_null_is_not_sent() -> None:
    request = parsed(openai, reasoning_effort=None, temperature=None, user=None, verbosity=None)
    assert body(VLLM, request).keys() == {"model", "messages", "max_tokens"}


@complaint(
    "https://github.com/vllm-project/vllm/pull/39780",
    "tools: [] of a client is a 400 at vLLM and others",
)
def test_a_clients_empty_tools_are_not_sent() -> None:
    for wire in (openai, anthropic):
        for backend in (VLLM, OLLAMA, CLAUDE):
            assert "tools" not in body(backend, parsed(wire, tools=[]))


# -- messages ------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/Alishahryar1/free-claude-code/issues/626",
    "Claude Code puts system messages among the others: servers answered 400 or 422",
)
def test_system_messages_may_stand_anywhere() -> None:
    reminder = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "system", "content": "Be brief."}, USER, {"role": "system", "content": reminder}]
    sent = body(CLAUDE, parsed(system="You help.", messages=messages), "claude-opus-4-8")
    assert [block["text"] for block in sent["system"]] == ["You help.", "Be brief.", "Be kind."]
    assert [turn["role"] for turn in sent["messages"]] == ["user"]


@complaint(
    "https://github.com/vellum-ai/vellum-assistant/issues/40145",
    "blocks of web search were dropped: an answer that ends with pause_turn could not be continued",
)
def test_a_client_of_ours_can_continue_a_paused_turn() -> None:
    text = {"type": "text", "text": "I look."}
    pieces = [
        like.text_block(["I ", "look."]),
        like.block_sse(
            1, {**SEARCH, "input": {}}, [{"type": "input_json_delta", "partial_json": '{"query": "x"}'}]
        ),
        like.block_sse(2, FOUND, ()),
    ]
    whole = like.message([text, SEARCH, FOUND], stop="pause_turn")
    with ScriptedServer(
        [stream(like.message_sse(blocks=pieces, stop="pause_turn")), answer(json=whole)]
    ) as server:
        claude = AnthropicBackend("claude", api_key="a-test-key", base_url=server.url)
        events = served(claude, "claude-opus-4-8")
        with Router([claude]) as router:
            dumped = anthropic.dump_completion(router.complete("hi", model="claude/claude-opus-4-8"))
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert starts[1:] == [{**SEARCH, "input": {}}, FOUND]
    assert {"type": "input_json_delta", "partial_json": '{"query":"x"}'} in [
        event.get("delta") for event in events
    ]
    assert dumped["content"] == [text, SEARCH, FOUND]
    assert dumped["stop_reason"] == events[-2]["delta"]["stop_reason"] == "pause_turn"
    request = parsed(messages=[USER, {"role": "assistant", "content": dumped["content"]}])
    assert body(CLAUDE, request, "claude-opus-4-8")["messages"][1]["content"] == dumped["content"]
    assert body(VLLM, request)["messages"][1] == {"role": "assistant", "content": "I look."}


@complaint(
    "https://github.com/kaitranntt/ccs/issues/415",
    "thoughts of another model, handed to Claude Code without a signature, came back and were refused",
)
def test_thoughts_of_other_models_do_not_reach_claude() -> None:
    reply_body = openai_like.chat("a", reasoning_content="hm")
    with (
        ScriptedServer([answer(json=reply_body)]) as server,
        Router([OpenAIBackend("vllm", base_url=server.url)]) as router,
    ):
        dumped = anthropic.dump_completion(router.complete("hi", model="vllm/m"))
    assert dumped["content"][0] == {"type": "thinking", "thinking": "hm", "signature": ""}
    request = parsed(messages=[USER, {"role": "assistant", "content": dumped["content"]}, USER])
    assert body(CLAUDE, request, "claude-opus-4-8")["messages"][1]["content"] == [
        {"type": "text", "text": "a"}
    ]


@complaint(
    "https://github.com/router-for-me/CLIProxyAPI/issues/4656",
    "parallel tool results in messages of their own are refused",
)
def test_calls_between_thoughts_are_one_message_for_others() -> None:
    """OpenAI wants all results right after the message with the calls."""
    think = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    blocks = [think, like.tool_use("a", {}), think, like.tool_use("b", {}, id="toolu_2")]
    results = [{"type": "tool_result", "tool_use_id": id, "content": "x"} for id in ("toolu_1", "toolu_2")]
    messages = [USER, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    request = parsed(messages=messages)
    assert [message["role"] for message in body(VLLM, request)["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    assert body(CLAUDE, request, "claude-opus-4-8")["messages"][1]["content"] == blocks


# -- answers -------------------------------------------------------------------------------------------------


@complaint(
    "https://github.com/router-for-me/CLIProxyAPI/issues/3776",
    "a tool's input was empty where the backend sent the arguments in its first chunk",
)
def test_whole_arguments_are_served_as_deltas() -> None:
    first = {"index": 0, **openai_like.tool_call("Bash", '{"command": "ls"}')}
    events = [
        openai_like.chunk({"tool_calls": [first]}),
        openai_like.chunk({}, finish="tool_calls"),
        openai_like.DONE,
    ]
    with ScriptedServer([stream(events)]) as server:
        events = served(OpenAIBackend("vllm", base_url=server.url))
    start = next(event for event in events if event["type"] == "content_block_start")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert start["content_block"]["input"] == {}
    assert deltas == [{"type": "input_json_delta", "partial_json": '{"command": "ls"}'}]


@complaint(
    "https://github.com/ollama/ollama/issues/17101",
    "two blocks were open with one index: Content block not found",
)
def test_one_block_is_open_at_a_time_whatever_comes() -> None:
    deltas = [{"content": "---"}, {"reasoning_content": "hm"}, {"content": "a"}, {"reasoning_content": "hm"}]
    events = [
        *(openai_like.chunk(delta) for delta in deltas),
        openai_like.chunk({}, finish="stop"),
        openai_like.DONE,
    ]
    with ScriptedServer([stream(events)]) as server:
        events = served(OpenAIBackend("vllm", base_url=server.url))
    blocks = [
        (event["type"], event["index"]) for event in events if "index" in event and "delta" not in event
    ]
    assert blocks == [
        (kind, index) for index in range(4) for kind in ("content_block_start", "content_block_stop")
    ]


@complaint(
    "https://github.com/yutori-ai/yutori-sdk-python/pull/251",
    "calls without an id all got the same one: a later call was never answered",
)
def test_ids_that_we_give_are_unique_in_the_whole_conversation() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    for wire, place in ((openai, "tool_calls"), (anthropic, "content")):
        replies = [
            openai_like.chat(None, tool_calls=[call, call], finish="tool_calls", id=f"c{i}") for i in (1, 2)
        ]
        with ScriptedServer([answer(json=each) for each in replies]) as server:
            with Router([OpenAIBackend("vllm", base_url=server.url)]) as router:
                dumped = [wire.dump_completion(router.complete("hi", model="vllm/m")) for _ in replies]
        calls = [each["choices"][0]["message"][place] if wire is openai else each[place] for each in dumped]
        ids = [each["id"] for answer in calls for each in answer]
        assert len(set(ids)) == 4
        assert max(map(len, ids)) <= 40


@complaint(
    "https://github.com/azrtydxb/Fastllm-proxy/issues/23",
    "vLLM's field reasoning was passed through: clients that know reasoning_content saw no thoughts",
)
def test_thoughts_are_served_under_one_name() -> None:
    events = [
        openai_like.chunk({"reasoning": "Here"}),
        openai_like.chunk({"content": "a"}, finish="stop"),
        openai_like.DONE,
    ]
    with ScriptedServer([stream(events), answer(json=openai_like.chat("a", reasoning="Here"))]) as server:
        vllm = OpenAIBackend("vllm", base_url=server.url)
        events = served(vllm, wire=openai)
        with Router([vllm]) as router:
            whole = openai.dump_completion(router.complete("hi", model="vllm/m"))
    thoughts = [
        event["choices"][0]["delta"].get("reasoning_content") for event in events if isinstance(event, dict)
    ]
    assert "Here" in thoughts
    assert whole["choices"][0]["message"]["reasoning_content"] == "Here"


@complaint(
    "https://github.com/anthropics/claude-code/issues/4788",
    "an answer without content under 200 broke the client",
)
def test_an_answer_always_has_a_list_of_content() -> None:
    assert anthropic.dump_completion(Completion())["content"] == []
    silent = [openai_like.chunk({"content": ""}), openai_like.chunk({}, finish="stop"), openai_like.DONE]
    with ScriptedServer([stream(silent)]) as server:
        assert served(OpenAIBackend("vllm", base_url=server.url))[0]["message"]["content"] == []
