"""What an attempt may cost at most, and what budgets say to that. By hand: no store, no clock."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from tests.flow.support import NOON

from ccroute import Budget, Price
from ccroute.accounting.budgets import Account, Claim, Scope
from ccroute.routing.budgets.table import Need, Needs
from ccroute.routing.budgets.worst_case import (
    LEAST,
    THINKING,
    USUAL,
    Blocked,
    Fits,
    WorstCase,
    judge,
    worst_case,
)
from ccroute.types import FREE, Request
from ccroute.types.clock import BEGINNING, END

PRICE = Price(3, 15, cache_write="3.75", cache_write_1h=6)
MESSAGE = {"role": "user", "content": "hi"}
CACHED = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def worst(
    price: Price | None = PRICE, *, prompt: int = 1000, longest: int | None = 4000, **request: Any
) -> WorstCase:
    asked = Request(**{"messages": [MESSAGE], **request})
    return worst_case(price, asked, prompt, longest, may_shorten=asked.max_tokens is None)


def needs(*budgets: Budget) -> Needs:
    return Needs([Need(str(i), each, Scope("agent", str(i))) for i, each in enumerate(budgets)])


def judged(case: WorstCase, budgets: Needs, *accounts: tuple[Any, int, Any, int]) -> Fits | Blocked:
    spent = [Account(Decimal(usd), tokens, Decimal(held), more) for usd, tokens, held, more in accounts]
    return judge(case, budgets, budgets.claims(NOON), spent)


def way(case: WorstCase, budgets: Needs, *accounts: tuple[Any, int, Any, int]) -> tuple[str, str]:
    found = judged(case, budgets, *accounts)
    assert isinstance(found, Blocked)
    return found.need.name, found.reason


# -- The worst case


def test_the_worst_case_is_the_whole_prompt_and_the_longest_answer() -> None:
    case = worst(max_tokens=100)
    assert (case.output, case.usd(100), case.tokens(100)) == (100, Decimal("0.0045"), 1100)
    assert worst().usd(4000) == Decimal("0.063")


def test_an_answer_whose_limit_nobody_knows_is_limited() -> None:
    case = worst(longest=None)
    assert (case.output, case.is_unlimited) == (USUAL, True)
    assert not worst().is_unlimited
    assert not worst(longest=None, max_tokens=5).is_unlimited


def test_the_dearest_tier_that_the_prompt_may_reach_counts() -> None:
    tiers = Price(1, 10, above={500: Price(2, 9), 5000: Price(99, 99)})
    case = worst(tiers, max_tokens=100)
    assert (case.input_price, case.price) == (2, 10)
    assert worst(tiers, prompt=500).input_price == 1


@pytest.mark.parametrize(
    ("request_", "per_million"),
    [
        ({}, 3),
        ({"messages": [{**MESSAGE, "cache_control": CACHED}]}, "3.75"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "", "cache_control": HOUR}]}
                ]
            },
            6,
        ),
        ({"messages": [MESSAGE], "tools": [{"type": "function", "cache_control": CACHED}]}, "3.75"),
        ({"messages": [MESSAGE], "tools": [{"type": "function", "function": {"cache_control": HOUR}}]}, 6),
        ({"messages": [MESSAGE], "tools": [{"type": "function", "function": {"name": "f"}}]}, 3),
        ({"messages": [MESSAGE], "extra": {"cache_control": CACHED}}, "3.75"),
    ],
)
def test_to_write_a_cache_counts_where_the_request_asks_for_it(request_: Any, per_million: Any) -> None:
    assert worst(**request_).input_price == Decimal(per_million)


def test_a_price_that_writes_caches_for_less_is_not_lowered() -> None:
    cheap = Price(3, 15, cache_write=1)
    assert worst(cheap, messages=[{**MESSAGE, "cache_control": CACHED}]).input_price == 3


@pytest.mark.parametrize(
    ("extra", "output", "tokens"),
    [
        ({"max_tokens": 50}, 50, 1050),
        ({"max_completion_tokens": 60, "max_tokens": 50}, 60, 1060),
        ({"options": {"num_predict": 70}}, 70, 1070),
        ({"max_tokens": None}, 4000, 5000),
        ({"options": {"seed": 1}, "n": 3}, 100, 1300),
        ({"n": "many"}, 100, 1100),
    ],
)
def test_the_calls_own_fields_count_as_they_are_sent(extra: Any, output: int, tokens: int) -> None:
    case = worst(max_tokens=100, extra=extra)
    assert (case.output, case.tokens(case.output)) == (output, tokens)


def test_a_limit_in_the_calls_own_fields_is_never_changed() -> None:
    assert not worst(extra={"max_tokens": 50}).may_shorten
    assert worst(extra={"n": 2}).may_shorten


def test_a_free_model_costs_nothing_and_an_unknown_price_is_none() -> None:
    assert worst(FREE).usd(4000) == 0
    assert (worst(None).price, worst(None).usd(4000)) == (None, 0)


# -- What budgets say


def test_what_fits_may_be_as_long_as_it_likes() -> None:
    assert judged(worst(), needs(Budget(1), Budget(tokens=5000)), ("0.937", 0, 0, 0), (0, 0, 0, 0)) == Fits(
        4000
    )


@pytest.mark.parametrize(
    ("budget", "account"),
    [(Budget(1), ("0.9371", 0, 0, 0)), (Budget(tokens=5000), (0, 1, 0, 0))],
)
def test_an_answer_is_shortened_to_what_a_budget_affords(budget: Budget, account: Any) -> None:
    budgets = needs(Budget(1000), budget)
    found = judged(worst(), budgets, (0, 0, 0, 0), account)
    assert isinstance(found, Fits)
    assert found.shortened_by is budgets[1]
    assert found.output < 4000
    assert judged(worst(max_tokens=found.output), budgets, (0, 0, 0, 0), account) == Fits(found.output)
    assert way(worst(max_tokens=found.output + 1), budgets, (0, 0, 0, 0), account) == ("1", "spent")


def test_an_answer_is_never_shortened_below_the_least_that_is_worth_it() -> None:
    budget = needs(Budget(tokens=1000 + LEAST))
    assert judged(worst(), budget, (0, 0, 0, 0)) == Fits(LEAST, budget[0])
    assert way(worst(), budget, (0, 1, 0, 0)) == ("0", "spent")
    thinks = needs(Budget(tokens=1000 + LEAST + THINKING))
    assert judged(worst(reasoning_effort="high"), thinks, (0, 0, 0, 0)) == Fits(LEAST + THINKING, thinks[0])
    assert way(worst(reasoning_effort="high"), thinks, (0, 1, 0, 0)) == ("0", "spent")


def test_a_model_with_short_answers_needs_no_more_than_those() -> None:
    assert judged(worst(longest=100), needs(Budget(tokens=1100)), (0, 0, 0, 0)) == Fits(100)
    assert way(worst(longest=100), needs(Budget(tokens=1099)), (0, 0, 0, 0)) == ("0", "spent")


def test_an_explicit_limit_is_never_shortened() -> None:
    assert way(worst(max_tokens=4000), needs(Budget(1)), ("0.9371", 0, 0, 0)) == ("0", "spent")


def test_several_answers_are_shortened_together() -> None:
    budget = needs(Budget(tokens=1000 + 3 * 500))
    assert judged(worst(extra={"n": 3}), budget, (0, 0, 0, 0)) == Fits(500, budget[0])


def test_others_in_flight_are_waited_for_and_shorten_nothing() -> None:
    assert way(worst(), needs(Budget(1)), ("0.9", 0, "0.1", 0)) == ("0", "in flight")
    assert way(worst(), needs(Budget(tokens=6000)), (0, 0, 0, 1001)) == ("0", "in flight")


def test_a_free_model_needs_no_money_but_tokens() -> None:
    assert judged(worst(FREE), needs(Budget(0)), (5, 0, 5, 0)) == Fits(4000)
    budget = needs(Budget(0, tokens=2000))
    assert judged(worst(FREE), budget, (5, 0, 0, 0)) == Fits(1000, budget[0])


def test_without_a_price_no_budget_in_usd_allows_it() -> None:
    assert way(worst(None), needs(Budget(tokens=9000), Budget(9)), (0, 0, 0, 0), (0, 0, 0, 0)) == (
        "1",
        "no price",
    )
    assert judged(worst(None), needs(Budget(tokens=9000)), (0, 0, 0, 0)) == Fits(4000)


def test_the_strictest_of_the_budgets_in_the_way_decides() -> None:
    queue, fallback, refuse = (Budget(1, then=then) for then in ("queue", "fallback", "refuse"))  # type: ignore[arg-type]  # mypy sees a str
    spent = (1, 0, 0, 0)
    assert way(worst(), needs(queue, fallback, refuse), spent, spent, spent) == ("2", "spent")
    assert way(worst(), needs(queue, fallback, refuse), spent, spent, (0, 0, 0, 0)) == ("1", "spent")
    assert way(worst(), needs(queue, refuse), spent, (0, 0, 1, 0)) == ("0", "spent"), "not the one in flight"


def test_a_budget_that_affords_a_shorter_answer_is_not_in_the_way() -> None:
    budgets = needs(Budget(0, then="queue"), Budget(tokens=2000, then="refuse"))
    assert way(worst(), budgets, (0, 0, 0, 0), (0, 0, 0, 0)) == ("0", "spent")
    assert way(worst(max_tokens=4000), budgets, (0, 0, 0, 0), (0, 0, 0, 0)) == ("1", "spent")


def test_a_wait_for_windows_ends_with_the_last_of_them() -> None:
    budgets = needs(Budget(1, then="queue"), Budget(1, per="hour", then="queue"))
    found = judged(worst(), budgets, (1, 0, 0, 0), (1, 0, 0, 0))
    assert isinstance(found, Blocked)
    assert found.until == budgets[0].claim(NOON).until


def test_the_worst_case_is_exact_where_a_program_rounds_decimals() -> None:
    worst = WorstCase(101, 999, Decimal("1.01"), Decimal("7.77"), may_shorten=True, least=1)
    with localcontext(Context(prec=2)):
        assert worst.usd(999) == Decimal("0.00786424")
        room = Claim(Scope("router"), BEGINNING, END, Decimal("0.00786"), None)
        assert worst.longest(room, Account(Decimal(0), 0, Decimal(0), 0)) == 998
