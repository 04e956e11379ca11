"""What the bytes of a connection go through, whatever waits for them: a thread, an asyncio loop, or trio."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ccroute.http.message import LATE, TransportError

if TYPE_CHECKING:
    import ssl

Address: TypeAlias = tuple[Any, ...]
"""One result of `socket.getaddrinfo`."""

LONGEST_WAIT = 1e6
"""Seconds of the longest single wait: operating systems refuse larger numbers."""


class ByteStream(Protocol):
    """An open connection. Raises `TransportError`. A time limit is an instant of `time.monotonic`."""

    @property
    def writing(self) -> bool:
        """Whether bytes are still to be sent."""
        ...

    def write(self, data: bytes) -> None:
        """Send `data`. What the system does not take at once is sent while `read` waits."""
        ...

    async def read(self, until: float) -> bytes:
        """The next bytes, `b""` at the end."""
        ...

    async def start_tls(self, context: ssl.SSLContext, host: str, until: float) -> None:
        """Encrypt the connection. The other end needs a certificate for `host`."""
        ...

    def is_quiet(self) -> bool:
        """Whether the connection is open, and it has no unread bytes. Does not wait."""
        ...

    def close(self) -> None:
        """Close at once, from any thread, without sending what is left. A `read` that waits ends.

        In a forked child, only the child's copy is closed.
        """
        ...


class Network(Protocol):
    """Makes connections. Raises `OSError`, or `TransportError` at the instant `until`."""

    async def resolve(self, host: str, port: int, until: float) -> list[Address]:
        """The addresses of a name."""
        ...

    async def open(self, address: Address, until: float) -> ByteStream:
        """A connection to one address."""
        ...


def late() -> TransportError:
    """The error of a wait that reached its limit."""
    return TransportError("timeout", LATE)


def closed() -> TransportError:
    """The error of a wait on a connection that was closed meanwhile."""
    return TransportError("broken", "the connection was closed")


def other_loop() -> RuntimeError:
    """The error of a read on another event loop than the connection's."""
    return RuntimeError("this stream began on another event loop: read it on that one")


def seconds_left(until: float) -> float:
    """Seconds until an instant, at most `LONGEST_WAIT`. Raises `TransportError` if it passed."""
    left = until - time.monotonic()
    if left <= 0:
        raise late()
    return left if left < LONGEST_WAIT else LONGEST_WAIT


def can_read(sock: socket.socket) -> bool:
    """Whether a read would not wait: bytes came, or the end."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True
