"""An httpx transport of the user's own in place of ccroute's connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.conftest import Caller
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat, chat_sse, chunk
from tests.support.scripted import ScriptedServer, answer

from ccroute import OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.http.connections import Transport


def router_through(transport: Transport) -> Router:
    backend = OpenAIBackend("far", base_url="https://api.example.com", api_key="sk-test")
    return Router([backend], default_model="far/m", transport=transport, retry=RetryPolicy(attempts=1))


@on_all_loops
def test_the_transport_gets_the_whole_request(caller: Caller) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=chat())

    with router_through(httpx.MockTransport(handle)) as router:
        caller.complete(router, "hi")
    assert str(seen[0].url) == "https://api.example.com/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer sk-test"
    assert seen[0].headers["content-length"] == str(len(seen[0].content))


@pytest.mark.parametrize(
    ("raised", "kind", "failure"),
    [
        (httpx.ConnectError("refused"), errors.ConnectionFailedError, "not_sent"),
        (httpx.ConnectTimeout("late"), errors.BackendTimeoutError, "not_sent"),
        (httpx.ReadTimeout("late"), errors.BackendTimeoutError, "ambiguous"),
        (httpx.ReadError("reset"), errors.ConnectionFailedError, "ambiguous"),
        (httpx.RemoteProtocolError("illegal status line"), errors.ProtocolError, "ambiguous"),
        (OSError("broken"), errors.ConnectionFailedError, "ambiguous"),
    ],
)
def test_its_failures_are_classified(
    caller: Caller, raised: Exception, kind: type[Exception], failure: str
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise raised

    with router_through(httpx.MockTransport(handle)) as router, pytest.raises(kind) as caught:
        caller.complete(router, "hi")
    assert caught.value.attempts[0].failure == failure  # type: ignore[attr-defined]


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks after its first piece."""

    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b""
        yield chunk({"content": "one"})
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def test_a_body_that_breaks_interrupts_the_stream_and_is_closed(caller: Caller) -> None:
    body = Broken()
    with router_through(httpx.MockTransport(lambda _: httpx.Response(200, stream=body))) as router:
        heard = caller.stream(router, "hi")
    assert heard.text == "one"
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert body.closed


@on_all_loops
def test_a_real_httpx_transport_works(caller: Caller) -> None:
    kind: type[Transport] = httpx.HTTPTransport if caller.mode == "sync" else httpx.AsyncHTTPTransport
    with ScriptedServer([answer(json=chat("through httpx"), headers={"connection": "close"})]) as server:
        backend = OpenAIBackend("main", base_url=server.url)
        with Router([backend], default_model="main/m", transport=kind()) as router:
            assert caller.complete(router, "hi").text == "through httpx"


async def test_a_transport_of_the_other_kind_is_refused_with_what_to_do() -> None:
    with (
        router_through(httpx.AsyncHTTPTransport()) as router,
        pytest.raises(errors.ConfigError, match="acomplete"),
    ):
        router.complete("hi")
    with (
        router_through(httpx.HTTPTransport()) as router,
        pytest.raises(errors.ConfigError, match=r"complete\(\)"),
    ):
        await router.acomplete("hi")


async def test_an_async_transport_is_bounded_exactly() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    with router_through(Silent()) as router, pytest.raises(errors.BackendTimeoutError) as caught:
        await router.acomplete("hi", timeout=Timeout(first=0.2))
    assert 0.18 <= caught.value.attempts[0].duration < 0.3


async def test_an_abandoned_stream_closes_the_transports_response() -> None:
    body = Broken()
    with router_through(httpx.MockTransport(lambda _: httpx.Response(200, stream=body))) as router:
        async with router.astream("hi") as started:
            await anext(started)
        while not body.closed:
            await asyncio.sleep(0)


def test_an_abandoned_sync_stream_closes_the_transports_response() -> None:
    body = Broken()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=body))
    with router_through(transport) as router, router.stream("hi") as started:
        next(started)
    assert body.closed


def test_a_deadline_passed_between_chunks_ends_the_stream() -> None:
    class Late(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from chat_sse(["a", "b"])

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Late()))
    with router_through(transport) as router:
        started = router.stream("hi", timeout=0.1)
        next(started)
        time_is_up = asyncio.run(_wait(0.1))
        with pytest.raises(errors.StreamInterruptedError):
            list(started)
    assert time_is_up


async def _wait(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return True
