"""How long one connection may wait, as one absolute instant, and what its exchange has done so far.

httpcore reads its timeout once and re-arms it for each `recv`, so a server that trickles outlives
any limit. A `Lease` is set anew before each exchange and each read; httpcore's own timeouts are not
used.
"""

from __future__ import annotations

import os
import select
import ssl
import time
from typing import Any

import httpcore


class Lease:
    """The limits and the history of the exchange that a connection is on."""

    __slots__ = ("connect_until", "over", "process", "received", "sent", "until")

    def __init__(self) -> None:
        self.over = False
        self.process = os.getpid()
        self.begin(float("inf"), None)

    def begin(self, until: float, connect: float | None) -> float:
        """A new exchange starts now, which is returned; nothing of it was sent or received."""
        now = time.monotonic()
        self.until = until
        self.connect_until = float("inf") if connect is None else now + connect
        self.sent = self.received = False
        return now

    def extend(self, until: float) -> None:
        """The exchange goes on; its next wait ends at `until`."""
        self.until = until

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's copy: the connection is the parent's, who may be using it."""
        return self.process != os.getpid()

    def end(self) -> None:
        """No wait is granted any more: whoever still holds the connection, in another thread, stops."""
        self.over = True

    def left(self) -> float:
        """Seconds a read or write may still take; raises `ReadTimeout` when there are none."""
        left = self.until - time.monotonic()
        if self.over:
            raise httpcore.ReadError("given up")
        if left <= 0:
            raise httpcore.ReadTimeout("no answer in time")
        return left

    def left_to_connect(self) -> float:
        """Seconds the connection may still take to come about."""
        left = min(self.connect_until, self.until) - time.monotonic()
        if self.over:
            raise httpcore.ConnectError("given up")
        if left <= 0:
            raise httpcore.ConnectTimeout("no connection in time")
        return left


def readable(sock: Any) -> bool:
    """Whether something waits to be read: for an idle connection, its end or bytes nobody asked for."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def reason(error: Exception) -> str:
    """An operating system's words for what went wrong, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ExceptionGroup):
        return reason(error.exceptions[0])
    return str(error) or type(error).__name__
