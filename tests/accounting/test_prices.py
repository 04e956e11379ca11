"""Money is exact: the golden cases of the design, and what is no price."""

from __future__ import annotations

import dataclasses
import pickle
from decimal import Decimal
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute import Price, PriceBook, Usage, errors
from ccroute.accounting import cost
from ccroute.accounting.tokens import estimate, estimate_text
from ccroute.types import FREE, Request

OPUS = Price(15, 75, cache_read="1.5", cache_write="18.75")
amounts = st.decimals(0, 1000, places=4)
counts = st.integers(0, 10_000_000)


@pytest.mark.parametrize(
    ("usage", "price", "usd"),
    [
        (Usage(input=1000, output=100), OPUS, "0.0225"),
        (Usage(input=800, cache_read=200, output=100), OPUS, "0.0198"),
        (
            Usage(input=14_000, cache_read=155_000, cache_write_5m=3_000),
            Price(5, 0, cache_read="0.5", cache_write="6.25"),
            "0.166250",
        ),
        (Usage(input=123_456, output=7_890), FREE, "0"),
        (Usage(output=40, estimated=True), OPUS, "0.003"),
        (Usage(), OPUS, "0"),
        (Usage(output=100, reasoning=90), OPUS, "0.0075"),
        (Usage(cache_write_1h=1000), Price(1, 1, cache_write=2, cache_write_1h=4), "0.004"),
        (Usage(input=1), Price("0.000001", 0), "1E-12"),
    ],
)
def test_the_golden_cases_cost_exactly_that(usage: Usage, price: Price, usd: str) -> None:
    assert cost(usage, price) == Decimal(usd)


def test_a_model_without_a_price_has_no_cost() -> None:
    assert cost(Usage(input=1000), None) is None


@given(st.builds(Price, amounts, amounts), counts, counts)
def test_a_cost_is_linear_in_its_tokens(price: Price, input: int, output: int) -> None:
    whole = cost(Usage(input=input, output=output), price)
    parts = cost(Usage(input=input), price), cost(Usage(output=output), price)
    assert None not in parts
    assert whole == sum(parts)  # type: ignore[arg-type]
    assert whole * 1_000_000 == input * price.input + output * price.output  # type: ignore[operator]


@pytest.mark.parametrize(
    ("price", "read", "write", "write_1h"),
    [
        (Price(3, 15), 3, 3, 3),
        (Price(3, 15, cache_read=1), 1, 3, 3),
        (Price(3, 15, cache_write=4), 3, 4, 4),
        (Price(3, 15, cache_write=4, cache_write_1h=6), 3, 4, 6),
        (Price(3, 15, cache_read=0), 0, 3, 3),
    ],
)
def test_a_missing_cache_price_is_the_next_one_and_never_zero(
    price: Price, read: int, write: int, write_1h: int
) -> None:
    assert (price.cache_read, price.cache_write, price.cache_write_1h) == (read, write, write_1h)


@pytest.mark.parametrize("amount", [3, "3", "3.0", Decimal(3)])
def test_an_amount_may_be_an_int_a_str_or_a_decimal(amount: Any) -> None:
    assert Price(amount, 0).input == Decimal(3)


@pytest.mark.parametrize(
    ("amount", "usd"),
    [
        (2.5, "2.5"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-7, "1E-7"),
        (numpy.float64(0.15), "0.15"),
    ],
)
def test_a_float_is_taken_by_its_shortest_decimal(amount: float, usd: str) -> None:
    assert Price(amount, 0).input == Decimal(usd)
    assert cost(Usage(input=10**6), Price(amount, 0)) == Decimal(usd)


@given(st.decimals(0, 1000, places=4))
def test_a_price_of_few_digits_is_the_same_as_float_and_as_text(usd: Decimal) -> None:
    assert Price(float(usd), 0) == Price(str(usd), 0)


@pytest.mark.parametrize("amount", [True, None, b"3", [3]])
def test_an_amount_of_another_type_is_refused(amount: Any) -> None:
    for arguments in ((amount, 1), (1, amount)):
        with pytest.raises(TypeError, match="a price is a number or a str, in USD per million tokens, not"):
            Price(*arguments)


@pytest.mark.parametrize(
    "amount", [-1, -0.1, "-0.1", "nan", "inf", float("nan"), float("inf"), float("-inf"), "cheap", ""]
)
def test_an_amount_that_is_no_price_is_refused(amount: Any) -> None:
    for name in ("cache_read", "cache_write", "cache_write_1h"):
        with pytest.raises(ValueError):
            Price(1, 1, **{name: amount})


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("openai/gpt", Price(1, 1)),
        ("azure/gpt", Price(2, 2)),
        ("or/openai/gpt", Price(1, 1)),
        ("home/qwen", FREE),
        ("gpt", Price(2, 2)),
        ("nobody/knows", None),
        ("nobody", None),
        ("", None),
    ],
)
def test_a_book_finds_a_deployment_by_its_full_name_first(name: str, price: Price | None) -> None:
    book = PriceBook({"openai/gpt": Price(1, 1), "gpt": Price(2, 2), "qwen": "free"})
    assert book.find(name if name != "gpt" else "x/gpt") == price


@pytest.mark.parametrize("price", [0.15, "gratis", None, 3])
def test_a_book_holds_only_prices_and_says_where_one_is_not(price: Any) -> None:
    with pytest.raises(errors.ConfigError, match=r'^prices\.gpt: give a Price or "free"'):
        PriceBook({"gpt": price})


def test_all_wrong_prices_are_one_error() -> None:
    wrong: Any = {"a": 1, "b": Price(1, 1), 3: "free"}
    with pytest.raises(errors.ConfigError) as caught:
        PriceBook(wrong)
    assert caught.value.faults == (
        'prices.a: give a Price or "free", not 1',
        "prices: a model is named by a str, not 3",
    )
    wrong = [("a", 1)]
    with pytest.raises(errors.ConfigError, match=r"^prices: give a mapping of models to prices, not list$"):
        PriceBook(wrong)


# -- Tiers

SONNET = Price(3, 15, cache_read=0.3, above={200_000: Price(6, 22.5, cache_read=0.6)})


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(input=200_000, output=1000), "0.615"),
        (Usage(input=200_001, output=1000), "1.222506"),
        (Usage(input=1, cache_read=200_000, output=1000), "0.142506"),
        (Usage(input=1, cache_write_5m=100_000, cache_write_1h=100_000), "1.200006"),
        (Usage(input=1, output=300_000), "4.500003"),
        (Usage(), "0"),
    ],
)
def test_the_whole_request_costs_the_tier_of_its_whole_prompt(usage: Usage, usd: str) -> None:
    assert cost(usage, SONNET) == Decimal(usd)


def test_of_several_tiers_the_highest_that_begins_counts() -> None:
    price = Price(1, 1, above={256_000: Price(4, 4), 32_000: Price(2, 2), 128_000: Price(3, 3)})
    assert [limit for limit, _ in price.above] == [32_000, 128_000, 256_000]
    prompts = (0, 32_000, 32_001, 128_001, 256_000, 256_001)
    assert [price.tier(prompt).input for prompt in prompts] == [1, 1, 2, 3, 3, 4]


def test_a_price_with_tiers_is_a_value_like_any_other() -> None:
    same = Price(3, 15, cache_read="0.3", above={200_000: Price(6, "22.5", cache_read="0.6")})
    assert (same, hash(same)) == (SONNET, hash(SONNET))
    assert same != Price(3, 15, cache_read="0.3")
    assert pickle.loads(pickle.dumps(same)) == same
    assert dataclasses.replace(same, input=Decimal(9)).above == same.above
    assert Price(1, 1, above={}) == Price(1, 1)


@pytest.mark.parametrize(
    ("above", "error", "says"),
    [
        ({"200000": Price(1, 1)}, ValueError, "above a number of tokens such as 200_000, not '200000'"),
        ({0: Price(1, 1)}, ValueError, "not 0"),
        ({True: Price(1, 1)}, ValueError, "not True"),
        ({1000: 3}, TypeError, r"above\[1000\] is a Price, not 3"),
        ({1000: SONNET}, ValueError, r"above\[1000\] has tiers of its own: write all of them in one above="),
    ],
)
def test_a_tier_that_is_none_is_refused(above: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Price(1, 1, above=above)


def test_an_empty_book_prices_nothing() -> None:
    assert PriceBook().find("a/b") is None


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        ([], 0),
        ([{"role": "user", "content": "x" * 400}], 104),
        ([{"role": "user", "content": "x"}], 5),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": None}], 8),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "x" * 8}, {"type": "text", "text": "yyyy"}],
                }
            ],
            7,
        ),
        ([{"role": "user", "content": [{"type": "file", "file": {}, "text": None}]}], 4),
    ],
)
def test_a_prompts_tokens_are_estimated_by_its_text(messages: Any, tokens: int) -> None:
    assert estimate(Request(messages=messages)) == tokens


@given(st.text())
def test_a_text_has_a_token_for_every_four_bytes_begun(text: str) -> None:
    size = len(text.encode())
    assert 4 * estimate_text(text) - 4 < size <= 4 * estimate_text(text) or not text
