"""What a hostile or dying server, or a hasty caller, must not achieve."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.conftest import Caller
from tests.support.certificates import Authority
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat, chat_sse, chunk, sse
from tests.support.scripted import Hang, Reset, ScriptedServer, Send, Set, Wait, answer, head, stream

from ccroute import (
    AliasTable,
    Model,
    OpenAIBackend,
    Price,
    RetryPolicy,
    Router,
    Stream,
    Timeout,
    errors,
)
from ccroute.http.streams.blocking import run
from ccroute.http.streams.loops import LoopNetwork
from ccroute.http.streams.sockets import SocketStream, ThreadNetwork, TrioNetwork
from ccroute.observe import Event, Retried

ONCE = RetryPolicy(attempts=1)

FLOOD = """
import socket, sys, time
kind = sys.argv[1]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
link, _ = listener.accept()
link.recv(65536)
sse = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\n"
piece = {
    "interim": b"HTTP/1.1 103 Early Hints\\r\\n\\r\\n" * 2000,
    "pings": b": ping\\n\\n" * 8000,
    "content": b'data: {"choices":[{"delta":{"content":"x"}}]}\\n\\n' * 500,
}[kind]
until = time.monotonic() + 5
try:
    link.sendall(b"" if kind == "interim" else sse)
    while time.monotonic() < until:
        link.sendall(piece)
except OSError:
    pass
"""


def router_to(url: str, *, retry: RetryPolicy = ONCE, ca_file: Path | None = None) -> Router:
    priced = {"m": Model(price=Price(1, 1))}
    backend = OpenAIBackend("main", base_url=url, models=priced, ca_file=str(ca_file) if ca_file else None)
    return Router([backend], default_model="main/m", retry=retry)


@on_all_loops
@pytest.mark.parametrize("kind", ["interim", "pings", "content"])
def test_a_flood_does_not_outrun_the_deadline(caller: Caller, kind: str) -> None:
    # In a process of its own: within this one the server could not keep the loop busy.
    with subprocess.Popen([sys.executable, "-c", FLOOD, kind], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        with router_to(f"http://127.0.0.1:{int(server.stdout.readline())}") as router:
            began = time.monotonic()
            heard = caller.stream(router, "hi", timeout=Timeout(total=0.6, idle=0.3))
            took = time.monotonic() - began
    assert heard.error is not None
    assert took < 2.5  # the flood goes on for 5 s; a busy machine may be late, but not by that much


def test_a_small_answer_that_unpacks_to_a_huge_one_ends_in_time(caller: Caller) -> None:
    bomb = gzip.compress(b": ping\n\n" * 30_000_000, 9)
    with ScriptedServer([answer(body=bomb, headers={"content-encoding": "gzip"})]) as server:
        with router_to(server.url) as router:
            began = time.monotonic()
            heard = caller.stream(router, "hi", timeout=0.5)
    assert isinstance(heard.error, errors.CcrouteError)
    assert time.monotonic() - began < 1.5


def test_the_words_of_an_error_are_not_waited_for_beyond_two_seconds(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccroute.flow.attempt.exchange.ERROR_BODY_WAIT", 0.1)
    busy = [Send(head(503, {"content-length": "100"}) + b"oh"), Hang()]
    replies = [busy, answer(json=chat("elsewhere"))]
    with ScriptedServer(replies) as server, router_to(server.url, retry=RetryPolicy()) as router:
        assert caller.complete(router, "hi", fallback=["main/n"], timeout=5).text == "elsewhere"


@on_all_loops
def test_a_request_that_was_read_is_never_reported_as_not_sent(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    # The kept connection dies with the request, and then nobody listens any more.
    with ScriptedServer([answer(json=chat("one")), [Reset()]]) as server, router_to(server.url) as router:

        async def twice() -> None:
            await router.acomplete("hi")
            for network in (LoopNetwork, TrioNetwork):
                monkeypatch.setattr(network, "open", refuse)
            await router.acomplete("hi")

        with pytest.raises(errors.ConnectionFailedError) as caught:
            if caller.mode != "sync":
                caller.run(twice)
            router.complete("hi")
            monkeypatch.setattr(ThreadNetwork, "open", refuse)
            router.complete("hi")
    [attempt] = caught.value.attempts
    assert attempt.failure == "ambiguous"
    assert attempt.cost is not None
    assert attempt.cost > 0
    assert "sent once more" in attempt.reason


async def test_close_lets_running_calls_finish() -> None:
    go = threading.Event()
    with ScriptedServer([[Wait(go), *answer(json=chat("finished"))]]) as server:
        router = router_to(server.url)
        running = asyncio.create_task(router.acomplete("hi"))
        assert await asyncio.to_thread(server.wait_requests)
        await router.aclose()
        go.set()
        assert (await running).text == "finished"
        with pytest.raises(errors.RouterClosedError):
            await router.acomplete("hi")
        assert await asyncio.to_thread(server.wait_idle)
    assert len(server.requests) == 1


@pytest.mark.parametrize("use", ["read", "write"])
def test_a_socket_in_use_is_closed_only_by_its_user(use: str) -> None:
    # Otherwise its user could read or write what belongs to the next socket with the same number.
    class Closing(socket.socket):
        used = 0

        def close_in_use(self) -> None:
            made.close()
            assert self.fileno() >= 0
            self.used += 1

        def recv(self, *_: object) -> bytes:
            self.close_in_use()
            return b""

        def send(self, *_: object) -> int:
            self.close_in_use()
            raise BrokenPipeError

    with Closing() as sock:
        made = SocketStream(sock, ThreadNetwork())
        if use == "write":
            made.write(b"x")
        else:
            run(made.read(time.monotonic() + 5))
        assert (sock.used, sock.fileno()) == (1, -1)


def test_a_stream_closed_by_a_thread_before_its_first_byte_ends() -> None:
    with ScriptedServer([[Hang()]]) as server, router_to(server.url) as router:
        started = router.stream("hi")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(list, started)
            assert server.wait_requests()
            started.close()
            assert reading.result(1) == []
        assert server.wait_closed(1.0)


async def test_a_stream_closed_by_a_task_before_its_first_byte_ends() -> None:
    with ScriptedServer([[Hang()]]) as server, router_to(server.url) as router:
        started = router.astream("hi")
        reading = asyncio.create_task(anext(started))  # type: ignore[arg-type]
        assert await asyncio.to_thread(server.wait_requests)
        await started.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reading, 1)
        assert await asyncio.to_thread(server.wait_closed, 1.0)


async def test_a_second_reader_does_not_end_the_stream_of_the_first() -> None:
    go = threading.Event()
    pieces = [chunk({"content": "one"}), Wait(go), *chat_sse(["two"])]
    with ScriptedServer([stream(pieces)], repeat=True) as server, router_to(server.url) as router:

        async def by_tasks() -> str:
            started = router.astream("hi")
            text = (await anext(started)).text
            reading = asyncio.create_task(anext(started))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="already being read"):
                await anext(started)
            go.set()
            return text + (await reading).text + "".join([piece.text async for piece in started])

        def by_threads() -> str:
            started = router.stream("hi")
            text = next(started).text
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(lambda: "".join(piece.text for piece in started))
                while not started._drive._running:
                    pass
                with pytest.raises(RuntimeError, match="already being read"):
                    next(started)
                go.set()
                return text + reading.result(5)

        assert await by_tasks() == "onetwo"
        go.clear()
        assert await asyncio.to_thread(by_threads) == "onetwo"
        assert [row.outcome for row in router.rows()] == ["ok", "ok"]


async def test_a_connection_given_up_in_its_handshake_sends_nothing(tmp_path: Path) -> None:
    authority, accepted = Authority(), threading.Event()
    with ScriptedServer(on_connect=[Set(accepted), Hang()]) as server:  # plain: the handshake never ends
        url = server.url.replace("http:", "https:")
        with router_to(url, ca_file=authority.write(tmp_path)) as router:
            started = router.astream("hi")
            reading = asyncio.create_task(anext(started))  # type: ignore[arg-type]
            assert await asyncio.to_thread(accepted.wait, 5)
            await started.aclose()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(reading, 1)
            assert await asyncio.to_thread(server.wait_closed, 1.0)
    assert server.requests == []


@on_all_loops
def test_bytes_before_the_tls_handshake_are_no_answer(tmp_path: Path, caller: Caller) -> None:
    authority = Authority()
    with ScriptedServer(on_connect=answer(json=chat("evil"))) as server:
        url = server.url.replace("http:", "https:")
        with router_to(url, ca_file=authority.write(tmp_path)) as router:
            with pytest.raises(errors.ConnectionFailedError):
                caller.complete(router, "hi")


@on_all_loops
@pytest.mark.parametrize("host", ["foo..bar", "x" * 70])
def test_a_name_that_cannot_exist_is_a_connection_failure(caller: Caller, host: str) -> None:
    with router_to(f"http://{host}") as router, pytest.raises(errors.ConnectionFailedError) as caught:
        caller.complete(router, "hi")
    assert caught.value.attempts[0].failure == "not_sent"


async def test_a_call_cancelled_while_connecting_leaves_no_socket() -> None:
    with ScriptedServer([answer(json=chat())], repeat=True) as server, router_to(server.url) as router:
        for turns in range(12):
            task = asyncio.create_task(router.acomplete("hi"))
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        sent = len(server.requests)
        row = router.report().to_dicts()
        gc.collect()
        assert await asyncio.to_thread(server.wait_idle)
    if not sent and row:
        assert row[0]["cost"] == 0


def test_a_loop_that_ended_is_forgotten() -> None:
    loops = []
    with ScriptedServer([answer(json=chat())], repeat=True) as server, router_to(server.url) as router:

        async def ask() -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            await router.acomplete("hi")

        for _ in range(3):
            asyncio.run(ask())
        gc.collect()
        assert [loop() for loop in loops] == [None] * 3


def test_a_stream_of_errors_and_done_is_no_success(caller: Caller) -> None:
    pieces = [
        *chat_sse(["so far"], finish=None, usage=None, done=False),
        sse({"error": "boom"}),
        b"data: [DONE]\n\n",
    ]
    with ScriptedServer([stream(pieces)]) as server, router_to(server.url) as router:
        heard = caller.stream(router, "hi")
    assert heard.text == "so far"
    assert isinstance(heard.error, errors.StreamInterruptedError)


def test_a_key_that_cannot_be_had_moves_the_call_on(caller: Caller) -> None:
    def vault() -> str:
        raise OSError("the vault is sealed")

    with ScriptedServer([answer(json=chat("local"))]) as server:
        sealed = OpenAIBackend("far", base_url=server.url, api_key=vault)
        with Router([sealed, OpenAIBackend("near", base_url=server.url)]) as router:
            reply = caller.complete(router, "hi", model="far/m", fallback=["near/m"])
    assert reply.text == "local"
    assert reply.route.attempts[0].failure == "credential"


def test_one_chunk_is_emitted_once() -> None:
    with ScriptedServer([stream([chunk({"content": "a"}), *chat_sse(["b"])])]) as server:
        with router_to(server.url) as router:
            assert "".join(piece.text for piece in router.stream("hi")) == "ab"


# -- Closing from elsewhere, and loops that die


def closed_while(reading: Stream, began: threading.Event) -> bool:
    """Whether a thread that reads a stream comes back when the stream is closed."""
    thread = threading.Thread(target=list, args=(reading,), daemon=True)
    thread.start()
    assert began.wait(5)
    reading.close()
    thread.join(5)
    return not thread.is_alive()


def test_a_call_closed_before_it_was_sent_is_not_sent() -> None:
    asked, go = threading.Event(), threading.Event()

    def key() -> str:
        asked.set()
        assert go.wait(5)
        return "sk-0123456789"

    with ScriptedServer() as server, Router([OpenAIBackend("b", base_url=server.url, api_key=key)]) as router:
        reading = router.stream("hi", model="b/m")
        thread = threading.Thread(target=list, args=(reading,), daemon=True)
        thread.start()
        assert asked.wait(5)
        reading.close()
        go.set()
        thread.join(5)
        assert not thread.is_alive()
    assert server.connections == 0


def test_a_call_closed_in_the_queue_leaves_it() -> None:
    begun = threading.Event()
    held = stream([chunk({"content": "a"}), Hang()])
    with ScriptedServer([held]) as server:
        backend = OpenAIBackend("b", base_url=server.url, max_concurrency=1)
        with (
            Router([backend], on_event=lambda event: begun.set(), max_queue=1) as router,
            router.stream("hi", model="b/m") as first,
        ):
            next(first)
            for _ in range(2):  # there is room for one
                begun.clear()
                assert closed_while(router.stream("hi", model="b/m"), begun)


def test_a_call_closed_in_its_sleep_wakes_up() -> None:
    slept = threading.Event()

    def heard(event: Event) -> None:
        if isinstance(event, Retried):
            slept.set()

    with ScriptedServer([answer(429, headers={"retry-after": "30"})]) as server:
        with Router([OpenAIBackend("b", base_url=server.url)], on_event=heard) as router:
            assert closed_while(router.stream("hi", model="b/m"), slept)


def test_a_closed_loop_that_ran_no_finalisers_leaves_no_sockets() -> None:
    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        with Router([OpenAIBackend("b", base_url=server.url)]) as router:
            for _ in range(5):
                loop = asyncio.new_event_loop()
                loop.run_until_complete(router.acomplete("hi", model="b/m"))
                loop.close()
            assert server.wait_closed(count=4), "each loop closes what those before it left open"
        assert server.wait_closed(count=5)


@pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning")
def test_a_loop_that_dies_takes_no_slot_with_it(caplog: pytest.LogCaptureFixture) -> None:
    held = stream([chunk({"content": "a"}), Hang()])
    with ScriptedServer([held, answer(json=chat("next"))]) as server:
        with Router([OpenAIBackend("b", base_url=server.url, max_concurrency=1)]) as router:
            loop = asyncio.new_event_loop()

            async def use() -> None:
                async for _ in router.astream("hi", model="b/m"):
                    asyncio.get_running_loop().stop()

            task = loop.create_task(use())
            loop.run_forever()
            loop.close()
            assert router.complete("again", model="b/m", timeout=5).text == "next"
            del task, loop
            gc.collect()  # asyncio says that the task was never finished


def test_discovery_goes_on_after_a_transport_is_refused() -> None:
    backends = [OpenAIBackend(name, base_url=f"http://{name}.test") for name in "ab"]
    with Router(backends, transport=httpx.AsyncHTTPTransport()) as router:
        assert router.discover() == []  # each is named in a warning


@on_all_loops
def test_a_limit_may_be_as_long_as_a_float_can_say(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat("fine"))]) as server, router_to(server.url) as router:
        assert caller.complete(router, "hi", timeout=1e300).text == "fine"


def test_a_ca_file_without_certificates_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(errors.ConfigError, match="holds no certificates"):
        OpenAIBackend("b", base_url="https://127.0.0.1", ca_file=str(tmp_path / "bad.pem"))


def test_an_authority_that_is_lost_later_moves_the_call_on(caller: Caller, tmp_path: Path) -> None:
    pem = Authority().write(tmp_path)
    with ScriptedServer([answer(json=chat("elsewhere"))]) as server:
        backends = [
            OpenAIBackend("a", base_url="https://127.0.0.1:1", ca_file=str(pem)),
            OpenAIBackend("b", base_url=server.url),
        ]
        pem.unlink()
        table = AliasTable({"m": ["a/m", "b/m"]}, strategy="ordered")
        with Router(backends, table) as router:
            reply = caller.complete(router, "hi", model="m")
    assert reply.text == "elsewhere"
    assert [attempt.failure for attempt in reply.route.attempts] == ["not_sent", None]
