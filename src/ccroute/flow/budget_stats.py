"""How the budgets of a router stand, as plain data: for `explain()` and `stats()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ccroute.accounting.budgets import Claim, Standing
from ccroute.flow.state import RouterState
from ccroute.routing.budgets.table import Need
from ccroute.types.clock import END
from ccroute.types.inspection.stats import BudgetStats


def budget_stats(state: RouterState, needs: Iterable[Need] | None = None) -> dict[str, BudgetStats]:
    """These budgets by name, in this order; None: all of the router. Waits only for locks, and for the
    ledger."""
    table, budgets = state.tables.budgets, state.budgets
    if table is None or budgets is None:
        return {}
    named = {need.name: need for need in (table if needs is None else needs)}
    waiting, now = Counter(budgets.waiting()), state.clock.now()
    claims = {name: need.claim(now) for name, need in named.items()}
    # Of any session, nothing can be said.
    known = [name for name, need in named.items() if not need.is_of_sessions]
    try:
        found = budgets.store.standings([claims[name] for name in known])
        standings = dict(zip(known, found, strict=True))
    except Exception:  # the ledger's: a call says it
        standings = {}
    return {
        name: _stats(need, claims[name], standings.get(name), waiting[name]) for name, need in named.items()
    }


def _stats(need: Need, claim: Claim, standing: Standing | None, waiting: int) -> BudgetStats:
    budget = need.budget
    spent = reserved = tokens_spent = tokens_reserved = None
    if standing is not None:
        spent, tokens_spent, reserved, tokens_reserved = standing
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
