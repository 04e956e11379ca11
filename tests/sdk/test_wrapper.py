"""The example wrapper itself: what its users copy must be short and hold."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import KEY, Serve, compatible
from tests.support.openai_like import chat, chat_sse
from tests.support.scripted import Hang, ScriptedServer, Send, Wait, answer, head, stream

import wrapper
from wrapper import MAX_BODY, Wrapper

NOWHERE = "http://127.0.0.1:9"


def ask(
    server: Wrapper, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        link.request(method, path, body, {"authorization": f"Bearer {KEY}"} | (headers or {}))
        reply = link.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        link.close()


def test_it_is_short_enough_to_read() -> None:
    assert len(Path(wrapper.__file__).read_text().splitlines()) < 210


def test_health_needs_no_key_and_everything_else_does(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    nobody = {"authorization": ""}
    assert ask(server, "GET", "/health", headers=nobody) == (200, {"status": "ok"})
    assert ask(server, "GET", "/v1/models", headers=nobody)[0] == 401


def test_bearer_has_any_case_and_a_head_request_has_no_body(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    assert ask(server, "GET", "/v1/models", headers={"authorization": f"bearer {KEY}"})[0] == 200
    assert ask(server, "GET", "/v1/models", headers={"authorization": f"Basic {KEY}"})[0] == 401
    assert ask(server, "GET", "/v1/models", headers={"authorization": "", "x-api-key": KEY})[0] == 200
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        for path, status in (
            ("/health", 200),
            ("/v1/models", 200),
            ("/", 404),
        ):  # one connection: no rest is left
            link.request("HEAD", path, headers={"authorization": f"bearer {KEY}"})
            reply = link.getresponse()
            assert (reply.status, reply.read()) == (status, b"")
            assert int(reply.headers["content-length"]) > 0
    finally:
        link.close()


@pytest.mark.parametrize("streamed", [False, True])
def test_what_was_ignored_or_dropped_is_logged(
    serve: Serve, streamed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    said = stream(chat_sse()) if streamed else answer(json=chat())
    fields = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": streamed,
    }
    with ScriptedServer([said]) as backend:
        server = serve(compatible(backend.url))
        link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        body = json.dumps({**fields, "top_k": 3, "shape": "round"}).encode()
        link.request("POST", "/v1/messages", body, {"x-api-key": KEY})
        assert link.getresponse().read()
        link.close()
    lines = capfd.readouterr().err.splitlines()
    assert any(line.endswith("ignored: shape") for line in lines)
    assert any("route: " in line and "top_k dropped" in line for line in lines)


def test_counting_tokens_counts_an_image_as_one(serve: Serve) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 300_000}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "what is it?"}]
    fields = {"model": "m", "messages": [{"role": "user", "content": content}]}
    server = serve(compatible(NOWHERE))
    path = "/v1/messages/count_tokens"
    status, counted = ask(server, "POST", path, json.dumps(fields).encode())
    assert status == 200
    assert 1000 <= counted["input_tokens"] < 1100
    status, refusal = ask(server, "POST", path, json.dumps({**fields, "model": "nobody's"}).encode())
    assert (status, refusal["error"]["type"]) == (404, "not_found_error")
    assert ask(server, "POST", path, json.dumps(fields).encode(), {"x-agent": "stranger"})[0] == 404


def test_a_wrong_path_and_a_wrong_method_are_not_found(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    assert ask(server, "POST", "/v1/embeddings", b"{}")[0] == 404
    assert ask(server, "GET", "/v1/chat/completions")[0] == 404


def test_a_body_that_is_no_json_is_refused_in_the_clients_form(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    status, fields = ask(server, "POST", "/v1/chat/completions", b"{")
    assert (status, fields["error"]["type"]) == (400, "invalid_request_error")
    status, fields = ask(server, "POST", "/v1/messages?beta=true", b"{")
    assert (status, fields["type"], fields["error"]["type"]) == (400, "error", "invalid_request_error")


@pytest.mark.parametrize("length", [f"{MAX_BODY + 1}", "many", "-1"])
def test_a_body_too_long_or_of_unknown_length_is_refused_unread(serve: Serve, length: str) -> None:
    status, fields = ask(
        serve(compatible(NOWHERE)), "POST", "/v1/messages", headers={"content-length": length}
    )
    assert (status, fields["error"]["type"]) == (413, "request_too_large")


def test_a_connection_is_kept_between_requests(serve: Serve) -> None:
    link = http.client.HTTPConnection("127.0.0.1", serve(compatible(NOWHERE)).server_port, timeout=5)
    try:
        for _ in range(3):
            link.request("GET", "/health")
            assert json.loads(link.getresponse().read()) == {"status": "ok"}
            assert link.sock is not None
    finally:
        link.close()


def leaving(server: Wrapper, backend: ScriptedServer, path: str, *, stream: bool) -> None:
    """A client that asks, waits until the backend has its call, and hangs up."""
    body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    link.request("POST", path, json.dumps(body).encode(), {"authorization": f"Bearer {KEY}"})
    assert backend.wait_requests(1)
    link.close()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_content_ends_its_call(
    serve: Serve, path: str, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer([[Hang()]]) as backend:
        server = serve(compatible(backend.url), timeout=60)
        leaving(server, backend, path, stream=stream)
        assert backend.wait_closed(1.0), "the backend still works for nobody"
        assert ask(server, "GET", "/health")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_leaves_within_a_stream_ends_its_call(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = (
        head(200, {"content-type": "text/event-stream"})
        + b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    )
    with ScriptedServer([[Send(begun), Hang()]]) as backend:
        server = serve(compatible(backend.url), timeout=60)
        leaving(server, backend, "/v1/chat/completions", stream=True)
        assert backend.wait_closed(1.0)
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_sends_its_next_request_early_has_not_left(serve: Serve) -> None:
    one = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    with ScriptedServer([[Wait(0.6), *answer(json=one)]]) as backend:
        server = serve(compatible(backend.url))
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
        first = f"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n"
        first += f"content-length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as link:
            link.sendall(first.encode() + body + b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
            fields = b"".join(iter(lambda: link.recv(65536), b""))
    assert b'"yes"' in fields
    assert fields.endswith(b'{"status": "ok"}')
