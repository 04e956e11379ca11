"""Where a price comes from, and where it is shown: answers, rows, `explain`, `models`, savings."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.anthropic_like import message, usage
from tests.support.openai_like import chat

from ccroute import (
    Agent,
    AnthropicBackend,
    Budget,
    Model,
    OllamaBackend,
    OpenAIBackend,
    Price,
    PriceBook,
    Report,
    Router,
    errors,
)

OPUS = "claude-opus-4-20250514"
CLAUDE = AnthropicBackend(api_key="key")
OLLAMA = {
    "model": "q",
    "message": {"content": "hi"},
    "done": True,
    "prompt_eval_count": 1000,
    "eval_count": 100,
}


def answers(request: httpx.Request) -> httpx.Response:
    """Every server: 1,000 tokens in, 200 of them from the cache where it has one, and 100 out."""
    if request.url.path == "/api/chat":
        return httpx.Response(200, json=OLLAMA)
    if request.url.path.endswith("/messages"):
        return httpx.Response(200, json=message("hi", model=OPUS, usage=usage(800, 100, read=200)))
    return httpx.Response(
        200, json=chat(model="gpt-4o", usage={"prompt_tokens": 1000, "completion_tokens": 100})
    )


def router(*backends: Any, **options: Any) -> Router:
    return Router(backends or [CLAUDE], transport=httpx.MockTransport(answers), **options)


@pytest.mark.parametrize(
    ("models", "prices", "usd", "source"),
    [
        ({OPUS: Model(price=Price(1, 1))}, {OPUS: Price(2, 2)}, "0.0011", "model"),
        ({OPUS: Model(price="free")}, {OPUS: Price(2, 2)}, "0", "model"),
        ({}, {OPUS: Price(2, 2)}, "0.0022", "router"),
        ({}, {f"anthropic/{OPUS}": "free"}, "0", "router"),
        ({}, {}, "0.0198", "genai-prices"),
    ],
)
def test_the_first_source_that_has_a_price_wins(
    models: dict[str, Model], prices: dict[str, Any], usd: str, source: str
) -> None:
    with router(AnthropicBackend(api_key="key", models=models), prices=prices) as made:
        reply = made.complete("hi", model=f"anthropic/{OPUS}")
        (row,) = made.rows()
    assert reply.cost == row.cost == Decimal(usd)
    assert row.price_source == source


def test_an_alias_of_a_local_model_is_free_whatever_it_is_called() -> None:
    aliases = {"claude-3-5-sonnet": "local/qwen2.5-coder:32b"}
    with router(OllamaBackend("local"), aliases=aliases, baseline=OPUS) as made:
        assert made.complete("hi", model="claude-3-5-sonnet").cost == 0
        assert made.rows()[0].price_source == "free"
        total = made.report().total
    assert total["saved"] == total["baseline_cost"] == Decimal("0.0225")


def test_a_model_that_ollama_sends_to_the_cloud_is_not_free() -> None:
    with router(OllamaBackend("local")) as made:
        assert made.complete("hi", model="local/gpt-oss:120b-cloud").cost is None
        assert made.rows()[0].price_source is None


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (OpenAIBackend("x", base_url="http://localhost:4000", preset="litellm"), "no price is given"),
        (OpenAIBackend("x", base_url="http://10.0.0.8/v1"), "no price is given"),
        (
            OpenAIBackend("x", base_url="https://llm.example.com/v1"),
            "genai-prices does not know the provider at llm.example.com",
        ),
    ],
)
def test_a_server_that_nobody_knows_has_no_price_by_a_models_name(backend: OpenAIBackend, why: str) -> None:
    with router(backend) as made:
        assert made.complete("hi", model="x/gpt-4o").cost is None
        (candidate,) = made.explain("hi", model="x/gpt-4o").candidates
    assert (candidate.price_source, candidate.input_price, candidate.why_unpriced) == (None, None, why)


def test_explain_says_each_price_and_its_source() -> None:
    with router(CLAUDE, OllamaBackend("local"), aliases={"opus": f"anthropic/{OPUS}"}) as made:
        plan = made.explain("hi", model="opus", fallback=["local/q"], max_tokens=1000)
    paid, free = plan.candidates
    assert (paid.input_price, paid.output_price, paid.price_source) == (15, 75, "genai-prices")
    assert (free.input_price, free.output_price, free.price_source) == (0, 0, "free")
    assert (paid.worst_cost, free.worst_cost) == (Decimal("0.075") + 7 * Decimal("0.000015"), 0)


@pytest.mark.parametrize(
    ("extra", "usd"),
    [
        ({}, "0.01"),
        ({"service_tier": "auto"}, "0.01"),
        ({"service_tier": "flex"}, "0.01"),  # it may be served in the usual way
        ({"service_tier": "priority"}, "0.02"),
        ({"service_tier": "scale"}, None),
    ],
)
def test_the_worst_case_is_that_of_the_tier_that_is_asked_for(extra: dict[str, str], usd: str | None) -> None:
    asked: dict[str, Any] = {"model": "openai/gpt-5.1", "max_tokens": 1000, "extra": extra}
    free = Router([OpenAIBackend(api_key="key")], count_tokens=lambda _: 0)
    assert free.explain("hi", **asked).candidates[0].worst_cost == (None if usd is None else Decimal(usd))
    small = router(
        OpenAIBackend(api_key="key"), count_tokens=lambda _: 0, budgets={"router": Budget("0.015")}
    )
    if usd is None or Decimal(usd) > Decimal("0.015"):
        with pytest.raises(errors.BudgetExceededError):
            small.complete("hi", **asked)
    else:
        assert small.complete("hi", **asked).cost


def test_models_say_their_price_where_there_is_one() -> None:
    aliases = {"opus": f"anthropic/{OPUS}", "both": [f"anthropic/{OPUS}", "local/q"], "c-*": "anthropic/*"}
    local = OllamaBackend("local", models={"q": Model()})
    with router(CLAUDE, local, aliases=aliases) as made:
        listed = {each.id: (each.input_price, each.output_price, each.price_source) for each in made.models()}
    nothing = (None, None, None)
    assert listed["opus"] == listed[f"anthropic/{OPUS}"] == (15, 75, "genai-prices")
    assert listed["local/q"] == (0, 0, "free")
    assert listed["both"] == listed["c-*"] == nothing


def test_a_price_that_is_misspelt_is_told_though_the_library_has_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prices: dict[str, Any] = {"gpt-4o-mnii": "free", "gpt-4o": "free"}
    router(OpenAIBackend(api_key="key"), aliases={"small": "openai/gpt-4o-mini"}, prices=prices).close()
    (told,) = [record.getMessage() for record in caplog.records]
    assert 'prices["gpt-4o-mnii"] leads to no model' in told
    assert "openai/gpt-4o-mini has the price of genai-prices" in told


# -- Savings


@pytest.mark.parametrize(
    ("requested", "saved"),
    [
        ("claude-opus-4-5", "0.0075"),
        ("openai/gpt-4o", "0.0035"),
        ("gpt-4o", "0.0035"),
        ("someones-model", None),
    ],
)
def test_an_override_saves_the_price_of_a_model_that_nobody_serves(requested: str, saved: str | None) -> None:
    agents = {"coder": Agent("local/q")}
    with router(OllamaBackend("local"), agents=agents) as made:
        made.complete("hi", agent="coder", model=requested)
        (row,) = made.rows()
    assert (row.overridden, row.override_saved) == (True, None if saved is None else Decimal(saved))


def test_a_baseline_that_no_backend_serves_has_the_price_of_its_maker(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with router(
        OllamaBackend("local"), ledger=path, default_model="local/q", baseline="claude-opus-4-5"
    ) as made:
        made.complete("hi")
        assert made.report().total["saved"] == Decimal("0.0075")
        assert made.report(baseline="gpt-4o").total["saved"] == Decimal("0.0035")
    assert Report.from_ledger(path, baseline="claude-opus-4-5").total["saved"] == Decimal("0.0075")
    own = PriceBook({"claude-opus-4-5": Price(1, 1)})
    assert Report.from_ledger(path, baseline="claude-opus-4-5", prices=own).total["saved"] == Decimal(
        "0.0011"
    )


def test_a_baseline_that_is_unknown_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with router(OllamaBackend("local"), ledger=tmp_path / "usage.db", default_model="local/q") as made:
        made.complete("hi")
    with pytest.raises(errors.ConfigError, match=r'"big" has no price: give prices=\{"big": Price\(…\)\}$'):
        Report.from_ledger(tmp_path / "usage.db", baseline="big")
    with pytest.raises(
        errors.ConfigError, match=r'baseline: unknown model "big"; .* or a model with a price: give'
    ):
        router(OllamaBackend("local"), baseline="big")


def test_a_baseline_without_a_price_is_told_and_not_left_out(caplog: pytest.LogCaptureFixture) -> None:
    vllm = OpenAIBackend("vllm", base_url="http://localhost:8000/v1", local=False)
    why = r'baseline: "vllm/big" has no price: give prices={"vllm/big": Price(…)}'
    with router(vllm, aliases={"big": "vllm/big"}, baseline="big") as made:
        assert caplog.messages == [f"{why}; reports have no savings until then"]
        assert made.report().total["saved"] is None
        with pytest.raises(errors.ConfigError, match=re.escape(why)):
            made.report(baseline="big")
        with pytest.raises(errors.UnknownModelError, match=r"a model with a price: give prices=\{\"bgi\": "):
            made.report(baseline="bgi")


def test_a_report_takes_a_price_as_its_baseline() -> None:
    with router(OllamaBackend("local")) as made:
        made.complete("hi", model="local/q")
        assert made.report(baseline=Price(1, 1)).total["saved"] == Decimal("0.0011")


# -- When the library is imported


def loads(code: str) -> bool:
    """Whether a program imports the library."""
    program = f"import sys\nfrom ccroute import *\n{code}\nprint('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("Router([])", False),
        ("Router([AnthropicBackend(api_key='k')])", False),
        ("Router([OllamaBackend()], {'a': 'ollama/q'}).explain('hi', model='a')", False),
        ("Router([OpenAIBackend(base_url='http://localhost/v1')], {'a': 'openai/gpt-4o'})", False),
        ("Router([AnthropicBackend(api_key='k')], {'a': 'anthropic/m'}, prices={'m': Price(1, 1)})", False),
        ("Router([AnthropicBackend(api_key='k')], {'a': 'anthropic/m'})", True),
    ],
)
def test_the_library_is_imported_only_where_a_price_is_missing(code: str, expected: bool) -> None:
    assert loads(code) == expected


def test_without_the_library_everything_works_and_prices_are_unknown() -> None:
    code = f"""
sys.modules["genai_prices"] = None
import httpx
from tests.test_prices import answers
with Router([AnthropicBackend(api_key="k")], transport=httpx.MockTransport(answers)) as router:
    assert router.complete("hi", model="anthropic/{OPUS}").cost is None
    (candidate,) = router.explain("hi", model="anthropic/{OPUS}").candidates
    assert "pip install 'ccroute[prices]'" in candidate.why_unpriced
sys.modules.pop("genai_prices")
"""
    assert not loads(code)
