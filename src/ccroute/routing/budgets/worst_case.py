"""What an attempt may cost at most, and whether its budgets allow that. Pure: accounts are arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from ccroute.accounting.budgets import UNUSED, Account, Claim, alone, fits
from ccroute.accounting.money import EXACT, NOTHING
from ccroute.routing.budgets.table import Need
from ccroute.types import JSON, Price, Request
from ccroute.types.budget import Then
from ccroute.types.clock import END

LEAST: Final = 256
"""Tokens. No budget shortens an answer to fewer: such an answer is not worth a call."""
THINKING: Final = 1_024
"""Tokens that a thinking model needs on top of that. Claude takes no smaller budget for thinking."""
USUAL: Final = 8_192
"""The limit of an answer, in tokens, if neither the call nor the model has one. It is sent with the
request."""
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_FIRST: Final[Sequence[Then]] = ("refuse", "fallback", "queue")
"""If several budgets block an attempt, the one whose `then` comes first here decides what the call does."""


class WorstCase(NamedTuple):
    """The most that an attempt may use and cost.

    prompt, output:         tokens of the prompt, and of the longest answer.
    input_price, price:     USD for a million tokens of each, at the dearest tier; None if unknown.
    answers:                how many answers are asked for.
    may_shorten:            whether a limit may be sent: neither the call nor the configuration gives one.
    least:                  the lowest limit.
    is_unlimited:           whether `output` is only a guess, so that it has to be sent as the limit.
    """

    prompt: int
    output: int
    input_price: Decimal | None
    price: Decimal | None
    answers: int = 1
    may_shorten: bool = False
    least: int = LEAST
    is_unlimited: bool = False

    def usd(self, output: int) -> Decimal:
        """The most USD, if the answer has at most `output` tokens; 0 if the price is unknown."""
        if self.input_price is None or self.price is None:
            return NOTHING
        of_answers = EXACT.multiply(output * self.answers, self.price)
        per_million = EXACT.fma(self.prompt, self.input_price, of_answers)
        return per_million.scaleb(-6, EXACT) if per_million else NOTHING

    def tokens(self, output: int) -> int:
        """The most tokens of prompt and answers, if each answer has at most `output` tokens."""
        return self.prompt + output * self.answers

    def bounded_by(self, needs: Sequence[Need]) -> Need | None:
        """The first budget from which a longer answer takes more."""
        for need in needs:
            if need.budget.tokens is not None or (need.budget.usd is not None and self.price):
                return need
        return None

    def longest(self, claim: Claim, account: Account) -> int:
        """The tokens of the longest answer that the budget has room for, without the reservations of others.
        Below 0: it has no room even for the prompt."""
        longest = self.output
        if claim.usd is not None and self.usd(self.output):
            taken = EXACT.add(account.spent_usd, self.usd(0))
            left = EXACT.subtract(claim.usd, taken)
            if self.price:
                each = EXACT.multiply(self.price, self.answers)
                longest = min(longest, int(EXACT.divide_int(left.scaleb(6, EXACT), each)))
            elif left < 0:
                longest = -1
        if claim.tokens is not None:
            longest = min(longest, (claim.tokens - account.spent_tokens - self.prompt) // self.answers)
        return longest


def worst_case(
    price: Price | None, request: Request, prompt: int, max_output: int | None, *, may_shorten: bool
) -> WorstCase:
    """The worst case of a request, in the form that is sent to the deployment.

    prompt:      the most tokens that the prompt has.
    max_output:  tokens of the model's longest answer; None if unknown.
    may_shorten: the call did not ask for the request's `max_tokens`, so a lower one may be sent.
    """
    limit, answers = request.max_tokens, 1
    if request.extra:
        answers, limits = _of_extra(request.extra)
        if limits:  # the server gets these, so no other limit is added
            limit, may_shorten = max((each for each in limits if each), default=None), False
    output = limit or max_output or USUAL
    least = LEAST if request.reasoning_effort in (None, "none") else LEAST + THINKING
    is_unlimited = limit is None and max_output is None
    per_input = per_output = None
    if price is not None:
        per_input, per_output = _dearest(price, request)
        for above, tier in price.above:
            if prompt > above:
                per_input, per_output = map(max, (per_input, per_output), _dearest(tier, request))
    return WorstCase(prompt, output, per_input, per_output, answers, may_shorten, least, is_unlimited)


def _dearest(tier: Price, request: Request) -> tuple[Decimal, Decimal]:
    """USD for a million tokens of the prompt and of the answer, at one tier. If the request asks to write a
    cache, the price of that counts for the prompt, if it is higher."""
    per_input = tier.input
    if tier.cache_write_1h > per_input or tier.cache_write > per_input:
        for mark in _cache_marks(request):
            hour = isinstance(mark, Mapping) and mark.get("ttl") == "1h"
            per_input = max(per_input, tier.cache_write_1h if hour else tier.cache_write)
    return per_input, tier.output


def _of_extra(extra: Mapping[str, JSON]) -> tuple[int, list[int | None]]:
    """How many answers the call's extra fields ask for, and the limits in them. None: a field that removes
    the limit."""
    wanted, options = extra.get("n"), extra.get("options")
    given = [extra[name] for name in _LIMITS if name in extra]
    if isinstance(options, Mapping) and "num_predict" in options:  # Ollama's
        given.append(options["num_predict"])
    limits = [each if isinstance(each, int) and each > 0 else None for each in given]
    return wanted if isinstance(wanted, int) and wanted > 1 else 1, limits


def _cache_marks(request: Request) -> Iterator[JSON]:
    """Every `cache_control` of a request: of its messages, their parts, its tools, and the whole prompt."""
    for message in request.messages:
        if "cache_control" in message:
            yield message["cache_control"]
        if (content := message.get("content")) and not isinstance(content, str):
            yield from (part["cache_control"] for part in content if "cache_control" in part)
    for tool in request.tools or ():
        yield from (
            each["cache_control"] for each in (tool, tool.get("function", {})) if "cache_control" in each
        )
    if "cache_control" in request.extra:
        yield request.extra["cache_control"]


Reason = Literal["no price", "spent", "in flight", "unknown"]


class Blocked(NamedTuple):
    """The budget that blocks an attempt.

    reason:   "no price": the price of the model is unknown, so the cost is, too.
              "spent": the attempt will not fit in this window.
              "in flight": the attempt may fit when others have ended.
              "unknown": the ledger could not be read; `error` is why.
    until:    when the windows of all blocking budgets have ended (UTC).
    is_final: no later window has room either: there is none, or the attempt costs more than a whole limit.
    """

    need: Need
    claim: Claim
    account: Account | None
    reason: Reason
    until: datetime
    error: Exception | None = None
    is_final: bool = False

    @property
    def may_wait(self) -> bool:
        """Whether the attempt waits for the next window: the budget says so, and it may fit then."""
        return self.reason == "spent" and self.need.budget.then == "queue" and not self.is_final


def strictest(needs: Sequence[Need], places: Iterable[int]) -> int:
    """The place, among `places`, of the budget that decides what the call does."""
    return min(places, key=lambda i: _FIRST.index(needs[i].budget.then))


class Fits(NamedTuple):
    """An answer of at most `output` tokens fits. `shortened_by`: the budget that has no room for a longer
    one."""

    output: int
    shortened_by: Need | None = None


def judge(
    worst: WorstCase, needs: Sequence[Need], claims: Sequence[Claim], accounts: Sequence[Account]
) -> Fits | Blocked:
    """The longest answer that all budgets have room for now, or the budget that blocks the attempt."""

    def blocked(reason: Reason, found: Sequence[int]) -> Blocked:
        first, until = strictest(needs, found), max(claims[i].until for i in found)
        return Blocked(needs[first], claims[first], accounts[first], reason, until)

    if worst.price is None and (priced := [i for i, claim in enumerate(claims) if claim.usd is not None]):
        return blocked("no price", priced)
    output, shortened_by, places = worst.output, None, range(len(claims))
    usd, tokens = worst.usd(output), worst.tokens(output)
    spent = [i for i in places if not fits(claims[i], alone(accounts[i]), usd, tokens)]
    if spent and worst.may_shorten:
        longest = [worst.longest(*each) for each in zip(claims, accounts, strict=True)]
        spent = [i for i in places if longest[i] < min(worst.least, output)]
        if not spent:
            output = min(longest)
            shortened_by = needs[longest.index(output)]
            usd, tokens = worst.usd(output), worst.tokens(output)
    if spent:
        least = min(worst.least, output) if worst.may_shorten else output
        usd, tokens = worst.usd(least), worst.tokens(least)
        is_final = any(claims[i].until == END or not fits(claims[i], UNUSED, usd, tokens) for i in spent)
        return blocked("spent", spent)._replace(is_final=is_final)
    busy = [i for i in places if not fits(claims[i], accounts[i], usd, tokens)]
    return blocked("in flight", busy) if busy else Fits(output, shortened_by)
