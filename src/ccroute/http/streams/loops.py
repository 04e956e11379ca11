"""Connections of an asyncio loop: a `Protocol` of asyncio, and one timer for all reads of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any, cast

from ccroute.http.message import TransportError, reason
from ccroute.http.streams import Address, can_read, closed, late, other_loop, seconds_left
from ccroute.http.streams.event_loops import call_soon

if TYPE_CHECKING:
    import ssl

PAUSE_ABOVE = 1024 * 1024
"""Bytes a connection buffers before it asks the server to wait."""
READ_SIZE = 64 * 1024
"""Bytes of one read at most."""
FOREVER = float("inf")


class LoopStream(asyncio.BufferedProtocol):
    """A connection of one asyncio loop. It has one reader at a time.

    `buffer` is what asyncio reads into; all connections of a loop share it. An `asyncio.Protocol` would get
    new bytes of 256 KiB for each read, which the C library maps and unmaps: measured, 20 µs.
    """

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, buffer: memoryview) -> None:
        self._loop = loop
        self._sock = sock
        self._buffer = buffer
        self._process = os.getpid()
        self._arrived: list[bytes] = []
        self._size = 0
        self._paused = False
        self._ended = False
        self._closed = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[bool] | None = None
        self._until = FOREVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = FOREVER

    @property
    def writing(self) -> bool:
        """Whether bytes are still to be sent."""
        return self._transport.get_write_buffer_size() > 0

    def write(self, data: bytes) -> None:
        """Send `data`; the loop sends what the system does not take at once."""
        self._transport.write(data)

    async def read(self, until: float) -> bytes:
        """The next bytes, `b""` at the end. Raises `RuntimeError` on another loop than the connection's."""
        if asyncio.get_running_loop() is not self._loop:
            raise other_loop()
        if self._closed:
            raise closed()
        if self._arrived:
            seconds_left(until)
        elif not self._ended and not await self._wait(until):
            raise late()
        if not self._arrived:
            if self._error is not None:
                raise TransportError("broken", reason(self._error))
            if self._closed:
                raise closed()
            return b""
        return self._take()

    async def start_tls(self, context: ssl.SSLContext, host: str, until: float) -> None:
        """Encrypt the connection. The other end needs a certificate for `host`."""
        from ccroute.http.tls import handshake_failure  # imports ssl, which http does not need

        try:
            self._refuse_plain_bytes()
            async with asyncio.timeout(seconds_left(until)):
                transport = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        except TimeoutError:
            raise late() from None
        except OSError as error:
            raise handshake_failure(error) from None
        if transport is None:
            raise TransportError("connect", "the connection was closed during the TLS handshake")
        self._transport = transport
        self._refuse_plain_bytes()

    def is_quiet(self) -> bool:
        """Whether the connection is open, and it has no unread bytes."""
        # The loop may not have read the socket yet, so look at the socket itself, too.
        return not (self._arrived or self._ended or self._closed or can_read(self._sock))

    def close(self) -> None:
        """Close at once, from any thread. A waiting `read` ends."""
        self._closed = True
        if self._process != os.getpid():  # this loop's selector is shared with the parent
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._end()
        elif not call_soon(self._loop, self._end):
            self._close_dead()

    def _close_dead(self) -> None:
        """Close the socket of a loop that was closed without finalising its async generators.

        A closed loop does not run the callback that closes the socket, and asyncio has no public way to do
        it.
        """
        tls = getattr(self._transport, "_ssl_protocol", None)
        transport: Any = getattr(tls, "_transport", self._transport)
        for step in (transport.abort, lambda: transport._call_connection_lost(None)):
            with contextlib.suppress(RuntimeError, AttributeError):
                step()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._arrived.append(bytes(self._buffer[:nbytes]))
        self._size += nbytes
        if self._size > PAUSE_ABOVE and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake(True)

    def eof_received(self) -> None:
        self._ended = True
        self._wake(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        if exc is not None:
            self._read_rest()
        self._disarm()
        self._wake(True)

    def _end(self) -> None:
        self._disarm()
        self._transport.abort()
        self._wake(True)

    def _read_rest(self) -> None:
        """Read an answer that came before a write failed: asyncio closes the socket without reading it."""
        if self._transport.get_extra_info("ssl_object") is None:
            with contextlib.suppress(OSError):
                while data := self._sock.recv(PAUSE_ABOVE):
                    self._arrived.append(data)

    def _take(self) -> bytes:
        arrived = self._arrived
        data = arrived[0] if len(arrived) == 1 else b"".join(arrived)
        arrived.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def _wait(self, until: float) -> bool:
        """Wait for bytes or the end; False when `until` passed first."""
        self._until = until
        # Only an earlier limit moves the timer. A timer that fires early is set again.
        if until < self._timer_at:
            self._arm(until)
        self._reader = self._loop.create_future()
        try:
            return await self._reader
        finally:
            self._reader = None

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, FOREVER

    def _arm(self, until: float) -> None:
        self._disarm()
        self._timer_at = until
        self._timer = self._loop.call_later(until - time.monotonic(), self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, FOREVER
        if self._reader is None:
            return
        if time.monotonic() >= self._until:
            self._wake(False)
        elif self._until < FOREVER:
            self._arm(self._until)

    def _wake(self, arrived: bool) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(arrived)

    def _refuse_plain_bytes(self) -> None:
        """Raise if bytes came before the handshake: anyone on the network could have sent them."""
        if self._arrived:
            raise TransportError("connect", "the server sent bytes before the TLS handshake")


class LoopNetwork:
    """Makes connections on the running asyncio loop."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(READ_SIZE))

    async def resolve(self, host: str, port: int, until: float) -> list[Address]:
        """The addresses of a name. A numeric address needs no look-up and no thread."""
        with contextlib.suppress(OSError, UnicodeError):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds_left(until)):
                found: list[Address] = [*await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
                return found
        except TimeoutError:
            raise late() from None

    async def open(self, address: Address, until: float) -> LoopStream:
        """A connection to one address."""
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, where = address
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(seconds_left(until)):
                await loop.sock_connect(sock, where)
            _, stream = await loop.create_connection(lambda: LoopStream(loop, sock, self._buffer), sock=sock)
            return stream
        except TimeoutError:
            sock.close()
            raise late() from None
        except BaseException:
            sock.close()
            raise
