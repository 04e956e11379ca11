"""The error of an attempt that a budget blocks: which limit blocks it, why, and what the user can do about
it.

Knows texts; must not reserve or wait.
"""

from __future__ import annotations

from ccroute.accounting.budgets import alone, fits
from ccroute.accounting.money import NOTHING
from ccroute.display import rounded_usd
from ccroute.errors import BudgetExceededError
from ccroute.failures import NO_BUDGET, NO_BUDGET_REFUSED
from ccroute.flow.attempt.context import AttemptContext
from ccroute.flow.attempt.fault import Fault
from ccroute.routing.budgets.worst_case import Blocked, WorstCase
from ccroute.types.clock import END


def refused(attempt: AttemptContext, worst: WorstCase, blocked: Blocked) -> Fault:
    """The error of an attempt that a budget blocks, and what the call does next."""
    claim, account = blocked.claim, blocked.account
    error = BudgetExceededError(f"{lack(attempt, worst, blocked)}. {_advice(attempt, worst, blocked)}")
    error.__cause__ = blocked.error
    error.budget, in_usd = blocked.need.name, _is_usd(worst, blocked)
    error.limit = claim.usd if in_usd else claim.tokens
    if account is not None:
        error.spent = account.spent_usd if in_usd else account.spent_tokens
    if claim.until != END:
        error.resets_at = claim.until
        if blocked.reason == "spent" and not blocked.is_final:
            error.retry_after = max((claim.until - attempt.state.clock.now()).total_seconds(), 0.0)
    return Fault(error, NO_BUDGET if blocked.need.budget.then == "fallback" else NO_BUDGET_REFUSED)


def _advice(attempt: AttemptContext, worst: WorstCase, blocked: Blocked) -> str:
    """What the user may do about it."""
    if blocked.reason == "unknown":
        return "A call that needs a budget is not sent until it can"
    if blocked.reason == "no price":
        example = f'prices={{"{attempt.deployment.model}": Price(3, 15)}}'
        return f"Give it one, such as {example}, or a budget in tokens"
    if blocked.reason == "in flight":
        return "They did not end in time: raise timeout= or the budget, or lower max_tokens"
    if blocked.may_wait:
        return "It ends too late to wait for: raise timeout= or the budget, or lower max_tokens"
    if not _is_usd(worst, blocked) and blocked.need.scope.kind != "backend":
        return "Raise the budget, or lower max_tokens"
    if blocked.need.budget.then == "fallback":
        return "Raise the budget, lower max_tokens, or give the agent a free model as its last fallback"
    return 'Raise the budget, lower max_tokens, or let a free model answer instead: then="fallback"'


def _is_usd(worst: WorstCase, blocked: Blocked) -> bool:
    """Whether the limit in USD blocks the attempt, and not the limit in tokens."""
    claim, account = blocked.claim, blocked.account
    if claim.usd is None or claim.tokens is None or account is None:
        return claim.usd is not None
    only = claim._replace(tokens=None)
    if blocked.reason == "spent":
        account = alone(account)
    return worst.price is None or not fits(only, account, worst.usd(worst.output), 0)


def lack(attempt: AttemptContext, worst: WorstCase, blocked: Blocked) -> str:
    """Why a budget blocks an attempt, in a sentence."""
    claim, account, name = blocked.claim, blocked.account, attempt.deployment.name
    budget = str(blocked.need)
    if account is None:
        return f"the ledger cannot say what is spent of {budget}: {type(blocked.error).__name__}"
    if blocked.reason == "no price":
        why = attempt.deployment.why_unpriced
        return f"the price of {name} is unknown{f' ({why})' if why else ''}, so {budget} cannot allow it"
    shortest = min(worst.least, worst.output) if blocked.reason == "spent" and worst.may_shorten else None
    output = shortest or worst.output
    if _is_usd(worst, blocked):
        left = rounded_usd(max((claim.usd or NOTHING) - account.spent_usd, NOTHING))
        held, most = rounded_usd(account.reserved_usd), rounded_usd(worst.usd(output))
    else:
        left = f"{max((claim.tokens or 0) - account.spent_tokens, 0)} tokens"
        held, most = str(account.reserved_tokens), str(worst.tokens(output))
    lack = f"{budget} has {left} left"
    if blocked.reason == "in flight":
        lack += f", {held} of it reserved by calls in flight"
    elif claim.until != END:
        lack += f" until {claim.until:%Y-%m-%d %H:%M} UTC"
    least = f" even with max_tokens={shortest}" if shortest else ""
    return f"{lack}, and a call to {name} may take {most}{least}"
