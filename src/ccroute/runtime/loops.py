"""Connections of an asyncio loop, without anyio's stream layer. Their deadline bounds every wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from ccroute.runtime.exchange import Deadline, readable, reason

PAUSE_ABOVE = 1024 * 1024
"""Bytes a connection buffers before it asks the server to wait."""


class LoopBackend(httpcore.AsyncNetworkBackend):
    """Makes one connection on the running asyncio loop: `stream`, None before it is made."""

    stream: LoopStream | None = None

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; all addresses share the time to connect."""
        loop = asyncio.get_running_loop()
        try:
            addresses = _numeric_address(host, port)
            if not addresses:
                async with asyncio.timeout(self._deadline.left_to_connect()):
                    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the name look-up took too long") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name cannot be resolved: {reason(error)}") from error
        for left, (family, kind, proto, _, address) in zip(
            range(len(addresses), 0, -1), addresses, strict=True
        ):
            try:
                sock = await self._connected(socket.socket(family, kind, proto), address, left)
            except httpcore.ConnectError:
                if left == 1:
                    raise
            except httpcore.ConnectTimeout:
                if left == 1:
                    raise
            else:
                transport, receiver = await loop.create_connection(lambda: _Receiver(loop), sock=sock)
                self.stream = LoopStream(transport, receiver, self._deadline)
                return self.stream
        raise httpcore.ConnectError("the name has no address")

    async def _connected(self, sock: socket.socket, address: Any, share: int) -> socket.socket:
        """Connect `sock` within one `share`-th of the time left, and return it. An error closes it."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._deadline.left_to_connect() / share):
                await asyncio.get_running_loop().sock_connect(sock, address)
        except TimeoutError as error:
            sock.close()
            raise httpcore.ConnectTimeout("no connection in time") from error
        except OSError as error:
            sock.close()
            raise httpcore.ConnectError(reason(error)) from error
        except BaseException:
            sock.close()
            raise
        return sock


def _numeric_address(host: str, port: int) -> list[Any]:
    """The socket address of a numeric IP address, found without a look-up or a thread. Empty for a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []


class _Receiver(asyncio.Protocol):
    """Collects the bytes that arrive and wakes the one reader. One timer serves all reads of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.arrived: list[bytes] = []
        self.size = 0
        self.ended = False
        self.error: Exception | None = None
        self._paused = False
        self._waiter: asyncio.Future[bool] | None = None
        self._until = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # create_connection makes asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.arrived.append(data)
        self.size += len(data)
        if self.size > PAUSE_ABOVE and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake(True)

    def eof_received(self) -> None:
        self.ended = True
        self._wake(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.error = exc
        self.disarm()
        self._wake(True)

    def take(self) -> bytes:
        """Everything that has arrived."""
        data = self.arrived[0] if len(self.arrived) == 1 else b"".join(self.arrived)
        self.arrived.clear()
        self.size = 0
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        return data

    async def wait(self, until: float) -> bool:
        """Wait for bytes or the end; False when `until` passed first."""
        self._until = until
        # Only an earlier deadline moves the timer. A timer that fires early is set again.
        if until < self._timer_at:
            self._arm(until)
        self._waiter = self.loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def disarm(self) -> None:
        """Cancel the timer: no reader is waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = float("inf")

    def _arm(self, until: float) -> None:
        self.disarm()
        self._timer_at = until
        self._timer = self.loop.call_later(until - time.monotonic(), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        if self._waiter is None:
            return
        if time.monotonic() >= self._until:
            self._wake(False)
        elif self._until < float("inf"):
            self._arm(self._until)

    def _wake(self, arrived: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(arrived)


class LoopStream(httpcore.AsyncNetworkStream):
    """A connection of one event loop. The next read sends all that was written."""

    def __init__(self, transport: asyncio.Transport, receiver: _Receiver, deadline: Deadline) -> None:
        self._transport = transport
        self._receiver = receiver
        self._deadline = deadline
        self._unsent: list[bytes] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, `b""` at the end."""
        receiver, deadline = self._receiver, self._deadline
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            deadline.sent = True
            self._transport.write(data)
        deadline.left()  # raises after the limit, also while bytes keep coming
        if not receiver.arrived:
            if not receiver.ended and not await receiver.wait(deadline.until):
                raise httpcore.ReadTimeout("no answer in time")
            if not receiver.arrived:
                if receiver.error is not None:
                    raise httpcore.ReadError(reason(receiver.error)) from receiver.error
                return b""
        deadline.received = True
        return receiver.take()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Keep `buffer`; the next read sends it."""
        if buffer:
            self._unsent.append(buffer)

    async def aclose(self) -> None:
        """Close at once, without waiting for anything to be flushed."""
        self.abort()

    def abort(self) -> None:
        """Close at once, without awaiting, from any thread."""
        loop = self._receiver.loop
        if self._deadline.inherited:  # this loop's selector is shared with the parent
            return
        if asyncio._get_running_loop() is loop:
            self._end()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._receiver.disarm()
        self._transport.abort()

    def close_dead(self) -> None:
        """Close the socket of a loop that is already closed. A closed loop does not run the callback that
        closes it, so this calls the callback itself; asyncio has no public method for that."""
        if self._deadline.inherited:
            return
        tls = getattr(self._transport, "_ssl_protocol", None)
        transport: Any = getattr(tls, "_transport", self._transport)
        for step in (transport.abort, lambda: transport._call_connection_lost(None)):
            with contextlib.suppress(RuntimeError, AttributeError):
                step()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, encrypted; the server's certificate is always checked."""
        loop = self._receiver.loop
        self._refuse_plain_bytes()
        try:
            async with asyncio.timeout(self._deadline.left_to_connect()):
                transport = await loop.start_tls(
                    self._transport, self._receiver, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            self.abort()
            raise httpcore.ConnectTimeout("no TLS handshake in time") from error
        except OSError as error:
            self.abort()
            raise httpcore.ConnectError(reason(error)) from error
        except BaseException:
            self.abort()
            raise
        if transport is None:
            raise httpcore.ConnectError("the connection was closed during the TLS handshake")
        self._transport = self._receiver.transport = transport
        self._refuse_plain_bytes()
        return self

    def _refuse_plain_bytes(self) -> None:
        """Raise if bytes came before the handshake: anyone on the network could have sent them."""
        if self._receiver.arrived:
            self.abort()
            raise httpcore.ConnectError("the server sent bytes before the TLS handshake")

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore whether TLS is on, and whether an idle connection has been closed."""
        if info == "is_readable":
            # The loop may not have read the socket yet, so check the socket itself, too.
            receiver = self._receiver
            return (
                bool(receiver.arrived) or receiver.ended or readable(self._transport.get_extra_info("socket"))
            )
        return self._transport.get_extra_info(info)
