"""One connection. Look-up, TCP, a proxy's tunnel and TLS share the time to connect."""

from __future__ import annotations

import time
from collections.abc import MutableSet
from typing import TYPE_CHECKING

from ccroute.http.answer import AnswerReader
from ccroute.http.message import NO_CONNECTION, Endpoint, Reply, TransportError, reason
from ccroute.http.streams import ByteStream, Network, closed, seconds_left

if TYPE_CHECKING:
    import ssl

    from ccroute.http.proxies import Proxy


class Connection:
    """A connection to an endpoint, and the reader of its answers. It carries one exchange at a time.

    proxy:  the proxy that it goes through, or None.
    opened: all open connections of the same kind; it leaves them when it is closed.
    """

    stream: ByteStream

    def __init__(self, endpoint: Endpoint, proxy: Proxy | None, opened: MutableSet[Connection]) -> None:
        self.endpoint = endpoint
        self.proxy = proxy
        self.reader = AnswerReader()
        self._opened = opened
        self._closed = False
        opened.add(self)

    @property
    def can_be_kept(self) -> bool:
        """Whether it can carry another exchange. Not if bytes followed the answer, or some were not sent."""
        return self.reader.reusable and not self.stream.writing

    @property
    def forwarding_proxy(self) -> Proxy | None:
        """The proxy that forwards each request; None with a tunnel, or without a proxy."""
        return self.proxy if self.endpoint.origin.scheme == "http" else None

    async def open(self, network: Network, context: ssl.SSLContext | None, until: float) -> None:
        """Connect. `context` is None for http. Raises `TransportError`."""
        origin = self.endpoint.origin
        try:
            if self.proxy is None:
                stream = await self._connect(network, origin.host, origin.port, until)
            else:
                stream = await self._connect_through(self.proxy, network, until)
            if context is not None:
                await stream.start_tls(context, origin.host, until)
        except TransportError as error:
            if error.kind != "timeout":
                raise
            late = NO_CONNECTION if self.proxy is None else self.proxy.late()
            raise TransportError("timeout", late) from None

    def close(self) -> None:
        """Close at once, from any thread."""
        self._closed = True
        self._opened.discard(self)
        if hasattr(self, "stream"):  # it may not be open yet
            self.stream.close()

    async def _connect(self, network: Network, host: str, port: int, until: float) -> ByteStream:
        """Connect to the first address that answers.

        The addresses that are left share the time that is left.
        """
        try:
            addresses = await network.resolve(host, port, until)
        except (OSError, UnicodeError) as error:
            raise TransportError("connect", f"the name cannot be resolved: {reason(error)}") from None
        failure = TransportError("connect", "the name has no address")
        for left in range(len(addresses), 0, -1):
            share = time.monotonic() + seconds_left(until) / left
            try:
                self.stream = stream = await network.open(addresses[-left], share)
            except TransportError as error:
                failure = error
            except OSError as error:
                failure = TransportError("connect", reason(error))
            else:
                if self._closed:  # meanwhile, by another thread
                    stream.close()
                    raise closed()
                return stream
        raise failure

    async def _connect_through(self, proxy: Proxy, network: Network, until: float) -> ByteStream:
        """Connect to the proxy, and for https to the origin behind it.

        Until TLS, all errors are the proxy's.
        """
        try:
            stream = await self._connect(network, proxy.host, proxy.port, until)
        except TransportError as error:
            if error.kind == "timeout":
                raise
            raise TransportError("connect", f"the proxy {proxy} cannot be reached: {error.detail}") from None
        if self.endpoint.origin.scheme == "https":
            stream.write(proxy.tunnel(self.endpoint.origin))
            try:
                status = (await read_head(AnswerReader(), stream, until)).status
            except TransportError as error:
                if error.kind == "timeout":
                    raise
                wrong = f"the proxy {proxy} disconnected, or is not an HTTP proxy"
                raise TransportError("connect", wrong) from None
            if not 200 <= status < 300:
                raise proxy.refusal(status)
        return stream


async def read_head(reader: AnswerReader, stream: ByteStream, until: float) -> Reply:
    """The head of an answer. Raises `TransportError`."""
    while reader.head is None:
        if reader.fault is not None:
            raise reader.fault
        reader.feed(await stream.read(until))
    return reader.head
