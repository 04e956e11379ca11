"""Connections on non-blocking sockets. Two networks wait for them: one blocks a thread, one awaits trio."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ccroute.http.message import TransportError, reason
from ccroute.http.streams import Address, can_read, closed, late, other_loop, seconds_left
from ccroute.http.streams.event_loops import current_loop

if TYPE_CHECKING:
    import ssl

READ_SIZE = 64 * 1024
"""Bytes of one read at most. For more, the C library maps and unmaps memory each time: measured, 20 µs."""
_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


class SocketStream:
    """A connection on a non-blocking socket. `network` waits for it. It has one reader at a time."""

    def __init__(self, sock: socket.socket, network: SocketNetwork) -> None:
        self._sock = sock
        self._network = network
        self._tls = False
        self._again: tuple[type[OSError], ...] = (BlockingIOError,)  # what asks to try again when it is ready
        self._unsent = memoryview(b"")
        self._refused = False  # the other end takes no more bytes: it may have answered already
        self._closed = False
        self._in_use = False  # by a thread or task that reads or writes
        self._process = os.getpid()

    @property
    def writing(self) -> bool:
        """Whether bytes are still to be sent."""
        return bool(self._unsent)

    def write(self, data: bytes) -> None:
        """Send what the system takes at once; `read` sends the rest."""
        self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)
        self._in_use = True
        try:
            if not self._closed:
                self._send()
        finally:
            self._end_use()

    async def read(self, until: float) -> bytes:
        """The next bytes, `b""` at the end."""
        self._in_use = True
        ready = self._tls  # the socket's bytes may have been read already
        write = False
        try:
            while True:
                seconds_left(until)
                if ready:
                    try:
                        return self._sock.recv(READ_SIZE)
                    except self._again as error:
                        write = _wants_to_write(error)
                    except OSError as error:
                        raise TransportError("broken", reason(error)) from None
                if self._closed:
                    raise closed()
                await self._network.wait(self._sock, until, write=write or self._sends_more())
                ready = True
        finally:
            self._end_use()

    async def start_tls(self, context: ssl.SSLContext, host: str, until: float) -> None:
        """Encrypt the connection. The other end needs a certificate for `host`."""
        import ssl  # slow to import, and not needed for http

        from ccroute.http.tls import handshake_failure

        self._in_use = True
        self._tls, self._again = True, (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        try:
            self._sock = sock = context.wrap_socket(
                self._sock, server_hostname=host, do_handshake_on_connect=False
            )
            while True:
                if self._closed:
                    raise closed()
                try:
                    sock.do_handshake()
                    return
                except self._again as error:
                    write = _wants_to_write(error)
                await self._network.wait(sock, until, write=write)
        except OSError as error:
            raise handshake_failure(error) from None
        finally:
            self._end_use()

    def is_quiet(self) -> bool:
        """Whether the connection is open, and it has no unread bytes."""
        return not (self._closed or can_read(self._sock))

    def close(self) -> None:
        """Close at once, from any thread. If another one uses the socket, its wait ends, and it closes it."""
        self._closed = True
        if self._process != os.getpid():
            self._sock.close()
            return
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        # A socket closed now may be another connection's by the time its user sends or receives.
        if not self._in_use:
            self._sock.close()

    def _end_use(self) -> None:
        self._in_use = False
        if self._closed:
            self._sock.close()

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except self._again:
            pass  # `read` goes on with it
        except OSError:
            self._refused = True

    def _sends_more(self) -> bool:
        """Send more of what is unsent, and return whether there is still more."""
        if self._unsent and not self._refused:
            self._send()
        return bool(self._unsent) and not self._refused


def _wants_to_write(error: OSError) -> bool:
    """Whether TLS has to write before it can go on."""
    return type(error).__name__ == "SSLWantWriteError"


class SocketNetwork(ABC):
    """Makes connections on sockets, and waits for them."""

    _stream: type[SocketStream] = SocketStream

    @abstractmethod
    async def resolve(self, host: str, port: int, until: float) -> list[Address]:
        """The addresses of a name."""

    @abstractmethod
    async def wait(
        self, sock: socket.socket, until: float, *, read: bool = True, write: bool = False
    ) -> None:
        """Wait until a socket can be read, or written, as asked.

        Raises `TransportError` at the instant `until`.
        """

    async def open(self, address: Address, until: float) -> SocketStream:
        """A connection to one address."""
        family, kind, protocol, _, where = address
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(where)
            if code in _CONNECTING:
                await self.wait(sock, until, read=False, write=True)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            return self._stream(sock, self)
        except BaseException:
            sock.close()
            raise


class ThreadNetwork(SocketNetwork):
    """Blocks the thread that waits. A name look-up takes as long as the system's resolver needs."""

    async def resolve(self, host: str, port: int, until: float) -> list[Address]:
        """The addresses of a name."""
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    async def wait(
        self, sock: socket.socket, until: float, *, read: bool = True, write: bool = False
    ) -> None:
        """Sleep until the socket is ready."""
        left = seconds_left(until)
        if hasattr(select, "poll"):  # unlike select, it has no limit of 1,024 files
            poll = select.poll()
            poll.register(sock, select.POLLIN * read | select.POLLOUT * write)
            ready: Any = poll.poll(left * 1000)
        else:
            ready = any(select.select([sock] * read, [sock] * write, [sock] * write, left))
        if not ready:
            raise late()


class TrioStream(SocketStream):
    """A connection of one trio loop."""

    def __init__(self, sock: socket.socket, network: SocketNetwork) -> None:
        super().__init__(sock, network)
        self._loop = current_loop()

    async def read(self, until: float) -> bytes:
        """The next bytes, `b""` at the end. Raises `RuntimeError` on another loop than the connection's."""
        from anyio.lowlevel import checkpoint

        if current_loop() is not self._loop:
            raise other_loop()
        await checkpoint()  # other tasks run, and a cancelled one ends, also if bytes are always there
        return await super().read(until)


class TrioNetwork(SocketNetwork):
    """Waits on the running trio loop, through anyio, which calls trio for us."""

    _stream = TrioStream

    async def resolve(self, host: str, port: int, until: float) -> list[Address]:
        """The addresses of a name."""
        import anyio

        with anyio.move_on_after(seconds_left(until)):
            found: list[Address] = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return found
        raise late()

    async def wait(
        self, sock: socket.socket, until: float, *, read: bool = True, write: bool = False
    ) -> None:
        """Wait until the socket is ready."""
        import anyio

        with anyio.move_on_after(seconds_left(until)) as limit:
            if not write:
                await anyio.wait_readable(sock)
            elif not read:
                await anyio.wait_writable(sock)
            else:
                await _wait_for_either(sock)
        if limit.cancelled_caught:
            raise late()


async def _wait_for_either(sock: socket.socket) -> None:
    """Wait until a socket can be read or written: anyio waits for one of both only."""
    import anyio

    async def first(wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        await wait(sock)
        either.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as either:
            either.start_soon(first, anyio.wait_readable)
            either.start_soon(first, anyio.wait_writable)
    except BaseExceptionGroup as group:  # Ctrl-C, which would come from one wait as it is
        raise group.exceptions[0] from None
