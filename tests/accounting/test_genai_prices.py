"""Our arithmetic next to genai-prices' own, for every provider and model that the installed version knows,
and the provider and the model that an address and a name lead to."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from ccroute.accounting import PriceBook, cost
from ccroute.accounting import price_lists as module
from ccroute.accounting.price_lists import PriceList, first_party, price_list, price_of_model
from ccroute.types import FREE, Price, Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
READ, FIVE, HOUR, ANSWER = 101, 211, 307, 1009
"""Tokens of each bucket: no two sums of them are alike, so that equal costs mean equal prices of each."""

UNKNOWN = {
    # What the price of tokens would not cover: there the library gives a figure, or a part of one.
    "is also billed by requests_kcount": "a fee for each request, which depends on its search (Perplexity)",
    "is also billed by output_reasoning_mtok": "thinking has its own price, beside other fees (Perplexity)",
    "is also billed by output_citation_mtok": "so have citations, which no answer counts (Perplexity)",
    "is also billed by audio_hours": "sound by the hour, which no answer counts",
    "is also billed by input_audio_hours": "the same",
    "is also billed by input_mchars": "speech by the character",
    "is also billed by input_text_messages_kcount": "a fee for each message (xAI's voices)",
    "is also billed by input_document_kpages": "pages of a document (Mistral's OCR)",
    "is also billed by input_annotated_document_kpages": "the same",
    "is also billed by input_image_mtok": "pictures at their own price, which no answer counts",
    "is also billed by cache_image_read_mtok": "the same",
    "is also billed by output_image_mtok": "the same",
    "is also billed by input_video_mtok": "the same for films",
    "is also billed by output_video_mtok": "the same",
    "is also billed for each of its web searches": "OpenAI's search models; the library has no price of it",
    # A missing price is unknown, never 0. The library sums up what it has.
    "has no price of the answers": "embeddings, rankings: nothing that a chat leads to",
    "has no price of the prompts": "included in a plan or not published; free only if the name says so",
}
"""Why a model that the library knows has no price here: each difference between the two."""


def providers() -> list[Provider]:
    return get_snapshot().providers


def conditional(info: ModelInfo) -> list[ConditionalPrice]:
    return info.prices if isinstance(info.prices, list) else [ConditionalPrice(prices=info.prices)]


def moments(info: ModelInfo) -> Iterator[datetime]:
    """Noon, and both sides of each date and hour at which a price changes."""
    yield NOON
    constraints = [each.constraint for each in conditional(info)]
    constraints += [variant.constraint for variant in info.price_variants or ()]
    for constraint in constraints:
        if isinstance(constraint, StartDateConstraint):
            start = datetime.combine(constraint.start_date, time(), UTC)
            yield from (start - SECOND, start)
        elif isinstance(constraint, TimeOfDateConstraint):
            for edge in (constraint.start_time, constraint.end_time):
                at = datetime.combine(NOON.date(), edge.replace(tzinfo=None), edge.tzinfo or UTC)
                yield from (at - SECOND, at)


def lengths(price: ModelPrice) -> set[int]:
    """A short prompt, and both sides of each tier."""
    tiers = [each for each in vars(price).values() if isinstance(each, TieredPrices)]
    starts = {tier.start for each in tiers for tier in each.tiers}
    return {1000} | starts | {start + 1 for start in starts}


def has_begun(info: ModelInfo, moment: datetime, terms: tuple[tuple[str, str], ...]) -> bool:
    same = [each for each in info.price_variants or () if each.when == dict(terms)]
    return any(each.constraint is None or each.constraint.active(moment) for each in same)


def both(
    listed: PriceList,
    info: ModelInfo,
    provider: Provider,
    moment: datetime,
    terms: tuple[tuple[str, str], ...],
) -> Iterator[tuple[Decimal | str | None, Decimal]]:
    """Our cost and theirs of the same usage, for each length of the prompt."""
    found = listed.under(moment, terms)
    for prompt in lengths(info.get_prices(moment, dict(terms))):
        ours: Decimal | str | None = found if isinstance(found, str) else None
        if isinstance(found, Price):
            plain = prompt - READ - FIVE - HOUR
            ours = cost(
                Usage(input=plain, cache_read=READ, cache_write_5m=FIVE, cache_write_1h=HOUR, output=ANSWER),
                found,
            )
        used = TheirUsage(
            input_tokens=prompt,
            cache_read_tokens=READ,
            cache_write_tokens=FIVE + HOUR,
            cache_write_1h_tokens=HOUR,
            output_tokens=ANSWER,
        )
        theirs = info.calc_price(used, provider, genai_request_timestamp=moment, price_context=dict(terms))
        yield ours, theirs.total_price


def test_every_price_of_the_library_is_ours_or_unknown_for_a_reason() -> None:
    equal, unknown, models = 0, Counter[str](), 0
    for provider in providers():
        for info in provider.models:
            models += 1
            listed = PriceList(provider, info.id, info)
            every = [(), *(tuple(variant.when.items()) for variant in info.price_variants or ())]
            for moment in set(moments(info)):
                for terms in dict.fromkeys(every):
                    for ours, theirs in both(listed, info, provider, moment, terms):
                        if isinstance(ours, str):
                            if terms and " ".join(terms[0]) in ours:
                                assert not has_begun(info, moment, terms)  # theirs is the usual price then
                                continue
                            [kind] = [kind for kind in UNKNOWN if kind in ours.replace(info.id, "")]
                            unknown[kind] += 1
                        else:
                            assert ours == theirs, (provider.id, info.id, moment, terms)
                            equal += 1
    assert models > 2000
    assert equal > 4000
    assert not unknown.keys() - UNKNOWN.keys()


def test_what_is_unknown_is_what_tokens_do_not_pay() -> None:
    of_text = re.compile(r"(input|output|cache_(read|write|write_5m|write_1h))_mtok")
    apart = re.compile(r"(.*_)?audio_.*mtok|\w+_(searches|executions)_kcount|web_searches_kcount")
    for provider in providers():
        for info in provider.models:
            keys = {key for key, value in vars(info.get_prices(NOON)).items() if value is not None}
            others = {key for key in keys if not of_text.fullmatch(key) and not apart.fullmatch(key)}
            is_search = provider.id == "openai" and re.search(r"-search-(preview|api)", info.id)
            is_priced = {"input_mtok", "output_mtok"} <= keys and not others and not is_search
            found = PriceList(provider, info.id, info).at(NOON)
            if not keys and info.id.endswith(":free"):
                assert found == FREE
            else:
                assert (found is not None) == is_priced, (provider.id, info.id)


# -- Which provider and model

AT = {
    "anthropic": ("https://api.anthropic.com", "claude-opus-4-20250514", "claude-opus-4-0"),
    "openai": ("https://api.openai.com/v1", "gpt-4o-2024-08-06", "gpt-4o"),
    "fine-tuned": ("https://api.openai.com/v1", "ft:gpt-4o-mini-2024-07-18:acme::x", "ft:gpt-4o-mini"),
    "azure": ("https://me.openai.azure.com/openai/v1", "gpt-4o", "gpt-4o"),
    "azure's claude": ("https://me.services.ai.azure.com/anthropic", "claude-opus-4-5", "claude-opus-4-5"),
    "deepseek": ("https://api.deepseek.com/anthropic", "deepseek-v4-pro", "deepseek-v4-pro"),
    "groq": ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", "llama-3.3-70b-versatile"),
    "mistral": ("https://api.mistral.ai/v1", "codestral-latest", "codestral"),
    "xai": ("https://api.x.ai/v1", "grok-4", "grok-4-0709"),
    "openrouter": ("https://openrouter.ai/api/v1", "anthropic/claude-opus-4.5", "anthropic/claude-opus-4.5"),
    "gemini": (
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "models/gemini-2.5-flash",
        "gemini-2.5-flash",
    ),
    "vertex": (
        "https://aiplatform.googleapis.com/v1/x/openapi",
        "google/gemini-2.5-flash",
        "gemini-2.5-flash",
    ),
    "together": (
        "https://api.together.xyz/v1",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    "fireworks": (
        "https://api.fireworks.ai/inference/v1",
        "accounts/fireworks/models/gpt-oss-120b",
        "gpt-oss-120b",
    ),
    "bedrock": (
        "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
        "us.anthropic.claude-opus-4-5-20251101-v1:0",
        "regional.anthropic.claude-opus-4-5-v1:0",
    ),
    "cerebras": ("https://api.cerebras.ai/v1", "gpt-oss-120b", "gpt-oss-120b"),
    "hugging face": ("https://router.huggingface.co/groq/v1", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
}


def host(url: str) -> str:
    return url.split("/")[2].partition(":")[0]


@pytest.mark.parametrize(("url", "name", "model"), AT.values(), ids=AT)
def test_an_address_and_a_name_lead_to_a_price(url: str, name: str, model: str) -> None:
    found = price_list(url, host(url), name)
    assert isinstance(found, PriceList)
    assert (found.model, found.why_unknown) == (model, "")
    assert found.now() is not None


@pytest.mark.parametrize(
    ("url", "name", "why"),
    [
        ("https://llm.corp.example/v1", "gpt-4o", "does not know the provider at llm.corp.example"),
        ("http://api.openai.com/v1", "gpt-4o", "does not know the provider"),
        ("https://api.openai.com:8443/v1", "gpt-4o", "does not know the provider"),
        ("https://api.openai.com.example.com/v1", "gpt-4o", "does not know the provider"),
        ("https://eu.api.openai.com/v1", "gpt-4o", "does not know the provider"),  # 10 % dearer
        ("https://me--llm.modal.run/v1", "moonshotai/Kimi-K3", "does not know the provider"),
        ("https://corp.azure-api.net/openai/v1", "gpt-4o", "does not know the provider"),
        ("https://open.bigmodel.cn/api/paas/v4", "glm-4.6", "open.bigmodel.cn does not bill in USD"),
        ("https://api.moonshot.cn/v1", "kimi-k2", "api.moonshot.cn does not bill in USD"),
    ],
)
def test_a_server_that_is_not_the_provider_has_no_price(url: str, name: str, why: str) -> None:
    found = price_list(url, host(url), name)
    assert isinstance(found, str)
    assert why in found


@pytest.mark.parametrize(
    ("url", "name", "why"),
    [
        ("https://api.anthropic.com", "my-claude", "genai-prices has no model my-claude of anthropic"),
        ("https://api.openai.com/v1", "gpt-4o-search-preview", "is also billed for each of its web searches"),
        ("https://api.perplexity.ai", "sonar", "is also billed by requests_kcount"),
        ("https://api.openai.com/v1", "text-embedding-3-small", "has no price of the answers"),
        ("https://api.githubcopilot.com", "gpt-4o", "has no price of the prompts"),
    ],
)
def test_a_model_without_a_price_per_token_has_none(url: str, name: str, why: str) -> None:
    found = price_list(url, host(url), name)
    assert isinstance(found, PriceList)
    assert found.now() is None
    assert why in found.why_unknown


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("claude-opus-4-5", "anthropic"),
        ("gpt-4o", "openai"),
        ("o3", "openai"),
        ("gemini-2.5-flash", "google"),
        ("deepseek-v4-pro", "deepseek"),
        ("grok-4", "x-ai"),
        ("groq/llama-3.3-70b-versatile", "groq"),
        ("openrouter/openai/gpt-4o", "openrouter"),
    ],
)
def test_a_name_alone_has_the_price_of_who_made_the_model(name: str, provider: str) -> None:
    found = first_party(name)
    assert found is not None
    assert found.provider == provider
    assert price_of_model(name, PriceBook()) == found.now() is not None


@pytest.mark.parametrize("name", ["qwen2.5-coder:32b", "glm-4.6", "nobody/gpt-4o", "claude-99", "", "/"])
def test_a_name_that_nobody_is_known_to_have_made_has_no_price(name: str) -> None:
    assert price_of_model(name, PriceBook()) is None


def test_a_price_that_is_given_wins_over_the_library() -> None:
    assert price_of_model("gpt-4o", PriceBook({"gpt-4o": Price(1, 1)})) == Price(1, 1)


# -- Times


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets what the library knows of a provider `made` at made.test: one model `m` with these prices."""

    def knows(*prices: ConditionalPrice, variants: list[PriceVariant] | None = None) -> PriceList:
        info = ModelInfo("m", ClauseEquals("m"), prices=list(prices), price_variants=variants)
        made = Provider("made", "Made", r"https://made\.test", models=[info])
        set_custom_snapshot(DataSnapshot([made], from_auto_update=False))
        found = price_list("https://made.test/v1", "made.test", "m")
        assert isinstance(found, PriceList)
        return found

    yield knows
    set_custom_snapshot(None)
    first_party.cache_clear()


def at(input: int, when: StartDateConstraint | TimeOfDateConstraint | None = None) -> ConditionalPrice:
    return ConditionalPrice(when, prices=ModelPrice(input_mtok=Decimal(input), output_mtok=Decimal(9)))


def test_a_price_changes_on_its_day_at_midnight_utc(library: Any) -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC)
    listed = library(at(1), at(2, StartDateConstraint(day.date())))
    assert listed.at(day - SECOND) == Price(1, 9)
    assert listed.at(day) == listed.now() == listed.usual() == Price(2, 9)


@pytest.mark.parametrize(("hour", "usd"), [(0, 1), (1, 4), (3, 4), (4, 1), (12, 1), (23, 1)])
def test_an_hour_of_the_day_has_its_own_price(library: Any, hour: int, usd: int) -> None:
    listed = library(at(1), at(4, TimeOfDateConstraint(time(1, tzinfo=UTC), time(4, tzinfo=UTC))))
    assert listed.at(NOON.replace(hour=hour)) == Price(usd, 9)
    assert listed.usual() == Price(1, 9)  # of most hours, so that savings do not change within a day


def test_a_window_over_midnight_is_one_window(library: Any) -> None:
    listed = library(at(1), at(4, TimeOfDateConstraint(time(22, tzinfo=UTC), time(2, tzinfo=UTC))))
    assert [listed.at(NOON.replace(hour=hour)).input for hour in (21, 22, 23, 0, 1, 2)] == [1, 4, 4, 4, 4, 1]


def test_deepseeks_peak_hours_of_working_days_cost_twice_as_much() -> None:
    listed = price_list("https://api.deepseek.com/v1", "api.deepseek.com", "deepseek-v4-pro")
    assert isinstance(listed, PriceList)
    for weekend in (datetime(2026, 11, 21, 2, tzinfo=UTC), datetime(2026, 11, 22, 7, tzinfo=UTC)):
        assert listed.at(weekend) == listed.at(NOON)
    assert listed.at(datetime(2026, 11, 23, 2, tzinfo=UTC)) != listed.at(NOON)  # Monday
    off, peak = listed.at(NOON), listed.at(NOON.replace(hour=2))
    assert off is not None
    assert peak is not None
    assert (peak.input, peak.output, peak.cache_read) == (2 * off.input, 2 * off.output, 2 * off.cache_read)


# -- What the library may hold


def test_a_tier_may_hold_for_some_buckets_only(library: Any) -> None:
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(1000, Decimal(2)), Tier(2000, Decimal(3))])
    prices = ModelPrice(input_mtok=tiered, output_mtok=Decimal(5), cache_read_mtok=Decimal("0.1"))
    listed = library(ConditionalPrice(prices=prices))
    above = {1000: Price(2, 5, cache_read="0.1"), 2000: Price(3, 5, cache_read="0.1")}
    assert listed.now() == Price(1, 5, cache_read="0.1", above=above)


@pytest.mark.parametrize("amount", [Decimal(-1), Decimal("nan"), Decimal(10) ** 12])
def test_an_amount_that_is_no_price_is_no_price(library: Any, amount: Decimal) -> None:
    listed = library(ConditionalPrice(prices=ModelPrice(input_mtok=amount, output_mtok=Decimal(1))))
    assert listed.now() is None
    assert listed.why_unknown.startswith("m of made: a price must be")


def test_a_unit_of_the_future_makes_the_price_unknown(library: Any) -> None:
    prices = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), weather_mtok=Decimal(1))
    assert library(ConditionalPrice(prices=prices)).why_unknown == "m of made is also billed by weather_mtok"


def test_a_fault_of_the_library_is_a_warning_and_no_price(
    library: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library(at(1))
    monkeypatch.setattr(Provider, "find_model", lambda *_, **__: 1 / 0)
    why = "genai-prices failed for m of made: ZeroDivisionError"
    assert price_list("https://made.test/v1", "made.test", "m") == why
    assert [each.getMessage() for each in caplog.records] == [why]


def test_without_the_library_the_price_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)  # its import fails
    first_party.cache_clear()
    assert price_list("https://api.openai.com", "api.openai.com", "gpt-4o") == module.NOT_INSTALLED
    assert price_of_model("gpt-4o", PriceBook()) is None
    assert "pip install 'ccroute[prices]'" in module.how_to_price("gpt-4o")
    first_party.cache_clear()


def test_names_from_answers_are_remembered_up_to_a_limit() -> None:
    listed = price_list("https://api.openai.com/v1", "api.openai.com", "gpt-4o")
    assert isinstance(listed, PriceList)
    dated = listed.answered("gpt-4o-2024-05-13")
    assert dated is listed.answered("gpt-4o-2024-05-13") is not listed
    for i in range(200):
        assert listed.answered(f"gpt-unheard-{i}") is listed
    assert len(listed._answered) == module._MOST_ANSWERED
