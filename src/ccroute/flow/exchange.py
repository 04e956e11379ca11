"""One request to one deployment, and its answer: sent, read and decoded. Raises typed errors."""

from __future__ import annotations

from ccroute.backends import HttpRequest
from ccroute.errors import (
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    DeadlineExceededError,
    ProtocolError,
)
from ccroute.flow.attempt_context import AttemptContext, Limits
from ccroute.flow.body import MAX_BODY, Body
from ccroute.flow.effects import Failure, Flow, Reply, Send, Stopped, emit, read, send
from ccroute.flow.redact import request_id
from ccroute.types import Completion
from ccroute.wire.codec import StreamDecoder

MAX_ERROR_BODY = 1024 * 1024
ERROR_BODY_WAIT = 2.0
"""Seconds that the words of an error may take to come: its status is known already."""
DRAIN = 0.05
"""Seconds a finished stream may take to end its body too, so that its connection can be kept."""


def exchange(context: AttemptContext, http: HttpRequest) -> Flow[Completion]:
    """Send, and read the answer. Chunks of a stream are emitted on the way."""
    backend, limits = context.candidate.deployment.backend, context.limits()
    headers, context.key = backend.auth_headers(http)
    context.secrets = backend.secrets()
    effect = Send(backend, http, headers, limits.connect, limits.first)
    del headers  # one of them is the key
    context.sent = True  # where the flow is closed meanwhile, nobody says otherwise
    try:
        reply = yield from send(effect)
    except Stopped as stop:
        context.sent = stop.sent
        raise
    context.reconnected = reply.reconnected
    if isinstance(reply, Failure):
        context.sent = reply.sent
        raise _transport_error(reply, context)
    context.status = reply.status
    given = reply.headers.get("x-request-id") or reply.headers.get("request-id")
    context.request_id = given and request_id(given, context.secrets)
    if not 200 <= reply.status < 300:
        raise backend.classify(
            reply.status, reply.headers, (yield from _read_error_body(reply, context, limits))
        )
    if context.stream:
        answer = yield from _read_stream(reply, context, limits)
    else:
        answer = backend.decode(reply.status, reply.headers, (yield from _read_whole(reply, context, limits)))
    if context.asks_for_format:
        context.rejected_answer = answer  # it was paid for, even if it is rejected
        backend.check(context.request, answer)
        context.rejected_answer = None
    return answer


def unpacker(reply: Reply) -> Body | None:
    """What unpacks the answer's body; None where it comes as it is, which is what ccroute asks for."""
    encoding = reply.headers.get("content-encoding")
    return None if encoding is None else Body(encoding)


def _read_whole(reply: Reply, context: AttemptContext, limits: Limits) -> Flow[bytes]:
    body, parts = unpacker(reply), list[bytes]()
    size, until = 0, limits.first
    while True:
        data = yield from read(until)
        if isinstance(data, Failure):
            raise _transport_error(data, context)
        if not data:
            if body is not None:
                body.end()
            return b"".join(parts)
        for piece in (data,) if body is None else body.feed(data):
            parts.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise ProtocolError("the answer is longer than ccroute reads")
        until = limits.until


def _read_error_body(reply: Reply, context: AttemptContext, limits: Limits) -> Flow[bytes]:
    """What can be had of an error's body: it is only read for its words, so no failure matters here."""
    words = b""
    until = min(limits.until, context.state.clock.monotonic() + ERROR_BODY_WAIT)
    try:
        body = unpacker(reply)
        while len(words) < MAX_ERROR_BODY:
            data = yield from read(until)
            if isinstance(data, Failure) or not data:
                break
            for piece in (data,) if body is None else body.feed(data):
                words += piece
                if len(words) > MAX_ERROR_BODY:
                    break
    except ProtocolError:
        pass  # the status says enough
    return words


def _read_stream(reply: Reply, context: AttemptContext, limits: Limits) -> Flow[Completion]:
    body, monotonic = unpacker(reply), context.state.clock.monotonic
    decoder = context.deployment.backend.decoder(reply.status, reply.headers)
    context.decoder = decoder
    patience = limits.first - monotonic()
    came: float | None = None  # when there was content last, until the server is waited for again
    while not getattr(decoder, "done", False):
        asked = monotonic()
        if came is not None:
            context.waiting_since, context.paused, came = asked, context.paused + asked - came, None
        data = yield from read(min(limits.until, asked + patience))
        if isinstance(data, Failure):
            return _ended_early(decoder, _transport_error(data, context))
        if not data:
            if body is not None:
                body.end()
            return decoder.finish()
        now = monotonic()
        patience -= now - asked  # pings are no content; only waiting counts
        for piece in (data,) if body is None else body.feed(data):
            chunks = decoder.feed(piece)
            if chunks:
                patience, came = limits.idle, now
                if context.first_content is None:
                    context.content_begins()
                yield from emit(chunks)
            # What has come is worth more than the time: an answer that is whole is one.
            if monotonic() > limits.until and not getattr(decoder, "done", False):
                raise _transport_error(
                    Failure("timeout", "did not come to an end in time", sent=True), context
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


def _transport_error(failure: Failure, context: AttemptContext) -> CcrouteError:
    """The typed error for what a transport reported."""
    deployment, now = context.deployment, context.state.clock.monotonic()
    if failure.kind == "timeout" and now >= context.deadline:
        return DeadlineExceededError(f"{deployment.name}: the call's total timeout passed before it answered")
    origin = deployment.backend.origin
    running = "" if "proxy" in failure.detail else ": is it running there?"
    slow = passed = ""
    if failure.kind == "timeout":
        known = None if context.first_content else deployment.backend.timeout_advice(deployment.model)
        slow = f". {known}" if known else ""
        limit = context.limit_passed(now)
        passed = f" ({limit})" if limit else ""
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
