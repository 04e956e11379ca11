"""The doubles do what they say: a test that fails must fail for the library's sake, not for a double's."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.support import anthropic_like, openai_like
from tests.support.certificates import Authority
from tests.support.llama import llama_tools_server, server_connections
from tests.support.ollama import FakeOllama, Model, ScriptedReply, broken_stream, chat_lines
from tests.support.scripted import (
    BlackHole,
    Close,
    Hang,
    Request,
    Reset,
    ScriptedServer,
    Send,
    Set,
    Trickle,
    Wait,
    answer,
    chunk,
    head,
    refused_port,
    stream,
)

import tiny_llama
from tiny_llama import TinyLlama

__all__ = ["llama_tools_server"]  # a fixture


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test of this file leaves a thread."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# -- ScriptedServer ------------------------------------------------------------------------------------------


def test_replies_come_in_order_over_one_kept_connection() -> None:
    with ScriptedServer([answer(json={"n": 1}), answer(201, body="two", headers={"x-id": "7"})]) as server:
        with httpx.Client(base_url=server.url) as client:
            first, second = client.post("/a?b=c", json={"q": "é"}), client.get("/d")
        assert server.wait_closed()
    assert first.json() == {"n": 1}
    assert (second.status_code, second.text, second.headers["x-id"]) == (201, "two", "7")
    assert (server.connections, server.open_connections, server.closed_by_peer) == (1, 0, 1)
    sent, bare = server.requests
    assert (sent.method, sent.target, sent.json, sent.connection) == ("POST", "/a?b=c", {"q": "é"}, 1)
    assert sent.headers["content-type"] == "application/json"
    assert (bare.method, bare.body) == ("GET", b"")


def test_a_request_beyond_the_script_is_answered_in_words() -> None:
    with ScriptedServer([answer()]) as server:
        assert httpx.get(server.url).status_code == 200
        assert "no reply to request 2" in httpx.get(server.url).text


def test_the_last_reply_repeats_when_asked() -> None:
    with ScriptedServer([answer(503), stream([b"ok"])], repeat=True) as server:
        assert [httpx.get(server.url).status_code for _ in range(4)] == [503, 200, 200, 200]
        assert httpx.get(server.url).text == "ok"


def test_a_callable_script_sees_the_whole_request() -> None:
    def echo(request: Request) -> list[Send]:
        return answer(body=request.body)

    with ScriptedServer(echo) as server:
        reply = httpx.post(server.url, content=iter([b"one ", b"two"]))
    assert reply.text == "one two"
    assert server.requests[0].headers["transfer-encoding"] == "chunked"


def test_an_exception_in_a_script_is_raised_at_the_end() -> None:
    def broken(request: Request) -> list[Send]:
        raise ValueError("script")

    with (
        pytest.raises(ValueError, match="script"),
        ScriptedServer(broken) as server,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(server.url)


def test_a_stream_keeps_its_pieces_apart_and_can_wait_for_the_test() -> None:
    go, passed = threading.Event(), threading.Event()
    script = [stream([b"a", Wait(go), Set(passed), b"b"])]
    with ScriptedServer(script) as server, httpx.stream("GET", server.url) as reply:
        pieces = reply.iter_raw()
        assert next(pieces) == b"a"
        assert not passed.is_set()
        go.set()
        assert next(pieces) == b"b"
        assert list(pieces) == []
        assert passed.is_set()


def test_an_unchunked_stream_ends_with_the_connection() -> None:
    with ScriptedServer([stream([b"a", b"b"], chunked=False)]) as server:
        assert httpx.get(server.url).text == "ab"


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (Close(), httpx.RemoteProtocolError),
        (Reset(), httpx.ReadError),
    ],
)
def test_a_script_may_end_a_connection_in_the_middle(end: Close | Reset, error: type[Exception]) -> None:
    sent = threading.Event()
    half = head(headers={"content-length": "9"}) + b"half"
    with ScriptedServer([[Send(half), Wait(sent), end]]) as server, httpx.stream("GET", server.url) as reply:
        pieces = reply.iter_raw()
        assert next(pieces) == b"half"
        sent.set()
        with pytest.raises(error):
            next(pieces)
    assert server.closed_by_peer == 0


def test_a_trickle_takes_its_time() -> None:
    whole = head(headers={"content-length": "2"}) + b"ok"
    with ScriptedServer([[Trickle(whole, 0.01, size=10)]]) as server:
        start = time.monotonic()
        assert httpx.get(server.url).text == "ok"
        assert time.monotonic() - start >= 0.01 * (len(whole) // 10 - 1)


def test_a_hang_lasts_until_the_client_goes() -> None:
    with ScriptedServer([[Hang()]]) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(server.url, timeout=0.05)
        assert server.wait_closed()


def test_stopping_does_not_wait_for_a_hanging_or_a_blocked_script() -> None:
    flood = stream([b"x" * 10_000_000, b"y" * 10_000_000])
    with ExitStack() as clients:
        with ScriptedServer([[Hang()], [Wait(60)], flood]) as server:
            for _ in range(3):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert server.wait_requests(3)
            start = time.monotonic()
        assert time.monotonic() - start < 1


def test_steps_on_connect_come_before_any_request() -> None:
    with ScriptedServer(on_connect=[Reset()]) as server:
        with pytest.raises(httpx.NetworkError):  # connecting, writing or reading: the reset may win any race
            httpx.get(server.url)
        assert (server.requests, server.connections) == ([], 1)


async def test_a_cancelled_client_is_seen_to_hang_up() -> None:
    with ScriptedServer([stream([b"a", Hang()])]) as server:
        async with httpx.AsyncClient() as client:
            call = asyncio.create_task(client.get(server.url))
            assert await asyncio.to_thread(server.wait_requests)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await asyncio.to_thread(server.wait_closed)
        assert await asyncio.to_thread(server.wait_idle)


def test_a_chunk_is_framed() -> None:
    assert chunk(b"0123456789") == b"a\r\n0123456789\r\n"
    assert chunk(b"") == b"0\r\n\r\n"


def test_a_refused_port_and_a_black_hole_answer_nothing() -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{refused_port()}")
    with BlackHole() as hole, pytest.raises(httpx.ConnectTimeout):
        httpx.get(hole.url, timeout=0.1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_tls_is_spoken_with_a_good_certificate(authority: Authority, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority.write(tmp_path)))
    with ScriptedServer([answer(body="safe"), [Hang()]], tls=authority.server()) as server:
        assert server.url.startswith("https://")
        with httpx.Client(verify=context, timeout=0.2) as client:
            assert client.get(server.url).text == "safe"
            with pytest.raises(httpx.ReadTimeout):
                client.get(server.url)
        assert server.wait_closed()


@pytest.mark.parametrize(("fault", "why"), [("expired", "expired"), ("wrong_host", "mismatch")])
def test_a_bad_certificate_is_one(authority: Authority, fault: str, why: str) -> None:
    with ScriptedServer([answer()], tls=getattr(authority, fault)()) as server:
        with pytest.raises(httpx.ConnectError, match=why):
            httpx.get(server.url, verify=authority.client())
        assert server.wait_idle()
    assert (server.requests, server.failed_handshakes) == ([], 1)


# -- provider doubles ----------------------------------------------------------------------------------------


def test_openai_bodies_agree_with_themselves() -> None:
    call = openai_like.tool_call("look", "{}")
    body = openai_like.chat(None, tool_calls=[call], finish="tool_calls")
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [call],
    }
    events = openai_like.chat_sse(["é", {"reasoning_content": "hm"}])
    assert events[-1] == b"data: [DONE]\n\n"
    decoded = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
    deltas = [item["choices"][0]["delta"] for item in decoded[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "é"},
        {"reasoning_content": "hm"},
        {},
    ]
    assert decoded[-2]["choices"][0]["finish_reason"] == "stop"
    assert (decoded[-1]["choices"], decoded[-1]["usage"]["total_tokens"]) == ([], 18)
    assert len(openai_like.chat_sse(["a"], usage=None, finish=None, done=False)) == 2


def test_anthropic_events_are_named_as_their_data() -> None:
    blocks = [
        anthropic_like.thinking_block(["hm"]),
        anthropic_like.text_block(["a"], index=1),
        anthropic_like.tool_block("look", ['{"a":', "1}"], index=2),
    ]
    events = anthropic_like.message_sse(blocks=blocks, stop="tool_use")
    kinds = []
    for event in events:
        name, data = event.decode().removesuffix("\n\n").split("\n")
        kinds.append(json.loads(data.removeprefix("data: "))["type"])
        assert name == f"event: {kinds[-1]}"
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3


def test_ollama_streams_ndjson_by_default() -> None:
    body = {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "hi"}]}
    with FakeOllama(says=ScriptedReply(["<a", " é"], thinking=["hm"])) as ollama:
        reply = httpx.post(ollama.url + "/api/chat", json=body)
        cold = json.loads(reply.text.splitlines()[-1])["load_duration"]
        warm = httpx.post(ollama.url + "/api/chat", json=body | {"stream": False}).json()
        running = httpx.get(ollama.url + "/api/ps").json()["models"]
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert "\\u003ca" in reply.text
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "<a"},
        {"role": "assistant", "content": " é"},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert (lines[-1]["done_reason"], lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (
        "stop",
        26,
        3,
    )
    assert warm["message"] == {"role": "assistant", "content": "<a é", "thinking": "hm"}
    assert warm["done"] is True
    assert warm["load_duration"] < cold
    assert [model["name"] for model in running] == ["llama3.2:3b"]
    assert ollama.chats[0] == body


def test_ollama_knows_its_models_and_limits() -> None:
    call = {"function": {"name": "look", "arguments": {"city": "Oslo"}}}
    plain = Model("plain", context_length=8192, capabilities=("completion",))
    says = ScriptedReply(tool_calls=[call], prompt_tokens=0)
    with FakeOllama([plain, "b:7b"], says=says) as ollama, httpx.Client(base_url=ollama.url) as client:
        names = [model["name"] for model in client.get("/api/tags").json()["models"]]
        shown = client.post("/api/show", json={"model": "plain"}).json()
        missing = client.post("/api/chat", json={"model": "x", "messages": []})
        chat = {"model": "b:7b", "messages": [{"role": "user", "content": "hi"}], "stream": False}
        whole = client.post("/api/chat", json=chat).json()
        short = client.post("/api/chat", json=chat | {"options": {"num_predict": 1}}).json()
        refused = client.post("/api/chat", json=chat | {"model": "plain", "think": True})
        loaded = client.post("/api/chat", json={"model": "plain", "messages": []}).json()
    assert names == ["plain:latest", "b:7b"]
    assert shown["model_info"]["qwen2.context_length"] == 8192
    assert (missing.status_code, missing.text) == (
        404,
        '{"error":"model \\"x\\" not found, try pulling it first"}',
    )
    assert (whole["message"]["tool_calls"], whole["done_reason"]) == ([call], "stop")
    assert "prompt_eval_count" not in whole
    assert (short["message"]["content"], short["done_reason"]) == ("Hello", "length")
    assert refused.json() == {"error": '"plain" does not support thinking'}
    assert loaded["done_reason"] == "load"


def test_ollama_can_break_a_stream() -> None:
    lines = chat_lines(ScriptedReply(done=False), "llama3.2:3b")
    with FakeOllama(on_chat=lambda _: stream(broken_stream(lines, "boom"))) as ollama:
        body = {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "hi"}]}
        text = httpx.post(ollama.url + "/api/chat", json=body).text
    assert text.endswith('"done":false}\n{"error":"boom"}\n')


# -- the real server -----------------------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "hello"}]


def client_of(server: TinyLlama) -> httpx.Client:
    return httpx.Client(
        base_url=server.url,
        headers={"authorization": f"Bearer {server.api_key}"},
        timeout=10,
        trust_env=False,
    )


@pytest.mark.llama
def test_llama_answers_both_protocols(llama_server: TinyLlama) -> None:
    with client_of(llama_server) as client:
        body = {"messages": HELLO, "max_tokens": 5}
        chat = client.post("/v1/chat/completions", json=body | {"ignore_eos": True}).json()
        message = client.post("/v1/messages", json=body).json()
    assert (chat["model"], chat["usage"]["completion_tokens"]) == (llama_server.model, 5)
    assert message["usage"].keys() == {"input_tokens", "cache_read_input_tokens", "output_tokens"}
    assert 1 <= message["usage"]["output_tokens"] <= 5


@pytest.mark.llama
def test_llama_refuses_a_wrong_key_and_a_long_prompt(llama_server: TinyLlama) -> None:
    with client_of(llama_server) as client:
        body = {"messages": HELLO, "max_tokens": 5}
        wrong = client.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer no"})
        long = [{"role": "user", "content": "x" * 33_000}]
        overflow = client.post("/v1/chat/completions", json={"messages": long})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (401, "authentication_error")
    error = overflow.json()["error"]
    assert (overflow.status_code, error["type"]) == (400, "exceed_context_size_error")
    assert error["n_ctx"] == 32_768 < error["n_prompt_tokens"]


@pytest.mark.llama
def test_llama_stops_generating_when_a_stream_is_dropped(llama_server: TinyLlama) -> None:
    body = {"messages": HELLO, "stream": True, "ignore_eos": True}
    with client_of(llama_server) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            assert next(lines).startswith("data: ")
            assert llama_server.wait_busy_slots(1)
            assert server_connections(llama_server) == 1
        assert llama_server.wait_busy_slots(0)
    assert server_connections(llama_server) == 0


@pytest.mark.llama
def test_llama_calls_a_tool_when_it_must(llama_tools_server: TinyLlama) -> None:
    city = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "look", "parameters": city}}
    body = {"messages": HELLO, "tools": [tool], "tool_choice": "required", "max_tokens": 100}
    with client_of(llama_tools_server) as client:
        choice = client.post("/v1/chat/completions", json=body).json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "look"
    assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")


@pytest.mark.llama
def test_llama_dies_with_its_block_and_when_killed(llama_server: TinyLlama) -> None:
    with tiny_llama.serve(api_key=None, max_answer=3, model_alias="mine") as server:
        body = {"messages": HELLO, "ignore_eos": True}
        reply = httpx.post(server.url + "/v1/chat/completions", json=body).json()
        assert (reply["model"], reply["usage"]["completion_tokens"]) == ("mine", 3)
        server.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
    assert server.process.returncode is not None


@pytest.mark.llama
def test_llama_that_does_not_start_says_so(llama_server: TinyLlama) -> None:
    with pytest.raises(RuntimeError, match="did not answer within"), tiny_llama.serve(timeout=0.001):
        pass


@pytest.mark.llama
def test_llama_does_not_outlive_its_parent(llama_server: TinyLlama) -> None:
    script = (
        "import os, tiny_llama\n"
        "with tiny_llama.serve() as s:\n"
        "    print(s.url, flush=True)\n"
        "    os._exit(1)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(tiny_llama.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=30)
    url = done.stdout.strip()
    for _ in range(200):
        try:
            httpx.get(url + "/health")
        except httpx.ConnectError:
            return
        time.sleep(0.01)
    pytest.fail("the server is still there")
