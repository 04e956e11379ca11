"""Which models the backends have right now, asked from their listings; nothing is generated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from ccroute.backends import Backend, HttpRequest
from ccroute.errors import CcrouteError
from ccroute.flow.effects import Flow, Send, send
from ccroute.flow.exchange import read_whole
from ccroute.http.message import Failure
from ccroute.types import ModelInfo, Timeout
from ccroute.types.clock import Clock

PATIENCE = 10.0
"""Seconds that one listing may take."""
MAX_LISTING = 8 * 1024 * 1024
"""A list of models, after unpacking, in bytes."""

_log = logging.getLogger("ccroute")


def discover(backends: Iterable[Backend], timeout: Timeout, clock: Clock) -> Flow[list[ModelInfo]]:
    """The deployments that exist; a backend that does not answer is named in a warning and left out."""
    found: list[ModelInfo] = []
    for backend in backends:
        try:
            found += yield from _models_of(backend, timeout, clock)
        except CcrouteError as error:
            _log.warning("%s did not list its models: %s", backend.name, type(error).__name__)
    return found


def _models_of(backend: Backend, timeout: Timeout, clock: Clock) -> Flow[list[ModelInfo]]:
    listing = backend.listing()
    if listing is None:
        return []
    models = backend.read_listing((yield from _ask(backend, listing, timeout, clock)))
    in_memory: Mapping[str, int | None] = {}
    if (loaded := backend.loaded()) is not None:
        in_memory = backend.read_loaded((yield from _ask(backend, loaded, timeout, clock)))
    found = []
    for listed, told in models.items():
        name, window = backend.names(listed)[0], told
        if window is None and (details := backend.details(name)) is not None:
            window = backend.read_details((yield from _ask(backend, details, timeout, clock)), name)
        if window is None:
            window = in_memory.get(listed)
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


def _ask(backend: Backend, http: HttpRequest, timeout: Timeout, clock: Clock) -> Flow[bytes]:
    until = clock.monotonic() + PATIENCE
    request, _ = backend.prepare(http)
    reply = yield from send(Send(request, timeout.connect, until))
    if isinstance(reply, Failure):
        raise CcrouteError(reply.detail)
    words = yield from read_whole(reply, until, until, MAX_LISTING)
    if isinstance(words, Failure):
        raise CcrouteError(words.detail)
    if reply.status != 200:
        raise backend.classify(reply.status, reply.headers, words)
    return words
