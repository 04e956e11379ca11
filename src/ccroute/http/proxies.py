"""Connections through an HTTP proxy that the environment names, for routers with `trust_env=True`.

To an https origin, the proxy opens a tunnel: it learns the server's name, and TLS runs end to end. A request
to an http origin is sent to the proxy, which forwards it. A request that the proxy refuses has not reached
the server.
"""

from __future__ import annotations

import base64
import re
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ccroute.http.message import Endpoint, TransportError, write_head
from ccroute.http.origin import Origin, is_this_machine

_UNSUPPORTED = ("https", "socks4", "socks4a", "socks5", "socks5h")
"""Schemes of proxies that ccroute does not support."""
_HOST = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, and the variable that named it. `fault` says why it cannot be used."""

    variable: str
    host: str = ""
    port: int = 80
    credentials: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    """The header with user and password, if there are any. Only the proxy gets it."""
    fault: str | None = None

    def __str__(self) -> str:
        return str(Origin("http", self.host, self.port))

    def late(self) -> str:
        """What to say if there was no connection in time."""
        return f"no connection through the proxy {self} within the connect timeout"

    def refusal(self, status: int) -> TransportError:
        """The error for the proxy's own answer with this status."""
        if status == 407:
            wanted = "another user or password" if self.credentials else "a user and a password"
            return TransportError(
                "connect",
                f"the proxy {self} asks for {wanted}, HTTP 407: put them into the URL in {self.variable}",
            )
        return TransportError("connect", f"the proxy {self} does not connect to it, HTTP {status}")

    def tunnel(self, origin: Origin) -> bytes:
        """The request for a tunnel. The proxy learns only the host and the port."""
        headers = [(b"host", origin.address.encode()), *self.credentials]
        return write_head("CONNECT", origin.address, headers)


class Proxies:
    """The proxies of one router. Variables are read for an origin's first connection, and not again.

    Connections to this machine and to `direct` endpoints never use a proxy: a proxy cannot reach this
    machine, and what is sent to a direct endpoint must not pass other machines.
    """

    def __init__(self) -> None:
        self._found: dict[Endpoint, Proxy | None] = {}

    def find(self, endpoint: Endpoint) -> Proxy | None:
        """The proxy to send through; None for a direct connection."""
        if endpoint not in self._found:
            direct = endpoint.direct or is_this_machine(endpoint.origin.host)
            self._found.setdefault(endpoint, None if direct else _from_environment(endpoint.origin))
        return self._found[endpoint]


def _from_environment(origin: Origin) -> Proxy | None:
    """The proxy that the variables name for `origin`, as Python's urllib reads them."""
    named = urllib.request.getproxies_environment()
    kind = origin.scheme if origin.scheme in named else "all"
    around = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it
    if kind not in named or around(origin.address, named) or around(origin.host, named):
        return None
    return _parse(f"{kind.upper()}_PROXY", named[kind])


def _parse(variable: str, value: str) -> Proxy:
    """The proxy that a variable's value names. A fault never quotes the value: it may have a password."""
    unlike = Proxy(variable, fault=f"{variable} must look like http://proxy.example.com:3128")
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        host, port = url.hostname or "", url.port or 80
    except ValueError:
        return unlike
    if url.scheme in _UNSUPPORTED:
        what = f"{variable} names a proxy of the kind {url.scheme}, which ccroute does not support"
        return Proxy(variable, fault=f"{what}: give an http:// one, or use transport=")
    # With an unquoted slash in the password, a part of the password would be taken for the host.
    beyond = url.path.strip("/") or url.query or url.fragment
    if url.scheme != "http" or beyond or not _HOST.fullmatch(host):
        return unlike
    if url.username is None:
        return Proxy(variable, host, port)
    user = f"{unquote(url.username)}:{unquote(url.password or '')}"
    header = (b"proxy-authorization", b"Basic " + base64.b64encode(user.encode()))
    return Proxy(variable, host, port, (header,))
