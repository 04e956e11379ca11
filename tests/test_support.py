"""The doubles do what they say: a test that fails must fail for the library's sake, not for a double's."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import Authority
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


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """No test of this file leaves a thread."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# -- ScriptedServer --------------------------------------------------------------------------------------------


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


def test_a_callable_script_sees_the_request_and_a_chunked_body_is_read_whole() -> None:
    def echo(request: Request) -> list[Send]:
        return answer(body=request.body)

    with ScriptedServer(echo) as server:
        reply = httpx.post(server.url, content=iter([b"one ", b"two"]))
    assert reply.text == "one two"
    assert server.requests[0].headers["transfer-encoding"] == "chunked"


def test_an_exception_in_a_script_is_raised_at_the_end() -> None:
    def broken(request: Request) -> list[Send]:
        raise ValueError("script")

    with pytest.raises(ValueError, match="script"), ScriptedServer(broken) as server:
        with pytest.raises(httpx.RemoteProtocolError):
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
def test_a_connection_ends_in_the_middle_as_told(end: Close | Reset, error: type[Exception]) -> None:
    sent = threading.Event()
    with ScriptedServer([[Send(head(headers={"content-length": "9"}) + b"half"), Wait(sent), end]]) as server:
        with pytest.raises(error), httpx.stream("GET", server.url) as reply:
            for _ in reply.iter_raw():
                sent.set()
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
    def talk(timeout: float) -> None:
        with pytest.raises(httpx.HTTPError), httpx.stream("GET", server.url, timeout=timeout) as reply:
            time.sleep(0.2)
            reply.read()

    flood = stream([b"x" * 10_000_000, b"y" * 10_000_000])
    with ScriptedServer([[Hang()], [Wait(60)], flood]) as server:
        clients = [threading.Thread(target=talk, args=(5,)) for _ in range(3)]
        for client in clients:
            client.start()
        assert server.wait_requests(3)
        start = time.monotonic()
    assert time.monotonic() - start < 1
    for client in clients:
        client.join()


def test_steps_on_connect_come_before_any_request() -> None:
    with ScriptedServer(on_connect=[Reset()]) as server:
        with pytest.raises((httpx.ReadError, httpx.WriteError)):
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


def test_nobody_answers_where_nobody_should() -> None:
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
