"""What an entry says about its model: windows, limits and defaults for requests."""

from decimal import Decimal

import pytest
from tests.config.litellm.files import entry, loaded, model

from ccroute.backends.known_models import known
from ccroute.types import Model


def test_windows_come_from_either_place():
    assert model(num_ctx=4096, max_output_tokens=10)[0] == Model(context_window=4096, max_output=10)
    assert model(max_input_tokens=99)[0].context_window == 99
    assert model(info={"max_input_tokens": "1e5", "max_output_tokens": 8.0})[0] == Model(
        context_window=100_000, max_output=8
    )


def test_max_tokens_of_a_description_counts_beside_a_larger_window():
    assert model(info={"max_input_tokens": 100, "max_tokens": 10})[0].max_output == 10
    for info in ({"max_tokens": 10}, {"max_input_tokens": 10, "max_tokens": 10}):
        found = loaded(entry("a", "ollama/x", info, temperature=1))
        assert found.model("ollama/x").max_output is None
        assert "may be the window" in found.ignored["model_list[0].model_info.max_tokens"]


def test_only_ollama_has_num_ctx():
    found = loaded(entry("a", "groq/x", api_key="k", num_ctx=5))
    assert not found.backends["groq"].models
    assert found.ignored["model_list[0].litellm_params.num_ctx"] == "only Ollama has it"


def test_limits_of_requests_are_the_models():
    assert model(rpm=6, tpm="1000")[0] == Model(rpm=6, tpm=1000)
    row = entry("a", "ollama/x") | {"rpm": 7}
    assert loaded(row).model("ollama/x").rpm == 7


def test_parameters_are_defaults_of_the_model():
    found, _ = model(
        temperature=0.2,
        top_p=Decimal("0.5"),
        seed=1,
        stop=["x"],
        max_completion_tokens=9,
        reasoning_effort={"effort": "xhigh"},
        extra_body={"store": True},
        kind="groq",
        min_p=0.1,
    )
    assert found.params == {
        "temperature": 0.2,
        "top_p": 0.5,
        "seed": 1,
        "stop": ["x"],
        "max_tokens": 9,
        "reasoning_effort": "max",
        "extra": {"store": True, "min_p": 0.1},
    }


def test_ollamas_own_fields_are_options():
    found, _ = model(
        repeat_penalty=1.1, extra_body={"num_ctx": 4096, "think": True, "options": {"mirostat": 1}}
    )
    assert found.params == {
        "extra": {"think": True, "options": {"mirostat": 1, "repeat_penalty": 1.1, "num_ctx": 4096}}
    }
    assert model(extra_body={"options": 3, "x": 1})[0].params == {"extra": {"x": 1}}


@pytest.mark.parametrize(
    ("kind", "thinking", "params"),
    [
        (
            "anthropic",
            {"type": "enabled", "budget_tokens": 5},
            {"extra": {"thinking": {"type": "enabled", "budget_tokens": 5}}},
        ),
        ("groq", {"type": "enabled", "budget_tokens": 4096}, {"reasoning_effort": "high"}),
        ("groq", {"type": "enabled", "budget_tokens": 2048}, {"reasoning_effort": "medium"}),
        ("groq", {"type": "enabled"}, {"reasoning_effort": "low"}),
        ("groq", {"type": "disabled"}, {"reasoning_effort": "none"}),
    ],
)
def test_thinking_is_written_as_the_api_wants_it(kind, thinking, params):
    assert model(kind=kind, thinking=thinking)[0].params == params


def test_dropped_parameters_have_our_names():
    found, read = model(
        additional_drop_params=[
            "seed",
            "max_completion_tokens",
            "thinking",
            "client_metadata",
            "tools[*].x",
            "seed",
        ]
    )
    assert list(found.drops) == ["seed", "max_tokens", "reasoning_effort", "extra.client_metadata"]
    assert "whole parameters only" in read.ignored["model_list[0].litellm_params.additional_drop_params"]


def test_the_base_model_gives_what_is_known_of_it():
    facts = known("openai", "gpt-5", "azure")
    row = entry(
        "a", "azure/mine", {"base_model": "azure/gpt-5"}, api_key="k", api_base="https://r.openai.azure.com"
    )
    found = loaded(row).model("azure/mine")
    assert (found.sampling, tuple(found.efforts), tuple(found.refuses)) == (
        facts.sampling,
        tuple(facts.efforts),
        tuple(facts.refuses),
    )


def test_a_wildcards_models_have_no_facts():
    found = loaded(entry("groq/*", "groq/*", api_key="k", temperature=1))
    assert not found.backends["groq"].models
    assert "wildcard" in found.ignored["model_list[0].litellm_params.temperature"]


def test_default_parameters_of_the_router_are_each_entrys(faults):
    settings = {"router_settings": {"default_litellm_params": {"temperature": 1, "max_tokens": 5}}}
    found = loaded(entry("a", "ollama/x"), entry("b", "ollama/y", temperature=0), **settings)
    assert found.model("ollama/x").params == {"temperature": 1, "max_tokens": 5}
    assert found.model("ollama/y").params == {"temperature": 0, "max_tokens": 5}


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"temperature": "hot"}, "temperature: temperature must be a number, not str"),
        ({"max_tokens": "many"}, "max_tokens: should be a whole number, at least 0"),
        ({"max_tokens": "1e999999999"}, "max_tokens: should be a whole number, at least 0"),
        ({"max_tokens": "sNaN"}, "max_tokens: should be a whole number, at least 0"),
        ({"max_tokens": 1.5}, "max_tokens: should be a whole number, at least 0"),
        ({"rpm": True}, "rpm: should be a whole number, at least 0"),
        ({"input_cost_per_token": -1}, "input_cost_per_token: should be a number, at least 0"),
        ({"additional_drop_params": [1]}, "additional_drop_params[0]: should be a parameter's name"),
        ({"extra_body": 3}, "extra_body: should be a table"),
        ({"api_base": 3}, "api_base: should be a string"),
        ({"drop_params": "perhaps"}, "drop_params: should be true or false"),
    ],
)
def test_a_value_of_a_wrong_type_is_a_fault_with_its_place(faults, params, fault):
    (found,) = faults({"model_list": [entry("a", "groq/x", **{"api_key": "k", **params})]})
    assert found.startswith(f"model_list[0].litellm_params.{fault}") or found == fault
