"""Connections on non-blocking sockets. Two networks wait for them: one blocks a thread, one awaits trio."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
from abc import ABC, abstractmethod
from typing import Any

from ccroute.http.message import TransportError, reason
from ccroute.http.streams import Address, can_read, closed, late, seconds_left

READ_SIZE = 256 * 1024
"""Bytes of one read at most."""
_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


class SocketStream:
    """A connection on a non-blocking socket. `network` waits for it."""

    def __init__(self, sock: socket.socket, network: SocketNetwork) -> None:
        self._sock = sock
        self._network = network
        self._unsent = memoryview(b"")
        self._refused = False  # the other end takes no more bytes: it may have answered already
        self._closed = False
        self._waiting = False
        self._process = os.getpid()

    @property
    def writing(self) -> bool:
        """Whether bytes are still to be sent."""
        return bool(self._unsent)

    def write(self, data: bytes) -> None:
        """Send what the system takes at once; `read` sends the rest."""
        self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)
        self._send()

    async def read(self, until: float) -> bytes:
        """The next bytes, `b""` at the end."""
        while True:
            seconds_left(until)
            if self._closed:
                raise closed()
            if self._unsent and not self._refused:
                self._send()
            try:
                return self._sock.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                write = bool(self._unsent) and not self._refused
            except ssl.SSLWantWriteError:
                write = True
            except OSError as error:
                raise TransportError("broken", reason(error)) from None
            await self._wait(until, write=write)

    async def start_tls(self, context: ssl.SSLContext, host: str, until: float) -> None:
        """Encrypt the connection. The other end needs a certificate for `host`."""
        try:
            self._sock = sock = context.wrap_socket(
                self._sock, server_hostname=host, do_handshake_on_connect=False
            )
            while True:
                try:
                    sock.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    write = False
                except ssl.SSLWantWriteError:
                    write = True
                await self._wait(until, write=write)
        except OSError as error:
            raise TransportError(
                "tls" if isinstance(error, ssl.SSLError) else "connect", reason(error)
            ) from None

    def is_quiet(self) -> bool:
        """Whether the connection is open, and nothing came that nobody has read."""
        return not (self._closed or can_read(self._sock))

    def close(self) -> None:
        """Close at once, from any thread. A waiting `read` wakes up and closes the socket itself."""
        self._closed = True
        if self._process == os.getpid():
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        # An event loop may lose a socket that is closed while it waits for it.
        if not self._waiting:
            self._sock.close()

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # `read` goes on with it
        except OSError:
            self._refused = True

    async def _wait(self, until: float, *, write: bool) -> None:
        self._waiting = True
        try:
            if not self._closed:
                await self._network.wait(self._sock, until, write=write)
        finally:
            self._waiting = False
            if self._closed:
                self._sock.close()


class SocketNetwork(ABC):
    """Makes connections on sockets, and waits for them."""

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
            return SocketStream(sock, self)
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


class TrioNetwork(SocketNetwork):
    """Waits on the running trio loop, through anyio, which calls trio for us."""

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

        waits = [anyio.wait_readable] * read + [anyio.wait_writable] * write
        with anyio.move_on_after(seconds_left(until)) as limit:
            if len(waits) == 1:
                await waits[0](sock)
            else:
                async with anyio.create_task_group() as either:

                    async def first(wait: Any) -> None:
                        await wait(sock)
                        either.cancel_scope.cancel()

                    for wait in waits:
                        either.start_soon(first, wait)
        if limit.cancelled_caught:
            raise late()
