"""What an attempt cost: its tokens at the price of the model that served, or what the answer says it cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from ccroute.accounting.money import NOTHING
from ccroute.accounting.price_lists import PriceList
from ccroute.accounting.prices import cost_at
from ccroute.flow.attempt.context import AttemptContext
from ccroute.routing import Deployment
from ccroute.types import FREE, Outcome, Price, Request, Usage
from ccroute.types.route import BILLING, BillingDetails, billing_of
from ccroute.wire.usage import read_billing

_TOKENS_ONLY = BillingDetails()

Charge: TypeAlias = tuple[Decimal | None, str | None, str]
"""USD (None: unknown), the source of the price as in `LedgerRow.price_source`, and a note of what is
unusual."""


def charge(attempt: AttemptContext, outcome: Outcome, usage: Usage, model: str = "") -> Charge:
    """What an attempt cost that had this usage. What cannot be priced exactly is unknown.

    model: the model's name in the answer.
    """
    deployment = attempt.candidate.deployment
    price, source = deployment.fixed_price, deployment.price_source
    if attempt.is_free or (outcome != "ok" and not usage.total_tokens):
        # A request that was never sent, or was rejected, cost nothing, even if the price is unknown.
        return NOTHING, source, ""
    if price is not None and BILLING not in usage.__dict__:  # most answers, so without a call of `cost`
        return cost_at(usage, price.tier(usage.prompt_tokens) if price.above else price), source, ""
    billing, listed = billing_of(usage) or _TOKENS_ONLY, deployment.price_list
    if price == FREE:
        return NOTHING, source, ""
    if price is not None:
        # A price that the user gives holds for all tokens, whatever the service tier.
        return _with_searches(usage, price, billing, source)
    if billing.cost is not None and deployment.backend.tells_cost():
        return billing.cost, "provider", ""
    return (None, None, "") if listed is None else _by_list(listed, attempt, usage, model, billing)


def dearest(deployment: Deployment, request: Request, moment: datetime) -> Price | None:
    """The higher of two prices, in USD per million tokens: the usual one, and that of the service tier or
    speed that the request asks for. None if one of them is unknown."""
    listed = deployment.price_list
    if listed is None:
        return deployment.fixed_price
    usual = deployment.price
    if usual is None or not request.extra:
        return usual
    found = listed.under(moment, read_billing(request.extra).terms)
    if isinstance(found, str):
        return None
    return max(usual, found, key=lambda price: (price.output, price.input))


def _by_list(
    listed: PriceList, attempt: AttemptContext, usage: Usage, model: str, billing: BillingDetails
) -> Charge:
    if not model and attempt.known_answer is not None:  # of a stream that broke
        model = attempt.known_answer.model
    moment, served = attempt.state.clock.now(), listed.answered(model)
    found = served.under(moment, billing.terms)
    if isinstance(found, str):
        return None, None, found
    if served is not listed and listed.names_are_own and listed.at(moment) not in (None, served.at(moment)):
        return None, None, f"it is named as {listed.model} and answers as {model}, whose price is another one"
    if served.has_audio and not billing.audio and _has_audio(attempt.request):
        return None, None, "its prompt has audio, and the answer does not count its audio tokens"
    usd, source, note = _with_searches(usage, found, billing, "genai-prices")
    if billing.terms and usd is not None:
        terms = ", ".join(f"{name} {value}" for name, value in billing.terms)
        note = f"at the price of {terms}{note and ', '}{note}"
    return usd, source, note


def _with_searches(usage: Usage, price: Price, billing: BillingDetails, source: str | None) -> Charge:
    if billing.audio:
        return None, None, "it has audio tokens, whose price is unknown"
    usd = cost_at(usage, price.tier(usage.prompt_tokens))
    if not billing.searches:
        return usd, source, ""
    made = f"{billing.searches} web searches"
    if price.web_search is None:
        return None, None, f"{made} of unknown price: Price(…, web_search=…) gives one"
    return usd + (billing.searches * price.web_search).scaleb(-3), source, f"{made} are part of its cost"


def _has_audio(request: Request) -> bool:
    return any(
        part.get("type") == "input_audio"
        for message in request.messages
        if not isinstance(content := message.get("content"), str | None)
        for part in content
    )
