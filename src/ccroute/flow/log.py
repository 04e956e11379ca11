"""What a call did: each attempt as the caller will see it and as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from ccroute.accounting import LedgerRow, cost
from ccroute.accounting.ledger import uuid7
from ccroute.accounting.tokens import estimate_text
from ccroute.errors import CcrouteError
from ccroute.flow.context import Progress
from ccroute.flow.desk import Desk
from ccroute.flow.effects import Flow, record
from ccroute.flow.retry import Fault, Step
from ccroute.observe import AttemptFailed, FellBack, Interrupted, Overridden, Queued, Retried, TurnedAway
from ccroute.routing import Candidate, Plan
from ccroute.routing.notes import Refusal
from ccroute.types import Attempt, Completion, FailureClass, Outcome, Route, Usage

_NOTHING = Decimal(0)


class CallLog:
    """The attempts of one call, priced.

    A ledger row is held back in `unsettled` until it is known whether its attempt decided the call.
    When a call ends from outside (cancelled, abandoned), its driver writes what is left there.
    """

    def __init__(self, plan: Plan, desk: Desk) -> None:
        self.started = desk.clock.monotonic()
        self.id = uuid7(desk.clock.now())
        self.attempts: list[Attempt] = []
        self.unsettled: LedgerRow | None = None
        self._plan = plan
        self._desk = desk
        self._reasons = list(plan.reasons)
        self._noted: Progress | None = None  # the latest attempt of `attempts`
        self._passed: set[str] = set()
        self._not_asked: dict[str, str] = {}
        self._asked = plan.candidates[0].deployment.name

    def begun(self) -> None:
        """The call sets off."""
        plan = self._plan
        if plan.overridden:
            self._desk.tell(Overridden(self.id, plan.agent, plan.requested_model or "", plan.model))

    def chosen(self, step: Step, refused: Mapping[str, Refusal]) -> None:
        """Note who is asked next, and who was passed over for it."""
        name = step.candidate.deployment.name
        for passed in refused.keys() - self._passed:
            self._leave_out(passed, f"{passed} passed over: {refused[passed].why}")
            self._passed.add(passed)
        if step.early:
            self._reasons.append(f"{name} tried early: nobody else is left")
        if name != self._asked:
            fallback = step.candidate.fallback
            self._desk.tell(FellBack(self.id, self._plan.agent, self._asked, name, fallback))
        elif self.attempts:
            self._desk.tell(Retried(self.id, self._plan.agent, name, step.wait))
        self._asked = name

    def unable(self, candidate: Candidate, fault: Fault) -> None:
        """Note a candidate that cannot carry the request, and was not asked."""
        name = candidate.deployment.name
        self._leave_out(name, f"{name} left out: {_detail(fault)}")

    def explain(self, error: CcrouteError, left: Sequence[str]) -> None:
        """Tell in the error that ends the call what was tried, who was not, and why; `left` are those for
        whom no attempt was left. In a traceback it stands in notes."""
        if left:
            attempts = self._desk.retry.attempts
            self._leave_out(
                left[0],
                f"{', '.join(left)} not asked: the {attempts} attempts of a call are used up; "
                "RetryPolicy(attempts=…) allows more",
            )
        error.attempts, error.reasons = tuple(self.attempts), tuple(self._reasons)
        asked = {attempt.deployment for attempt in error.attempts}
        for name, reason in self._not_asked.items():
            if asked and name not in asked:
                error.add_note(reason)

    def _leave_out(self, name: str, reason: str) -> None:
        self._reasons.append(reason)
        self._not_asked[name] = reason

    def turned_away(self, error: CcrouteError) -> None:
        """The call ends without an attempt, by the error that others had."""
        self._desk.tell(TurnedAway(self.id, self._plan.agent, self._asked, error.retry_after or 0.0))

    def queued(self, ahead: int) -> None:
        """Note that the deployment's host is busy."""
        self._desk.tell(Queued(self.id, self._plan.agent, self._asked, ahead))

    def answered(self, candidate: Candidate, progress: Progress, answer: Completion) -> Completion:
        """Note the attempt that served, and give the answer its route, cost and latency."""
        usage = self._used(answer)
        self._note(candidate, progress, "ok", usage, None, candidate.reason)
        return self._completed(answer, candidate, progress, usage)

    def failed(self, candidate: Candidate, progress: Progress, fault: Fault) -> None:
        """Note an attempt that failed."""
        outcome: Outcome = "interrupted" if fault.failure == "delivered" else "failed"
        reason = _detail(fault)
        answered = fault.failure in {"ambiguous", "delivered"} or progress.refused is not None
        usage = self._spent(progress) if answered else Usage()
        self._note(candidate, progress, outcome, usage, fault, reason)
        name = candidate.deployment.name
        self._reasons.append(f"{name} failed ({fault.failure}): {reason}")
        kind = type(fault.error).__name__
        agent = self._plan.agent
        if outcome == "interrupted":
            self._desk.tell(Interrupted(self.id, agent, name, reason))
        else:
            self._desk.tell(AttemptFailed(self.id, agent, name, fault.failure, kind, progress.status, reason))

    def stopped(self, candidate: Candidate, progress: Progress, stop: BaseException) -> None:
        """Note an attempt that was ended from outside, or by a bug."""
        outcome: Outcome = "failed" if isinstance(stop, Exception) else "cancelled"
        self._note(candidate, progress, outcome, self._spent(progress), None, type(stop).__name__)

    def partial(self, candidate: Candidate, progress: Progress) -> Completion:
        """The answer so far of a stream that broke, with what it cost."""
        return self._completed(
            progress.so_far() or Completion(), candidate, progress, self.attempts[-1].usage
        )

    def so_far(self, candidate: Candidate, progress: Progress) -> Completion:
        """The same of a stream that still runs, or that its reader ended."""
        if self._noted is progress:
            return self.partial(candidate, progress)
        usage, before = self._spent(progress), self.total_cost()
        spent = cost(usage, self._desk.quote(candidate.deployment))
        whole = None if spent is None or before is None else before + spent
        answer = self._completed(progress.so_far() or Completion(), candidate, progress, usage)
        return answer.model_copy(update={"cost": whole})

    def settle(self, *, final: bool) -> Flow[None]:
        """Write the row that is held back, if there is one; `final` if its attempt decided the call."""
        row = self.unsettled
        if row is not None:
            yield from record(row if final else replace(row, final=False, latency=None, override_saved=None))
            self.unsettled = None

    def route(self, candidate: Candidate) -> Route:
        """Where the call went so far, with `candidate` as the one that serves."""
        plan = self._plan
        return Route(
            agent=plan.agent,
            requested_model=plan.requested_model,
            model=candidate.alias,
            deployment=candidate.deployment.name,
            backend=candidate.deployment.backend.name,
            overridden=plan.overridden,
            fallback=candidate.fallback,
            attempts=tuple(self.attempts),
            reasons=(*self._reasons, candidate.reason),
        )

    def total_cost(self) -> Decimal | None:
        """USD over all attempts; None when the price of one of them is unknown."""
        total = _NOTHING
        for attempt in self.attempts:
            if attempt.cost is None:
                return None
            total += attempt.cost
        return total

    def _note(
        self,
        candidate: Candidate,
        progress: Progress,
        outcome: Outcome,
        usage: Usage,
        fault: Fault | None,
        reason: str,
    ) -> None:
        self._noted = progress
        self._reasons += progress.dropped
        now, plan, deployment = self._desk.clock.monotonic(), self._plan, candidate.deployment
        failure: FailureClass | None = None if fault is None else fault.failure
        # What was never sent or was rejected cost nothing, even where the price is unknown.
        spent = (
            cost(usage, self._desk.quote(deployment)) if usage.total_tokens or outcome == "ok" else _NOTHING
        )
        if progress.reconnected:
            reason += "; the server had closed the kept connection, sent once more on a new one"
        self.attempts.append(
            Attempt(
                deployment=deployment.name,
                outcome=outcome,
                failure=failure,
                reason=reason,
                status=progress.status,
                error=None if fault is None else type(fault.error).__name__,
                started=progress.began,
                duration=now - progress.started,
                usage=usage,
                cost=spent,
            )
        )
        self.unsettled = LedgerRow(
            id=uuid7(progress.began),
            call=self.id,
            started=progress.began,
            agent=plan.agent,
            group=plan.group,
            session=plan.request.session,
            requested_model=plan.requested_model,
            alias=candidate.alias,
            backend=deployment.backend.name,
            deployment=deployment.name,
            model=deployment.model,
            outcome=outcome,
            failure=failure,
            status=progress.status,
            usage=usage,
            cost=spent,
            overridden=plan.overridden,
            fallback=candidate.fallback,
            duration=now - progress.started,
            first_content=progress.first_content,
            final=True,
            latency=now - self.started,
            override_saved=self._override_saved(usage, spent) if plan.overridden else None,
            metadata=plan.request.metadata,
        )

    def _override_saved(self, usage: Usage, spent: Decimal | None) -> Decimal | None:
        """What the requested model would have cost for the same tokens, minus what this one did."""
        would_have = cost(usage, self._desk.quote_name(self._plan.requested_model or ""))
        return None if would_have is None or spent is None else would_have - spent

    def _completed(
        self, answer: Completion, candidate: Candidate, progress: Progress, usage: Usage
    ) -> Completion:
        """An answer with all that is known of it."""
        clock = self._desk.clock
        facts = {
            "id": answer.id or self.id,
            "created": answer.created or int(clock.now().timestamp()),
            "model": answer.model or candidate.deployment.model,
            "usage": usage,
            "route": self.route(candidate),
            "cost": self.total_cost(),
            "latency": clock.monotonic() - self.started,
            "request_id": answer.request_id or progress.request_id,
        }
        completion = answer.model_copy(update=facts)
        asked = self._plan.request
        if asked.response_format is not None or asked.tools:
            completion._asked_with(asked.response_format, asked.tools)
        return completion

    def _used(self, answer: Completion) -> Usage:
        """The server's usage, or an estimate of what it did not say."""
        usage = answer.usage
        if not usage.total_tokens:
            usage = Usage(output=estimate_text(answer.text), estimated=True)
        if usage.estimated and not usage.prompt_tokens:
            usage = usage.model_copy(update={"input": self._desk.count_tokens(self._plan.request)})
        return usage

    def _spent(self, progress: Progress) -> Usage:
        """What an attempt without an answer probably used: its prompt, and what had been streamed."""
        status = progress.status
        if not progress.sent or (status is not None and 400 <= status < 500 and status != 424):
            return Usage()  # rejected; 424 says that something behind the server failed
        so_far = progress.so_far()
        if so_far is not None:
            return self._used(so_far)
        return Usage(input=self._desk.count_tokens(self._plan.request), estimated=True)


def _detail(fault: Fault) -> str:
    return str(getattr(fault.error, "detail", fault.error))
