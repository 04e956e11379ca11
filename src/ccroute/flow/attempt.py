"""One deployment, tried once: send, read, decode, classify. Gives an answer or a fault, never raises one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ccroute.backends import HttpRequest
from ccroute.errors import (
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ConnectionFailedError,
    ContextWindowExceededError,
    DeadlineExceededError,
    InvalidRequestError,
    ProtocolError,
    RequestError,
    StreamInterruptedError,
)
from ccroute.flow.body import MAX_BODY, Body
from ccroute.flow.context import Job, Limits, Progress, limit_passed
from ccroute.flow.desk import Desk
from ccroute.flow.echoes import in_own_words
from ccroute.flow.effects import Failure, Flow, Reply, Send, emit, read, send
from ccroute.flow.redact import clean, found_in
from ccroute.flow.retry import Fault, failure_class
from ccroute.routing import Deployment
from ccroute.types import Completion, Request
from ccroute.wire.codec import StreamDecoder
from ccroute.wire.fields import LeftOut, without

MAX_ERROR_BODY = 1024 * 1024
ERROR_BODY_WAIT = 2.0
"""Seconds that the words of an error may take to come: its status is known already."""
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
DRAIN = 0.05
"""Seconds a finished stream may take to end its body too, so that its connection can be kept."""


def attempt(job: Job, limits: Limits) -> Flow[Completion | Fault]:
    """Ask one deployment. Chunks of a stream are emitted on the way, none before the first content."""
    try:
        return (yield from _exchange(job, limits))
    except (BackendError, RequestError, DeadlineExceededError) as error:
        # The frames below hold the key and the server's words, which a traceback with locals would show.
        fault = _fault(in_own_words(error, job.request, job.deployment.model).with_traceback(None), job)
    return fault if job.progress.first_content is None else _interrupted(fault.error, job.deployment)


def _exchange(job: Job, limits: Limits) -> Flow[Completion]:
    backend, progress = job.deployment.backend, job.progress
    headers, progress.key = backend.signed(job.http)
    effect = Send(backend, job.http, headers, limits.connect, limits.first, progress)
    del headers  # one of them is the key
    progress.sent = True  # as far as anybody knows, until the transport knows better
    reply = yield from send(effect)
    if isinstance(reply, Failure):
        progress.sent, progress.reconnected = reply.sent, reply.reconnected
        raise _transport_error(reply, job)
    progress.status, progress.reconnected = reply.status, reply.reconnected
    progress.request_id = _request_id(reply, backend.secrets())
    if not 200 <= reply.status < 300:
        raise backend.classify(reply.status, reply.headers, (yield from _read_error_body(reply, job, limits)))
    body = Body(reply.headers)
    if job.stream:
        answer = yield from _read_stream(reply, body, job, limits)
    else:
        answer = backend.decode(reply.status, reply.headers, (yield from _read_whole(body, job, limits)))
    if progress.formed:
        progress.refused = answer  # it was paid for, whatever becomes of it
        backend.check(job.request, answer)
        progress.refused = None
    return answer


def _request_id(reply: Reply, secrets: Iterable[str]) -> str | None:
    """The provider's id of the request, if it looks like one: some servers echo what they were sent."""
    told = reply.headers.get("x-request-id") or reply.headers.get("request-id") or ""
    plain = _ID.fullmatch(told) and not any(found_in(told, secret) for secret in secrets)
    return told if plain else None


def written(
    deployment: Deployment, request: Request, desk: Desk, progress: Progress, *, stream: bool
) -> HttpRequest | Fault:
    """The request as this deployment's wire has it, or why that cannot carry it."""
    try:
        carried = _carried(deployment, request, desk, progress)
        return deployment.backend.encode(carried, deployment.model, stream)
    except (BackendError, RequestError) as error:
        return replace(_completed(error.with_traceback(None), deployment, request), elsewhere=True)


def _carried(deployment: Deployment, request: Request, desk: Desk, progress: Progress) -> Request:
    """The request without what this wire cannot carry; refused unless dropping was asked for."""
    backend = deployment.backend
    refused = backend.refusals(request, deployment.model)
    may_drop = desk.drop_params or backend.drop_params
    if may_drop and (learned := desk.learned.of(deployment, request)):
        progress.left_out = learned
        refused = {**dict.fromkeys(sorted(learned), "the server refused it"), **refused}
    progress.formed = request.response_format is not None and "response_format" not in refused
    if not refused:
        return request
    if not (may_drop or all(map(_may_go, refused.values()))):
        what = "; ".join(f"{name} ({why})" for name, why in refused.items() if not _may_go(why))
        raise InvalidRequestError(f"cannot carry {what}. Leave it out, or set drop_params=True")
    progress.dropped = tuple(f"{deployment.name}: {name} dropped, {why}" for name, why in refused.items())
    return without(request, refused)


def _may_go(why: str) -> bool:
    return isinstance(why, LeftOut)


def _read_whole(body: Body, job: Job, limits: Limits) -> Flow[bytes]:
    parts: list[bytes] = []
    size, until = 0, limits.first
    while True:
        data = yield from read(until)
        if isinstance(data, Failure):
            raise _transport_error(data, job)
        if not data:
            body.end()
            return b"".join(parts)
        for piece in body.feed(data):
            parts.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise ProtocolError("the answer is longer than ccroute reads")
        until = limits.until


def _read_error_body(reply: Reply, job: Job, limits: Limits) -> Flow[bytes]:
    """What can be had of an error's body: it is only read for its words, so no failure matters here."""
    words = b""
    until = min(limits.until, job.desk.clock.monotonic() + ERROR_BODY_WAIT)
    try:
        body = Body(reply.headers)
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


def _read_stream(reply: Reply, body: Body, job: Job, limits: Limits) -> Flow[Completion]:
    clock, progress = job.desk.clock, job.progress
    decoder = job.deployment.backend.decoder(reply.status, reply.headers)
    progress.decoder = decoder
    patience = limits.first - clock.monotonic()
    came: float | None = None  # when there was content last, until the server is waited for again
    while not getattr(decoder, "done", False):
        asked = clock.monotonic()
        if came is not None:
            progress.heard, progress.paused, came = asked, progress.paused + asked - came, None
        data = yield from read(min(limits.until, asked + patience))
        if isinstance(data, Failure):
            return _ended_early(decoder, _transport_error(data, job))
        if not data:
            body.end()
            return decoder.finish()
        now = clock.monotonic()
        patience -= now - asked  # pings are no content; only waiting counts
        for piece in body.feed(data):
            chunks = decoder.feed(piece)
            if chunks:
                patience, came = limits.idle, now
                if progress.first_content is None:
                    progress.first_content = clock.monotonic() - progress.started
                    if progress.admission is not None:
                        job.desk.health.answers(progress.admission)
                    _introduce(job, progress.so_far())
                yield from emit(chunks)
            # What has come is worth more than the time: an answer that is whole is one.
            if clock.monotonic() > limits.until and not getattr(decoder, "done", False):
                raise _transport_error(Failure("timeout", "did not come to an end in time", sent=True), job)
    completion = decoder.finish()
    yield from _drain(clock.monotonic() + DRAIN)
    return completion


def _ended_early(decoder: StreamDecoder, error: CcrouteError) -> Completion:
    """The answer, if its terminal signal had come before the connection broke; else `error`."""
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


def _introduce(job: Job, begun: Completion | None) -> None:
    """Before the first chunk is seen: which answer this is and who gives it."""
    job.ticket.id = (begun.id if begun is not None else "") or job.ticket.id
    job.ticket.model = (begun.model if begun is not None else "") or job.deployment.model
    job.ticket.begun = begun


def _transport_error(failure: Failure, job: Job) -> CcrouteError:
    """The typed error for what a transport reported."""
    deployment = job.deployment
    if failure.kind == "timeout" and job.desk.clock.monotonic() >= job.deadline:
        return DeadlineExceededError(f"{deployment.name}: the call's total timeout passed before it answered")
    origin = deployment.backend.origin
    running = "" if "proxy" in failure.detail else ": is it running there?"
    slow = passed = ""
    if failure.kind == "timeout":
        slow = "" if job.progress.first_content else _slow_start(deployment)
        limit = limit_passed(job, job.desk.clock.monotonic())
        passed = f" ({limit})" if limit else ""
    kind, detail = {
        "connect": (
            ConnectionFailedError,
            f"cannot connect to {origin} ({failure.detail}){running}",
        ),
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


def _slow_start(deployment: Deployment) -> str:
    """What is known of a server that said nothing in the time it had."""
    known = deployment.backend.slow_start(deployment.model)
    return f". {known}" if known else ""


def _fault(error: BackendError | RequestError | DeadlineExceededError, job: Job) -> Fault:
    """Complete an error with its place, without secrets and prompts, and give it its class."""
    if isinstance(error, DeadlineExceededError):
        return Fault(error, "ambiguous" if job.progress.sent else "not_sent")
    if isinstance(error, ContextWindowExceededError):
        error.limit = error.limit or job.deployment.info.context_window
        error.estimated = error.estimated or job.desk.count_tokens(job.request)
    fault = _completed(error, job.deployment, job.request)
    if job.desk.drop_params or job.deployment.backend.drop_params:
        name = job.desk.learned.learn(job.deployment, job.request, error)
        return fault if name in job.progress.left_out else replace(fault, drops=name)
    return fault


def _completed(error: BackendError | RequestError, deployment: Deployment, request: Request) -> Fault:
    backend = deployment.backend
    error.backend, error.deployment = backend.name, deployment.name
    error.retry_after = _seconds(error.retry_after)
    clean(error, backend.secrets(), request)
    elsewhere = getattr(error, "elsewhere", False)
    return Fault(error, failure_class(error), again=error.should_retry, elsewhere=elsewhere)


def _seconds(wait: object) -> float | None:
    """A wait that makes sense; a user's own codec may have passed on what stood in a header."""
    sane = isinstance(wait, int | float) and 0 <= wait < float("inf")
    return float(wait) if sane else None  # type: ignore[arg-type]


def _interrupted(cause: CcrouteError, deployment: Deployment) -> Fault:
    """What the caller already has cannot be taken back, so nothing is tried again."""
    why = (
        cause.detail if isinstance(cause, BackendError | RequestError) else "the call's total timeout passed"
    )
    error = StreamInterruptedError(
        f"the stream was cut after content had been delivered: {why}",
        backend=deployment.backend.name,
        deployment=deployment.name,
        status=getattr(cause, "status", None),
    )
    error.__cause__ = cause
    return Fault(error, "delivered", again=False)
