"""One request to one deployment, and its answer: sent, read, unpacked, decoded. Raises typed errors."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from ccroute.backends import HttpRequest, Origin
from ccroute.errors import (
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    DeadlineExceededError,
    ProtocolError,
)
from ccroute.flow.attempt.context import AttemptContext, Limits
from ccroute.flow.attempt.redact import request_id
from ccroute.flow.effects import Emit, Flow, Read, Send, Stopped, read
from ccroute.http.message import Failure, Reply
from ccroute.types import Completion
from ccroute.wire.decoding import StreamDecoder

MAX_BODY = 64 * 1024 * 1024
"""A body that is no stream, after unpacking, in bytes."""
PIECE = 64 * 1024
"""The most that is unpacked at a time, in bytes."""
MAX_ERROR_BODY = 1024 * 1024
ERROR_BODY_WAIT = 2.0
"""Seconds that the words of an error may take to come: its status is known already."""
DRAIN = 0.05
"""Seconds a finished stream may take to end its body too, so that its connection can be kept."""
_GZIP = 16 + zlib.MAX_WBITS


def exchange(attempt: AttemptContext, http: HttpRequest) -> Flow[Completion]:
    """Send, and read the answer. Chunks of a stream are emitted on the way."""
    backend, limits = attempt.candidate.deployment.backend, attempt.limits()
    request, attempt.key = backend.prepare(http)
    attempt.secrets = secrets = backend.secrets()
    effect = Send(request, limits.connect, limits.first)
    del request  # a header is the key
    attempt.sent = True  # until the driver says otherwise
    try:
        reply: Reply | Failure = yield effect  # as `send` and `read` do; their frames cost a call 1 µs
    except Stopped as stop:
        attempt.sent = stop.sent
        raise
    attempt.reconnected = reply.reconnected
    if isinstance(reply, Failure):
        attempt.sent = reply.sent
        raise _transport_error(reply, attempt)
    attempt.status = reply.status
    given = reply.headers.get("x-request-id") or reply.headers.get("request-id")
    attempt.request_id = given and request_id(given, secrets)
    if not 200 <= reply.status < 300:
        raise backend.classify(
            reply.status, reply.headers, (yield from _read_error_body(reply, attempt, limits))
        )
    if attempt.stream:
        answer = yield from _read_stream(reply, attempt, limits)
    else:
        body = yield from read_whole(reply, limits.first, limits.until, MAX_BODY)
        if isinstance(body, Failure):
            raise _transport_error(body, attempt)
        answer = backend.decode(reply.status, reply.headers, body)
    if attempt.asks_for_format:
        attempt.rejected_answer = answer  # it was paid for, even if it is rejected
        backend.check(attempt.request, answer)
        attempt.rejected_answer = None
    return answer


def read_whole(reply: Reply, first: float, until: float, limit: int) -> Flow[bytes | Failure]:
    """The whole body, unpacked, or why there is none. Its first bytes must come before the instant `first`,
    the others before `until`. Raises `ProtocolError` for more than `limit` bytes."""
    packed = Body(reply) if "content-encoding" in reply.headers else None
    if reply.body is not None and packed is None:
        return reply.body
    parts, size = list[bytes](), 0
    data: bytes | Failure
    while data := (yield Read(first)):
        if isinstance(data, Failure):
            return data
        for piece in (data,) if packed is None else packed.feed(data):
            parts.append(piece)
            size += len(piece)
            if size > limit:
                raise ProtocolError("the answer is longer than ccroute reads")
        first = until
    if packed is not None:
        packed.end()
    return b"".join(parts)


def _read_error_body(reply: Reply, attempt: AttemptContext, limits: Limits) -> Flow[bytes]:
    """What can be had of an error's body: it is only read for its words, so no failure matters here."""
    words = b""
    until = min(limits.until, attempt.state.clock.monotonic() + ERROR_BODY_WAIT)
    try:
        body = Body(reply)
        while len(words) < MAX_ERROR_BODY:
            data = yield from read(until)
            if isinstance(data, Failure) or not data:
                break
            for piece in body.feed(data):
                words += piece
                if len(words) > MAX_ERROR_BODY:
                    break
    except ProtocolError:
        pass  # the status says enough
    return words


def _read_stream(reply: Reply, attempt: AttemptContext, limits: Limits) -> Flow[Completion]:
    body, monotonic = Body(reply), attempt.state.clock.monotonic
    decoder = attempt.deployment.backend.decoder(reply.status, reply.headers)
    attempt.decoder = decoder
    now = monotonic()
    patience = limits.first - now
    while not getattr(decoder, "done", False):
        # Both raw, as `read` and `emit` do: their frames cost 0.3 µs a read.
        data: bytes | Failure = yield Read(min(limits.until, now + patience))
        if isinstance(data, Failure):
            return _ended_early(decoder, _transport_error(data, attempt))
        if not data:
            body.end()
            return decoder.finish()
        before, now = now, monotonic()
        patience -= now - before  # pings are no content; only waiting counts
        for piece in body.feed(data):
            chunks = decoder.feed(piece)
            if chunks:
                patience = limits.idle
                if attempt.first_content is None:
                    attempt.content_begins()
                yield Emit(chunks)
            before, now = now, monotonic()
            if chunks:
                attempt.waiting_since, attempt.paused = now, attempt.paused + now - before
            # What has come is worth more than the time: an answer that is whole is one.
            if now > limits.until and not getattr(decoder, "done", False):
                raise _transport_error(
                    Failure("timeout", "did not come to an end in time", sent=True), attempt
                )
    completion = decoder.finish()
    yield from _drain(monotonic() + DRAIN)
    return completion


def _ended_early(decoder: StreamDecoder, error: CcrouteError) -> Completion:
    """The answer, if its terminal signal had come before the connection broke; else raises `error`."""
    try:
        return decoder.finish()
    except CcrouteError:
        raise error from None


def _drain(until: float) -> Flow[None]:
    """Read to the end of the body; if that takes too long, the connection is given up instead."""
    while True:
        data = yield from read(until)
        if isinstance(data, Failure) or not data:
            return


def _transport_error(failure: Failure, attempt: AttemptContext) -> CcrouteError:
    """The typed error for what a transport reported."""
    deployment, now = attempt.deployment, attempt.state.clock.monotonic()
    if failure.kind == "timeout" and now >= attempt.deadline:
        return DeadlineExceededError(f"{deployment.name}: the call's total timeout passed before it answered")
    slow = passed = ""
    if failure.kind == "timeout":
        known = None if attempt.first_content else deployment.backend.timeout_advice(deployment.model)
        slow = f". {known}" if known else ""
        limit = attempt.limit_passed(now)
        passed = f" ({limit})" if limit else ""
    return failure_error(failure, deployment.backend.origin, passed, slow)


def failure_error(failure: Failure, origin: Origin, passed: str = "", slow: str = "") -> BackendError:
    """The typed error for a failure at a host. Of a timeout: the limit that `passed`, and advice."""
    running = "" if "proxy" in failure.detail else ": is it running there?"
    kind, detail = {
        "connect": (ConnectionFailedError, f"cannot connect to {origin} ({failure.detail}){running}"),
        "tls": (ConnectionFailedError, f"no trusted connection to {origin} ({failure.detail})"),
        "broken": (ConnectionFailedError, f"the connection broke ({failure.detail})"),
        "timeout": (
            BackendTimeoutError,
            f"{failure.detail}{passed}: if it needs longer, raise that limit of its Timeout{slow}",
        ),
        "protocol": (ProtocolError, f"does not answer in HTTP ({failure.detail}): check base_url"),
    }[failure.kind]
    error = kind(detail, should_retry=False if failure.kind == "tls" else None)
    error.sent = failure.sent
    return error


class Body:
    """Unpacks one answer's body piece by piece.

    ccroute asks for `identity`; a server that sends gzip all the same is read, with a bound on what
    it unpacks to and with its end required (httpx accepts a truncated one).
    """

    def __init__(self, reply: Reply) -> None:
        encoding = reply.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise ProtocolError("answered in an encoding that was not asked for")
        self._gzip = zlib.decompressobj(_GZIP) if encoding.endswith("gzip") else None

    def feed(self, data: bytes) -> Iterable[bytes]:
        """What `data` stands for, in pieces that are never much larger than what came.

        The reader stops where it has enough, so a small answer that unpacks to a huge one costs neither
        memory nor time.
        """
        return (data,) if self._gzip is None else self._unpacked(self._gzip, data)

    def _unpacked(self, gzip: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            if gzip.eof:
                raise ProtocolError("the gzip answer goes on after its end")
            try:
                piece = gzip.decompress(data, PIECE)
            except zlib.error:
                raise ProtocolError("the answer is not valid gzip") from None
            if piece:
                yield piece
            data = gzip.unconsumed_tail or gzip.unused_data
            full = len(piece) == PIECE and not gzip.eof  # zlib may hold more of it

    def end(self) -> None:
        """Called at the end of the bytes; raises `ProtocolError` for a truncated gzip."""
        if self._gzip is not None and not self._gzip.eof:
            raise ProtocolError("the gzip answer was cut off")
