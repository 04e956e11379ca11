"""One call: its plan, its steps, and what its reader may know of it. How it is written down: `record`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ccroute import observe
from ccroute.accounting.ledger import attempt_id, uuid7
from ccroute.backends.backend import MOST_LOAD
from ccroute.errors import CcrouteError, StreamInterruptedError
from ccroute.flow.attempt.context import FOREVER, UNUSED, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.effects import Stopped
from ccroute.flow.record import CallRecord
from ccroute.flow.retry import NextAttempt
from ccroute.flow.state import RouterState
from ccroute.flow.waits.slots import learn
from ccroute.routing import Plan
from ccroute.routing.acquired import Unavailable
from ccroute.types import Completion, FailureClass, Outcome, Route

if TYPE_CHECKING:
    from ccroute.flow.waits.slots import Instead
    from ccroute.routing.rate_limits import Turn
    from ccroute.routing.scheduling import Grant


class CallContext:
    """Everything about one call, which belongs to one process.

    record: what is written down of it.
    turn:   its turn under its agent's rate limit, where there is one.
    latest: its latest attempt.
    """

    def __init__(self, plan: Plan, state: RouterState, process: int) -> None:
        self.plan = plan
        self.state = state
        self.id = uuid7(state.clock.now())
        self.timeout = state.timeout_of(plan.request)
        self.deadline = FOREVER
        self.turn: Turn | None = None
        self.latest: AttemptContext | None = None
        self.record = CallRecord()
        self.record.process = process
        self.record.reasons = plan.reasons
        self._not_asked: dict[str, str] = {}
        self._asked = plan.candidates[0].deployment.name

    def __repr__(self) -> str:
        """Without what was asked."""
        return f"CallContext({self.id}, {self.plan.model!r}, {len(self.record.attempts)} attempts)"

    # The steps of a call.

    def start(self) -> None:
        """The call begins, and with it its time."""
        started = self.record.started = self.state.clock.monotonic()
        if self.timeout.total is not None:
            self.deadline = started + self.timeout.total
        plan = self.plan
        if plan.overridden:
            self.state.emit(observe.Overridden(self.id, plan.agent, plan.requested_model or "", plan.model))

    def next_attempt(
        self, step: NextAttempt, unavailable: Mapping[str, Unavailable], *, stream: bool
    ) -> AttemptContext:
        """Go on with the next candidate; `unavailable` are those that were passed over for it."""
        name = step.candidate.deployment.name
        for passed, reason in unavailable.items():
            if passed not in self._not_asked and not (passed == name and reason.limited):
                self._leave_out(passed, f"{passed} passed over: {reason.why}")
        if step.early:
            self.record.reasons += (f"{name} tried early: nobody else is left",)
        if name != self._asked:
            fallback = step.candidate.fallback
            self.state.emit(observe.FellBack(self.id, self.plan.agent, self._asked, name, fallback))
        elif self.record.attempts:
            self.state.emit(observe.Retried(self.id, self.plan.agent, name, step.wait))
        self._asked = name
        clock, before = self.state.clock, self.latest
        now = clock.monotonic()
        self.latest = AttemptContext(
            self.state,
            self.plan,
            self.id,
            self.timeout,
            self.deadline,
            step.candidate,
            stream,
            step.early,
            step.pause,
            now,
            clock.now(),
            now,
            self.plan.request,
            attempt_id(self.id, len(self.record.rows) + 1),
        )
        if self.turn is not None and not self.record.attempts:
            self.latest.queued = self.turn.waited
        if before is not None and before is not self.record.latest:  # it was not made: this one waited, too
            self.latest.queued, self.latest.slot_wait = before.queued, before.slot_wait
        if step.instead:
            self.latest.may_wait = False
        if step.tokens is not None:
            self.latest.held.append(step.tokens)
        if step.turn is not None:
            self.latest.turn = step.turn
            self.latest.held.append(step.turn)
        return self.latest

    def moved(self, step: NextAttempt, grant: Grant | None) -> AttemptContext:
        """Go on with another candidate of equal right, whose host had a slot first: the call has it."""
        before, self._asked = self.latest, step.candidate.deployment.name
        assert before is not None
        if before.turn is not None and before.turn.waited:
            self.record.waited(before.deployment.name, before.turn)
        self.record.reasons += (f"{self._asked} had a free slot first",)
        self.latest = attempt = before.at(step.candidate)
        attempt.has_slot, attempt.grant, attempt.turn = True, grant, step.turn
        attempt.patience = before.patience
        attempt.held += [each for each in (step.tokens, step.turn) if each is not None]
        return attempt

    def skips_wait(self, instead: Instead) -> None:
        """The call takes another candidate instead of waiting for this one."""
        self.record.reasons += (instead.reason,)

    def left_out(self, attempt: AttemptContext, fault: Fault) -> None:
        """The deployment cannot serve this request, or a budget does not allow it: it was not asked."""
        name = attempt.deployment.name
        self._leave_out(name, f"{name} left out: {fault.detail}")

    def failed(self, attempt: AttemptContext, fault: Fault) -> None:
        """An attempt failed."""
        failure = fault.rule.failure
        outcome: Outcome = "interrupted" if failure is FailureClass.DELIVERED else "failed"
        name, charged, refused = attempt.candidate.deployment.name, fault.rule.charged, False
        if not charged:
            refused = attempt.candidate.deployment.backend.charges_refusal(fault.error)
            charged = refused or attempt.rejected_answer is not None
        usage = attempt.spent(refused=refused) if charged else UNUSED
        self.record.note(attempt, outcome, usage, fault, fault.detail)
        if attempt.reservation is not None:
            attempt.reservation.spend(self.record.rows[-1])
        agent = self.plan.agent
        self.record.reasons += (f"{name} failed ({failure}): {fault.detail}",)
        if isinstance(fault.error, StreamInterruptedError):
            fault.error.partial = self.record.so_far(attempt)
            self.state.emit(observe.Interrupted(self.id, agent, name, fault.detail))
        else:
            kind = type(fault.error).__name__
            event = observe.AttemptFailed(self.id, agent, name, failure, kind, attempt.status, fault.detail)
            self.state.emit(event)

    def stopped(self, stop: BaseException) -> None:
        """The call was ended from outside, or by a bug. Before an attempt began, one before it decided."""
        error = stop.error if isinstance(stop, Stopped) else stop
        self.record.abandoned = isinstance(error, GeneratorExit)
        attempt = self.latest
        if attempt is None:
            return
        attempt.settle(None)  # an interrupt may have come in the middle of it
        if attempt is self.record.latest or (attempt.admission is None and self.record.attempts):
            return
        if attempt.admission is None:
            attempt.stop_waiting()
        outcome: Outcome = "failed" if isinstance(error, Exception) else "cancelled"
        self.record.note(attempt, outcome, attempt.spent(), None, type(error).__name__)

    def answered(self, attempt: AttemptContext, answer: Completion) -> Completion:
        """An attempt served: its answer with route, cost and latency."""
        usage = attempt.used(answer)
        if (field := attempt.candidate.deployment.backend.load_field) is not None:
            load = (answer.raw or {}).get(field)
            attempt.load = load / 1e9 if type(load) is int and 0 <= load <= MOST_LOAD else None
        if attempt.grant is not None or self.plan.waiting is not None:
            learn(attempt, usage.output)
        if answer.choices[0].finish_reason == "content_filter":
            attempt.is_free = not attempt.deployment.backend.charges(answer)
        self.record.note(attempt, "ok", usage, None, attempt.candidate.reason, answer.model)
        attempt.known_answer = self.record.completed(answer, attempt, usage)
        return attempt.known_answer

    def report_turned_away(self, error: CcrouteError, reason: Unavailable) -> None:
        """The call ends without an attempt, by the error of other calls, or by a rate limit."""
        event = observe.TurnedAway(self.id, self.plan.agent, self._asked, error.retry_after or 0.0)
        self.state.emit(replace(event, reason=reason.why) if reason.limited else event)

    def explain(self, error: CcrouteError, left: Sequence[str]) -> None:
        """Put into the error that ends the call what was tried, who was not asked, and why; `left` are those
        for which no attempt was left. A traceback shows it as notes."""
        if left:
            attempts = self.state.retry.attempts
            self._leave_out(
                left[0],
                f"{', '.join(left)} not asked: the {attempts} attempts of a call are used up; "
                "RetryPolicy(attempts=…) allows more",
            )
        error.attempts, error.reasons = self.record.attempts, self.record.reasons
        asked = {attempt.deployment for attempt in error.attempts}
        for name, reason in self._not_asked.items():
            if asked and name not in asked:
                error.add_note(reason)

    # What the reader of a stream may know.

    @property
    def known_answer(self) -> Completion | None:
        """What the first chunk of a stream said of its answer."""
        return None if self.latest is None else self.latest.known_answer

    @property
    def answer_id(self) -> str:
        """The answer's id; the call's until it is known."""
        return (self.known_answer and self.known_answer.id) or self.id

    @property
    def model(self) -> str:
        """The model that serves; empty until the first chunk."""
        attempt = self.latest
        if attempt is None or (attempt.first_content is None and attempt.known_answer is None):
            return ""
        return (attempt.known_answer and attempt.known_answer.model) or attempt.deployment.model

    @property
    def route(self) -> Route:
        """Where the call went so far."""
        return Route() if self.latest is None else self.record.route_of(self.plan, self.latest.candidate)

    def so_far(self) -> Completion | None:
        """The answer so far, with what it cost; None before anybody was asked."""
        return None if self.latest is None else self.record.so_far(self.latest)

    def _leave_out(self, name: str, reason: str) -> None:
        self.record.reasons += (reason,)
        self._not_asked[name] = reason
