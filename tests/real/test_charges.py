"""Reports of bills that tokens at their usual price do not explain: tiers, places, searches, sound, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from tests.support import anthropic_like, openai_like
from tests.support.anthropic_like import event, message, message_sse
from tests.support.openai_like import chat, chat_sse

from ccroute import AnthropicBackend, Completion, Message, OpenAIBackend, Price, Router, errors
from ccroute.accounting import LedgerRow
from ccroute.backends import Backend

complaint = pytest.mark.complaint

OPENAI = OpenAIBackend(api_key="key")
CLAUDE = AnthropicBackend(api_key="key")
ROUTER = OpenAIBackend("openrouter", preset="openrouter", api_key="key")
USED = openai_like.usage(1000, 500)
ASKED: Sequence[Mapping[str, Any] | Message] = ({"role": "user", "content": "hi"},)


def served(
    backend: Backend,
    model: str,
    body: Mapping[str, Any] | list[bytes],
    *,
    messages: Sequence[Mapping[str, Any] | Message] = ASKED,
    **options: Any,
) -> tuple[Completion, LedgerRow]:
    """The answer with this body, or with these events of a stream, and its row in the ledger."""
    is_stream = isinstance(body, list)
    response = httpx.Response(200, content=b"".join(body)) if is_stream else httpx.Response(200, json=body)
    with Router([backend], transport=httpx.MockTransport(lambda _: response), **options) as router:
        name = f"{backend.name}/{model}"
        if is_stream:
            stream = router.stream(messages=messages, model=name)
            list(stream)
            reply = stream.completion
        else:
            reply = router.complete(messages=messages, model=name)
        [row] = router.rows()
    assert reply.cost == row.cost == reply.route.attempts[0].cost
    return reply, row


def listed(provider: str, model: str, usage: Mapping[str, Any] = USED, **terms: str) -> Decimal:
    """What genai-prices says of the tokens of an OpenAI usage."""
    tokens = TheirUsage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"])
    return calc_price(tokens, model, provider_id=provider, price_context=terms).total_price


# -- Tiers, speeds and places


@complaint("https://github.com/BerriAI/litellm/issues/13810", "flex is priced as if it were standard")
@pytest.mark.parametrize("tier", ["flex", "priority"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_service_tier_has_its_own_price(tier: str, streamed: bool) -> None:
    whole = chat(model="gpt-5.1", usage=USED) | {"service_tier": tier}
    parts = [
        part.replace(b'"choices"', b'"service_tier":"%s","choices"' % tier.encode())
        for part in chat_sse(model="gpt-5.1", usage=USED)
    ]
    reply, row = served(OPENAI, "gpt-5.1", parts if streamed else whole)
    expected = listed("openai", "gpt-5.1", service_tier=tier)
    assert (row.cost, row.price_source) == (expected, "genai-prices")
    assert expected != listed("openai", "gpt-5.1")
    assert f"openai/gpt-5.1: at the price of service_tier {tier}" in reply.route.reasons


@complaint(
    "https://github.com/BerriAI/litellm/issues/31837",
    "an answer that was served as default is billed as the priority that was asked for",
)
def test_what_served_is_priced_and_not_what_was_asked() -> None:
    _, row = served(OPENAI, "gpt-5.1", chat(model="gpt-5.1", usage=USED) | {"service_tier": "default"})
    assert row.cost == listed("openai", "gpt-5.1")


@pytest.mark.parametrize(
    ("backend", "model", "tier"), [(OPENAI, "gpt-5.1", "scale"), (OPENAI, "gpt-4o", "flex")]
)
def test_a_tier_that_nobody_prices_makes_the_cost_unknown(backend: Backend, model: str, tier: str) -> None:
    reply, row = served(backend, model, chat(model=model, usage=USED) | {"service_tier": tier})
    assert (row.cost, row.price_source) == (None, None)
    why = f"openai/{model}: genai-prices has no price of service_tier {tier} for {model} of openai"
    assert why in reply.route.reasons


def test_groqs_tiers_cost_the_same() -> None:
    groq = OpenAIBackend("groq", base_url="https://api.groq.com/openai/v1", api_key="key")
    model = "llama-3.3-70b-versatile"
    for tier in ("on_demand", "flex"):
        _, row = served(groq, model, chat(model=model, usage=USED) | {"service_tier": tier})
        assert row.cost == listed("groq", model)


def claude(model: str = "claude-opus-4-8", **further: Any) -> tuple[Completion, LedgerRow]:
    return served(CLAUDE, model, message("hi", model=model, usage=anthropic_like.usage(1000, 500) | further))


@complaint(
    "https://github.com/tontinton/maki/pull/272",
    "the fast mode is charged at its premium and counted at the usual",
)
def test_claudes_fast_mode_has_its_own_price() -> None:
    _, row = claude(speed="fast")
    assert row.cost == listed("anthropic", "claude-opus-4-8", speed="fast") == Decimal("0.035")
    assert claude(speed="standard")[1].cost == Decimal("0.0175")


@complaint(
    "https://github.com/anthropics/claude-code/issues/60641",
    "inference in the US only costs 1.1 times as much, and nobody counts that",
)
def test_claude_in_the_us_only_costs_a_tenth_more() -> None:
    reply, row = claude(inference_geo="us")
    assert row.cost == Decimal("0.0175") * Decimal("1.1")
    assert "anthropic/claude-opus-4-8: at the price of inference_geo us" in reply.route.reasons


@complaint(
    "https://github.com/EasyMetaAu/helm-api/pull/570",
    "an answer of inference_geo not_available has no cost",
)
def test_a_place_that_is_none_changes_nothing() -> None:
    for geo in ("not_available", "global", "", None):
        assert claude(inference_geo=geo)[1].cost == Decimal("0.0175")
    assert claude(inference_geo="mars")[1].cost is None


def test_a_tier_that_was_bought_before_has_no_price_per_token() -> None:
    assert claude(service_tier="priority")[1].cost is None


@complaint(
    "https://github.com/anthropics/claude-code/issues/83690",
    "Bedrock's regional models cost a tenth more than its global ones",
)
def test_bedrocks_regional_models_cost_what_they_cost() -> None:
    url = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"
    bedrock = OpenAIBackend("bedrock", base_url=url, api_key="key")
    name = "anthropic.claude-opus-4-5-20251101-v1:0"
    _, world = served(bedrock, f"global.{name}", chat(usage=USED, model=f"global.{name}"))
    _, here = served(bedrock, f"us.{name}", chat(usage=USED, model=f"us.{name}"))
    assert (world.cost, here.cost) == (Decimal("0.0175"), Decimal("0.01925"))


@complaint("https://github.com/pydantic/genai-prices/issues/582", "DeepSeek's price depends on the hour")
def test_the_hour_of_the_answer_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    from ccroute.runtime.clock import SystemClock

    deepseek = OpenAIBackend("deepseek", preset="deepseek", api_key="key")
    spent = {}
    for hour in (2, 12):
        monkeypatch.setattr(SystemClock, "now", lambda _, hour=hour: datetime(2026, 11, 20, hour, tzinfo=UTC))
        spent[hour] = served(deepseek, "deepseek-v4-pro", chat(model="deepseek-v4-pro", usage=USED))[1].cost
    assert spent[12] is not None
    assert spent[2] == 2 * spent[12] > 0


# -- Searches and sound

SEARCHED = {"server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1}}


@complaint(
    "https://github.com/langfuse/langfuse/issues/15856",
    "the fee of each web search is missing, $10 per thousand",
)
@complaint("https://github.com/BerriAI/litellm/issues/16996", "the cost of an answer lacks its web searches")
def test_a_web_search_costs_its_fee() -> None:
    reply, row = claude(**SEARCHED)
    assert row.cost == Decimal("0.0175") + Decimal("0.03")
    assert "anthropic/claude-opus-4-8: 3 web searches are part of its cost" in reply.route.reasons


@complaint(
    "https://github.com/BerriAI/litellm/issues/16631",
    "server_tool_use is not in the usage of a streamed answer",
)
def test_a_streamed_web_search_costs_its_fee() -> None:
    *parts, last = message_sse(usage=anthropic_like.usage(1000, 500), model="claude-opus-4-8")
    delta = event(
        "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 500, **SEARCHED}
    )
    _, row = served(CLAUDE, "claude-opus-4-8", [*parts[:-1], delta, last])
    assert row.cost == Decimal("0.0175") + Decimal("0.03")


@complaint(
    "https://github.com/BerriAI/litellm/issues/10384", "the fee is charged for a search that was only allowed"
)
def test_a_search_that_was_not_made_costs_nothing() -> None:
    for counted in (None, {"web_search_requests": 0}, {"web_search_requests": 0, "web_fetch_requests": 0}):
        assert claude(server_tool_use=counted)[1].cost == Decimal("0.0175")


@pytest.mark.parametrize(("fee", "usd"), [(None, None), (10, "0.052"), (0, "0.022"), ("free", "0")])
def test_a_configured_price_needs_the_fee_of_a_search(fee: Any, usd: str | None) -> None:
    price = fee if fee == "free" else Price(7, 30, web_search=fee)
    body = message("hi", usage=anthropic_like.usage(1000, 500) | SEARCHED)
    reply, row = served(CLAUDE, "claude-opus-4-8", body, prices={"claude-opus-4-8": price})
    assert row.cost == (None if usd is None else Decimal(usd))
    unknown = "anthropic/claude-opus-4-8: 3 web searches of unknown price: Price(…, web_search=…) gives one"
    assert (unknown in reply.route.reasons) == (usd is None)


@complaint(
    "https://github.com/QuantumNous/new-api/issues/1108", "the searches of search models are not charged"
)
def test_a_model_that_always_searches_has_no_known_cost() -> None:
    _, row = served(OPENAI, "gpt-4o-search-preview", chat(model="gpt-4o-search-preview", usage=USED))
    assert (row.cost, row.price_source) == (None, None)


@complaint(
    "https://github.com/comet-ml/opik/pull/7137",
    "audio tokens are charged at the price of text, a 16th of theirs",
)
@pytest.mark.parametrize("side", ["prompt_tokens_details", "completion_tokens_details"])
@pytest.mark.parametrize("prices", [{}, {"gpt-4o-audio-preview": Price(2, 10)}])
def test_sound_is_not_priced_as_text(side: str, prices: dict[str, Price]) -> None:
    usage = USED | {side: {"audio_tokens": 40}}
    body = chat(model="gpt-4o-audio-preview", usage=usage)
    reply, row = served(OPENAI, "gpt-4o-audio-preview", body, prices=prices)
    assert row.cost is None
    assert "openai/gpt-4o-audio-preview: it has audio tokens, whose price is unknown" in reply.route.reasons


def test_sound_that_the_answer_does_not_count_is_not_priced_as_text() -> None:
    gemini = OpenAIBackend(
        "gemini", base_url="https://generativelanguage.googleapis.com/v1beta/openai", api_key="key"
    )
    name, sound = (
        "gemini-2.5-flash",
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    )
    heard = [{"role": "user", "content": [sound]}]
    reply, row = served(gemini, name, chat(model=name, usage=USED), messages=heard)
    assert row.cost is None
    assert any("its prompt has audio" in reason for reason in reply.route.reasons)
    assert served(gemini, name, chat(model=name, usage=USED))[1].cost == listed("google", name)


# -- Providers that say what they charge


@complaint(
    "https://github.com/BerriAI/litellm/issues/13653",
    "OpenRouter's price depends on who serves, and its answer says what it was",
)
@pytest.mark.parametrize("streamed", [False, True])
def test_openrouters_own_cost_is_the_cost(streamed: bool) -> None:
    usage = USED | {"cost": 0.00014, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}
    body = chat_sse(usage=usage) if streamed else chat(usage=usage)
    _, row = served(ROUTER, "some/model", body)
    assert (row.cost, row.price_source) == (Decimal("0.00014"), "provider")


@complaint("https://github.com/tailcallhq/forgecode/issues/1641", "with a key of one's own the cost is 0")
@pytest.mark.parametrize(("upstream", "usd"), [(0.0360795, "0.0361795"), (None, None)])
def test_a_key_of_ones_own_costs_what_it_costs_upstream(upstream: float | None, usd: str | None) -> None:
    usage = USED | {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": upstream}}
    _, row = served(ROUTER, "some/model", chat(usage=usage))
    assert row.cost == (None if usd is None else Decimal(usd))


@complaint("https://github.com/BerriAI/litellm/pull/36281", "xAI says what it charges, in ticks")
def test_xais_ticks_are_the_cost() -> None:
    xai = OpenAIBackend("xai", base_url="https://api.x.ai/v1", api_key="key")
    _, row = served(xai, "grok-4", chat(model="grok-4-0709", usage=USED | {"cost_in_usd_ticks": 2_709_000}))
    assert (row.cost, row.price_source) == (Decimal("0.0002709"), "provider")


@complaint(
    "https://github.com/BerriAI/litellm/pull/17887", "Perplexity says what it charges, with the request's fee"
)
def test_perplexitys_total_is_the_cost() -> None:
    perplexity = OpenAIBackend("perplexity", base_url="https://api.perplexity.ai", api_key="key")
    cost = {"input_tokens_cost": 0.0, "output_tokens_cost": 0.002, "request_cost": 0.006, "total_cost": 0.008}
    _, row = served(perplexity, "sonar-pro", chat(usage=USED | {"cost": cost}))
    assert (row.cost, row.price_source) == (Decimal("0.008"), "provider")
    assert served(perplexity, "sonar-pro", chat(usage=USED))[1].cost is None


@pytest.mark.parametrize("cost", [-1, float("1e99"), True, "0.5", None, {"total_cost": "x"}, [1]])
def test_a_cost_that_is_none_is_not_taken(cost: Any) -> None:
    _, row = served(ROUTER, "openai/gpt-4o", chat(usage=USED | {"cost": cost}))
    assert (row.cost, row.price_source) == (listed("openrouter", "openai/gpt-4o"), "genai-prices")


def test_a_configured_price_wins_over_what_the_provider_says() -> None:
    _, row = served(ROUTER, "some/model", chat(usage=USED | {"cost": 9}), prices={"some/model": Price(1, 2)})
    assert (row.cost, row.price_source) == (Decimal("0.002"), "router")


def test_the_cost_that_an_unknown_server_says_is_not_believed() -> None:
    unknown = OpenAIBackend("corp", base_url="https://llm.example.com/v1", api_key="key")
    _, row = served(unknown, "gpt-4o", chat(usage=USED | {"cost": 9}))
    assert (row.cost, row.price_source) == (None, None)


# -- Names

AZURE = OpenAIBackend("azure", base_url="https://me.openai.azure.com", api_key="key")


@complaint(
    "https://github.com/langchain-ai/langchain/issues/14912",
    "Azure's deployments have names of their own, and the price was that of another model",
)
@pytest.mark.parametrize(
    ("deployment", "answered", "usd"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "0.00045"),
        ("prod-chat", "gpt-4o-mini-2024-07-18", "0.00045"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", None),
        ("gpt-4o", "", "0.0075"),
        ("prod-chat", "", None),
        ("prod-chat", "prod-chat", None),
    ],
)
def test_azures_names_are_priced_if_its_answers_agree(
    deployment: str, answered: str, usd: str | None
) -> None:
    _, row = served(AZURE, deployment, chat(model=answered, usage=USED))
    assert row.cost == (None if usd is None else Decimal(usd))


def test_azures_own_tiers_have_no_price_of_openais() -> None:
    _, row = served(AZURE, "gpt-4o", chat(model="gpt-4o", usage=USED) | {"service_tier": "priority"})
    assert row.cost is None


def test_a_broken_stream_is_priced_by_the_model_that_it_named() -> None:
    *begun, _, _, _ = chat_sse(model="gpt-4o-mini-2024-07-18")
    broken = httpx.Response(200, content=b"".join(begun))
    with Router([AZURE], transport=httpx.MockTransport(lambda _: broken)) as router:
        with pytest.raises(errors.StreamInterruptedError):
            list(router.stream("hi", model="azure/prod-chat"))
        (row,) = router.rows()
    tokens = {"prompt_tokens": row.usage.prompt_tokens, "completion_tokens": row.usage.output}
    assert row.cost == listed("azure", "gpt-4o-mini", tokens) > 0


def test_the_model_that_the_answer_names_is_priced() -> None:
    _, row = served(OPENAI, "gpt-4o", chat(model="gpt-4o-2024-05-13", usage=USED))
    assert row.cost == listed("openai", "gpt-4o-2024-05-13") != listed("openai", "gpt-4o")
