"""Wrong arguments of constructors and of reports: each error says what to write instead."""

from __future__ import annotations

import inspect
import logging
from datetime import UTC, date, datetime
from typing import Any

import pytest
from tests.accounting.support import DAY, START, row

from ccroute import (
    Agent,
    AnthropicBackend,
    Backend,
    Model,
    OllamaBackend,
    OpenAIBackend,
    Price,
    Router,
    errors,
)
from ccroute.accounting import MemoryLedger
from ccroute.types.hints import _CONSTRUCTORS

KEYS = [
    f"sk-{'ant'}-api03-canary0123456789",
    "sk-proj-canary0123456789/x",
    "sk-canary0123456789abcdef",
    "gsk_canary0123456789abcdef",
    "AIzaSyCanary0123456789abcdef",
    "xai-canary0123456789abcdef",
    "0123456789abcdef0123456789canary",
]


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", [AnthropicBackend, OpenAIBackend, OllamaBackend])
@pytest.mark.parametrize("further", [{}, {"base_url": "nowhere"}, {"max_concurrency": 0}])
def test_a_key_given_as_the_name_is_refused_and_not_repeated(
    key: str, kind: Any, further: dict[str, Any]
) -> None:
    with pytest.raises(
        errors.ConfigError, match=f"^{kind.__name__}: .*looks like a key: .*api_key="
    ) as caught:
        kind(key, **further)
    assert "anary" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["sk-1", "sk-seoul-gpu", "hf_mirror-in-the-cellar", "qwen2.5-coder:32b-instruct-q4_K_M", "x" * 64]
)
def test_a_name_is_not_taken_for_a_key(name: str) -> None:
    assert OllamaBackend(name).name == name


def test_a_backends_name_must_be_a_str() -> None:
    given: Any = None
    with pytest.raises(
        errors.ConfigError, match=r"name, a str such as \"main\".*backend/model, not NoneType"
    ):
        AnthropicBackend(given)


# -- keywords ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "keyword", "said"),
    [
        (Router, "max_retries", "it is retry=RetryPolicy(attempts=…) here"),
        (Router, "temperature", "router.complete(…, temperature=…), or an agent's: Agent(…, params={"),
        (Router, "api_key", "OpenAIBackend(…, api_key=…)"),
        (Router, "alias", "did you mean 'aliases'?"),
        (Router, "budget", 'it is budgets={"router": Budget(5)} here, in USD a day'),
        (Router, "database_url", 'it is ledger= here, such as ledger="usage.db"'),
        (Router, "watch", "it is from_config's: Router.from_config(…, watch=…)"),
        (OllamaBackend, "host", "it is base_url= here"),
        (OllamaBackend, "num_ctx", "models={…: Model(context_window=…)}"),
        (OllamaBackend, "preset", "only an OpenAIBackend has it"),
        (OpenAIBackend, "apikey", "it is api_key= here"),
        (OpenAIBackend, "temperature", "it belongs to a call: router.complete(…, temperature=…)"),
        (AnthropicBackend, "modles", "did you mean 'models'?"),
        (AnthropicBackend, "zzzz", "it takes api_key, base_url, ca_file"),
        (Agent, "temperature", 'it is one of params= here: params={"temperature": …}'),
        (Agent, "system", "it belongs to a call: router.complete(…, system=…)"),
        (Agent, "fallbacks", "did you mean 'fallback'?"),
        (Agent, "budget", 'a budget is the router\'s: Router(…, budgets={"agent:…": Budget(5)})'),
    ],
)
def test_the_error_for_a_wrong_keyword_says_what_to_write(make: Any, keyword: str, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(**{keyword: 1})
    assert str(caught.value).startswith(f"{make.__name__} takes no argument '{keyword}': ")
    assert said in str(caught.value)


def test_a_users_own_backend_is_named_by_its_class() -> None:
    class Mine(OllamaBackend):
        pass

    wrong: dict[str, Any] = {"host": "x"}
    with pytest.raises(TypeError, match=r"^Mine takes no argument 'host': it is base_url="):
        Mine(**wrong)


def test_no_advice_is_for_a_keyword_that_exists() -> None:
    kinds: dict[str, list[Any]] = {
        "Router": [Router],
        "Agent": [Agent],
        "Backend": [AnthropicBackend],
    }
    for made, table in _CONSTRUCTORS.items():
        for kind in kinds[made]:
            assert not table.keys() & inspect.signature(kind).parameters.keys()


@pytest.mark.parametrize("kind", [OpenAIBackend, AnthropicBackend, OllamaBackend])
def test_a_backends_signature_shows_every_keyword(kind: Any) -> None:
    shown = inspect.signature(kind).parameters
    assert inspect.signature(Backend).parameters.keys() - {"name"} <= shown.keys()
    assert not any(each.kind is each.VAR_KEYWORD for each in shown.values())


# -- values --------------------------------------------------------------------------------------------------


def test_models_that_are_no_mapping_are_refused_by_place() -> None:
    wrong: Any = ["qwen"]
    with pytest.raises(
        errors.ConfigError, match=r"^backend mini: models must be a dict such as .*, not list"
    ):
        OllamaBackend("mini", models=wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"context_window": "8k"}, "Model: context_window is a number of tokens such as 8_192, not '8k'"),
        ({"max_output": 1.5}, "Model: max_output is a number of tokens such as 8_192, not 1.5"),
        ({"weight": "2"}, "Model: weight is a number such as 2.5, not '2'"),
        ({"memory_gb": True}, "Model: memory_gb is a number such as 2.5, not True"),
    ],
)
def test_a_models_wrong_value_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        Model(**given)
    assert str(caught.value) == said


# -- names of models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["mini", "mini/"])
def test_a_backends_name_alone_asks_for_a_model(asked: str) -> None:
    with Router([OllamaBackend("mini")]) as router, pytest.raises(errors.UnknownModelError) as caught:
        router.complete("hi", model=asked)
    assert f'unknown model "{asked}": "mini" is a backend: write "mini/<model>"' in str(caught.value)


# -- prices --------------------------------------------------------------------------------------------------

ABROAD = "https://llm.example.com"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("far", "is an alias"),
        ("far-*", "is an alias"),
        ("mian/big-model", "names no backend of this router"),
        ("big-modle", "main/big-model has no price"),
        ("main/bigmodel", "main/big-model has no price"),
    ],
)
def test_a_price_that_never_applies_is_a_warning_of_the_router(
    key: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    aliases = {"far": "main/big-model", "far-*": "main/far-*"}
    with caplog.at_level(logging.WARNING, "ccroute"):
        Router([OpenAIBackend("main", base_url=ABROAD)], aliases, prices={key: Price(1, 2)}).close()
    [record] = caplog.records
    assert record.getMessage().startswith(f'prices["{key}"] ')
    assert why in record.getMessage()
    assert 'write a deployment "backend/model", or the model\'s own name' in record.getMessage()


@pytest.mark.parametrize(
    "key", ["big-model", "main/big-model", "main/another", "qwen3", "anthropic/claude-9"]
)
def test_a_price_that_applies_or_may_apply_is_no_warning(key: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ccroute"):
        Router(
            [OpenAIBackend("main", base_url=ABROAD)],
            {"far": "main/big-model"},
            prices={"big-model": Price(1, 2), "baseline-model": Price(9, 9), key: Price(1, 2)},
            baseline="baseline-model",
        ).close()
    assert not caplog.records


# -- bounds in time ------------------------------------------------------------------------------------------


def recorded() -> Router:
    ledger = MemoryLedger()
    for day in range(3):
        ledger.record(row(started=START + day * DAY))
    return Router([OllamaBackend()], ledger=ledger)


@pytest.mark.parametrize("form", [datetime.isoformat, datetime.date, lambda at: at.date().isoformat()])
def test_reports_and_rows_take_texts_and_dates(form: Any) -> None:
    second = (START + DAY).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
    with recorded() as router:
        assert router.report(since=form(second)).total["attempts"] == 2
        assert router.report(until=form(second)).total["attempts"] == 1
        assert len(router.rows(form(second))) == 2


def test_a_bound_that_is_no_time_is_refused_by_name() -> None:
    number: Any = 1
    with recorded() as router:
        with pytest.raises(ValueError, match=r"^since= takes a datetime or a text such as .*, not 'January'"):
            router.report(since="January")
        with pytest.raises(TypeError, match=r"^until= takes a datetime, a date or an ISO 8601 text, not int"):
            router.rows(until=number)
        assert router.rows(date(2999, 1, 1)) == []
