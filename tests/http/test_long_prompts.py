"""Prompts that are still being sent when something happens."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from tests.conftest import Caller
from tests.support.loops import in_thread, on_all_loops
from tests.support.openai_like import chat
from tests.support.scripted import answer

from ccroute import AsyncStream, OpenAIBackend, RetryPolicy, Router, errors

MB = 1024 * 1024


def router_to(url: str) -> Router:
    backend = OpenAIBackend("main", base_url=url)
    return Router([backend], default_model="main/m", retry=RetryPolicy(attempts=1), timeout=20)


@contextmanager
def served(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server for one connection: after `serve`, it reads nothing until the end of the block."""
    failed, over = list[BaseException](), threading.Event()

    def accept() -> None:
        try:
            with listener.accept()[0] as sock:
                serve(sock)
                assert over.wait(5)
                while sock.recv(MB):
                    pass
        except BaseException as error:
            failed.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the system holds little of a request
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join(5)
    assert not failed
    assert not thread.is_alive()


LONG = "x" * 8 * MB
"""A prompt that cannot be sent before its server reads."""


def read_slowly(sock: socket.socket) -> None:
    received = 0
    while received < len(LONG):
        received += len(sock.recv(MB))
    sock.sendall(answer(json=chat("at last"))[0].data)  # type: ignore[attr-defined]


def answer_early(sock: socket.socket) -> None:
    sock.recv(1000)
    sock.sendall(answer(413, body="too large")[0].data)  # type: ignore[attr-defined]


def read_nothing(sock: socket.socket) -> None:
    sock.recv(1000)


@on_all_loops
def test_a_long_prompt_is_sent_while_its_server_reads(caller: Caller) -> None:
    with served(read_slowly) as url, router_to(url) as router:
        assert caller.complete(router, LONG).text == "at last"


@on_all_loops
def test_an_answer_is_read_before_the_request_was_sent(caller: Caller) -> None:
    with served(answer_early) as url, router_to(url) as router, pytest.raises(errors.InvalidRequestError):
        caller.complete(router, LONG)


@on_all_loops
def test_a_request_that_nobody_reads_ends_at_its_limit(caller: Caller) -> None:
    with served(read_nothing) as url, router_to(url) as router:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            caller.complete(router, LONG, timeout=0.3)
    assert 0.28 <= caught.value.attempts[0].duration < 0.6


@pytest.mark.parametrize("how", ["cancelled", "interrupted", "closed"])
def test_a_request_that_is_being_sent_is_stopped(how: str) -> None:
    # Two tasks of trio wait then, and an exception group of theirs is nothing that a caller knows.
    async def stop(stream: AsyncStream, scope: trio.CancelScope) -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        if how == "cancelled":
            scope.cancel()
        elif how == "interrupted":
            await in_thread(signal.pthread_kill, threading.main_thread().ident, signal.SIGINT)
        else:
            await stream.aclose()

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                started = router.astream(LONG)
                nursery.start_soon(stop, started, scope)
                try:
                    async for _ in started:
                        pass
                except KeyboardInterrupt:
                    assert how == "interrupted"
                else:
                    assert how == "closed"
        assert router.stats().backends["main"].in_flight == 0

    with served(read_nothing) as url, router_to(url) as router:
        trio.run(main)
