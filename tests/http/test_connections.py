"""Connections on real sockets: trust, reuse, exact limits, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
import time
from pathlib import Path

import pytest
from tests.conftest import Caller
from tests.support.certificates import Authority
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat, chat_sse, chunk
from tests.support.scripted import (
    BlackHole,
    Close,
    Hang,
    Reset,
    ScriptedServer,
    Send,
    Trickle,
    Wait,
    answer,
    head,
    stream,
)

from ccroute import OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.http import pool as pools

ONCE = RetryPolicy(attempts=1)


def router_to(url: str, *, ca_file: Path | None = None, retry: RetryPolicy = ONCE) -> Router:
    backend = OpenAIBackend("main", base_url=url, ca_file=None if ca_file is None else str(ca_file))
    return Router([backend], default_model="main/m", retry=retry)


@on_all_loops
def test_tls_works_with_the_authority_it_was_given(tmp_path: Path, caller: Caller) -> None:
    authority = Authority()
    with ScriptedServer([answer(json=chat("secret"))] * 2, tls=authority.server()) as server:
        with router_to(server.url, ca_file=authority.write(tmp_path)) as router:
            assert caller.complete(router, "hi").text == "secret"
            assert caller.complete(router, "hi").text == "secret"
        assert server.wait_idle()
    assert server.connections == (1 if caller.mode == "sync" else 2)


@pytest.mark.parametrize("fault", ["expired", "wrong_host", "unknown authority"])
def test_a_wrong_certificate_ends_the_attempt_unsent(tmp_path: Path, caller: Caller, fault: str) -> None:
    authority, trusted = Authority(), Authority()
    if fault != "unknown authority":
        trusted = authority
    context = {"expired": authority.expired, "wrong_host": authority.wrong_host}.get(
        fault, authority.server
    )()
    router = router_to("https://127.0.0.1:1", ca_file=trusted.write(tmp_path))
    with ScriptedServer(tls=context) as server:
        with (
            router_to(
                server.url, ca_file=trusted.write(tmp_path), retry=RetryPolicy(base=0, max=0)
            ) as router,
            pytest.raises(errors.ConnectionFailedError, match="no trusted connection") as caught,
        ):
            caller.complete(router, "hi")
        assert server.wait_idle()
    assert [attempt.failure for attempt in caught.value.attempts] == ["not_sent"]
    assert server.requests == []


@on_all_loops
def test_a_connection_closed_while_idle_is_replaced_unseen(caller: Caller) -> None:
    replies = [[*answer(json=chat("one")), Close()], answer(json=chat("two"))]
    with ScriptedServer(replies) as server, router_to(server.url) as router:
        if caller.mode == "sync":
            texts = [router.complete("hi").text, router.complete("hi").text]
        else:

            async def twice() -> list[str]:
                return [(await router.acomplete("hi")).text for _ in range(2)]

            texts = caller.run(twice)
    assert texts == ["one", "two"]
    assert server.connections == 2


@on_all_loops
def test_a_kept_connection_that_breaks_at_once_is_retried_and_noted(caller: Caller) -> None:
    # The reset comes only after the second request was read, so nothing could be known before it.
    with (
        ScriptedServer([answer(json=chat("one")), [Reset()], answer(json=chat("two"))]) as server,
        router_to(server.url) as router,
    ):
        if caller.mode == "sync":
            router.complete("hi")
            second = router.complete("hi")
        else:

            async def twice() -> object:
                await router.acomplete("hi")
                return await router.acomplete("hi")

            second = caller.run(twice)
    assert second.text == "two"
    assert len(second.route.attempts) == 1
    assert "sent once more" in second.route.attempts[0].reason


def test_a_fresh_connection_that_breaks_is_not_tried_again_unseen(caller: Caller) -> None:
    with (
        ScriptedServer([[Reset()]]) as server,
        router_to(server.url) as router,
        pytest.raises(errors.ConnectionFailedError) as caught,
    ):
        caller.complete(router, "hi")
    assert caught.value.attempts[0].failure == "ambiguous"
    assert len(server.requests) == 1


def test_a_black_hole_ends_at_the_connect_timeout(caller: Caller) -> None:
    with BlackHole() as hole, router_to(hole.url) as router:
        began = time.monotonic()
        with pytest.raises(errors.BackendTimeoutError) as caught:
            caller.complete(router, "hi", timeout=Timeout(connect=0.2))
    assert 0.18 <= time.monotonic() - began < 0.4
    assert caught.value.attempts[0].failure == "not_sent"
    assert caught.value.attempts[0].cost == 0


def test_a_name_that_does_not_exist_is_a_connection_failure(caller: Caller) -> None:
    with (
        router_to("http://no-such-host.invalid") as router,
        pytest.raises(errors.ConnectionFailedError, match="cannot be resolved") as caught,
    ):
        caller.complete(router, "hi")
    assert caught.value.attempts[0].failure == "not_sent"


def test_silence_within_a_stream_ends_at_the_idle_timeout(caller: Caller) -> None:
    pings = Trickle(_framed(b": ping\n\n") * 1000, 0.02, size=13)
    with (
        ScriptedServer([stream([chunk({"content": "one"}), pings])]) as server,
        router_to(server.url) as router,
    ):
        heard = caller.stream(router, "hi", timeout=Timeout(idle=0.3))
        assert server.wait_closed()
    assert heard.text == "one"
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert isinstance(heard.error.__cause__, errors.BackendTimeoutError)
    assert heard.error.attempts[0].duration < 0.45


def test_a_slow_reader_does_not_use_up_the_idle_time() -> None:
    with ScriptedServer([stream(chat_sse(["a", "b", "c"]))]) as server, router_to(server.url) as router:
        read = ""
        for piece in router.stream("hi", timeout=Timeout(idle=0.1)):
            read += piece.text
            time.sleep(0.06)  # time passing at the reader is the point here
    assert read == "abc"


@on_all_loops
def test_the_total_timeout_cuts_a_stream_that_goes_on_for_ever(caller: Caller) -> None:
    endless = [
        chunk({"content": "x"}),
        Trickle(b"".join(_framed(chunk({"content": "y"})) for _ in range(500)), 0.01, 200),
    ]
    with ScriptedServer([stream(endless)]) as server, router_to(server.url) as router:
        heard = caller.stream(router, "hi", timeout=0.3)
        assert server.wait_closed()
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert isinstance(heard.error.__cause__, errors.DeadlineExceededError)
    assert 0.28 <= heard.error.attempts[0].duration < 0.45


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_gzip_answer_is_read_though_it_was_not_asked_for(caller: Caller) -> None:
    packed = gzip.compress(str(chat("unpacked")).replace("'", '"').replace("None", "null").encode())
    with (
        ScriptedServer([answer(body=packed, headers={"content-encoding": "gzip"})]) as server,
        router_to(server.url) as router,
    ):
        assert caller.complete(router, "hi").text == "unpacked"
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_truncated_gzip_answer_is_a_protocol_error(caller: Caller) -> None:
    packed = gzip.compress(b'{"choices": []}')[:-4]
    with (
        ScriptedServer([answer(body=packed, headers={"content-encoding": "gzip"})]) as server,
        router_to(server.url) as router,
        pytest.raises(errors.ProtocolError, match="cut off"),
    ):
        caller.complete(router, "hi")


def test_an_answer_shorter_than_it_promised_is_ambiguous(caller: Caller) -> None:
    cut = [Send(head(200, {"content-length": "1000"}) + b'{"choices"'), Close()]
    with (
        ScriptedServer([cut]) as server,
        router_to(server.url) as router,
        pytest.raises(errors.ConnectionFailedError) as caught,
    ):
        caller.complete(router, "hi")
    assert caught.value.attempts[0].failure == "ambiguous"
    assert caught.value.attempts[0].usage.estimated


def test_what_is_not_http_is_a_protocol_error(caller: Caller) -> None:
    with (
        ScriptedServer([[Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Close()]]) as server,
        router_to(server.url) as router,
        pytest.raises(errors.ProtocolError, match="does not answer in HTTP"),
    ):
        caller.complete(router, "hi")


def test_interim_answers_and_trailers_are_ignored(caller: Caller) -> None:
    body = chat_sse(["ok"])
    trailer = [Send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")]
    pieces = [Send(head(200, {"transfer-encoding": "chunked"})), *(Send(_framed(piece)) for piece in body)]
    with (
        ScriptedServer([[*trailer, *pieces, Send(b"0\r\nx-checksum: 7\r\n\r\n")]]) as server,
        router_to(server.url) as router,
    ):
        assert caller.stream(router, "hi").text == "ok"


def test_a_redirect_is_an_error_and_is_not_followed(caller: Caller) -> None:
    with ScriptedServer() as elsewhere:
        moved = answer(302, headers={"location": elsewhere.url + "/v1/chat/completions"})
        with (
            ScriptedServer([moved]) as server,
            router_to(server.url) as router,
            pytest.raises(errors.BackendError, match="redirect"),
        ):
            caller.complete(router, "hi")
    assert elsewhere.connections == 0


def test_a_finished_stream_whose_body_never_ends_is_not_waited_for(caller: Caller) -> None:
    with ScriptedServer([stream([*chat_sse(["ok"]), Hang()])]) as server, router_to(server.url) as router:
        began = time.monotonic()
        assert caller.stream(router, "hi").text == "ok"
        assert time.monotonic() - began < 0.5
        assert server.wait_closed(1.0)


@on_all_loops
def test_an_answer_of_many_megabytes_arrives_whole(caller: Caller) -> None:
    long = "long " * 1_000_000
    with ScriptedServer([answer(json=chat(long))]) as server, router_to(server.url) as router:
        assert caller.complete(router, "hi").text == long


def test_an_answer_before_the_whole_request_was_read_is_read(caller: Caller) -> None:
    with (
        ScriptedServer(on_connect=answer(413, body=b"too large", headers={"connection": "close"})) as server,
        router_to(server.url) as router,
        pytest.raises(errors.CcrouteError) as caught,
    ):
        caller.complete(router, "x" * 1_000)
    assert isinstance(caught.value, errors.InvalidRequestError | errors.BackendError)


def test_idle_connections_go_when_they_are_too_old_or_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_IDLE", 2)

    async def three(router: Router) -> None:
        await asyncio.gather(*(router.acomplete("hi") for _ in range(3)))
        assert await asyncio.to_thread(server.wait_closed, 1.0, count=1)
        monkeypatch.setattr(pools, "KEEP", -1.0)
        await router.acomplete("hi")

    with ScriptedServer([answer(json=chat())], repeat=True) as server, router_to(server.url) as router:
        asyncio.run(three(router))


@pytest.mark.parametrize("ends", ["read to its end", "closed", "dropped"])
def test_open_connections_are_counted_per_origin(ends: str) -> None:
    rest = threading.Event()
    [role, first, *others] = chat_sse(["a", "b"])
    unfinished = [
        Send(head(200, {"transfer-encoding": "chunked"})),
        Send(_framed(role + first)),
        Wait(rest),
        *(Send(_framed(piece)) for piece in (*others, b"")),
    ]
    with ScriptedServer([unfinished], repeat=True) as server:
        made = router_to(server.url)
        connections = made._connections
        assert connections.stats() == {}

        async def on_loop() -> None:
            async with made.astream("hi") as begun:
                await anext(begun)
                assert counted() == (0, 2), "one of this loop, one of this thread"

        def counted() -> tuple[int, int]:
            ((origin, stats),) = connections.stats().items()
            assert str(origin) == server.url
            return stats

        begun = made.stream("hi")
        next(begun)
        assert counted() == (0, 1)
        asyncio.run(on_loop())
        rest.set()
        if ends == "read to its end":
            assert [chunk.text for chunk in begun][:1] == ["b"]
        elif ends == "closed":
            begun.close()
        del begun
        gc.collect()
        assert counted() == (1 if ends == "read to its end" else 0, 0)
        made.close()
        assert counted() == (0, 0)


def test_a_router_dropped_without_close_leaves_no_socket_open() -> None:
    with ScriptedServer([answer(json=chat())], repeat=True) as server:
        router = router_to(server.url)
        router.complete("hi")
        del router
        gc.collect()
        assert server.wait_idle(1.0)


async def test_closing_from_another_thread_closes_this_loops_connections() -> None:
    with ScriptedServer([answer(json=chat())], repeat=True) as server:
        router = router_to(server.url)
        await router.acomplete("hi")
        await asyncio.to_thread(router.close)
        assert await asyncio.to_thread(server.wait_idle, 1.0)


async def test_a_stream_still_open_when_its_loop_ends_is_closed_with_it() -> None:
    kept = []

    def on_another_loop(router: Router) -> None:
        async def leave_open() -> None:
            kept.append(router.astream("hi"))
            await anext(kept[0])

        asyncio.run(leave_open())

    with (
        ScriptedServer([stream([chunk({"content": "x"}), Hang()])]) as server,
        router_to(server.url) as router,
    ):
        await asyncio.to_thread(on_another_loop, router)
        assert await asyncio.to_thread(server.wait_closed, 1.0)
        await kept.pop().aclose()
