"""The example wrapper itself: what its users copy must be short and hold."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import KEY, Serve, compatible

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
    assert len(Path(wrapper.__file__).read_text().splitlines()) < 150


def test_health_needs_no_key_and_everything_else_does(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    nobody = {"authorization": ""}
    assert ask(server, "GET", "/health", headers=nobody) == (200, {"status": "ok"})
    assert ask(server, "GET", "/v1/models", headers=nobody)[0] == 401


def test_a_wrong_path_and_a_wrong_method_are_not_found(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    assert ask(server, "POST", "/v1/embeddings", b"{}")[0] == 404
    assert ask(server, "GET", "/v1/chat/completions")[0] == 404


def test_a_body_that_is_no_json_is_refused_in_the_clients_form(serve: Serve) -> None:
    server = serve(compatible(NOWHERE))
    status, told = ask(server, "POST", "/v1/chat/completions", b"{")
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")
    status, told = ask(server, "POST", "/v1/messages?beta=true", b"{")
    assert (status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")


@pytest.mark.parametrize("length", [f"{MAX_BODY + 1}", "many", "-1"])
def test_a_body_too_long_or_of_unknown_length_is_refused_unread(serve: Serve, length: str) -> None:
    status, told = ask(serve(compatible(NOWHERE)), "POST", "/v1/messages", headers={"content-length": length})
    assert (status, told["error"]["type"]) == (413, "request_too_large")


def test_a_connection_is_kept_between_requests(serve: Serve) -> None:
    link = http.client.HTTPConnection("127.0.0.1", serve(compatible(NOWHERE)).server_port, timeout=5)
    try:
        for _ in range(3):
            link.request("GET", "/health")
            assert json.loads(link.getresponse().read()) == {"status": "ok"}
            assert link.sock is not None
    finally:
        link.close()
