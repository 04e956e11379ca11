"""The record of a call: its attempts as results and as ledger rows, its cost, and the reasons for its route.

Knows results, rows and the ledger; must not decide what the call does next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ccroute import observe
from ccroute.accounting import LedgerRow, cost
from ccroute.accounting.counts import MOST_NEW
from ccroute.accounting.money import NOTHING
from ccroute.flow.attempt.charge import charge
from ccroute.flow.attempt.context import AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.flow.state import RouterState
from ccroute.routing import Candidate, Plan
from ccroute.types import Attempt, Completion, Outcome, Route, Usage
from ccroute.types.route import LEAST_LOAD, new_attempt, new_route, with_facts

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Turn

LEAST_WAIT: Final = 0.1
"""Seconds from which on the route tells of the wait for a slot."""


class CallRecord:
    """The record of one call. The defaults are class attributes, so that making one costs little.

    process:   the call belongs to it, and not to a forked child.
    started:   when the call began, monotonic.
    sent:      whether any byte of a request may have reached a server.
    attempts:  as the call's result shows them; `rows` are the same for the ledger.
    cost:      of all attempts, in USD; None if the price of one is unknown.
    reasons:   sentences that explain the call's route.
    latest:    the attempt that was noted last.
    latency:   of the call in seconds, when that one was noted.
    abandoned: the call was left by its caller, so this may run in a finaliser.
    """

    process = 0
    started = 0.0
    sent = False
    attempts: tuple[Attempt, ...] = ()
    rows: tuple[LedgerRow, ...] = ()
    cost: Decimal | None = NOTHING
    reasons: tuple[str, ...] = ()
    latest: AttemptContext | None = None
    latency = 0.0
    abandoned = False
    _unwritten: Iterator[LedgerRow] | None = None

    def note(
        self,
        attempt: AttemptContext,
        outcome: Outcome,
        usage: Usage,
        fault: Fault | None,
        reason: str,
        model: str = "",
    ) -> None:
        """Record an attempt that has ended. `model`: the model's name in the answer."""
        self.reasons += attempt.changes
        self.sent, turn = self.sent or attempt.sent, attempt.turn
        if turn is not None:
            turn.used(usage if attempt.sent else None)
            if turn.waited:
                self.waited(attempt.deployment.name, turn)
        if attempt.slot_wait or attempt.load:
            self._waited_for_host(attempt)
        now, plan, candidate = attempt.state.clock.monotonic(), attempt.plan, attempt.candidate
        deployment, duration, latency = candidate.deployment, now - attempt.started, now - self.started
        failure = None if fault is None else fault.rule.failure
        spent, source, note = charge(attempt, outcome, usage, model)
        self.reasons += (f"{deployment.name}: {note}",) if note else ()
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
            queued=attempt.queued,
            load=attempt.load,
        )
        # Positional arguments: keywords would take twice as long.
        row = LedgerRow(
            attempt.id,
            attempt.call_id,
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
            _override_saved(plan, usage, spent) if plan.overridden else None,
            plan.request.metadata,
            source,
            attempt.queued,
            attempt.load,
        )
        before = self.rows
        if before:
            before = (*before[:-1], before[-1]._replace(final=False, latency=None, override_saved=None))
        # An interrupt comes only after a call, and these statements have none: all of them are done, or none.
        self.attempts += (made,)
        self.rows = (*before, row)
        self.cost = None if self.cost is None or spent is None else self.cost + spent
        self.latest, self.latency = attempt, latency

    def waited(self, who: str, turn: Turn) -> None:
        """Add the wait for a turn to the reasons."""
        self.reasons += (f"{who} waited {turn.waited:.1f} s: {turn.reason.why}",)

    def _waited_for_host(self, attempt: AttemptContext) -> None:
        """Put the wait for a slot and for a load into the route's reasons, where they are worth a word."""
        load = attempt.load or 0.0
        waits = [f"{attempt.slot_wait:.1f} s for a slot"] if attempt.slot_wait >= LEAST_WAIT else []
        waits += [f"{load:.1f} s while the host loaded the model"] if load >= LEAST_LOAD else []
        if waits:
            self.reasons += (f"{attempt.deployment.name}: waited {', then '.join(waits)}",)

    def completed(self, answer: Completion, attempt: AttemptContext, usage: Usage) -> Completion:
        """The answer with its route, cost, usage and latency."""
        plan, clock = attempt.plan, attempt.state.clock
        completion = with_facts(
            answer,
            id=answer.id or attempt.call_id,
            created=answer.created or int(clock.now().timestamp()),
            model=answer.model or attempt.deployment.model,
            usage=usage,
            route=self.route_of(plan, attempt.candidate),
            cost=self.cost,
            latency=self.latency if attempt is self.latest else clock.monotonic() - self.started,
            request_id=answer.request_id or attempt.request_id,
        )
        asked, sent = plan.request, attempt.request
        form = asked.response_format if asked.response_format is not None else sent.response_format
        if form is not None or asked.tools or sent.tools:
            completion._asked_with(form, asked.tools or sent.tools)
        return completion

    def so_far(self, attempt: AttemptContext) -> Completion:
        """The answer of a stream so far, with its cost."""
        answer = attempt.so_far() or Completion()
        if attempt is self.latest:
            return self.completed(answer, attempt, self.attempts[-1].usage)
        usage, before = attempt.spent(), self.cost
        spent, _, _ = charge(attempt, "ok", usage)
        total = None if spent is None or before is None else before + spent
        return self.completed(answer, attempt, usage).model_copy(update={"cost": total})

    def route_of(self, plan: Plan, candidate: Candidate) -> Route:
        """The route of the call, with `candidate` as the one that serves."""
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
            reasons=(*self.reasons, candidate.reason),
        )

    def write(self, state: RouterState) -> None:
        """Write the rows into the ledger. If this is called again after an interrupt, it writes the remaining
        rows.

        An error of the ledger is only reported, because it must not cost the caller the answer. In a forked
        child this does nothing: the call belongs to the parent.
        """
        if self.process != os.getpid():
            return
        ledger, budgets = state.ledger, state.budgets
        write = ledger.defer if self.abandoned else ledger.record
        counting = budgets if budgets is not None else ledger.budgets
        counts = state.counts
        self._unwritten = self._unwritten or iter(self.rows)
        for row in self._unwritten:  # no interrupt comes between a step of `for` and its body
            try:
                write(row)
            except Exception as error:
                state.emit(observe.LedgerFailed(row.call, row.agent, type(error).__name__))
            finally:
                if counting is not None:
                    counting.count(row)
                counts.append((row,))
        if len(counts) > MOST_NEW:
            counts.drain()


def _override_saved(plan: Plan, usage: Usage, spent: Decimal | None) -> Decimal | None:
    """What the requested model would have cost for the same tokens, minus what this one did."""
    would_have = cost(usage, plan.requested_price)
    return None if would_have is None or spent is None else would_have - spent
