"""What a call does at a host with a limit before it is served: it waits for a slot, asks now and then which
models are loaded, and frees memory for its own.

Its requests only help the schedule, so a failure of one is harmless: it is logged for debugging.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ccroute import observe
from ccroute.backends import Backend
from ccroute.flow.attempt.context import FOREVER, MIN_ATTEMPT, AttemptContext
from ccroute.flow.effects import Flow, Granted, Look, Queued, wait
from ccroute.flow.listings import ask
from ccroute.http.message import Failure
from ccroute.routing.scheduling import Grant

if TYPE_CHECKING:
    from ccroute.flow.attempt.attempt import Instead
    from ccroute.flow.attempt.waiting import Patience

PATIENCE: Final = 2.0
"""Seconds that each of these requests may take."""

_log = logging.getLogger("ccroute")


def slot_comes(attempt: AttemptContext, patience: Patience | None) -> Flow[Granted | Failure | Instead]:
    """Wait until the call has a slot, takes another candidate instead, or time is up. It looks now and then
    which models are loaded."""
    until, has_failed, decides = attempt.deadline - MIN_ATTEMPT, False, FOREVER
    while True:
        if patience is not None:
            decides = patience.next_look()
        found = yield from wait(until, decides)
        if isinstance(found, Queued):
            if patience is not None and (instead := patience.instead(found.seconds)) is not None:
                return instead
            continue
        if not isinstance(found, Look):
            return found
        has_failed = not (yield from look(attempt, found.backend, quiet=has_failed)) or has_failed


def look(attempt: AttemptContext, backend: Backend, *, quiet: bool = False) -> Flow[bool]:
    """Ask what a server has loaded, and tell the schedule. Whether it answered; if not, it is logged."""
    try:
        yield from _look(attempt, backend)
    except Exception as error:  # of a user's own codec, too
        if not quiet:
            _log.debug("%s did not list its loaded models: %s", backend.name, type(error).__name__)
        return False
    return True


def _look(attempt: AttemptContext, backend: Backend) -> Flow[None]:
    """Ask what a server has loaded, and of models that are new to it, which of them share a runner."""
    connect, until = attempt.timeout.connect, _until(attempt)
    if (request := backend.loaded()) is None:
        return
    models = backend.read_loaded((yield from ask(backend, request, connect, until)))
    names = [each.name for each in models]
    names += [c.deployment.model for c in attempt.plan.candidates if c.deployment.backend is backend]
    try:
        for name in names:
            if (request := backend.runner_details(name)) is not None:
                backend.read_details((yield from ask(backend, request, connect, until)), name)
    finally:
        attempt.state.hosts.listed(backend, models)


def make_room(attempt: AttemptContext, grant: Grant) -> Flow[None]:
    """The call has a slot, and its host loads the model: tell it, and free the memory that this needs.

    A server that keeps one model loaded frees it by itself. One that keeps several does not know which of
    them will be asked for next.
    """
    deployment, backend = attempt.deployment, attempt.deployment.backend
    emit, agent = attempt.state.emit, attempt.plan.agent
    emit(observe.Loading(attempt.call_id, agent, deployment.name, grant.seconds))
    emit(observe.Switched(deployment.name, grant.place.model, tuple(grant.evicted)))
    if not grant.kept and len(grant.evicted) < 2:
        return
    attempt.is_queued = True
    for model in grant.evicted:
        try:
            if (request := backend.unload(model)) is not None:
                yield from ask(backend, request, attempt.timeout.connect, _until(attempt))
        except Exception as error:
            _log.debug("%s did not unload %s: %s", backend.name, model, type(error).__name__)
    attempt.leave_queue()


def _until(attempt: AttemptContext) -> float:
    """The instant by which a request that begins now has to be answered."""
    return min(attempt.state.clock.monotonic() + PATIENCE, attempt.deadline - MIN_ATTEMPT)
