"""The exchanges of one router: over connections of our own, or through an httpx transport."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from ccroute.http.exchange import ConnectionExchange
from ccroute.http.message import Endpoint, Exchange, PreparedRequest, TransportError, reason
from ccroute.http.origin import Origin
from ccroute.http.pool import Pool
from ccroute.http.streams import Network
from ccroute.http.streams.blocking import run
from ccroute.http.streams.event_loops import call_soon, current_loop, has_ended, is_asyncio, sockets_closed
from ccroute.http.streams.sockets import ThreadNetwork, TrioNetwork

if TYPE_CHECKING:
    import ssl

    import httpx

    from ccroute.http.proxies import Proxies, Proxy

Transport: TypeAlias = 'httpx.BaseTransport | httpx.AsyncBaseTransport | Literal["httpx"]'
"""An httpx transport to send through instead of ccroute's own connections, or "httpx" for httpx's own."""


class ConnectionStats(NamedTuple):
    """How many connections to an origin are open: kept for the next call, and in use."""

    idle: int
    in_use: int


class Connections:
    """Opens nothing before the first call. `trust_env` uses the proxies that the environment names."""

    def __init__(self, transport: Transport | None = None, *, trust_env: bool = False) -> None:
        self.transport: Transport | None = transport
        self._proxies = _proxies() if trust_env else None
        self._closed = False
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._forget()

    def exchange(
        self, request: PreparedRequest, connect: float | None, until: float, *, blocking: bool = False
    ) -> Exchange:
        """An exchange that has not sent anything. `blocking`: its coroutines never suspend.

        connect: seconds for name look-up, TCP and TLS, where a new connection is needed; None has no limit.
        until:   the instant by which the head of the answer must have come.
        """
        if self.transport is None:
            return ConnectionExchange(self, request, connect, until, blocking=blocking)
        from ccroute.http.httpx_transports import HttpxExchange  # imports httpx

        return HttpxExchange(self, request, connect, until, blocking=blocking)

    async def pool(self, *, blocking: bool) -> Pool:
        """The connections of all threads, or of the running loop."""
        if blocking:
            return self._threads
        loop = current_loop()
        pool = self._loops.get(loop)
        if pool is None:
            self._close_dead()
            pool = self._loops[loop] = Pool(_network_of(loop), set, closed=self._closed)
            await pool.close_with_loop(loop)
        return pool

    def find_proxy(self, endpoint: Endpoint) -> Proxy | None:
        """The proxy on the way to an endpoint, or None. Raises `TransportError` for an unusable one."""
        proxy = None if self._proxies is None else self._proxies.find(endpoint)
        if proxy is not None and proxy.fault is not None:
            raise TransportError("connect", proxy.fault)
        return proxy

    def tls_context(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        """The context for an endpoint, made at its first use; None for http."""
        if endpoint.origin.scheme != "https":
            return None
        context = self._contexts.get(endpoint.ca_file)
        if context is None:
            from ccroute.http.tls import make_context

            try:
                context = self._contexts[endpoint.ca_file] = make_context(endpoint.ca_file)
            except OSError as error:
                raise TransportError("tls", f"its ca_file cannot be read: {reason(error)}") from None
        return context

    def stats(self) -> dict[Origin, ConnectionStats]:
        """The open connections to each origin, of all threads and loops together. Never waits."""
        counted, found = self._threads.counts(), dict[Origin, ConnectionStats]()
        for _, pool in self._pools():
            counted += pool.counts()
        for origin, idle, in_use in counted:
            before = found.get(origin, ConnectionStats(0, 0))
            found[origin] = ConnectionStats(before.idle + idle, before.in_use + in_use)
        return found

    def keep_only(self, endpoints: Collection[Endpoint]) -> None:
        """Close the idle connections to all other endpoints now, and those in use when their calls end.

        New connections read each `ca_file` again. Transports of httpx stay as they are.
        """
        public = self._contexts.get(None)
        self._contexts = {} if public is None else {None: public}
        self._threads.keep_only(endpoints)
        for loop, pool in self._pools():
            call_soon(loop, pool.keep_only, endpoints)

    def close(self) -> None:
        """Close the idle connections of threads and loops now, and each of the others when its call ends."""
        self._closed = True
        run(self._threads.aclose_idle())
        self._close_dead()
        for loop, pool in list(self._loops.items()):
            call_soon(loop, pool.close_soon)

    async def aclose(self) -> None:
        """`close`, and wait until this loop's idle connections are gone."""
        self.close()
        loop = current_loop()
        if (pool := self._loops.get(loop)) is not None:
            await pool.aclose_idle()
        await sockets_closed(loop)

    def after_fork(self) -> None:
        """Forget all connections in a forked child: they and their loops belong to the parent."""
        run(self._threads.aclose_idle())
        self._forget()

    def _forget(self) -> None:
        self._threads = Pool(ThreadNetwork(), weakref.WeakSet, closed=self._closed)
        self._loops: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()

    def _pools(self) -> Iterator[tuple[Any, Pool]]:
        """Each loop and its connections."""
        for loop in self._loops.keyrefs():  # a copy, unlike the keys: another thread may add one meanwhile
            if (key := loop()) is not None and (pool := self._loops.get(key)) is not None:
                yield key, pool

    def _close_dead(self) -> None:
        """Close the connections of loops that were closed without finalising their async generators."""
        for loop in [loop for loop in list(self._loops) if has_ended(loop)]:
            pool = self._loops.pop(loop, None)
            if pool is not None:
                pool.close_all()


def _network_of(loop: Any) -> Network:
    if is_asyncio(loop):
        from ccroute.http.streams.loops import LoopNetwork  # imports asyncio, which threads do not need

        return LoopNetwork()
    return TrioNetwork()


def _proxies() -> Proxies:
    from ccroute.http.proxies import Proxies  # imports urllib.request

    return Proxies()
