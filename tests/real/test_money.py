"""Reports of wrong costs: of routers, SDKs and trackers that priced the same answers differently."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from typing import Any

import pytest
from tests.accounting.support import row
from tests.conftest import Caller
from tests.support.anthropic_like import message
from tests.support.anthropic_like import usage as anthropic_usage
from tests.support.openai_like import chat, chunk, usage
from tests.support.scripted import Close, ScriptedServer, answer, stream

from ccroute import AnthropicBackend, OpenAIBackend, Price, Report, RetryPolicy, Router, Usage, errors
from ccroute.accounting import MemoryLedger, cost
from ccroute.backends import Backend
from ccroute.config import load

complaint = pytest.mark.complaint

OPENAI = OpenAIBackend("openai", base_url="http://far.test")
ANTHROPIC = AnthropicBackend(api_key="key")
SONNET = Price(
    3,
    15,
    cache_read=0.3,
    cache_write=3.75,
    cache_write_1h=6,
    above={200_000: Price(6, 22.5, cache_read=0.6, cache_write=7.5, cache_write_1h=12)},
)


def used(backend: Backend, body: dict[str, Any]) -> Usage:
    return backend.decode(200, {"content-type": "application/json"}, json.dumps(body).encode()).usage


# -- Prices of long prompts


@complaint(
    "https://github.com/BerriAI/litellm/issues/13759", "prices above 200k tokens cannot be written down"
)
def test_a_long_prompt_costs_the_price_of_long_prompts() -> None:
    long = Usage(input=300_000, output=1000)
    assert cost(long, Price(3, 15)) == Decimal("0.915")
    assert cost(long, SONNET) == Decimal("1.8225")


@complaint(
    "https://github.com/junhoyeo/tokscale/issues/862",
    "each bucket is held against the limit by itself, and only what is above it costs more",
)
def test_the_whole_prompt_decides_and_the_whole_request_costs_it() -> None:
    price = Price(5, 30, cache_read=0.5, above={272_000: Price(10, 45, cache_read=1)})
    usage_sent = usage(270_540 + 7_936, 630, cached=7_936)
    found = used(OPENAI, chat(usage=usage_sent))
    assert (found.input, found.cache_read) == (270_540, 7_936)
    assert cost(found, price) == Decimal("2.705400") + Decimal("0.007936") + Decimal("0.028350")


@complaint(
    "https://github.com/synthetic-sciences/openscience/pull/121",
    "what is written to the cache is not counted as prompt",
)
def test_cache_writes_count_for_the_long_prompt_price() -> None:
    mostly_written = used(ANTHROPIC, message("hi", usage=anthropic_usage(10, 2, write_5m=250_000)))
    assert cost(mostly_written, SONNET) == Decimal("0.00006") + Decimal("1.875") + Decimal("0.000045")


@complaint(
    "https://github.com/Helicone/helicone/issues/5766",
    "cache writes of long prompts cost the short prompts' price",
)
def test_cache_writes_of_long_prompts_cost_their_own_price() -> None:
    found = used(ANTHROPIC, message("hi", usage=anthropic_usage(200_000, 2, write_5m=5_000)))
    assert cost(found, SONNET) == Decimal("1.2") + Decimal("0.0375") + Decimal("0.000045")
    silent = Price(3, 15, cache_write=3.75, above={200_000: Price(6, 22.5)})
    assert cost(found, silent) == Decimal("1.230045"), "never the short prompts' cache price"


@complaint(
    "https://github.com/BerriAI/litellm/issues/15055", "no price for one-hour cache writes of long prompts"
)
def test_one_hour_cache_writes_of_long_prompts_have_a_price() -> None:
    found = used(ANTHROPIC, message("hi", usage=anthropic_usage(0, 2, write_1h=250_000)))
    assert cost(found, SONNET) == 3 + Decimal("0.000045"), "12 USD per million"


@complaint(
    "https://github.com/robinebers/openusage/pull/885",
    "many short requests that were summed up are taken for a long one",
)
@pytest.mark.parametrize("limit", [100, 0], ids=["rows", "summed up"])
def test_many_short_requests_are_no_long_one(limit: int) -> None:
    ledger = MemoryLedger(limit)
    for prompt in (150_000, 150_000, 200_000, 200_001):
        ledger.record(row(usage=Usage(input=prompt)))
    found = Report(ledger.tallies(), by=(), baseline=SONNET).total["baseline_cost"]
    assert found == Decimal("0.45") * 2 + Decimal("0.6") + Decimal("1.200006")


@complaint(
    "https://github.com/lidge-jun/opencodex/issues/908",
    "long prompts' prices are missing; xAI's begin at 200,000 itself",
)
def test_a_price_limit_may_belong_to_the_long_prompts() -> None:
    prices = {"grok": {"input": 2, "output": 6, "above": {"199_999": {"input": 4, "output": 12}}}}
    price = load({"default_model": "ollama/x", "prices": prices}, {})["prices"]["grok"]
    assert cost(Usage(input=199_999), price) == Decimal("0.399998")
    assert cost(Usage(input=200_000), price) == Decimal("0.8")


# -- Parts of a prompt and of an answer


@complaint("https://github.com/earendil-works/pi/pull/2148", "cached tokens are charged as input as well")
def test_cached_tokens_are_charged_once() -> None:
    found = used(OPENAI, chat(usage=usage(20_212, 931, cached=16_298)))
    assert cost(found, Price(0.5, 3, cache_read=0.05)) == Decimal("0.0055649")


@complaint(
    "https://github.com/browser-use/browser-use/issues/5305", "cache writes are charged as input as well"
)
def test_cache_writes_are_charged_once() -> None:
    found = used(ANTHROPIC, message("hi", usage=anthropic_usage(1200, 1, read=500, write_5m=300)))
    assert found.prompt_tokens == 2000
    assert cost(found, SONNET) == Decimal("0.0036") + Decimal("0.00015") + Decimal("0.001125") + Decimal(
        "0.000015"
    )


@complaint(
    "https://github.com/can1357/oh-my-pi/issues/6876", "one-hour cache writes cost the price of five minutes"
)
def test_one_hour_cache_writes_cost_their_own_price() -> None:
    found = used(ANTHROPIC, message("hi", usage=anthropic_usage(0, 4, write_1h=344_139)))
    assert cost(found, Price(5, 25, cache_write=6.25, cache_write_1h=10)) == Decimal("3.44139") + Decimal(
        "0.0001"
    )


@complaint(
    "https://github.com/decolua/9router/pull/2762", "thinking is charged a second time, on top of the answer"
)
def test_thinking_is_charged_once() -> None:
    found = used(OPENAI, chat(usage=usage(1000, 1000, reasoning=800)))
    assert (found.output, found.reasoning) == (1000, 800)
    assert cost(found, Price(3, 15)) == Decimal("0.018")


# -- Which price, and none


@complaint("https://github.com/sielay/eidan/issues/203", "a model without a price costs 0, without a word")
def test_an_unknown_cost_is_not_zero(caller: Caller) -> None:
    with ScriptedServer([answer(json=chat(usage=usage(10, 5)))]) as server:
        router = Router([OpenAIBackend("far", base_url=server.url)], default_model="far/new-model")
        reply = caller.complete(router, "hi")
        (only,) = router.report(by="model")
        printed = str(router.report(by="model"))
        router.close()
    assert (reply.cost, only["cost"], only["saved"]) == (None, None, None)
    assert only["unknown_cost_requests"] == 1
    assert "1 unknown" in printed
    assert "$0" not in printed


@complaint(
    "https://github.com/latitude-dev/latitude-llm/pull/4340",
    "a fallback's answer costs the price of the model that failed",
)
def test_an_answer_costs_the_price_of_the_model_that_served(caller: Caller) -> None:
    with (
        ScriptedServer([answer(503)]) as busy,
        ScriptedServer([answer(json=chat(usage=usage(1000, 100)))]) as spare,
    ):
        router = Router(
            [OpenAIBackend("busy", base_url=busy.url), OpenAIBackend("spare", base_url=spare.url)],
            prices={"minimax": Price(0.3, 1.2), "gpt-oss": Price(0.15, 0.6)},
            fallbacks={"busy/minimax": ["spare/gpt-oss"]},
        )
        reply = caller.complete(router, "hi", model="busy/minimax")
        by_model = {each["model"]: each["cost"] for each in router.report(by="model")}
        router.close()
    assert reply.cost == Decimal("0.00021")
    assert by_model == {"gpt-oss": Decimal("0.00021"), "minimax": 0}, "what was rejected cost nothing"


@complaint(
    "https://github.com/NousResearch/hermes-agent/issues/79174",
    "prices per million and per token are mixed up, by 1,000,000",
)
def test_a_price_per_token_in_place_of_one_per_million_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    source = {
        "backends": {
            "far": {
                "kind": "vllm",
                "base_url": "http://far.test",
                "models": {"n": {"price": {"input": 0, "output": 2e-6}}},
            }
        },
        "prices": {"m": {"input": "0.000003", "output": 15, "cache_read": 0}, "free": "free"},
    }
    with caplog.at_level(logging.WARNING, "ccroute"):
        load(source, {})
    asks = "USD per million tokens; was a price per token meant?"
    assert [record.getMessage() for record in caplog.records] == [
        f"config: prices.m.input: 0.000003 {asks}",
        f"config: backends.far.models.n.price.output: 0.000002 {asks}",
    ]


# -- Attempts and sums


@complaint("https://github.com/sjnims/cc-plugin-eval/issues/330", "what failed attempts used is not counted")
def test_a_failed_attempt_counts_what_it_probably_used(caller: Caller) -> None:
    replies = [answer(502), answer(json=chat(usage=usage(1000, 100)))]
    with ScriptedServer(replies) as server:
        router = Router(
            [OpenAIBackend("far", base_url=server.url)],
            default_model="far/m",
            prices={"m": Price(3, 15)},
            retry=RetryPolicy(base=0, max=0),
        )
        reply = caller.complete(router, "x" * 4000)
        router.close()
    failed, served = reply.route.attempts
    assert (failed.usage.estimated, failed.usage.prompt_tokens) == (True, 1004)
    assert (failed.cost, served.cost) == (Decimal("0.003012"), Decimal("0.0045"))
    assert reply.cost == Decimal("0.007512")


@complaint(
    "https://github.com/openclaw/openclaw/pull/120008", "a stream that breaks before its usage costs 0"
)
def test_a_broken_stream_costs_what_was_streamed(caller: Caller) -> None:
    piece = chunk({"content": "word " * 100})
    with ScriptedServer([stream([piece, Close()])]) as server:
        router = Router(
            [OpenAIBackend("far", base_url=server.url)], default_model="far/m", prices={"m": Price(3, 15)}
        )
        heard = caller.stream(router, "hi")
        total = router.report(by=()).total
        router.close()
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert heard.error.partial is not None
    spent = heard.error.partial
    assert (spent.usage.estimated, spent.usage.output) == (True, 125)
    assert spent.cost == total["cost"] == Decimal("0.001875") + spent.usage.input * Decimal("0.000003")


@complaint("https://github.com/backblaze-labs/genblaze/issues/63", "sums of floats are 0.30000000000000004")
def test_money_adds_up_exactly() -> None:
    price = Price(0.1, 0.2)
    ledger = MemoryLedger()
    for _ in range(10):
        ledger.record(row(usage=Usage(input=10**6), cost=cost(Usage(input=10**6), price)))
    assert Report(ledger.tallies()).total["cost"] == 1
