"""Connections through an HTTP proxy that the environment names, for routers with `trust_env=True`.

To an https origin, the proxy opens a tunnel: it learns the server's name, and TLS runs end to end. A request
to an http origin is sent to the proxy, which forwards it. A request that the proxy refuses has not reached
the server.
"""

from __future__ import annotations

import base64
import re
import ssl
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore

from ccroute.backends.origin import Origin, literal_address
from ccroute.runtime.exchange import Deadline, ProxyTimeout, reason
from ccroute.runtime.loops import LoopBackend
from ccroute.runtime.sockets import SocketBackend
from ccroute.runtime.stacks import Connection, ConnectionKey, LoopConnection, unlock

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

    def refusal(self, status: int) -> httpcore.ConnectError:
        """The error for the proxy's own answer with this status."""
        if status == 407:
            wanted = "another user or password" if self.credentials else "a user and a password"
            return httpcore.ConnectError(
                f"the proxy {self} asks for {wanted}, HTTP 407: put them into the URL in {self.variable}"
            )
        return httpcore.ConnectError(f"the proxy {self} does not connect to it, HTTP {status}")

    def blocking(self, key: ConnectionKey, context: ssl.SSLContext | None) -> Connection:
        """A new blocking connection; `context` is None for an http origin."""
        backend = _ProxySockets(deadline := Deadline(), self, key.origin)
        if context is None:
            return Connection(_Forwarded(self, key, backend, deadline), backend, deadline)
        http = httpcore.HTTPConnection(key.http, ssl_context=context, network_backend=backend)
        return Connection(http, backend, deadline)

    def on_loop(self, key: ConnectionKey, context: ssl.SSLContext | None) -> LoopConnection:
        """A new connection on the running loop; `context` is None for an http origin."""
        backend = _ProxyLoops(deadline := Deadline(), self, key.origin)
        if context is None:
            http: httpcore.AsyncHTTPConnection = _AsyncForwarded(self, key, backend, deadline)
        else:
            http = httpcore.AsyncHTTPConnection(key.http, ssl_context=context, network_backend=backend)
        unlock(http)
        return LoopConnection(http, backend, deadline)


class Proxies:
    """The proxies of one router. Variables are read for an origin's first connection, and not again.

    Connections to this machine and to `local` backends never use a proxy: a proxy cannot reach this machine,
    and a local backend's prompts must not leave the user's own machines.
    """

    def __init__(self) -> None:
        self._found: dict[ConnectionKey, Proxy | None] = {}

    def find(self, key: ConnectionKey) -> Proxy | None:
        """The proxy to send through; None for a direct connection."""
        if key not in self._found:
            direct = key.local or _is_this_machine(key.origin.host)
            self._found.setdefault(key, None if direct else _from_environment(key.origin))
        return self._found[key]


class _ProxySockets(SocketBackend):
    """Connects to the proxy, and through it to an https origin."""

    def __init__(self, deadline: Deadline, proxy: Proxy, origin: Origin) -> None:
        super().__init__(deadline)
        self._proxy = proxy
        self._origin = origin

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A stream to the proxy; for https a tunnel to the server, on which TLS has not begun."""
        proxy = self._proxy
        with _connecting(proxy, self._deadline):
            stream = super().connect_tcp(proxy.host, proxy.port)
            if self._origin.scheme == "http":
                return stream
            request = _tunnel(proxy, self._origin)
            status = httpcore.HTTP11Connection(request.url.origin, stream).handle_request(request).status
        if not 200 <= status < 300:
            raise proxy.refusal(status)
        return stream


class _ProxyLoops(LoopBackend):
    """The asyncio version of the class above."""

    def __init__(self, deadline: Deadline, proxy: Proxy, origin: Origin) -> None:
        super().__init__(deadline)
        self._proxy = proxy
        self._origin = origin

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A stream to the proxy; for https a tunnel to the server, on which TLS has not begun."""
        proxy = self._proxy
        with _connecting(proxy, self._deadline):
            stream = await super().connect_tcp(proxy.host, proxy.port)
            if self._origin.scheme == "http":
                return stream
            request = _tunnel(proxy, self._origin)
            http = httpcore.AsyncHTTP11Connection(request.url.origin, stream)
            status = (await http.handle_async_request(request)).status
        if not 200 <= status < 300:
            raise proxy.refusal(status)
        return stream


class _Forwarded(httpcore.HTTPConnection):
    """A connection to an http origin whose requests the proxy forwards."""

    def __init__(self, proxy: Proxy, key: ConnectionKey, backend: _ProxySockets, deadline: Deadline) -> None:
        super().__init__(key.http, network_backend=backend)
        self._proxy = proxy
        self._base_url = str(key.origin)
        self._deadline = deadline

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send the request to the proxy and wait for the head of the answer."""
        response = super().handle_request(_absolute(request, self._base_url, self._proxy))
        _check_forwarded(response, self._proxy, self._deadline)
        return response


class _AsyncForwarded(httpcore.AsyncHTTPConnection):
    """The asyncio version of the class above."""

    def __init__(self, proxy: Proxy, key: ConnectionKey, backend: _ProxyLoops, deadline: Deadline) -> None:
        super().__init__(key.http, network_backend=backend)
        self._proxy = proxy
        self._base_url = str(key.origin)
        self._deadline = deadline

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send the request to the proxy and wait for the head of the answer."""
        response = await super().handle_async_request(_absolute(request, self._base_url, self._proxy))
        _check_forwarded(response, self._proxy, self._deadline)
        return response


@contextmanager
def _connecting(proxy: Proxy, deadline: Deadline) -> Iterator[None]:
    """Bound the proxy by the connect timeout. Its errors become connect errors: the server got nothing."""
    if proxy.fault is not None:
        raise httpcore.ConnectError(proxy.fault)
    until = deadline.until
    deadline.until = min(until, deadline.connect_until)
    try:
        yield
    except httpcore.TimeoutException as error:
        raise ProxyTimeout(f"no connection through the proxy {proxy} within the connect timeout") from error
    except httpcore.ConnectError as error:
        raise httpcore.ConnectError(f"the proxy {proxy} cannot be reached: {reason(error)}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        # Not the library's message: it quotes the bytes received.
        raise httpcore.ConnectError(f"the proxy {proxy} disconnected, or is not an HTTP proxy") from error
    finally:
        deadline.until = until
        deadline.sent = deadline.received = False


def _tunnel(proxy: Proxy, origin: Origin) -> httpcore.Request:
    """The request for a tunnel. The proxy learns only the host and the port."""
    target = _address(origin).encode()
    url = httpcore.URL(scheme=b"http", host=proxy.host.encode(), port=proxy.port, target=target)
    return httpcore.Request(b"CONNECT", url, headers=[(b"host", target), *proxy.credentials])


def _absolute(request: httpcore.Request, origin: str, proxy: Proxy) -> httpcore.Request:
    """The request in the form for a proxy: with the absolute URL and the proxy's credentials."""
    url = httpcore.URL(
        scheme=request.url.scheme,
        host=request.url.host,
        port=request.url.port,
        target=origin.encode() + request.url.target,
    )
    headers = [*request.headers, *proxy.credentials]
    return httpcore.Request(request.method, url, headers=headers, content=request.stream)


def _check_forwarded(response: httpcore.Response, proxy: Proxy, deadline: Deadline) -> None:
    """Raise if the answer is the proxy's own: 407, the proxy forwarded nothing without credentials."""
    if response.status == 407:
        deadline.sent = False
        raise proxy.refusal(407)


def _from_environment(origin: Origin) -> Proxy | None:
    """The proxy that the variables name for `origin`, as Python's urllib reads them."""
    named = urllib.request.getproxies_environment()
    kind = origin.scheme if origin.scheme in named else "all"
    around = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it
    if kind not in named or around(_address(origin), named) or around(origin.host, named):
        return None
    return _parse(f"{kind.upper()}_PROXY", named[kind])


def _address(origin: Origin) -> str:
    """`host:port`, also with the default port."""
    return f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"


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


def _is_this_machine(host: str) -> bool:
    """Whether `host` names this machine, by name or loopback address. Makes no look-up."""
    address = literal_address(host)
    return host == "localhost" if address is None else address.is_loopback
