"""The public API on trio: cancel scopes, waits that a thread ends, and the end of a run."""

from __future__ import annotations

import asyncio
import gc
import math
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import httpx
import psutil
import pytest
import trio
import trio.testing
from tests.support import loops
from tests.support.loops import in_thread
from tests.support.openai_like import chat, chat_sse, chunk
from tests.support.scripted import Hang, ScriptedServer, Send, Wait, answer, head, stream
from tests.support.steps import chunk as frame

from ccroute import AsyncStream, OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.http.pool import Pool
from ccroute.http.streams.event_loops import current_loop
from ccroute.observe import Event, Queued

ONCE = RetryPolicy(attempts=1)
PIECE = chunk({"content": "x"})
MB = 1024 * 1024


def router_to(url: str, **options: Any) -> Router:
    backend = OpenAIBackend("main", base_url=url, max_concurrency=options.pop("slots", None))
    return Router([backend], default_model="main/m", **{"retry": ONCE, "timeout": 20} | options)


def free(router: Router) -> bool:
    """No call is in flight, none waits, and no slot is held."""
    host = router.stats().backends["main"]
    return (host.in_flight, host.slots_held, host.queued, host.busy_connections) == (0, 0, 0, 0)


# -- cancel scopes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [[Hang()], [Send(head(200, {"content-length": "9"}) + b"{"), Hang()]])
def test_a_cancel_scope_ends_a_call_and_frees_its_slot(reply: Any) -> None:
    async def main() -> None:
        began = time.monotonic()
        with trio.move_on_after(0.1) as scope:
            await router.acomplete("hi")
        assert scope.cancelled_caught
        assert time.monotonic() - began < 0.5
        assert free(router)
        assert await in_thread(server.wait_closed, 1.0)
        assert (await router.acomplete("hi")).text == "next"

    with ScriptedServer([reply, answer(json=chat("next"))]) as server:
        with router_to(server.url, slots=1) as router:
            trio.run(main)


@pytest.mark.parametrize("pieces", [[PIECE, Hang()], [PIECE] * 50_000], ids=["silent", "flood"])
def test_a_cancel_scope_ends_a_stream_and_frees_its_slot(pieces: Any) -> None:
    # In the flood there is always something to read, so nothing but a checkpoint ends it.
    async def main() -> None:
        began = time.monotonic()
        with trio.move_on_after(0.1) as scope:
            async for piece in router.astream("hi"):
                assert piece.text == "x"
        assert scope.cancelled_caught
        assert time.monotonic() - began < 0.5
        assert free(router)
        assert await in_thread(server.wait_closed, 1.0)
        assert [row.outcome for row in router.rows()] == ["cancelled"]

    with ScriptedServer([stream(pieces)]) as server, router_to(server.url, slots=1) as router:
        trio.run(main)


def test_other_tasks_run_while_a_stream_has_always_more() -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery, router.astream("hi") as chunks:
            nursery.start_soon(other)
            assert len([piece async for piece in chunks if piece.text]) == 20_000
            nursery.cancel_scope.cancel()
        assert turns > 10

    pieces = b"".join(map(frame, [PIECE] * 20_000))
    body = [Send(head(200, {"transfer-encoding": "chunked"}) + pieces), *map(Send, map(frame, chat_sse([])))]
    with ScriptedServer([[*body, Send(frame(b""))]]) as server, router_to(server.url) as router:
        trio.run(main)


def test_a_call_cancelled_at_any_checkpoint_leaves_nothing() -> None:
    async def main() -> None:
        for turns in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(router.acomplete, "hi")
                    for _ in range(turns % 6):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        assert free(router)
        await loops.nobody_else()
        await router.aclose()
        assert await in_thread(server.wait_idle, 1.0)

    with ScriptedServer([answer(json=chat())], repeat=True) as server, router_to(server.url) as router:
        trio.run(main)


# -- another thread ends a wait ------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [[Hang()], stream([PIECE, Hang()])], ids=["before", "after"])
def test_a_stream_closed_by_another_thread_ends(reply: Any) -> None:
    async def main() -> None:
        heard = list[str]()
        first = trio.Event()

        async def read() -> None:
            async for piece in started:
                heard.append(piece.text)
                first.set()

        started = router.astream("hi")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                assert await in_thread(server.wait_requests)
                if reply != [Hang()]:
                    await first.wait()
                await trio.testing.wait_all_tasks_blocked()
                await in_thread(asyncio.run, started.aclose())
        assert heard == ([] if reply == [Hang()] else ["x"])
        assert await in_thread(server.wait_closed, 1.0)

    with ScriptedServer([reply]) as server, router_to(server.url) as router:
        trio.run(main)


def test_a_stream_closed_in_its_queue_or_its_sleep_ends() -> None:
    limited = answer(429, headers={"retry-after": "15"})
    with ScriptedServer([stream([PIECE, Hang()]), limited]) as server:
        with router_to(server.url, slots=1, retry=RetryPolicy()) as router:

            async def closed(started: AsyncStream, when: Callable[[], bool]) -> None:
                with trio.fail_after(5):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(anext, started, None)
                        while not when():
                            await trio.sleep(0.01)
                        await trio.testing.wait_all_tasks_blocked()
                        await in_thread(asyncio.run, started.aclose())

            async def main() -> None:
                async with router.astream("hi") as held:
                    await anext(held)
                    await closed(router.astream("hi"), lambda: router.stats().backends["main"].queued == 1)
                await closed(router.astream("hi"), lambda: len(server.requests) == 2)
                assert free(router)

            trio.run(main)


def test_threads_asyncio_and_trio_wait_for_one_slot_in_turn() -> None:
    queued = threading.Semaphore(0)

    def heard(event: Event) -> None:
        if isinstance(event, Queued):
            queued.release()

    texts = list[str]()
    go = threading.Event()
    with ScriptedServer([[Wait(go), *answer(json=chat("fine"))], *[answer(json=chat("fine"))] * 3]) as server:
        with router_to(server.url, slots=1, on_event=heard) as router:

            async def ask(name: str) -> None:
                await router.acomplete(name)
                texts.append(name)

            def block(name: str) -> None:
                router.complete(name)
                texts.append(name)

            runs: list[Callable[[], object]] = [
                lambda: trio.run(ask, "trio"),
                lambda: asyncio.run(ask("asyncio")),
                lambda: trio.run(ask, "trio again"),
                lambda: block("thread"),
            ]
            threads = [threading.Thread(target=run) for run in runs]
            for number, thread in enumerate(threads):
                thread.start()
                assert server.wait_requests() if number == 0 else queued.acquire(timeout=5)
            go.set()
            for thread in threads:
                thread.join(5)
            assert free(router)
    asked = [request.json["messages"][0]["content"] for request in server.requests]
    assert asked == ["trio", "asyncio", "trio again", "thread"]
    assert sorted(texts) == sorted(asked)


# -- the end of a run, and of a router -----------------------------------------------------------------------


async def twice(router: Router) -> None:
    for _ in range(2):
        assert (await router.acomplete("hi")).text == "fine"


@pytest.mark.parametrize("transport", [None, "httpx"])
def test_connections_are_kept_and_end_with_their_run(transport: Any) -> None:
    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        with router_to(server.url, transport=transport) as router:
            for run in range(1, 4):
                trio.run(twice, router)
                assert server.connections == run
                assert server.wait_closed(1.0, count=run)


@pytest.mark.parametrize("transport", [None, "httpx"])
def test_a_router_closed_in_its_run_has_closed_its_connections(transport: Any) -> None:
    async def main() -> None:
        async with router_to(server.url, transport=transport) as router:
            await twice(router)
            assert connections() == 1
        assert connections() == 0
        with pytest.raises(errors.RouterClosedError):
            await router.acomplete("hi")

    def connections() -> int:
        remote = [link.raddr.port for link in psutil.Process().net_connections() if link.raddr]
        return remote.count(server.port)

    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        trio.run(main)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_no_task_of_trio_outlives_its_router(how: str) -> None:
    async def main() -> None:
        router = router_to(server.url)
        await twice(router)
        assert tasks() == 1
        if how == "closed":
            await in_thread(router.close)
        del router
        gc.collect()
        assert await in_thread(server.wait_idle, 1.0)
        await loops.nobody_else()
        assert tasks() == 0

    def tasks() -> int:
        return sum(task.name in loops.TRIOS_OWN for task in anyio.get_running_tasks()) - 2

    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server:
        trio.run(main)


def test_a_run_that_ended_is_forgotten() -> None:
    runs = list[weakref.ref[Any]]()
    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server, router_to(server.url) as router:

        async def main() -> None:
            runs.append(weakref.ref(current_loop()))
            await twice(router)

        for _ in range(3):
            trio.run(main)
        gc.collect()
        assert [run() for run in runs] == [None] * 3


def test_an_error_at_the_end_of_a_run_ends_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("a socket that cannot be closed")

    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server, router_to(server.url) as router:
        monkeypatch.setattr(Pool, "_close_all", fails)
        trio.run(twice, router)
        monkeypatch.undo()
        trio.run(twice, router)  # it closes what the last run left open
        assert server.wait_closed(1.0, count=2)


# A program that leaves connections and streams open at the end of each run.
LEAVES = """
import asyncio, sys, trio
from ccroute import OpenAIBackend, Router

router = Router([OpenAIBackend("main", base_url=sys.argv[1], max_concurrency=1)], default_model="main/m")
kept = []

async def use(how):
    await router.acomplete("hi")
    kept.append(router.astream("hi"))
    await anext(kept[-1])
    if how == "dropped":
        kept.clear()

for run in range(5):
    trio.run(use, "dropped" if run % 2 else "kept")
asyncio.run(use("kept"))
router.complete("hi")
"""


def test_what_a_run_leaves_open_ends_without_a_warning() -> None:
    replies = [answer(json=chat()), stream([PIECE, Hang()])] * 6
    with ScriptedServer([*replies, answer(json=chat())]) as server:
        subprocess.run([sys.executable, "-W", "error", "-c", LEAVES, server.url], check=True, timeout=30)
        assert server.wait_idle()


# -- which loop runs -----------------------------------------------------------------------------------------


async def as_a_guest(main: Callable[[], Awaitable[object]]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=ended.set_result
    )
    (await ended).unwrap()


async def inside(main: Callable[[], Awaitable[object]]) -> None:
    trio.run(main)


@pytest.mark.parametrize("host", [as_a_guest, inside], ids=["as a guest", "inside, as in a notebook"])
def test_trio_is_told_from_the_asyncio_loop_around_it(host: Any) -> None:
    async def around() -> None:
        assert (await router.acomplete("hi")).text == "fine"
        await host(partial(twice, router))
        assert (await router.acomplete("hi")).text == "fine"

    with ScriptedServer([answer(json=chat("fine"))], repeat=True) as server, router_to(server.url) as router:
        asyncio.run(around())
        assert server.wait_closed(1.0, count=2)


@pytest.mark.parametrize("mode", ["async", "trio"])
def test_a_stream_begun_on_trio_is_not_read_on_another_loop(mode: loops.Mode) -> None:
    async def main() -> None:
        async with router.astream("hi") as started:
            await anext(started)
            with pytest.raises(RuntimeError, match="began on another event loop"):
                await in_thread(loops.run, mode, started.__anext__)

    with ScriptedServer([stream([PIECE, Hang()])]) as server, router_to(server.url) as router:
        trio.run(main)


def test_a_module_that_is_just_being_imported_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", types.ModuleType("trio"))
    assert current_loop() is None


# Every way to call, but for httpx's transports, which import trio themselves.
WITHOUT = """
import asyncio, sys
from ccroute import OpenAIBackend, Router

async def use():
    await router.acomplete("hi")
    assert [chunk.text async for chunk in router.astream("hi")]
    await asyncio.gather(*(router.acomplete("hi") for _ in range(3)))
    await router.aclose()

router = Router([OpenAIBackend("main", base_url=sys.argv[1], max_concurrency=1)], default_model="main/m")
router.complete("hi")
assert list(router.stream("hi"))
asyncio.run(use())
assert "trio" not in sys.modules
"""


def test_trio_is_imported_only_by_those_who_run_it() -> None:
    def reply(request: Any) -> Any:
        return stream(chat_sse()) if request.json.get("stream") else answer(json=chat())

    with ScriptedServer(reply) as server:
        subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT, server.url], check=True, timeout=30)


# -- an httpx transport --------------------------------------------------------------------------------------


def test_an_httpx_transport_is_bounded_exactly_on_trio() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.sleep(math.inf)
            raise AssertionError

    with router_to("http://x.test", transport=Silent()) as router:
        with pytest.raises(errors.BackendTimeoutError) as caught:
            trio.run(partial(router.acomplete, "hi", timeout=Timeout(first=0.2)))
    assert 0.18 <= caught.value.attempts[0].duration < 0.4


def test_a_stream_left_on_trio_closes_the_transports_response() -> None:
    class Body(httpx.AsyncByteStream):
        def __init__(self) -> None:
            self.closed = trio.Event()

        def __aiter__(self) -> Body:
            return self

        async def __anext__(self) -> bytes:
            await trio.lowlevel.checkpoint()
            return PIECE

        async def aclose(self) -> None:
            self.closed.set()
            raise OSError("an error here would end the whole run")

    async def main() -> None:
        body = Body()
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=body))
        async with router_to("http://x.test", transport=transport) as router:
            async with router.astream("hi") as started:
                await anext(started)
            with trio.fail_after(5):
                await body.closed.wait()

    trio.run(main)
