"""Warns of budgets that refuse every call to a model: it has no price, or costs more than the budget."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from ccroute.accounting.budgets import Scope
from ccroute.display import escaped
from ccroute.routing.tables.deployments import Deployment
from ccroute.routing.tables.tables import Tables
from ccroute.types import Price

_log = logging.getLogger("ccroute")
_FEW: Final = 3
"""The models that a warning names; of more, it gives the number."""


def warn_of_refusals(tables: Tables) -> None:
    """Log a warning for each budget in USD that refuses calls even when nothing is spent, and say what to do.
    Budgets that refuse the same models share a warning."""
    unpriced: dict[tuple[str, ...], list[str]] = {}
    for need in tables.budgets or ():
        if need.budget.usd is None:
            continue
        found = list(dict.fromkeys(_deployments(need.scope, tables)))
        prices = [each.price for each in found]
        if None in prices:
            names = [each.name for each in found if each.price is None]
            unpriced.setdefault(tuple(names), []).append(need.name)
        elif found and all(need.budget.usd < _least(price) for price in prices if price is not None):
            _log.warning(
                'budgets["%s"] allows no call: %s USD are less than an answer of one token costs at %s; give '
                "it more, or a free model to fall back to",
                escaped(need.name),
                f"{need.budget.usd:f}",
                _named([each.name for each in found]),
            )
    for names_of, holders in unpriced.items():
        several = len(holders) > 1
        _log.warning(
            "the budget%s of %s refuse%s every call to %s, because no price is known: give prices, such as "
            'prices={"%s": Price(3, 15)}, or a budget in tokens',
            "s" if several else "",
            escaped(", ".join(holders)),
            "" if several else "s",
            _named(names_of),
            escaped(names_of[0]),
        )


def _least(price: Price) -> Decimal:
    """USD of a prompt of one token and an answer of one."""
    return (price.input + price.output).scaleb(-6)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return escaped(", ".join(names[:_FEW])) + more


def _deployments(scope: Scope, tables: Tables) -> Iterator[Deployment]:
    """The deployments that calls of this scope may reach. A call may name others, which are not known
    here."""
    if scope.kind in ("agent", "group"):
        for name, agent in tables.agents.items():
            is_meant = scope.name == (name if scope.kind == "agent" else agent.group)
            if is_meant and (agent.model is not None or tables.default_model is not None):
                choice = tables.choose(name, None)
                for _, candidates in tables.chain((choice.model, *choice.fallbacks)).groups:
                    yield from (candidate.deployment for candidate in candidates)
    else:
        for deployment in map(tables.deployment, tables.known_deployments()):
            if scope.kind != "backend" or deployment.backend.name == scope.name:
                yield deployment
