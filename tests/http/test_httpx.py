"""`transport="httpx"`: calls go through httpx's own transports, with the promises that httpx can keep."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio.lowlevel
import httpx
import pytest
import respx
from tests.conftest import Caller
from tests.support import loops
from tests.support.certificates import Authority
from tests.support.openai_like import chat, chat_sse, chunk
from tests.support.proxies import Proxy
from tests.support.scripted import (
    BlackHole,
    Close,
    Hang,
    ScriptedServer,
    Send,
    Trickle,
    answer,
    head,
    refused_port,
    stream,
)
from tests.support.steps import chunk as frame

from ccroute import OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.http.connections import Connections
from ccroute.http.message import Endpoint, PreparedRequest, Reply
from ccroute.http.origin import Origin
from ccroute.http.streams.blocking import run

NAME = "server.invalid"  # a name that nobody but a proxy can look up
KEY = "sk-canary-key-0123456789"


@pytest.fixture(params=["sync", "async", "trio"])
def caller(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=["async", "trio"])
def on_loop(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


def router_to(url: str, *, ca_file: Path | None = None, trust_env: bool = False) -> Router:
    backend = OpenAIBackend(
        "main", base_url=url, api_key=KEY, ca_file=None if ca_file is None else str(ca_file)
    )
    once = RetryPolicy(attempts=1)
    return Router([backend], default_model="main/m", transport="httpx", trust_env=trust_env, retry=once)


def texts(caller: Caller, router: Router, times: int = 2) -> list[str]:
    """Of some calls, one after the other, on one loop."""

    async def on_one_loop() -> list[str]:
        return [(await router.acomplete("hi")).text for _ in range(times)]

    if caller.mode == "sync":
        return [router.complete("hi").text for _ in range(times)]
    found: list[str] = caller.run(on_one_loop)
    return found


def attempt_of(caller: Caller, router: Router, **options: Any) -> Any:
    """The only attempt of a call that fails."""
    with pytest.raises(errors.CcrouteError) as caught:
        caller.complete(router, "hi", **options)
    [attempt] = caught.value.attempts
    return attempt


# -- mocks ---------------------------------------------------------------------------------------------------


def test_respx_mocks_a_router_as_it_mocks_httpx(caller: Caller) -> None:
    with respx.mock as mocked, router_to("https://llm.example.com") as router:
        route = mocked.post("https://llm.example.com/v1/chat/completions")
        route.side_effect = [
            httpx.Response(200, json=chat("mocked")),
            httpx.Response(200, content=b"".join(chat_sse(["mo", "cked"]))),
            httpx.Response(503),
            httpx.ConnectError("refused"),
        ]
        assert caller.complete(router, "hi").text == "mocked"
        assert caller.stream(router, "hi").text == "mocked"
        assert attempt_of(caller, router).status == 503
        assert attempt_of(caller, router).failure == "not_sent"
    assert route.call_count == 4
    assert route.calls[0].request.headers["authorization"] == f"Bearer {KEY}"


# -- connections ---------------------------------------------------------------------------------------------


def test_connections_are_kept_between_calls_and_closed(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("kept"))], repeat=True) as server:
        with router_to(server.url) as router:
            assert texts(caller, router, 3) == ["kept"] * 3
            if caller.mode != "sync":
                assert server.wait_idle(1.0), "a loop's connections end with it"
        assert server.wait_idle(1.0)
        assert server.connections == 1
    gc.collect()  # a socket that nobody closed would warn


def test_each_loop_has_connections_of_its_own(on_loop: Caller) -> None:
    with ScriptedServer([answer(json=chat("ok"))], repeat=True) as server, router_to(server.url) as router:
        for _ in range(3):
            assert texts(on_loop, router) == ["ok"] * 2
        assert server.connections == 3
    gc.collect()


def test_aclose_closes_the_connections_of_its_loop(on_loop: Caller) -> None:
    async def close() -> None:
        router = router_to(server.url)
        await router.acomplete("hi")
        assert server.open_connections == 1
        await router.aclose()
        assert await loops.in_thread(server.wait_idle, 1.0)
        await router.aclose()

    with ScriptedServer([answer(json=chat())]) as server:
        on_loop.run(close)


def test_close_from_a_thread_closes_a_loops_connections(on_loop: Caller) -> None:
    async def close() -> None:
        router = router_to(server.url)
        await router.acomplete("hi")
        await loops.in_thread(router.close)
        assert await loops.in_thread(server.wait_idle, 1.0)

    with ScriptedServer([answer(json=chat())]) as server:
        on_loop.run(close)


def test_close_after_the_loop_ended_does_nothing_more(on_loop: Caller) -> None:
    with ScriptedServer([answer(json=chat())]) as server:
        router = router_to(server.url)
        assert texts(on_loop, router, 1)
        router.close()
        assert server.wait_idle(1.0)


def test_two_origins_have_connections_of_their_own(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("a"))]) as one, ScriptedServer([answer(json=chat("b"))]) as two:
        backends = [OpenAIBackend("one", base_url=one.url), OpenAIBackend("two", base_url=two.url)]

        async def both() -> list[str]:
            return [(await router.acomplete("hi", model=model)).text for model in ("one/m", "two/m")]

        with Router(backends, transport="httpx") as router:
            if caller.mode == "sync":
                found = [router.complete("hi", model=model).text for model in ("one/m", "two/m")]
            else:
                found = caller.run(both)
        assert found == ["a", "b"]
        assert one.wait_idle(1.0)
        assert two.wait_idle(1.0)


# trio warns of httpcore's generators, which nobody but httpcore could close.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator:pytest.PytestUnraisableExceptionWarning"
)
def test_an_abandoned_stream_closes_its_connection(caller: Caller) -> None:
    async def leave() -> None:
        async with router.astream("hi") as started:
            assert (await anext(started)).text == "one"
        assert await loops.in_thread(server.wait_closed, 1.0)

    with ScriptedServer([stream([chunk({"content": "one"}), Hang()])]) as server:
        with router_to(server.url) as router:
            if caller.mode == "sync":
                with router.stream("hi") as started:
                    assert next(started).text == "one"
                assert server.wait_closed(1.0)
            else:
                caller.run(leave)


def test_a_connection_closed_while_idle_is_replaced_unseen(caller: Caller) -> None:
    replies = [[*answer(json=chat("one")), Close()], answer(json=chat("two"))]
    with ScriptedServer(replies) as server, router_to(server.url) as router:

        async def twice() -> list[str]:
            first = (await router.acomplete("hi")).text
            assert await loops.in_thread(server.wait_idle, 1.0)
            return [first, (await router.acomplete("hi")).text]

        if caller.mode == "sync":
            first = router.complete("hi").text
            assert server.wait_idle(1.0)
            found = [first, router.complete("hi").text]
        else:
            found = caller.run(twice)
    assert found == ["one", "two"]


# -- trust and proxies ---------------------------------------------------------------------------------------


def test_tls_works_with_the_authority_it_was_given(tmp_path: Path, caller: Caller) -> None:
    authority = Authority()
    with ScriptedServer([answer(json=chat("secret"))] * 2, tls=authority.server()) as server:
        with router_to(server.url, ca_file=authority.write(tmp_path)) as router:
            assert texts(caller, router) == ["secret"] * 2
        assert server.wait_idle()
        assert server.connections == 1


@pytest.mark.parametrize("fault", ["expired", "wrong_host", "unknown"])
def test_a_wrong_certificate_ends_the_attempt_unsent(tmp_path: Path, caller: Caller, fault: str) -> None:
    authority = Authority()
    context = Authority().server() if fault == "unknown" else getattr(authority, fault)()
    with ScriptedServer(tls=context) as server:
        with router_to(server.url, ca_file=authority.write(tmp_path)) as router:
            attempt = attempt_of(caller, router)
        assert server.wait_idle()
    assert (attempt.failure, attempt.error) == ("not_sent", "ConnectionFailedError")
    assert "no trusted connection" in attempt.reason
    assert server.requests == []


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Names a proxy for all origins; none is left from outside."""
    for kind in ("http", "https", "all", "no"):
        for name in (f"{kind}_proxy", f"{kind}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    return partial(monkeypatch.setenv, "ALL_PROXY")


def test_a_proxy_of_the_environment_forwards_requests(caller: Caller, proxied: Callable[[str], None]) -> None:
    with ScriptedServer([answer(json=chat("forwarded"))] * 2) as server, Proxy(server) as proxy:
        proxied(f"http://agent:pass%20word@127.0.0.1:{proxy.port}")
        with router_to(f"http://{NAME}", trust_env=True) as router:
            assert texts(caller, router) == ["forwarded"] * 2
    assert [request.target for request in proxy.requests] == [f"http://{NAME}/v1/chat/completions"] * 2
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic YWdlbnQ6cGFzcyB3b3Jk"
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_of_the_environment_opens_a_tunnel(
    caller: Caller, proxied: Callable[[str], None], tmp_path: Path
) -> None:
    authority = Authority()
    context = authority.server(NAME)
    with ScriptedServer([answer(json=chat("tunnelled"))] * 2, tls=context) as server, Proxy(server) as proxy:
        proxied(f"http://127.0.0.1:{proxy.port}")
        url, ca_file = f"https://{NAME}", authority.write(tmp_path)
        with router_to(url, ca_file=ca_file, trust_env=True) as router:
            assert texts(caller, router) == ["tunnelled"] * 2
    assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert KEY.encode() not in proxy.carried


def test_proxies_are_ignored_unless_they_are_asked_for(
    caller: Caller, proxied: Callable[[str], None]
) -> None:
    proxied(f"http://127.0.0.1:{refused_port()}")
    with ScriptedServer([answer(json=chat("direct"))]) as server, router_to(server.url) as router:
        assert texts(caller, router, 1) == ["direct"]


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("socks5://127.0.0.1:1080", "ALL_PROXY names a proxy of the kind socks5"),
        ("http://", "ALL_PROXY must look like"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    caller: Caller, proxied: Callable[[str], None], proxy: str, reason: str
) -> None:
    proxied(proxy)
    with router_to(f"https://{NAME}", trust_env=True) as router:
        attempt = attempt_of(caller, router)
    assert (attempt.failure, attempt.error) == ("not_sent", "ConnectionFailedError")
    assert reason in attempt.reason


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_cannot_be_reached_got_nothing(
    caller: Caller, proxied: Callable[[str], None], scheme: str
) -> None:
    proxied(f"http://127.0.0.1:{refused_port()}")
    with router_to(f"{scheme}://{NAME}", trust_env=True) as router:
        attempt = attempt_of(caller, router)
    assert (attempt.failure, attempt.error) == ("not_sent", "ConnectionFailedError")


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_tunnel_that_is_refused_carried_nothing(
    caller: Caller, proxied: Callable[[str], None], status: int
) -> None:
    with ScriptedServer([answer(status, body=b"no")]) as proxy:
        proxied(f"http://127.0.0.1:{proxy.port}")
        with router_to(f"https://{NAME}", trust_env=True) as router:
            attempt = attempt_of(caller, router)
    assert (attempt.failure, attempt.error, attempt.cost) == ("not_sent", "ConnectionFailedError", 0)


# -- limits --------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_not_sent(caller: Caller) -> None:
    with router_to(f"http://127.0.0.1:{refused_port()}") as router:
        attempt = attempt_of(caller, router)
    assert (attempt.failure, attempt.error) == ("not_sent", "ConnectionFailedError")


def test_a_black_hole_ends_at_the_connect_timeout(caller: Caller) -> None:
    with BlackHole() as hole, router_to(hole.url) as router:
        attempt = attempt_of(caller, router, timeout=Timeout(connect=0.2))
    assert (attempt.failure, attempt.error) == ("not_sent", "BackendTimeoutError")
    assert 0.18 <= attempt.duration < 0.4


def test_silence_before_the_answer_ends_at_the_limit(caller: Caller) -> None:
    with ScriptedServer([[Hang()]]) as server, router_to(server.url) as router:
        attempt = attempt_of(caller, router, timeout=Timeout(first=0.2))
    assert (attempt.failure, attempt.error) == ("ambiguous", "BackendTimeoutError")
    assert 0.18 <= attempt.duration < 0.3


def test_an_answer_that_trickles_ends_exactly_on_a_loop(on_loop: Caller) -> None:
    trickle = Trickle(frame(b": ping\n\n") * 1000, 0.02, size=13)
    with (
        ScriptedServer([stream([chunk({"content": "one"}), trickle])]) as server,
        router_to(server.url) as router,
    ):
        heard = on_loop.stream(router, "hi", timeout=0.3)
        assert server.wait_closed(1.0)
    assert heard.text == "one"
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert 0.28 <= heard.error.attempts[0].duration < 0.4


def test_a_head_that_trickles_ends_exactly_on_a_loop(on_loop: Caller) -> None:
    with ScriptedServer([[Trickle(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500, 0.02)]]) as server:
        with router_to(server.url) as router:
            attempt = attempt_of(on_loop, router, timeout=0.3)
        assert server.wait_idle(1.0)
    assert attempt.error == "DeadlineExceededError"
    assert 0.28 <= attempt.duration < 0.4


FAULTS = {
    "not HTTP": ([Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Close()], "ProtocolError"),
    "end before the head": ([Close()], "ConnectionFailedError"),
    "end in the body": ([Send(head(200, {"content-length": "9"}) + b"{"), Close()], "ConnectionFailedError"),
    "switch": ([Send(head(101, {"upgrade": "h2c", "connection": "upgrade"}))], "ProtocolError"),
}


@pytest.mark.parametrize(("steps", "kind"), FAULTS.values(), ids=FAULTS)
def test_faults_are_classified_as_those_of_own_connections(caller: Caller, steps: Any, kind: str) -> None:
    with ScriptedServer([steps]) as server, router_to(server.url) as router:
        attempt = attempt_of(caller, router)
        assert server.wait_idle(1.0)
    assert (attempt.failure, attempt.error) == ("ambiguous", kind)


# -- an exchange by itself -----------------------------------------------------------------------------------

FOREVER = float("inf")
REQUEST = PreparedRequest(Endpoint(Origin("http", NAME, 80)), "GET", "/", [])


def exchanged(caller: Caller, until: float = FOREVER, status: int = 200) -> list[Any]:
    """What an exchange gives: its head, and what two reads give after it. Then it is released, twice."""

    async def exchange() -> list[Any]:
        exchange = connections.exchange(REQUEST, None, until, blocking=caller.mode == "sync")
        found = [await exchange.send(), await exchange.read(FOREVER), await exchange.read(FOREVER)]
        exchange.release()
        exchange.release()
        return found

    connections = Connections(httpx.MockTransport(lambda _: httpx.Response(status)))
    if caller.mode == "sync":
        return run(exchange())
    found: list[Any] = caller.run(exchange)
    return found


def test_the_end_of_a_body_is_told_again(caller: Caller) -> None:
    reply, *reads = exchanged(caller)
    assert reply.status == 200
    assert reads == [b"", b""]


def test_an_exchange_released_twice_closes_its_answer_once(caller: Caller) -> None:
    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        closed = 0

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

    async def leave() -> None:
        exchange = connections.exchange(REQUEST, None, FOREVER, blocking=caller.mode == "sync")
        assert isinstance(await exchange.send(), Reply)
        exchange.release()
        exchange.release()
        while not body.closed:
            await anyio.lowlevel.checkpoint()

    body = Body()
    connections = Connections(httpx.MockTransport(lambda _: httpx.Response(200, stream=body)))
    run(leave()) if caller.mode == "sync" else caller.run(leave)
    assert body.closed == 1


def test_a_late_exchange_sends_nothing(caller: Caller) -> None:
    failure, *_ = exchanged(caller, until=time.monotonic())
    assert (failure.kind, failure.sent) == ("timeout", False)


def test_a_switch_of_protocols_is_no_answer(caller: Caller) -> None:
    failure, *_ = exchanged(caller, status=101)
    assert (failure.kind, failure.sent) == ("protocol", True)


def test_a_read_after_its_limit_fails_and_closes(caller: Caller) -> None:
    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        closed = 0

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

        def __iter__(self) -> Iterator[bytes]:
            yield b"never read"

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"never read"

    async def late() -> Any:
        exchange = connections.exchange(REQUEST, None, FOREVER, blocking=caller.mode == "sync")
        assert isinstance(await exchange.send(), Reply)
        failure = await exchange.read(time.monotonic())
        exchange.release()
        return failure

    body = Body()
    connections = Connections(httpx.MockTransport(lambda _: httpx.Response(200, stream=body)))
    failure = run(late()) if caller.mode == "sync" else caller.run(late)
    assert (failure.kind, failure.sent) == ("timeout", True)
    assert body.closed == 1
