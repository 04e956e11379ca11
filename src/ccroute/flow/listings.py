"""What the backends list right now: their models, and which of them are in memory. Nothing is generated."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ccroute.backends import Backend, HttpRequest
from ccroute.errors import BackendError, BackendTimeoutError, CcrouteError, RequestError
from ccroute.flow.attempt.exchange import failure_error, read_whole
from ccroute.flow.attempt.redact import cleaned
from ccroute.flow.effects import Flow, Send, send
from ccroute.http.message import Failure
from ccroute.types import ModelInfo, Request, Timeout
from ccroute.types.clock import Clock

if TYPE_CHECKING:
    from ccroute.types import BackendHealth, LoadedModel

PATIENCE = 10.0
"""Seconds that one listing may take."""
MAX_LISTING = 8 * 1024 * 1024
"""A list of models, after unpacking, in bytes."""
_NO_SUCH_PATH = (404, 405, 501)

_log = logging.getLogger("ccroute")


class _Listed(NamedTuple):
    """The models with their context windows, those in memory (None if the server does not say), and the
    seconds until the first list was there."""

    models: Mapping[str, int | None]
    loaded: Sequence[LoadedModel] | None
    seconds: float


def discover(backends: Iterable[Backend], timeout: Timeout, clock: Clock) -> Flow[list[ModelInfo]]:
    """The deployments that exist; a backend that does not answer is named in a warning and left out."""
    found: list[ModelInfo] = []
    for backend in backends:
        try:
            found += yield from _models_of(backend, timeout, clock)
        except CcrouteError as error:
            kind, detail = _said(error, backend)
            _log.warning("%s did not list its models: %s: %s", backend.name, kind, detail)
    return found


def check(backend: Backend, used: Collection[str], timeout: Timeout, clock: Clock) -> Flow[BackendHealth]:
    """The health of one backend, of which the tables use the models `used`. Raises nothing for a server's
    fault."""
    from ccroute.types import BackendHealth  # loaded at its first use

    address = str(backend.origin)
    try:
        listed = yield from _list(backend, timeout, clock)
    except CcrouteError as error:
        kind, detail = _said(error, backend)
        return BackendHealth(ok=False, address=address, error=kind, detail=detail)
    if listed is None:
        return BackendHealth(address=address, detail="this kind of backend has no list of models")
    return BackendHealth(
        ok=True,
        address=address,
        models=tuple(listed.models),
        loaded=None if listed.loaded is None else tuple(listed.loaded),
        missing=tuple(model for model in used if backend.serves(model, listed.models) is False),
        latency=listed.seconds,
    )


def _said(error: CcrouteError, backend: Backend) -> tuple[str, str]:
    """The class of an error, and its text without secrets."""
    if isinstance(error, BackendError | RequestError):
        foreign = backend.wire_name is None
        error = cleaned(error, backend.secrets(), Request(), "", foreign=foreign)
        return type(error).__name__, error.detail
    return type(error).__name__, str(error)


def _models_of(backend: Backend, timeout: Timeout, clock: Clock) -> Flow[list[ModelInfo]]:
    listed = yield from _list(backend, timeout, clock)
    if listed is None:
        return []
    in_memory = {model.name: model.context_window for model in listed.loaded or ()}
    found = []
    for name_there, known in listed.models.items():
        name, window = backend.names(name_there)[0], known
        if window is None and (details := backend.details(name)) is not None:
            window = backend.read_details((yield from _ask(backend, details, timeout, clock)), name)
        if window is None:
            window = in_memory.get(name_there)
        deployment = f"{backend.name}/{name}"
        found.append(
            ModelInfo(
                id=deployment,
                kind="deployment",
                deployments=(deployment,),
                owned_by=backend.name,
                context_window=window if window is not None else backend.model(name).context_window,
            )
        )
    return found


def _list(backend: Backend, timeout: Timeout, clock: Clock) -> Flow[_Listed | None]:
    """What a backend lists; None if it has no list. Raises a `CcrouteError` where it does not answer."""
    request = backend.listing()
    if request is None:
        return None
    began = clock.monotonic()
    body = yield from _ask(backend, request, timeout, clock)
    models, seconds = backend.read_listing(body), clock.monotonic() - began
    loaded: Sequence[LoadedModel] | None = None
    if (other := backend.loaded()) is not None:
        try:
            if other != request:
                body = yield from _ask(backend, other, timeout, clock)
            loaded = backend.read_loaded(body)
        except CcrouteError:
            pass  # imitations of a server may lack this list
    return _Listed(models, loaded, seconds)


def _ask(backend: Backend, http: HttpRequest, timeout: Timeout, clock: Clock) -> Flow[bytes]:
    return (yield from ask(backend, http, timeout.connect, clock.monotonic() + PATIENCE))


def ask(backend: Backend, http: HttpRequest, connect: float | None, until: float) -> Flow[bytes]:
    """The body of the answer to a request that generates nothing. Raises a `CcrouteError` where there is none
    by the instant `until`, or another status than 200."""
    request, _ = backend.prepare(http)
    reply = yield from send(Send(request, connect, until))
    if isinstance(reply, Failure):
        raise _no_list(reply, backend)
    words = yield from read_whole(reply, until, until, MAX_LISTING)
    if isinstance(words, Failure):
        raise _no_list(words, backend)
    if reply.status in _NO_SUCH_PATH:
        path = f"{backend.origin}{backend.target(http)}"
        raise BackendError(f"answers {reply.status} at {path}: check base_url", status=reply.status)
    if reply.status != 200:
        raise backend.classify(reply.status, reply.headers, words)
    return words


def _no_list(failure: Failure, backend: Backend) -> CcrouteError:
    """The error for what a transport reported. The limit of time is this module's own."""
    if failure.kind == "timeout":
        return BackendTimeoutError(f"did not list its models within {PATIENCE:g} s")
    return failure_error(failure, backend.origin)
