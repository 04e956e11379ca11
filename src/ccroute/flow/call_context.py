"""One call: its plan, its attempts as results and ledger rows, and what its reader may know of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from ccroute import observe
from ccroute.accounting import LedgerRow, cost
from ccroute.accounting.ledger import attempt_id, uuid7
from ccroute.accounting.money import NOTHING
from ccroute.errors import CcrouteError, StreamInterruptedError
from ccroute.flow.attempt.charge import charge
from ccroute.flow.attempt.context import FOREVER, UNUSED, AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.effects import Stopped
from ccroute.flow.retry import NextAttempt
from ccroute.flow.state import RouterState
from ccroute.routing import Candidate, Plan
from ccroute.routing.acquired import Unavailable
from ccroute.types import Attempt, Completion, FailureClass, Outcome, Route, Usage
from ccroute.types.route import new_attempt, new_route, with_facts

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Turn


class CallContext:
    """Everything about one call, which belongs to one process.

    turn:   its turn under its agent's rate limit, where there is one.
    sent:   whether any byte of a request may have reached a server.
    latest: its latest attempt.
    """

    def __init__(self, plan: Plan, state: RouterState, process: int) -> None:
        self.plan = plan
        self.state = state
        self.id = uuid7(state.clock.now())
        self.timeout = state.timeout_of(plan.request)
        self.started = 0.0
        self.deadline = FOREVER
        self.turn: Turn | None = None
        self.sent = False
        self.attempts: tuple[Attempt, ...] = ()
        self.latest: AttemptContext | None = None
        self._cost: Decimal | None = NOTHING  # of all attempts; None if the price of one is unknown
        self._reasons = plan.reasons
        self._rows: tuple[LedgerRow, ...] = ()
        self._unwritten: Iterator[LedgerRow] | None = None
        self._process = process
        self._noted: AttemptContext | None = None  # the latest of `attempts`
        self._latency = 0.0  # of the call, when that one was noted
        self._abandoned = False  # perhaps in a finaliser
        self._not_asked: dict[str, str] = {}
        self._asked = plan.candidates[0].deployment.name

    def __repr__(self) -> str:
        """Without what was asked."""
        return f"CallContext({self.id}, {self.plan.model!r}, {len(self.attempts)} attempts)"

    # The steps of a call.

    def start(self) -> None:
        """The call begins, and with it its time."""
        self.started = self.state.clock.monotonic()
        if self.timeout.total is not None:
            self.deadline = self.started + self.timeout.total
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
            self._reasons += (f"{name} tried early: nobody else is left",)
        if name != self._asked:
            fallback = step.candidate.fallback
            self.state.emit(observe.FellBack(self.id, self.plan.agent, self._asked, name, fallback))
        elif self.attempts:
            self.state.emit(observe.Retried(self.id, self.plan.agent, name, step.wait))
        self._asked = name
        clock = self.state.clock
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
            attempt_id(self.id, len(self._rows) + 1),
        )
        if self.turn is not None and not self.attempts:
            self.latest.queued = self.turn.waited
        if step.tokens is not None:
            self.latest.held.append(step.tokens)
        if step.turn is not None:
            self.latest.turn = step.turn
            self.latest.held.append(step.turn)
        return self.latest

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
        self._note(attempt, outcome, usage, fault, fault.detail)
        if attempt.reservation is not None:
            attempt.reservation.spend(self._rows[-1])
        agent = self.plan.agent
        self._reasons += (f"{name} failed ({failure}): {fault.detail}",)
        if isinstance(fault.error, StreamInterruptedError):
            fault.error.partial = self.partial(attempt)
            self.state.emit(observe.Interrupted(self.id, agent, name, fault.detail))
        else:
            kind = type(fault.error).__name__
            event = observe.AttemptFailed(self.id, agent, name, failure, kind, attempt.status, fault.detail)
            self.state.emit(event)

    def stopped(self, stop: BaseException) -> None:
        """The call was ended from outside, or by a bug. Before an attempt began, one before it decided."""
        error = stop.error if isinstance(stop, Stopped) else stop
        self._abandoned = isinstance(error, GeneratorExit)
        attempt = self.latest
        if attempt is None:
            return
        attempt.settle(None)  # an interrupt may have come in the middle of it
        if attempt is self._noted or (attempt.admission is None and self.attempts):
            return
        if attempt.admission is None:
            attempt.stop_waiting()
        outcome: Outcome = "failed" if isinstance(error, Exception) else "cancelled"
        self._note(attempt, outcome, attempt.spent(), None, type(error).__name__)

    def answered(self, attempt: AttemptContext, answer: Completion) -> Completion:
        """An attempt served: its answer with route, cost and latency."""
        usage = attempt.used(answer)
        if (field := attempt.candidate.deployment.backend.load_field) is not None:
            load = (answer.raw or {}).get(field)
            attempt.load = load / 1e9 if type(load) is int and load >= 0 else None
        if answer.choices[0].finish_reason == "content_filter":
            attempt.is_free = not attempt.deployment.backend.charges(answer)
        self._note(attempt, "ok", usage, None, attempt.candidate.reason, answer.model)
        attempt.known_answer = self._completed(answer, attempt, usage)
        return attempt.known_answer

    def waited(self, who: str, turn: Turn) -> None:
        """Put the wait for a turn into the route's reasons."""
        self._reasons += (f"{who} waited {turn.waited:.1f} s: {turn.reason.why}",)

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
        error.attempts, error.reasons = self.attempts, self._reasons
        asked = {attempt.deployment for attempt in error.attempts}
        for name, reason in self._not_asked.items():
            if asked and name not in asked:
                error.add_note(reason)

    def record(self) -> None:
        """Write a ledger row for each attempt; called again after an interrupt, it writes the others.

        A ledger that fails is only reported: the answer is worth more. In a forked child it does nothing: the
        call is the parent's.
        """
        if self._process != os.getpid():
            return
        ledger, budgets = self.state.ledger, self.state.budgets
        write = ledger.defer if self._abandoned else ledger.record
        counting = budgets if budgets is not None else ledger.budgets
        self._unwritten = self._unwritten or iter(self._rows)
        for row in self._unwritten:  # no interrupt comes between a step of `for` and its body
            try:
                write(row)
            except Exception as error:
                self.state.emit(observe.LedgerFailed(row.call, row.agent, type(error).__name__))
            finally:
                if counting is not None:
                    counting.count(row)

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
        return Route() if self.latest is None else self.route_of(self.latest.candidate)

    def so_far(self) -> Completion | None:
        """The answer so far, with what it cost; None before anybody was asked."""
        attempt = self.latest
        if attempt is None:
            return None
        if self._noted is attempt:
            return self.partial(attempt)
        usage, before = attempt.spent(), self._cost
        spent, _, _ = charge(attempt, "ok", usage)
        total = None if spent is None or before is None else before + spent
        answer = self._completed(attempt.so_far() or Completion(), attempt, usage)
        return answer.model_copy(update={"cost": total})

    def partial(self, attempt: AttemptContext) -> Completion:
        """The answer so far of a stream that broke, with what it cost."""
        return self._completed(attempt.so_far() or Completion(), attempt, self.attempts[-1].usage)

    def route_of(self, candidate: Candidate) -> Route:
        """Where the call went, with `candidate` as the one that serves."""
        plan = self.plan
        return new_route(
            agent=plan.agent,
            requested_model=plan.requested_model,
            model=candidate.alias,
            deployment=candidate.deployment.name,
            backend=candidate.deployment.backend.name,
            overridden=plan.overridden,
            fallback=candidate.fallback,
            cached=False,
            attempts=self.attempts,
            reasons=(*self._reasons, candidate.reason),
        )

    # How an attempt is written down.

    def _note(
        self,
        attempt: AttemptContext,
        outcome: Outcome,
        usage: Usage,
        fault: Fault | None,
        reason: str,
        model: str = "",
    ) -> None:
        self._reasons += attempt.changes
        self.sent, turn = self.sent or attempt.sent, attempt.turn
        if turn is not None:
            turn.used(usage if attempt.sent else None)
            if turn.waited:
                self.waited(attempt.deployment.name, turn)
        now, plan, candidate = self.state.clock.monotonic(), self.plan, attempt.candidate
        deployment, duration, latency = candidate.deployment, now - attempt.started, now - self.started
        failure = None if fault is None else fault.rule.failure
        spent, source, note = charge(attempt, outcome, usage, model)
        self._reasons += (f"{deployment.name}: {note}",) if note else ()
        if attempt.reconnected:
            reason += "; the server had closed the kept connection, sent once more on a new one"
        made = new_attempt(
            deployment=deployment.name,
            outcome=outcome,
            failure=failure,
            reason=reason,
            status=attempt.status,
            error=None if fault is None else type(fault.error).__name__,
            started=attempt.started_at,
            duration=duration,
            usage=usage,
            cost=spent,
        )
        # In the order of its fields: with their names, it would cost twice as much.
        row = LedgerRow(
            attempt.id,
            self.id,
            attempt.started_at,
            plan.agent,
            plan.group,
            plan.request.session,
            plan.requested_model,
            candidate.alias,
            deployment.backend.name,
            deployment.name,
            deployment.model,
            outcome,
            failure,
            attempt.status,
            usage,
            spent,
            plan.overridden,
            candidate.fallback,
            duration,
            attempt.first_content,
            True,  # final, and not cached
            False,
            latency,
            self._override_saved(usage, spent) if plan.overridden else None,
            plan.request.metadata,
            source,
            attempt.queued,
            attempt.load,
        )
        before = self._rows
        if before:
            before = (*before[:-1], before[-1]._replace(final=False, latency=None, override_saved=None))
        # All or none of these: an interrupt comes after a call, and here is none.
        self.attempts += (made,)
        self._rows = (*before, row)
        self._cost = None if self._cost is None or spent is None else self._cost + spent
        self._noted, self._latency = attempt, latency

    def _override_saved(self, usage: Usage, spent: Decimal | None) -> Decimal | None:
        """What the requested model would have cost for the same tokens, minus what this one did."""
        would_have = cost(usage, self.plan.requested_price)
        return None if would_have is None or spent is None else would_have - spent

    def _completed(self, answer: Completion, attempt: AttemptContext, usage: Usage) -> Completion:
        """An answer with all that is known of it."""
        clock = self.state.clock
        completion = with_facts(
            answer,
            id=answer.id or self.id,
            created=answer.created or int(clock.now().timestamp()),
            model=answer.model or attempt.deployment.model,
            usage=usage,
            route=self.route_of(attempt.candidate),
            cost=self._cost,
            latency=self._latency if attempt is self._noted else clock.monotonic() - self.started,
            request_id=answer.request_id or attempt.request_id,
        )
        asked, sent = self.plan.request, attempt.request
        form = asked.response_format if asked.response_format is not None else sent.response_format
        if form is not None or asked.tools or sent.tools:
            completion._asked_with(form, asked.tools or sent.tools)
        return completion

    def _leave_out(self, name: str, reason: str) -> None:
        self._reasons += (reason,)
        self._not_asked[name] = reason
