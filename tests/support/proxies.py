"""A small real HTTP proxy: it forwards requests to one server and tunnels to it, whatever the name.

It is a `ScriptedServer` whose replies are made at the server behind it. Clients never look the server's name
up, so a test may give it any name. What refuses, hangs or lies instead is a `ScriptedServer` of its own.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.scripted import Request, ScriptedServer, head
from tests.support.steps import Link, Over, Send, Step


class Proxy(ScriptedServer):
    """A proxy in front of `server`. `carried` is what clients sent through its tunnels."""

    def __init__(self, server: ScriptedServer, *, before_tls: bytes = b"") -> None:
        super().__init__(self._pass_on)
        self.carried = bytearray()
        self._server = server
        self._before_tls = before_tls

    def _pass_on(self, request: Request) -> Sequence[Step]:
        if request.method == "CONNECT":
            return [Send(head(200) + self._before_tls), Tunnel(self._server.port, self.carried)]
        return [Forward(self._server.port, request)]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Bytes go to `port` and back until one side ends; `carried` keeps those of the client."""

    port: int
    carried: bytearray = field(default_factory=bytearray)

    def play(self, link: Link) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            while not link.stopping.is_set():
                if link.buffer:
                    self.carried.extend(link.buffer)
                    with contextlib.suppress(OSError):
                        server.sendall(link.buffer)
                    link.buffer.clear()
                ready = select.select([link.sock, server], [], [], 0.2)[0]
                if link.sock in ready:
                    link.read()
                if server in ready:
                    link.send(received(server))
        raise Over


@dataclass(frozen=True, slots=True)
class Forward:
    """The request goes to `port` in the form that servers take, and its answer comes back."""

    port: int
    request: Request

    def play(self, link: Link) -> None:
        request = self.request
        target = "/" + request.target.split("/", 3)[3]
        headers = {name: value for name, value in request.headers.items() if not name.startswith("proxy-")}
        lines = [f"{request.method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (headers | {"connection": "close"}).items()]
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            server.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body)
            while not link.stopping.is_set():
                ready = select.select([link.sock, server], [], [], 0.2)[0]
                if link.sock in ready:
                    link.read()
                if server in ready:
                    try:
                        link.send(received(server))
                    except Over:
                        return


def received(server: socket.socket) -> bytes:
    """What has come; `Over` at the end."""
    try:
        data = server.recv(65536)
    except OSError as exc:
        raise Over from exc
    if not data:
        raise Over
    return data
