"""What a call does at a host with a limit before it is served: it asks for a slot and waits for it, looks now
and then which models are loaded, and frees memory for its own.

Its own requests only help the schedule, so a failure of one is harmless: it is logged for debugging.
"""

from __future__ import annotations

import logging
import operator
from typing import TYPE_CHECKING, Final, NamedTuple

from ccroute import observe
from ccroute.backends import Backend
from ccroute.errors import BackendError, QueueTimeoutError, RequestError
from ccroute.failures import NO_SLOT
from ccroute.flow.attempt.carried import carried_request
from ccroute.flow.attempt.context import FOREVER, MIN_ATTEMPT, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.effects import Enter, Flow, Granted, Look, Queued, enter, wait
from ccroute.http.message import Failure

if TYPE_CHECKING:
    from ccroute.flow.retry import RetryState
    from ccroute.flow.waits.patience import Patience
    from ccroute.routing import Candidate
    from ccroute.routing.scheduling import Grant

ASK_TIMEOUT: Final = 2.0
"""Seconds that each of its own requests may take."""

_log = logging.getLogger("ccroute")
_deployment_of = operator.attrgetter("deployment")


class Moved(NamedTuple):
    """The host of another candidate had a slot first, and the call has it."""

    candidate: Candidate
    grant: Grant | None


class Instead(NamedTuple):
    """A call takes this candidate instead of waiting for a slot.

    break_even: the seconds of waiting that cost as much.
    """

    candidate: Candidate
    reason: str
    break_even: float = FOREVER


def take_slot(attempt: AttemptContext, retry: RetryState) -> Flow[Fault | Moved | Instead | None]:
    """Wait for a slot at the deployment's host, or at that of a candidate with equal right: where one is free
    first. A fault where there is none in time; where a wait has a price, perhaps another candidate."""
    candidate, deployment = attempt.candidate, attempt.candidate.deployment
    options, waited = [candidate], attempt.queued
    for each in retry.equals(candidate):
        if _can_carry(attempt.at(each)):
            options.append(each)
    patience: Patience | None = None
    if (waiting := attempt.plan.waiting) is not None:
        from ccroute.flow.waits.patience import Patience  # few agents say what a wait costs

        attempt.patience = patience = Patience(attempt, options, retry, waiting)
        patience.begins()
        if (instead := patience.instead(patience.predicted)) and (unseen := patience.unseen()):
            for backend in unseen:
                yield from _look(attempt, backend)
            instead = patience.predicts_again()
        if instead:
            patience.took(instead)
            return instead
    deployments = [*map(_deployment_of, options)]
    entered: Granted | Queued | Failure | Instead = yield from enter(
        Enter(deployments, attempt.request.priority)
    )
    if isinstance(entered, Queued):
        call_id, agent = attempt.call_id, attempt.plan.agent
        attempt.state.emit(observe.Queued(call_id, agent, deployment.name, entered.ahead, entered.seconds))
        attempt.is_queued = True
        entered = yield from _slot_comes(attempt, patience)
        attempt.leave_queue()
        attempt.slot_wait = attempt.queued - waited
    if isinstance(entered, Failure):
        late = QueueTimeoutError(entered.detail, backend=deployment.backend.name, deployment=deployment.name)
        return Fault(late, NO_SLOT)
    if not isinstance(entered, Granted):
        if patience is not None:
            patience.took(entered)
        return entered
    if entered.option:
        return Moved(options[entered.option], entered.grant)
    attempt.has_slot, attempt.grant = True, entered.grant
    return None


def _can_carry(attempt: AttemptContext) -> bool:
    """Whether its deployment can serve the request at all."""
    try:
        carried_request(attempt)
    except (BackendError, RequestError):
        return False
    return True


def _slot_comes(attempt: AttemptContext, patience: Patience | None) -> Flow[Granted | Failure | Instead]:
    """Wait until the call has a slot, takes another candidate instead, or time is up. It looks now and then
    which models are loaded."""
    until, has_failed, decides = attempt.deadline - MIN_ATTEMPT, False, FOREVER
    while True:
        if patience is not None:
            decides = patience.next_decision()
        found = yield from wait(until, decides)
        if isinstance(found, Queued):
            if patience is not None and (instead := patience.instead(found.seconds)) is not None:
                return instead
            continue
        if not isinstance(found, Look):
            return found
        has_failed = not (yield from _look(attempt, found.backend, quiet=has_failed)) or has_failed


def _look(attempt: AttemptContext, backend: Backend, *, quiet: bool = False) -> Flow[bool]:
    """Ask what a server has loaded, and tell the schedule. Whether it answered; if not, it is logged."""
    try:
        yield from _ask_loaded(attempt, backend)
    except Exception as error:  # of a user's own codec, too
        if not quiet:
            _log.debug("%s did not list its loaded models: %s", backend.name, type(error).__name__)
        return False
    return True


def _ask_loaded(attempt: AttemptContext, backend: Backend) -> Flow[None]:
    """Ask what a server has loaded, and of models that are new to it, which of them share a runner."""
    from ccroute.flow.listings import ask  # most calls need nothing of it

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
    from ccroute.flow.listings import ask  # most calls need nothing of it

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


def learn(attempt: AttemptContext, output: int) -> None:
    """The attempt was answered with so many tokens: tell the schedule how long it took, and the price of
    waiting."""
    state, load = attempt.state, attempt.load
    service = state.clock.monotonic() - attempt.started - attempt.paused
    if load is not None:
        load = min(load, service)  # a server may say anything
        service -= load
    if (grant := attempt.grant) is not None:
        if load is None and grant.loads:
            state.hosts.answered(grant)
        else:
            state.hosts.measured(grant, load, service)
    if attempt.plan.waiting is not None:
        state.waits.answered(attempt.plan.agent, attempt.deployment.identity, output, service)
    if attempt.patience is not None:
        attempt.patience.answered(attempt.started, load or 0.0)


def _until(attempt: AttemptContext) -> float:
    """The instant by which a request that begins now has to be answered."""
    return min(attempt.state.clock.monotonic() + ASK_TIMEOUT, attempt.deadline - MIN_ATTEMPT)
