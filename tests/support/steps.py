"""What a scripted server can do with one connection, one small value per act.

A step knows its connection (`Link`) and nothing of HTTP; `answer` and `stream` below put HTTP answers
together from steps. Every step that waits also watches for the peer hanging up and for the server stopping.
"""

from __future__ import annotations

import contextlib
import json as jsonlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


class Gone(Exception):
    """The peer hung up."""


class Over(Exception):
    """This side is done with the connection."""


@dataclass(eq=False, slots=True)
class Link:
    """One accepted connection, with the bytes read ahead of what was asked for."""

    sock: socket.socket
    stopping: threading.Event
    number: int  # 1 is the first connection the server accepted
    buffer: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        """Wait for more bytes."""
        try:
            data = self.sock.recv(65536)
        except OSError as exc:
            raise Gone from exc
        if not data:
            raise Gone
        self.buffer += data

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as exc:
            raise Gone from exc

    def wait(self, event: threading.Event | None, seconds: float | None) -> None:
        """Until the event or the time; `Gone` if the peer hangs up first."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.stopping.is_set():
            if event is not None and event.is_set():
                return
            left = 0.01 if event is not None else 0.2
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
            if left <= 0:
                return
            if select.select([self.sock], [], [], left)[0]:
                self.read()  # bytes sent ahead are kept; an end raises
        raise Over

    def hang_up(self, *, reset: bool = False) -> None:
        if reset:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wake(self) -> None:
        """From another thread: make a blocked read or write return."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not ssl's, which is no thread's friend


class Step(Protocol):
    def play(self, link: Link) -> None: ...


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes, as they are."""

    data: bytes

    def play(self, link: Link) -> None:
        link.send(self.data)


@dataclass(frozen=True, slots=True)
class Wait:
    """Until an event is set, or for some seconds."""

    what: threading.Event | float

    def play(self, link: Link) -> None:
        if isinstance(self.what, threading.Event):
            link.wait(self.what, None)
        else:
            link.wait(None, self.what)


@dataclass(frozen=True, slots=True)
class Set:
    """Tell the test that the script came this far."""

    event: threading.Event

    def play(self, link: Link) -> None:
        self.event.set()


@dataclass(frozen=True, slots=True)
class Trickle:
    """These bytes, `size` at a time, with `interval` seconds before each next piece."""

    data: bytes
    interval: float
    size: int = 1

    def play(self, link: Link) -> None:
        for start in range(0, len(self.data), self.size):
            if start:
                link.wait(None, self.interval)
            link.send(self.data[start : start + self.size])


@dataclass(frozen=True, slots=True)
class Close:
    """An orderly end (FIN), in the middle of whatever this was."""

    def play(self, link: Link) -> None:
        raise Over


@dataclass(frozen=True, slots=True)
class Reset:
    """An abrupt end (RST). Bytes the peer has not read yet are lost to it."""

    def play(self, link: Link) -> None:
        link.hang_up(reset=True)
        raise Over


@dataclass(frozen=True, slots=True)
class Hang:
    """Silence until the peer hangs up or the server stops."""

    def play(self, link: Link) -> None:
        link.wait(None, None)


def head(status: int = 200, headers: Headers = (), reason: str | None = None) -> bytes:
    """A status line and headers, with the empty line."""
    if reason is None:
        with contextlib.suppress(ValueError):
            reason = HTTPStatus(status).phrase
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"HTTP/1.1 {status} {reason or 'Unknown'}", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def with_defaults(headers: Headers | None, **defaults: str) -> list[tuple[str, str]]:
    """The caller's headers first, then the defaults (content_type=…) that it did not name."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
    named = {name.lower() for name, _ in pairs}
    fresh = {name.replace("_", "-"): value for name, value in defaults.items()}
    return pairs + [(name, value) for name, value in fresh.items() if name not in named]


def answer(
    status: int = 200,
    *,
    json: Any = None,
    body: bytes | str = b"",
    headers: Headers | None = None,
) -> list[Step]:
    """A whole answer in one write, with its content-length unless `headers` says otherwise."""
    if json is not None:
        body = jsonlib.dumps(json, ensure_ascii=False)
    data = body.encode() if isinstance(body, str) else body
    content = "application/json" if json is not None else "text/plain"
    return [
        Send(head(status, with_defaults(headers, content_type=content, content_length=f"{len(data)}")) + data)
    ]


def chunk(data: bytes) -> bytes:
    """One frame of a chunked body; of no bytes, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class stream:
    """Headers, then each piece in a write of its own; a Step among the pieces is played where it stands.

    Not `chunked`, the body ends when the connection does. `end=False` leaves out the end.
    """

    pieces: Iterable[bytes | Step]
    status: int = field(default=200, kw_only=True)
    chunked: bool = field(default=True, kw_only=True)
    end: bool = field(default=True, kw_only=True)
    content_type: str = field(default="text/event-stream", kw_only=True)
    headers: Headers | None = field(default=None, kw_only=True)

    def __iter__(self) -> Iterator[Step]:
        framing = {"transfer_encoding": "chunked"} if self.chunked else {"connection": "close"}
        yield Send(head(self.status, with_defaults(self.headers, content_type=self.content_type, **framing)))
        for piece in self.pieces:
            if not isinstance(piece, bytes):
                yield piece
            elif piece:
                yield Send(chunk(piece) if self.chunked else piece)
        if self.end:
            yield Send(chunk(b"")) if self.chunked else Close()
