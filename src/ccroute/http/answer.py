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
"""Bytes of an answer's head, with the interim answers (1xx) before it. Trailers may have as many, besides
those that come in one read with the body."""
MAX_HEADERS = 200
_LENGTHS = frozenset(("content-length", "transfer-encoding"))
"""An answer without any of these headers ends with its connection."""

TOO_LONG = f"the answer has more than {MAX_HEADERS} headers or {MAX_HEAD // 1024} KiB of them"


class AnswerReader:
    """Give it the bytes of a connection in any pieces; it collects the head and the body of the answer.

    started:  whether any byte of the answer came.
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
        self.started = self.complete = self.reusable = False
        self.fault: TransportError | None = None

    def feed(self, data: bytes) -> None:
        """Read the next bytes; `b""` is the end of the connection. Errors are in `fault`."""
        if self.complete or self.fault is not None:
            self.reusable = False  # what follows the answer is not ours
            return
        if not data:
            self._connection_ended()
            return
        self.started = True
        if self.head is None:
            self._feed_head(data)
        else:
            self._parse(data)
            self._room = MAX_HEAD if self._body else self._room - len(data)
            if self._room < 0:  # of trailers
                self._fail(TOO_LONG)

    def take(self) -> bytes:
        """The bytes of the body that came since the last call."""
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    def _feed_head(self, data: bytes) -> None:
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._parse(head)
        if self.head is not None:
            self._room = MAX_HEAD
        elif not self._room:
            self._fail(TOO_LONG)
        if rest:
            self.feed(rest)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error
            if not isinstance(cause, _Refused):
                raise cause from None  # an interrupt in one of the methods below
            self._fail(str(cause))
        except httptools.HttpParserError as error:
            if self.head is not None and not self.complete and "Content-Length" in str(error):
                self.complete = True  # in a trailer, which means nothing; all chunks have come
            else:
                self._fail(NOT_HTTP)

    def _fail(self, why: str) -> None:
        if self.complete:
            self.reusable = False
        else:
            self.fault = self.fault or TransportError("protocol", why)

    def _connection_ended(self) -> None:
        if self.head is not None and _LENGTHS.isdisjoint(self.head.headers):
            self.complete = True
        else:
            self.fault = TransportError("broken", CUT_OFF)

    # What llhttp calls. It reads no further where they raise `_Refused`.

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Refused(NOT_HTTP)  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if len(self._headers) > MAX_HEADERS:
            raise _Refused(TOO_LONG)
        if status < 100:
            raise _Refused(NOT_HTTP)
        if status == 101:
            raise _Refused(SWITCHES)
        if status >= 200:
            codings = [value.lower() for name, value in self._headers if name == b"transfer-encoding"]
            if codings not in ([], [b"chunked"]):
                raise _Refused(NOT_HTTP)
            headers = {name.decode(): value.decode("latin-1") for name, value in self._headers}
            self.head = Reply(status, headers)
        self._headers.clear()  # it has the trailers from now on

    def on_body(self, data: bytes) -> None:
        if self.head is None:
            raise _Refused(NOT_HTTP)  # an interim answer has no body
        self._body.append(data)

    def on_message_complete(self) -> None:
        if len(self._headers) > MAX_HEADERS:
            raise _Refused(TOO_LONG)
        if self.head is not None:  # not after an interim answer
            self.complete, self.reusable = True, self._parser.should_keep_alive()


class _Refused(Exception):
    """llhttp may read it, but we do not."""
