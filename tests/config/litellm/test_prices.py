"""Prices of entries: exact, in USD per million tokens; none where ccroute's prices cannot say the same.

https://github.com/BerriAI/litellm/blob/main/litellm/litellm_core_utils/llm_cost_calc/utils.py
"""

import logging
from decimal import Decimal

import pytest
import yaml
from tests.config.litellm.files import Read, entry, model

from ccroute.config import read
from ccroute.types import FREE, Price

PRICES = {
    "input_cost_per_token": "0.000003",
    "output_cost_per_token": Decimal("0.000015"),
    "cache_read_input_token_cost": 3e-07,
    "cache_creation_input_token_cost": "3.75e-06",
    "cache_creation_input_token_cost_above_1hr": "6e-6",
    "input_cost_per_token_above_200k_tokens": "6e-6",
    "output_cost_per_token_above_200k_tokens": "22.5e-6",
    "cache_creation_input_token_cost_above_200k_tokens": "7.5e-6",
    "cache_creation_input_token_cost_above_1hr_above_200k_tokens": "12e-6",
}
TOKENS = {"input_cost_per_token": "3e-6", "output_cost_per_token": "15e-6"}
PLAIN = Price(3, 15)


@pytest.mark.parametrize("place", ["params", "info"])
def test_prices_per_token_become_exact_prices_per_million(place):
    found, _ = model(**PRICES) if place == "params" else model(info=PRICES)
    tier = Price(6, "22.5", cache_read="0.3", cache_write="7.5", cache_write_1h=12)
    expected = Price(3, 15, cache_read="0.3", cache_write="3.75", cache_write_1h=6, above={200_000: tier})
    assert found.price == expected


def test_prices_of_a_yaml_file_stay_exact(write):
    text = yaml.safe_dump({"model_list": [entry("a", "ollama/x")]}) + (
        "  model_info: {input_cost_per_token: 1e-6, output_cost_per_token: 0.0000001}\n"
    )
    assert Read(read(write("x.yaml", text), {})).model("ollama/x").price == Price(1, "0.1")


def test_a_price_of_the_parameters_wins():
    found, _ = model(input_cost_per_token=1e-6, output_cost_per_token=0, info={"input_cost_per_token": 5e-6})
    assert found.price == Price(1, 0)


@pytest.mark.parametrize(
    ("prices", "missing"),
    [
        ({"output_cost_per_token": 1e-6}, "output_cost_per_token: there is no price of the input"),
        ({"input_cost_per_token": 1e-6}, "input_cost_per_token: there is no price of the output"),
        ({"cache_read_input_token_cost": 0}, "cache_read_input_token_cost: there is no price of the input"),
    ],
)
def test_half_a_price_is_none(caplog, prices, missing):
    assert model(**prices)[0].price is None
    assert caplog.messages == [f"config: model_list[0].litellm_params.{missing}, so the model has none"]


def test_a_zero_alone_is_free():
    assert model(input_cost_per_token=0)[0].price == FREE
    assert model(output_cost_per_token=0)[0].price == FREE


@pytest.mark.parametrize(
    ("kind", "key", "tokens"),
    [
        ("groq", "_above_128k_tokens", 128_000),
        ("groq", "_above_128_tokens", 128),
        ("xai", "_above_128k_tokens", 127_999),  # xAI's higher price begins at 128,000
    ],
)
def test_a_tier_begins_where_litellm_begins_it(kind, key, tokens):
    found, _ = model(kind=kind, **TOKENS, **{f"output_cost_per_token{key}": "30e-6"})
    assert found.price == Price(3, 15, above={tokens: Price(3, 30)})


def test_several_tiers_are_each_over_the_usual_price():
    longer = {"input_cost_per_token_above_200k_tokens": "6e-6", "output_cost_per_token_above_128k_tokens": 0}
    found, _ = model(**TOKENS, **longer)
    assert found.price == Price(3, 15, above={128_000: Price(3, 0), 200_000: Price(6, 15)})


SERVICES = {
    "input_cost_per_token_flex": "1e-6",
    "output_cost_per_token_flex": "5e-6",
    "input_cost_per_token_priority": "9e-6",
    "input_cost_per_token_above_200k_tokens_priority": "18e-6",
}


@pytest.mark.parametrize(
    ("tier", "price"),
    [
        ("flex", Price(1, 5)),
        ("priority", Price(9, 15, above={200_000: Price(18, 15)})),
        ("auto", PLAIN),
        (None, PLAIN),
    ],
)
def test_an_entrys_own_service_tier_has_its_own_prices(caplog, tier, price):
    found, whole = model(kind="groq", **TOKENS, **SERVICES, service_tier=tier)
    assert found.price == price
    unused = [key for key in SERVICES if tier is None or not key.endswith(f"_{tier}")]
    why = "counts for entries with that service_tier only"
    assert [place for place, reason in whole.ignored.items() if reason == why] == [
        f"model_list[0].litellm_params.{key}" for key in unused
    ]
    assert not caplog.messages


def ranges(*tiers):
    return [{"range": [start, end], **prices} for start, end, prices in tiers]


def test_prices_by_ranges_of_prompts_become_tiers():
    first = {"input_cost_per_token": "0.4e-6", "output_cost_per_token": "1.2e-6"}
    second = {"input_cost_per_token": "1.2e-6", "cache_read_input_token_cost": "0.24e-6"}
    found, whole = model(
        kind="dashscope",
        output_cost_per_token="3.6e-6",
        tiered_pricing=ranges((256_000, 1_000_000, second), (0, 256_000, first)),
    )
    assert found.price == Price("0.4", "1.2", above={256_000: Price("1.2", "3.6", cache_read="0.24")})
    assert not whole.ignored


@pytest.mark.parametrize(
    ("tiers", "warning"),
    [
        (ranges((0, 10, TOKENS), (20, 30, TOKENS)), "tiered_pricing: its ranges do not follow one another"),
        (ranges((10, 20, TOKENS)), "tiered_pricing: its ranges do not follow one another from 0 on"),
        ([], "tiered_pricing: its ranges do not follow one another"),
        (
            ranges((0, 10, {"input_cost_per_token": 1e-6})),
            "tiered_pricing[0].input_cost_per_token: there is no price of the output",
        ),
        (
            ranges((0, 10, TOKENS | {"output_cost_per_reasoning_token": "4e-6"})),
            "tiered_pricing: thoughts have another price than answers, which a price of ccroute cannot say",
        ),
    ],
)
def test_ranges_that_say_something_else_are_no_price(caplog, tiers, warning):
    assert model(kind="dashscope", tiered_pricing=tiers)[0].price is None
    (message,) = caplog.messages
    assert message.startswith(f"config: model_list[0].litellm_params.{warning}")


def test_a_range_that_is_none_is_a_fault(faults):
    row = entry("a", "dashscope/x", api_key="k", tiered_pricing=[{"range": [0, "many"]}])
    place, what = (
        "model_list[0].litellm_params.tiered_pricing[0]",
        "a table with prices and range: [from, to]",
    )
    assert faults({"model_list": [row]}) == (f"{place}: should be {what}, in tokens",)


@pytest.mark.parametrize(
    ("others", "why"),
    [
        (TOKENS | {"output_cost_per_reasoning_token": "60e-6"}, "thoughts have another price than answers"),
        (
            TOKENS
            | {
                "output_cost_per_reasoning_token": "15e-6",
                "output_cost_per_token_above_200k_tokens": "30e-6",
            },
            "thoughts have another price than answers",
        ),
        (
            TOKENS | {"off_peak_pricing": {"hours_utc": "16:30-00:30", "input_cost_per_token": "1e-6"}},
            "the price changes with the time of day",
        ),
        ({"input_cost_per_token": 0, "input_cost_per_second": "1e-3"}, "something else than tokens is paid"),
    ],
)
def test_a_price_that_ccroute_cannot_say_is_unknown(caplog, others, why):
    assert model(kind="groq", **others)[0].price is None
    (message,) = caplog.messages
    assert why in message
    assert "the prices here are not used" in message


def test_thoughts_at_the_price_of_answers_change_nothing():
    found, whole = model(kind="groq", **TOKENS, output_cost_per_reasoning_token="15e-6")
    assert found.price == PLAIN
    assert not whole.ignored


def test_a_search_has_the_price_that_litellm_takes():
    sizes = {"search_context_size_low": 0.005, "search_context_size_medium": 0.01}
    found, whole = model(kind="anthropic", **TOKENS, search_context_cost_per_query=sizes)
    assert found.price == Price(3, 15, web_search=10)
    assert not whole.ignored


def test_prices_of_other_things_than_tokens_are_listed(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    found, whole = model(kind="groq", **TOKENS, input_cost_per_second=1e-3, input_cost_per_image=1)
    assert found.price == PLAIN  # as in LiteLLM: tokens win over seconds
    assert set(whole.ignored.values()) == {
        "ccroute prices the tokens of prompts and answers; it is in no cost"
    }
    assert not caplog.messages
