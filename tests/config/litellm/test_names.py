"""Names: balanced, ordered, wildcards, aliases of aliases."""

import logging

import pytest
from tests.config.litellm.files import entry, loaded


def two(**params):
    """Two entries of one name, each parameter a pair of values."""
    rows = [{key: pair[i] for key, pair in params.items() if pair[i] is not None} for i in (0, 1)]
    return [entry("a", f"ollama/{model}", **row) for model, row in zip("xy", rows, strict=True)]


@pytest.mark.parametrize(
    ("params", "weights"),
    [
        ({}, (1, 1)),
        ({"weight": (2, 6)}, (2, 6)),
        ({"rpm": (10, 30), "tpm": (1, 1)}, (10, 30)),
        ({"tpm": (10, 30)}, (10, 30)),
        ({"weight": (1, 1), "rpm": (10, 30)}, (1, 1)),
        ({"weight": (0.5, None)}, (0.5, 1e-9)),
        ({"weight": (None, 5)}, (1, 1)),
        ({"weight": (0, 5)}, (1e-9, 5)),
        ({"weight": (0, 0)}, (1, 1)),
    ],
)
def test_weights_are_drawn_as_simple_shuffle_draws_them(params, weights):
    # https://github.com/BerriAI/litellm/blob/main/litellm/router_strategy/simple_shuffle.py
    found = loaded(*two(**params))
    assert found.leads("a") == ("ollama/x", "ollama/y")
    assert found.weights("a") == weights


def test_other_strategies_have_no_weights():
    found = loaded(*two(rpm=(1, 9)), router_settings={"routing_strategy": "least-busy"})
    assert found.weights("a") == (1, 1)


@pytest.mark.parametrize(
    ("given", "strategy"),
    [
        ("simple-shuffle", "weighted"),
        ("least-busy", "least-busy"),
        ("latency-based-routing", "latency"),
        ("cost-based-routing", "cost"),
        ("usage-based-routing", "least-busy"),
        ("usage-based-routing-v2", "least-busy"),
    ],
)
def test_each_strategy_has_a_counterpart(given, strategy):
    found = loaded(entry("a", "ollama/x"), router_settings={"routing_strategy": given})
    assert found.options["aliases"].strategy == strategy
    assert ("router_settings.routing_strategy" in found.ignored) == given.startswith("usage")


def test_an_unknown_strategy_is_a_warning(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    found = loaded(entry("a", "ollama/x"), router_settings={"routing_strategy": "complexity-based-routing"})
    assert found.options["aliases"].strategy == "weighted"
    assert "routing_strategy: is not known; names are balanced by their weights" in caplog.text


def test_orders_are_tried_one_after_the_other():
    rows = [entry("a", f"ollama/{name}", order=order) for name, order in (("z", 3), ("x", 1), ("y", 1.5))]
    resolution = loaded(*rows, entry("a", "ollama/last")).options["aliases"].resolve("a")
    assert resolution.deployments == ("ollama/x", "ollama/y", "ollama/z", "ollama/last")
    assert resolution.strategy == "ordered"


def test_equal_orders_are_balanced_and_the_others_are_fallbacks():
    rows = [
        entry("a", f"ollama/{name}", order=order, weight=2) for name, order in (("x", 1), ("z", 2), ("y", 1))
    ]
    found = loaded(
        *rows,
        entry("b", "ollama/b"),
        router_settings={"fallbacks": [{"a": ["b"]}, {"b": ["a"]}], "model_group_alias": {"c": "a"}},
    )
    assert found.leads("a") == found.leads("c") == ("ollama/x", "ollama/y")
    assert found.leads("a (order 2)") == ("ollama/z",)
    assert found.fallbacks("a") == found.fallbacks("c") == ["a (order 2)", "b"]
    assert found.fallbacks("b") == ["a", "a (order 2)"]


def test_equal_orders_of_a_wildcard_are_only_ordered():
    rows = [entry("x-*", f"ollama/{name}-*", order=order) for name, order in (("a", 1), ("b", 1), ("c", 2))]
    assert loaded(*rows).leads("x-1") == ("ollama/a-1", "ollama/b-1", "ollama/c-1")


def test_the_most_specific_wildcard_counts():
    found = loaded(
        entry("*", "ollama/any"),
        entry("claude-*", "anthropic/claude-*", api_key="k"),
        entry("claude-3-*", "ollama/three"),
        entry("claude-3-x", "ollama/exact"),
    )
    names = ("claude-3-x", "claude-3-y", "claude-4", "gpt")
    leads = [found.leads(name)[0] for name in names]
    assert leads == ["ollama/exact", "ollama/three", "anthropic/claude-4", "ollama/any"]


def test_a_wildcards_names_reach_its_own_server_only():
    proxy = entry("openai/*", "openai/*", api_key="k", api_base="https://proxy.example.com/v1")
    found = loaded(entry("a", "openai/gpt-4o", api_key="k"), proxy)
    assert found.leads("a") == ("openai-2/gpt-4o",)
    (deployment,) = found.leads("openai/o3")
    assert str(found.backends[deployment.partition("/")[0]].origin) == "https://proxy.example.com"


def test_any_model_of_any_provider_goes_to_those_with_a_key():
    found = loaded(entry("*", "*"), env={"ANTHROPIC_API_KEY": "k", "GROQ_API_KEY": "k"})
    assert found.leads("claude-opus-4-1") == ("anthropic/claude-opus-4-1",)
    assert found.leads("anthropic/claude-opus-4-1") == ("anthropic/claude-opus-4-1",)
    assert found.leads("groq/x/y") == ("groq/x/y",)
    assert found.leads("ollama/x") == ("ollama/x",)
    assert "gpt-*" not in found.options["aliases"]


def test_an_alias_leads_to_a_model_of_the_file(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    aliases = {"b": "a", "c": {"model": "a", "hidden": True}, "d": ["a", "e"], "e": "a", "a": ["a"]}
    found = loaded(
        *two(weight=(1, 2)), entry("e", "ollama/e"), router_settings={"model_group_alias": aliases}
    )
    assert found.leads("b") == found.leads("c") == found.leads("a")
    assert found.weights("b") == (1, 2)
    assert found.leads("d") == ("ollama/x", "ollama/y")
    assert found.ignored["router_settings.model_group_alias.a"] == "is the model's own name"
    assert "model_group_alias.e: is a model_name, too; requests go to what the alias says" in caplog.text


def test_a_wrong_alias_is_a_fault_with_its_place(faults):
    settings = {"model_group_alias": {"b": 5, "c": {"hidden": True}, "d": "aa"}}
    assert faults({"model_list": [entry("a", "ollama/x")], "router_settings": settings}) == (
        "router_settings.model_group_alias.b: should be a model's name, or a table with model",
        "router_settings.model_group_alias.c: should be a model's name, or a table with model",
        'router_settings.model_group_alias.d: "aa" is neither an alias nor backend/model, did you mean "a"?',
    )
