"""Blocking connections. Their deadline bounds every wait."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from ccroute.runtime.exchange import Deadline, readable, reason


class SocketBackend(httpcore.NetworkBackend):
    """Makes one blocking connection: `stream`, None before it is made."""

    stream: SocketStream | None = None

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers; all addresses share the time to connect."""
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name cannot be resolved: {reason(error)}") from error
        for i, (family, kind, proto, _, address) in enumerate(addresses):
            share = self._deadline.left_to_connect() / (len(addresses) - i)
            sock = socket.socket(family, kind, proto)
            try:
                sock.settimeout(share)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.stream = SocketStream(sock, self._deadline)
                return self.stream
            except OSError as error:
                sock.close()
                if i < len(addresses) - 1:
                    continue
                if isinstance(error, TimeoutError):
                    raise httpcore.ConnectTimeout("no connection in time") from error
                raise httpcore.ConnectError(reason(error)) from error
            except BaseException:
                sock.close()
                raise
        raise httpcore.ConnectError("the name has no address")


class SocketStream(httpcore.NetworkStream):
    """A blocking connection. The next read sends all that was written: head and body in one packet."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline
        self._unsent: list[bytes] = []

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, `b""` at the end."""
        deadline = self._deadline
        try:
            if self._unsent:
                request = b"".join(self._unsent)
                self._unsent.clear()
                self._socket.settimeout(deadline.left())
                deadline.sent = True
                try:
                    self._socket.sendall(request)
                except TimeoutError:
                    raise
                except OSError:
                    pass  # the server may have answered and closed before it read everything
            self._socket.settimeout(deadline.left())
            data = self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no answer in time") from error
        except OSError as error:
            raise httpcore.ReadError(reason(error)) from error
        deadline.received = deadline.received or bool(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Keep `buffer`; the next read sends it."""
        if buffer:
            self._unsent.append(buffer)

    def close(self) -> None:
        """Close at once and wake a thread that waits for bytes. A forked child closes only its own copy."""
        if not self._deadline.inherited:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._socket.close()

    abort = close

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted; the server's certificate is always checked."""
        try:
            self._socket.settimeout(self._deadline.left_to_connect())
            self._socket = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout("no TLS handshake in time") from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(reason(error)) from error
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore whether TLS is on, and whether an idle connection has been closed."""
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        if info == "is_readable":
            return readable(self._socket)
        return None
