"""A server that says exactly the bytes a test tells it to: sockets and threads, no HTTP library.

It knows how to read a request and to play steps (`steps.py`) for it; what they mean is the test's business.

    with ScriptedServer([answer(503), stream([b"data: [DONE]\\n\\n"])]) as server:
        httpx.get(server.url)

A script is a sequence with one reply per request, in order, over all connections (`repeat=True`: the last one
serves every request after it), or a callable from `Request` to a reply. A reply is an iterable of steps. The
waiting methods block, so an async test calls them through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.steps import (
    Close,
    Gone,
    Hang,
    Link,
    Over,
    Reset,
    Send,
    Set,
    Step,
    Trickle,
    Wait,
    answer,
    chunk,
    head,
    stream,
)

__all__ = [
    "BlackHole",
    "Close",
    "Hang",
    "Request",
    "Reset",
    "ScriptedServer",
    "Send",
    "Set",
    "Step",
    "Trickle",
    "Wait",
    "answer",
    "chunk",
    "head",
    "refused_port",
    "stream",
]

Reply = Iterable[Step]
Script = Sequence[Reply] | Callable[["Request"], Reply]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    target: str  # path and query
    headers: dict[str, str]  # names in lower case; of a repeated name, the last
    body: bytes
    connection: int  # the connection it came on; 1 is the first

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedServer:
    """Serves on 127.0.0.1 while its `with` block runs; an exception in a script is raised at its end."""

    def __init__(
        self,
        script: Script = (),
        *,
        repeat: bool = False,
        on_connect: Sequence[Step] = (),
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0  # accepted so far
        self.closed_by_peer = 0
        self.failed_handshakes = 0
        self._script, self._repeat, self._on_connect, self._tls = script, repeat, on_connect, tls
        self._replies = None if callable(script) else [*script]
        self._links: set[Link] = set()
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._waker, self._wake = socket.socketpair()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        with self._changed:
            return len(self._links)

    def wait_requests(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Until `count` whole requests have come; False when they did not."""
        return self._wait(lambda: len(self.requests) >= count, timeout)

    def wait_closed(self, timeout: float = 5.0, *, count: int = 1) -> bool:
        """Until the peer has hung up `count` connections; False when it did not."""
        return self._wait(lambda: self.closed_by_peer >= count, timeout)

    def wait_idle(self, timeout: float = 5.0) -> bool:
        """Until no connection is open; False when one still is."""
        return self._wait(lambda: not self._links, timeout)

    def _wait(self, happened: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(happened, timeout)

    # -- life ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._wake.close()
        self._threads[0].join(5)  # no more connections
        with self._changed:
            for link in self._links:
                link.wake()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "a scripted connection did not end"
        self._waker.close()
        self._listener.close()
        if self._errors and error is None:
            raise self._errors[0]

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="scripted", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            if self._waker in select.select([self._listener, self._waker], [], [])[0]:
                return
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a step is a write on the wire
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with self._changed:
                self.connections += 1
                link = Link(sock, self._stopping, self.connections)
                self._links.add(link)
            self._start(self._serve, link)

    def _serve(self, link: Link) -> None:
        gone = False
        try:
            if self._handshake(link):
                self._converse(link)
        except Gone:
            gone = not self._stopping.is_set()
        except Over:
            pass
        except Exception as exc:
            self._errors.append(exc)
        finally:
            link.hang_up()
            with self._changed:
                self._links.discard(link)
                self.closed_by_peer += gone
                self._changed.notify_all()

    def _handshake(self, link: Link) -> bool:
        if not isinstance(link.sock, ssl.SSLSocket):
            return True
        try:
            link.sock.do_handshake()
        except OSError:  # the client did not like the certificate, or was no TLS client
            with self._changed:
                self.failed_handshakes += 1
            return False
        return True

    # -- requests ------------------------------------------------------------------------------------------

    def _converse(self, link: Link) -> None:
        for step in self._on_connect:
            step.play(link)
        while True:
            request = read_request(link)
            with self._changed:
                self.requests.append(request)
                reply = self._reply_to(request, len(self.requests) - 1)
                self._changed.notify_all()
            for step in reply() if callable(reply) else reply:
                step.play(link)
            if request.headers.get("connection", "").lower() == "close":
                return

    def _reply_to(self, request: Request, index: int) -> Reply | Callable[[], Reply]:
        if self._replies is None:
            script = self._script
            assert callable(script)
            return lambda: script(request)  # called outside the lock: it may wait for another request
        if self._repeat and self._replies:
            index = min(index, len(self._replies) - 1)
        if index < len(self._replies):
            return self._replies[index]
        return answer(500, body=f"the script has no reply to request {index + 1}")


def read_request(link: Link) -> Request:
    """The next request, whole; `Gone` when there is none."""
    while (end := link.buffer.find(b"\r\n\r\n")) < 0:
        link.read()
    first, *lines = bytes(link.buffer[:end]).decode("latin-1").split("\r\n")
    del link.buffer[: end + 4]
    method, target, _ = first.split(" ")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(iter(lambda: read_chunk(link), b""))
    else:
        body = take(link, int(headers.get("content-length", 0)))
    return Request(method, target, headers, body, link.number)


def read_chunk(link: Link) -> bytes:
    while (end := link.buffer.find(b"\r\n")) < 0:
        link.read()
    size = int(take(link, end + 2), 16)
    return take(link, size + 2)[:-2]


def take(link: Link, size: int) -> bytes:
    while len(link.buffer) < size:
        link.read()
    data = bytes(link.buffer[:size])
    del link.buffer[:size]
    return data


# -- addresses that answer no one ---------------------------------------------------------------------------


def refused_port() -> int:
    """A port of 127.0.0.1 that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class BlackHole:
    """A port whose connection attempts hang: its queue is full and nobody accepts (Linux drops the SYN)."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._fillers = [*self._fill()]
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._fillers, self._listener):
            sock.close()

    def _fill(self) -> Iterator[socket.socket]:
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self.port))
            yield sock
