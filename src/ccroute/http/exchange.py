"""One request and its answer over a connection of our own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ccroute.http.connection import Connection, read_head
from ccroute.http.message import Failure, PreparedRequest, Reply, TransportError, write_head
from ccroute.http.streams import Network, closed, seconds_left

if TYPE_CHECKING:
    from ccroute.http.connections import Connections
    from ccroute.http.pool import Pool, Stack

QUICK = 0.5
"""Seconds: a kept connection that breaks within them had been closed by its server, so the request is sent
again. After them, the server may have worked on the request, and sending it again is a new attempt."""
ONE_PACKET = 64 * 1024
"""Bytes of a body up to which it is copied, to leave in one packet with its head."""


class BaseExchange:
    """What every `Exchange` is made of. `Connections.exchange` explains the arguments."""

    def __init__(
        self,
        connections: Connections,
        request: PreparedRequest,
        connect: float | None,
        until: float,
        *,
        blocking: bool,
    ) -> None:
        self.sent = False
        self._connections = connections
        self._request = request
        self._connect_seconds = connect
        self._until = until
        self._blocking = blocking


class ConnectionExchange(BaseExchange):
    """An `Exchange`.

    It takes an idle connection or makes one, and gives it back when the answer is complete.
    """

    _stack: Stack
    _connection: Connection | None = None
    _body = b""  # of an answer that is complete, until it is read
    _released = False

    async def send(self) -> Reply | Failure:
        """Send the request and wait for the head of the answer."""
        pool = await self._connections.pool(blocking=self._blocking)
        self._stack = stack = pool.stack(self._request.endpoint)
        began, kept = time.monotonic(), stack.pop()
        if kept is not None:
            reply = await self._send_on(kept, pool)
            if isinstance(reply, Reply) or not self._was_dead(kept, reply, began):
                return reply
        reply = await self._send_on(None, pool)
        return reply if kept is None else reply._replace(reconnected=True)

    async def read(self, until: float) -> bytes | Failure:
        """The next bytes of the body, `b""` at its end. `until` is an instant of `time.monotonic`."""
        connection = self._connection
        if connection is None:
            data, self._body = self._body, b""
            return data
        reader, stream = connection.reader, connection.stream
        try:
            while not (data := reader.take()) and not reader.complete:
                if reader.fault is not None:
                    raise reader.fault
                reader.feed(await stream.read(until))
        except TransportError as error:
            self.release()
            return Failure(error.kind, error.detail, sent=True)
        if reader.complete:
            self._keep(connection)
        return data

    def release(self) -> None:
        """End the exchange at once, and close its connection unless the answer was read to its end."""
        self._released = True
        self._close()

    async def _send_on(self, connection: Connection | None, pool: Pool) -> Reply | Failure:
        """Send on this connection, or on a new one."""
        sent_before = self.sent
        try:
            if connection is None:
                connection = await self._connect(pool.network)
            self._connection = connection
            if self._released:
                raise closed()
            seconds_left(self._until)  # after it nothing is sent
            reader, stream = connection.reader, connection.stream
            reader.begin()
            self.sent = True
            self._write(connection)
            reply = await read_head(reader, stream, self._until)
            if reply.status == 407 and (proxy := connection.forwarding_proxy) is not None:
                self.sent = sent_before  # without credentials, the proxy forwarded nothing
                raise proxy.refusal(407)
        except TransportError as error:
            self._close()
            return Failure(error.kind, error.detail, self.sent)
        if reader.complete:
            self._body = reader.take()
            self._keep(connection)
            return Reply(reply.status, reply.headers, body=self._body)
        return reply

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _keep(self, connection: Connection) -> None:
        """Give the connection back. From now on, another call may have it."""
        self._connection = None
        self._stack.push(connection)

    async def _connect(self, network: Network) -> Connection:
        endpoint = self._request.endpoint
        proxy = self._connections.find_proxy(endpoint)
        connection = self._connection = Connection(endpoint, proxy, self._stack.opened)
        until = self._until
        if self._connect_seconds is not None:
            until = min(until, time.monotonic() + self._connect_seconds)
        await connection.open(network, self._connections.tls_context(endpoint), until)
        return connection

    def _write(self, connection: Connection) -> None:
        request = self._request
        target, headers = request.target, request.headers
        if (proxy := connection.forwarding_proxy) is not None:
            target, headers = f"{request.endpoint.origin}{target}", [*headers, *proxy.credentials]
        head, body = write_head(request.method, target, headers), request.body
        if len(body) <= ONE_PACKET:
            connection.stream.write(head + body)
        else:
            connection.stream.write(head)
            connection.stream.write(body)

    def _was_dead(self, connection: Connection, failure: Failure, began: float) -> bool:
        """Whether the server had closed a kept connection: it broke at once, before a byte was received."""
        quick = time.monotonic() - began < QUICK and not self._released
        return quick and not connection.reader.started and failure.kind != "timeout"
