"""Reads the answers that come over one connection, one at a time. No I/O and no clock.

llhttp, which is Node's parser, knows the protocol. It refuses what could be read in two ways: Content-Length
with Transfer-Encoding, two lengths, bare line feeds. This file adds what it leaves to its user: the bound of
a head, the end of an answer without a length, and the bytes that follow an answer.
"""

from __future__ import annotations

from typing import Any

import httptools

from ccroute.http.message import CUT_OFF, NOT_HTTP, SWITCHES, Reply, TransportError

MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, with the interim answers (1xx) before it."""
MAX_HEADERS = 200
_LENGTHS = frozenset(("content-length", "transfer-encoding"))
"""An answer without any of these headers ends with its connection."""

TOO_LONG = f"the answer has more than {MAX_HEADERS} headers or {MAX_HEAD // 1024} KiB of them"


class AnswerReader:
    """Give it the bytes of a connection in any pieces; it collects the head and the body of the answer.

    head:     the status and the headers, None before all of them came.
    complete: whether the whole answer came.
    fault:    why the answer cannot be read any further, or None.
    reusable: whether the connection can carry another answer after this one.
    """

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self.begin()

    def begin(self) -> None:
        """Expect the answer to the next request."""
        self._headers.clear()
        self._room = MAX_HEAD
        self.head: Reply | None = None
        self.complete = self.reusable = False
        self.fault: TransportError | None = None

    @property
    def started(self) -> bool:
        """Whether any byte of the answer came."""
        return self._room < MAX_HEAD

    def feed(self, data: bytes) -> None:
        """Read the next bytes; `b""` is the end of the connection. Never raises: see `fault`."""
        if not data:
            self._connection_ended()
            return
        if self.head is None:
            head, data = data[: self._room], data[self._room :]
            self._room -= len(head)
            self._parse(head)
            if self.head is None and not self._room:
                self._refuse(TOO_LONG)
        if data:
            self._parse(data)
            if self._body:
                self._room = MAX_HEAD
            elif not self.complete:  # trailers
                self._room -= len(data)
                if self._room < 0:
                    self._refuse(TOO_LONG)

    def take(self) -> bytes:
        """The bytes of the body that came since the last call."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(SWITCHES)
        except httptools.HttpParserCallbackError as error:
            raise (error.__context__ or error) from None  # an interrupt in one of the methods below
        except httptools.HttpParserError as error:
            if self.complete:
                self.reusable = False  # what follows the answer is not ours
            elif self.head is not None and "Content-Length" in str(error):
                self.complete = True  # in a trailer, which means nothing; all chunks have come
            else:
                self._refuse(NOT_HTTP)

    def _refuse(self, why: str) -> None:
        self.fault = self.fault or TransportError("protocol", why)

    def _connection_ended(self) -> None:
        if self.complete or self.fault:
            self.reusable = False
        elif self.head is not None and _LENGTHS.isdisjoint(self.head.headers):
            self.complete = True
        else:
            self.fault = TransportError("broken", CUT_OFF)

    # What llhttp calls.

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # after it come trailers
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if len(self._headers) > MAX_HEADERS:
            self._refuse(TOO_LONG)
        elif status < 100:
            self._refuse(NOT_HTTP)
        elif status == 101:
            self._refuse(SWITCHES)
        elif status >= 200 and self.head is None:
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in self._headers}
            if headers.get("transfer-encoding", "chunked").lower() == "chunked":
                self.head = Reply(status, headers)
            else:
                self._refuse(NOT_HTTP)
        self._headers.clear()

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self.head is not None and not self.complete:  # not after an interim answer
            self.complete, self.reusable = True, self._parser.should_keep_alive()
