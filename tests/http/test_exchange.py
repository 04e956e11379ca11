"""Exchanges and the connections that they share: what is kept, given back, closed, and sent again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from typing import Any

import pytest
from tests.support.scripted import Close, Reset, ScriptedServer, Send, answer, chunk, head

from ccroute.http.answer import MAX_HEAD, AnswerReader
from ccroute.http.connection import Connection
from ccroute.http.connections import Connections, ConnectionStats
from ccroute.http.message import Endpoint, Exchange, Failure, PreparedRequest, Reply, TransportError
from ccroute.http.origin import Origin
from ccroute.http.pool import Stack
from ccroute.http.streams.blocking import run
from ccroute.http.streams.sockets import ThreadNetwork

FOREVER = float("inf")
KEY = "canary-key-0123456789"


def request_to(server: ScriptedServer, body: bytes = b"{}") -> PreparedRequest:
    endpoint = Endpoint(Origin("http", "127.0.0.1", server.port))
    length = b"%d" % len(body)
    headers = [(b"host", b"x"), (b"authorization", KEY.encode()), (b"content-length", length)]
    return PreparedRequest(endpoint, "POST", "/", headers, body)


def exchange_with(server: ScriptedServer, connections: Connections) -> Exchange:
    return connections.exchange(request_to(server), None, FOREVER, blocking=True)


def ask(server: ScriptedServer, connections: Connections) -> Exchange:
    """One whole exchange, of which the server says `ok`."""
    exchange = exchange_with(server, connections)
    assert isinstance(run(exchange.send()), Reply)
    assert run(exchange.read(FOREVER)) == b"ok"
    assert run(exchange.read(FOREVER)) == b""
    return exchange


OK = answer(body=b"ok")


def test_a_request_shows_neither_key_nor_prompt() -> None:
    with ScriptedServer() as server:
        shown = repr(request_to(server, b"a prompt"))
    assert "8 bytes" in shown
    assert "authorization" in shown
    assert KEY not in shown
    assert "a prompt" not in shown
    assert repr(Reply(200, {"x-request-id": KEY})) == "Reply(200, 1 headers)"


def test_the_end_of_a_body_is_told_again() -> None:
    with ScriptedServer([OK]) as server:
        connections = Connections()
        exchange = ask(server, connections)
        assert run(exchange.read(FOREVER)) == b""
        exchange.release()  # the connection is not this exchange's any more
        assert connections.stats() == {request_to(server).endpoint.origin: ConnectionStats(1, 0)}
        connections.close()


def test_an_exchange_released_before_it_is_sent_sends_nothing() -> None:
    with ScriptedServer([OK]) as server:
        connections = Connections()
        exchange = exchange_with(server, connections)
        exchange.release()
        failure = run(exchange.send())
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent, exchange.sent) == ("broken", False, False)
        assert server.wait_idle()
        assert server.requests == []


def test_a_late_exchange_sends_nothing() -> None:
    with ScriptedServer([OK]) as server:
        connections = Connections()
        exchange = connections.exchange(request_to(server), None, time.monotonic(), blocking=True)
        failure = run(exchange.send())
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent) == ("timeout", False)
        assert server.wait_idle()


def test_a_head_counts_though_its_body_is_broken() -> None:
    broken = [Send(head(429, {"transfer-encoding": "chunked", "retry-after": "7"}) + b"no chunk\r\n")]
    with ScriptedServer([broken]) as server:
        exchange = exchange_with(server, Connections())
        reply = run(exchange.send())
        assert isinstance(reply, Reply)
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        failure = run(exchange.read(FOREVER))
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent) == ("protocol", True)
        assert run(exchange.read(FOREVER)) == b""
        assert server.wait_idle()


@pytest.mark.parametrize(
    ("second", "again"),
    [
        ([Reset()], True),
        ([Close()], True),
        ([Send(b"H"), Close()], False),
        ([Send(b"SSH-2.0" + b"x" * 2 * MAX_HEAD), Close()], False),
        ([Send(head(200, {"content-length": "9"})), Close()], None),
    ],
    ids=["reset", "closed", "first byte", "much that is no answer", "no body"],
)
def test_only_a_request_without_any_answer_is_sent_again(second: Any, again: bool | None) -> None:
    with ScriptedServer([OK, second, OK]) as server:
        connections = Connections()
        ask(server, connections)
        exchange = exchange_with(server, connections)
        reply = run(exchange.send())
        assert isinstance(reply, Reply) == (again is not False)
        assert reply.reconnected == bool(again)
        assert len(server.requests) == 2 + bool(again)
        exchange.release()
        connections.close()


def test_a_request_is_not_sent_again_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.http.exchange.QUICK", 0.0)
    with ScriptedServer([OK, [Reset()], OK]) as server:
        connections = Connections()
        ask(server, connections)
        failure = run(exchange_with(server, connections).send())
        assert isinstance(failure, Failure)
        assert (failure.sent, failure.reconnected) == (True, False)
        assert len(server.requests) == 2


def test_a_connection_closed_while_it_is_made_is_closed() -> None:
    class Interrupts(ThreadNetwork):
        async def open(self, address: Any, until: float) -> Any:
            self.stream = await super().open(address, until)
            connection.close()  # as another thread would
            return self.stream

    network, opened = Interrupts(), set[Connection]()
    with ScriptedServer() as server:
        connection = Connection(request_to(server).endpoint, None, opened)
        with pytest.raises(TransportError, match="was closed"):
            run(connection.open(network, None, FOREVER))
        assert not network.stream.is_quiet()
        assert opened == set()
        assert server.wait_idle()


# -- what is kept --------------------------------------------------------------------------------------------


class Quiet:
    """A connection that is kept, as far as a stack knows it."""

    stream: Any
    closed = False
    can_be_kept = True

    def __init__(self, *, interrupted: bool = False) -> None:
        self.stream = self
        self._interrupted = interrupted

    def is_quiet(self) -> bool:
        if self._interrupted:
            raise KeyboardInterrupt
        return not self.closed

    def close(self) -> None:
        self.closed = True


def stack_of(*connections: Any) -> Stack:
    stack = Stack(set(), closed=False)
    for connection in connections:
        stack.push(connection)
    return stack


def test_the_connection_used_last_is_taken_first() -> None:
    first, second, dead = Quiet(), Quiet(), Quiet()
    stack = stack_of(first, second, dead)
    dead.close()
    assert [stack.pop(), stack.pop(), stack.pop()] == [second, first, None]


def test_an_interrupt_while_a_connection_is_taken_closes_it() -> None:
    connection = Quiet(interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        stack_of(connection).pop()
    assert connection.closed


def test_another_thread_may_take_the_last_connection_first() -> None:
    class Raced(deque[Any]):
        def pop(self) -> Any:  # type: ignore[override]
            self.clear()
            raise IndexError

        popleft = pop

    stack = stack_of()
    stack.idle = Raced([(0.0, Quiet())])
    assert stack.pop() is None
    stack.idle.append((0.0, Quiet()))
    stack.push(Quiet())  # type: ignore[arg-type]
    stack.idle.append((0.0, Quiet()))
    stack.close()
    assert not stack.idle


def test_a_closed_stack_keeps_nothing() -> None:
    stack, connection = stack_of(), Quiet()
    stack.close()
    stack.push(connection)  # type: ignore[arg-type]
    assert connection.closed
    assert stack.pop() is None


def test_a_forked_child_forgets_its_parents_connections() -> None:
    with ScriptedServer([OK], repeat=True) as server:
        connections = Connections()
        ask(server, connections)
        connections.after_fork()
        assert connections.stats() == {}
        ask(server, connections)
        assert server.connections == 2
        connections.close()


def test_a_dead_loop_is_not_counted() -> None:
    async def ask_on_loop() -> None:
        exchange = connections.exchange(request_to(server), None, FOREVER)
        assert isinstance(await exchange.send(), Reply)
        assert await exchange.read(FOREVER) == b"ok"
        assert await exchange.read(FOREVER) == b""

    with ScriptedServer([OK], repeat=True) as server:
        connections = Connections()
        origin = request_to(server).endpoint.origin
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask_on_loop())
        assert connections.stats() == {origin: ConnectionStats(1, 0)}
        loop.close()
        connections.close()
        assert connections.stats() == {}
        del loop
        gc.collect()
        assert server.wait_idle()


def test_a_proxy_refuses_through_a_kept_connection_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # More than a head's bytes of the refusal come with it: it is no connection that was closed.
    refusal = answer(407, body=b"x" * 3 * MAX_HEAD)
    with ScriptedServer([OK, refusal]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        connections = Connections(trust_env=True)
        endpoint = Endpoint(Origin("http", "server.invalid", 80))
        request = request_to(proxy)._replace(endpoint=endpoint)
        first = connections.exchange(request, None, FOREVER, blocking=True)
        assert isinstance(run(first.send()), Reply)
        assert run(first.read(FOREVER)) == b"ok"
        assert run(first.read(FOREVER)) == b""
        failure = run(connections.exchange(request, None, FOREVER, blocking=True).send())
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.sent, failure.reconnected) == ("connect", False, False)
        assert len(proxy.requests) == 2


def test_an_interrupt_while_an_answer_is_read_is_raised() -> None:
    class Interrupted(AnswerReader):
        def on_body(self, data: bytes) -> None:
            raise KeyboardInterrupt

    reader = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        reader.feed(head(200, {"transfer-encoding": "chunked"}) + chunk(b"x"))
