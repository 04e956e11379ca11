"""The state of a router's budgets as plain data, for `explain()` and `stats()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ccroute.accounting.budgets import Account, Claim
from ccroute.flow.state import RouterState
from ccroute.routing.budgets.table import Need
from ccroute.types.clock import END
from ccroute.types.inspection.stats import BudgetStats


def budget_stats(state: RouterState, needs: Iterable[Need] | None = None) -> dict[str, BudgetStats]:
    """The state of these budgets by name, in this order; None: of all budgets. Waits only for locks and for
    the ledger."""
    table, budgets = state.tables.budgets, state.budgets
    if table is None or budgets is None:
        return {}
    named = {need.name: need for need in (table if needs is None else needs)}
    waiting, now = Counter(budgets.waiting()), state.clock.now()
    claims = {name: need.claim(now) for name, need in named.items()}
    # A budget of each session has no state without a session.
    known = [name for name, need in named.items() if not need.is_of_sessions]
    try:
        found = budgets.store.accounts([claims[name] for name in known])
        accounts = dict(zip(known, found, strict=True))
    except Exception:  # of the ledger; a call reports it
        accounts = {}
    return {
        name: _stats(need, claims[name], accounts.get(name), waiting[name]) for name, need in named.items()
    }


def _stats(need: Need, claim: Claim, account: Account | None, waiting: int) -> BudgetStats:
    budget = need.budget
    spent = reserved = tokens_spent = tokens_reserved = None
    if account is not None:
        spent, tokens_spent, reserved, tokens_reserved = account
    return BudgetStats(
        name=need.name,
        per=budget.per,
        then=budget.then,
        limit=budget.usd,
        spent=spent,
        reserved=reserved,
        token_limit=budget.tokens,
        tokens_spent=tokens_spent,
        tokens_reserved=tokens_reserved,
        waiting=waiting,
        resets_at=None if claim.until == END else claim.until,
    )
