"""A router's overrides and a gateway's rules: models for agents, limits for calls, models for bad times."""

import json

import pytest

from ccroute import Router
from ccroute.config import load, read
from ccroute.routing import Agent, Fallback
from ccroute.types import Budget, RetryPolicy, Timeout

NATIVE = {
    "backends": {"local": {"kind": "ollama"}},
    "aliases": {"opus": "local/big", "sonnet": "local/middle", "haiku": "local/small"},
}


def rules(*sources, **routing):
    """A gateway's file after the others, and the names of the models last."""
    return load([*sources, {"routing": routing}, NATIVE], {})


# A router's overrides.


def test_overrides_are_models_of_agents(write):
    content = {"agent_model_overrides": {"python-expert": "opus"}, "enable_agent_override": True}
    options = load([write("llm-router-config.json", json.dumps(content)), NATIVE], {})
    assert options["agents"] == {"python-expert": Agent("opus")}
    assert options["agent_override"] is True


def test_without_agent_override_the_calls_model_wins():
    content = {"agent_model_overrides": {"x": "opus"}, "enable_agent_override": False}
    with Router.from_config([content, NATIVE], env={}) as router:
        assert router.explain("x", agent="x").model == "opus"
        assert router.explain("x", agent="x", model="haiku").model == "haiku"


def test_an_override_wins_over_the_agents_own_model_only():
    agents = {
        "someAgents": [
            {"name": "Python Expert", "type": "py", "model": "sonnet", "fallback": "haiku", "localOnly": True}
        ]
    }
    for name in ("Python Expert", "python-expert", "py", "PY"):
        overrides = {"agentModelOverrides": {name: "opus"}}
        expected = Agent("opus", fallback=["haiku"], local_only=True, other_names=["py"])
        for sources in ([agents, overrides], [agents | overrides]):
            loaded = read([*sources, NATIVE], {})
            assert loaded.options["agents"] == {"python-expert": expected}
    assert not any("override" in place for place, _ in loaded.ignored)


def test_a_replaced_model_is_listed():
    agents = {"x": {"model": "nowhere"}}
    ignored = read([agents, {"agent_model_overrides": {"X": "opus"}}, NATIVE], {}).ignored
    assert ignored == (("source 1: x.model", "source 2: agent_model_overrides.X comes later and wins"),)


def test_a_later_agent_wins_over_an_override():
    overrides = {"agent_model_overrides": {"x": "opus"}}
    assert load([overrides, {"x": {"model": "haiku"}}, NATIVE], {})["agents"] == {"x": Agent("haiku")}


def test_faults_of_overrides_have_their_places(faults):
    assert faults({"agent_model_overrides": {"x": 5, "y": "opus"}, "enable_agent_override": "perhaps"}) == (
        "enable_agent_override: should be true or false",
        "agent_model_overrides.x: should be a name",
        (
            'agent_model_overrides.y: unknown alias "opus"; give it a target, as in '
            'aliases={"opus": "backend/model"}'
        ),
    )
    assert faults({"agent_model_overrides": ["x"]})[0] == "agent_model_overrides: should be a table"


def test_an_override_of_a_misspelled_agent_is_a_warning(caplog):
    load(
        [{"python-expert": {"model": "opus"}}, {"agent_model_overrides": {"pyhton-expert": "opus"}}, NATIVE],
        {},
    )
    assert caplog.messages == [
        (
            'config: source 2: agent_model_overrides.pyhton-expert: "pyhton-expert" is a new agent; '
            'was "python-expert" meant?'
        )
    ]


# A gateway's rules.


def test_a_gateways_rules_give_models():
    options = rules(agent_rules={"python-expert": "opus"}, default_model="sonnet")
    assert options["agents"] == {"python-expert": Agent("opus")}
    assert options["default_model"] == "sonnet"
    assert rules(agentRules={"x": "opus"}, defaultModel="haiku")["default_model"] == "haiku"


def test_models_for_bad_times_are_fallbacks_with_triggers():
    options = rules(offline_model="local/tiny", budget_model="haiku")
    assert options["fallbacks"]["*"] == [
        Fallback("local/tiny", ["availability"]),
        Fallback("haiku", ["budget"]),
    ]


def test_a_pattern_of_agents_is_a_warning(caplog):
    options = rules(agent_rules={"*-expert": "opus", "x": "opus"})
    assert options["agents"].keys() == {"x"}
    assert caplog.messages == [
        "config: source 1: routing.agent_rules.*-expert: is not used: a pattern names no agent"
    ]


def test_rules_for_workloads_are_ignored_with_the_reason():
    source = {"routing": {"workload_rules": {"code": "opus"}, "default_model": "opus"}}
    assert read([source, NATIVE], {}).ignored == (
        ("source 1: routing.workload_rules", "a call names an agent or a model, and no workload"),
    )


def test_fallback_providers_are_used_where_they_name_a_model():
    source = {
        "routing": {"default_model": "opus"},
        "fallback_providers": [
            "haiku",
            "local/x",
            {"provider": "local", "model": "y"},
            {"provider": "local"},
            "openai",
        ],
    }
    loaded = read([source, NATIVE], {})
    assert loaded.options["fallbacks"]["*"] == ["haiku", "local/x", "local/y"]
    assert loaded.ignored == tuple(
        (f"source 1: fallback_providers[{i}]", "names no model that could answer") for i in (3, 4)
    )


@pytest.mark.parametrize(
    ("costs", "budget"),
    [
        ({"max_hourly_spend": 10}, Budget(10, per="hour")),
        ({"maxDailySpend": "${LIMIT:-0.5}"}, Budget("0.5")),
        ({"max_monthly_spend": 0.1}, Budget("0.1", per="month")),
    ],
)
def test_spending_is_a_budget_of_the_router(caplog, costs, budget):
    found = read({"cost_settings": costs}, {}, {"default_model": "ollama/x"})
    assert found.options["budgets"] == {"router": budget}
    assert not found.ignored
    assert not caplog.messages


def test_only_one_of_several_spends_is_kept(caplog):
    source = {"cost_settings": {"max_hourly_spend": 10, "max_daily_spend": 50}}
    found = read(source, {}, {"default_model": "ollama/x"})
    assert found.options["budgets"] == {"router": Budget(10, per="hour")}
    reason = "a router has one budget, which is max_hourly_spend here"
    assert found.ignored == (("cost_settings.max_daily_spend", reason),)
    assert caplog.messages == [f"config: cost_settings.max_daily_spend: is not kept: {reason}"]


def test_budgets_fall_back_where_a_model_is_there_for_it():
    costs = {"cost_settings": {"max_hourly_spend": 10}}
    agent = {"x": {"model": "opus", "fallbackModel": "sonnet", "dailyBudget": 3}}
    plain = load([agent | costs | {"fallback_providers": ["haiku"]}, NATIVE], {})
    assert {budget.then for budget in plain["budgets"].values()} == {"refuse"}
    found = load([agent | costs | {"routing": {"budget_model": "haiku"}}, NATIVE], {})
    assert found["budgets"] == {
        "router": Budget(10, per="hour", then="fallback"),
        "agent:x": Budget(3, then="fallback"),
    }


def test_a_fault_of_a_spend_has_its_place(faults):
    assert faults([{"cost_settings": {"max_hourly_spend": -1}}, NATIVE]) == (
        "source 1: cost_settings.max_hourly_spend: should be greater than or equal to 0",
    )


def test_performance_settings_are_limits_of_calls():
    performance = {"request_timeout": 30, "max_retries": 2, "requests_per_minute": 60, "pool_size": 5}
    source = {"routing": {"agent_rules": {"x": "opus"}}, "performance_settings": performance}
    loaded = read([{"y": {"model": "haiku"}}, source, NATIVE], {})
    assert loaded.options["timeout"] == Timeout(total=30)
    assert loaded.options["retry"] == RetryPolicy(4, per_deployment=3)
    assert {name: agent.rpm for name, agent in loaded.options["agents"].items()} == {"x": 60, "y": 60}
    assert dict(loaded.ignored).keys() == {"source 2: performance_settings.pool_size"}


def test_an_agents_own_limit_wins_over_the_gateways():
    limit = {"performance_settings": {"requests_per_minute": 60}}
    native = {
        "agents": {"x": {"model": "opus", "rpm": 5}, "y": {"model": "opus", "group": "g"}},
        "groups": {"g": {"rpm": 7}},
    }
    for sources in ([limit, native], [native, limit]):
        agents = load([*sources, NATIVE], {})["agents"]
        assert {name: agent.rpm for name, agent in agents.items()} == {"x": 5, "y": None}


def test_no_retry_leaves_an_attempt_for_each_fallback():
    source = {
        "performance_settings": {"max_retries": 0},
        "routing": {"offline_model": "opus", "budget_model": "haiku"},
    }
    assert load([source, NATIVE], {})["retry"] == RetryPolicy(3, per_deployment=1)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"max_retries": -1}, "max_retries: should be a whole number, at least 0"),
        ({"max_retries": True}, "max_retries: should be a whole number, at least 0"),
        ({"max_retries": "many"}, "max_retries: should be a whole number, at least 0"),
        ({"requests_per_minute": 0}, "requests_per_minute: should be a whole number, at least 1"),
        ({"request_timeout": 0}, "request_timeout: should be greater than 0"),
        (
            {"request_timeout": "soon"},
            "request_timeout: should be a valid number, unable to parse string as a number",
        ),
        ({"max_retries": "${NOPE}"}, "max_retries: environment variable NOPE is not set"),
    ],
)
def test_faults_of_performance_settings_have_their_places(faults, settings, fault):
    assert faults([{"performance_settings": settings}, NATIVE]) == (
        f"source 1: performance_settings.{fault}",
    )


def test_numbers_may_be_texts_and_variables():
    source = {
        "performance_settings": {"max_retries": "2", "requests_per_minute": "${RPM:-30}"},
        "x": {"model": "opus"},
    }
    options = load([source, NATIVE], {})
    assert (options["retry"].per_deployment, options["agents"]["x"].rpm) == (3, 30)


def test_a_misspelled_rule_is_a_warning(caplog):
    rules({"x": {"model": "opus"}}, agent_rule={"x": "opus"}, default_model="opus")
    assert caplog.messages == [
        'config: source 2: routing.agent_rule: unknown key, did you mean "agent_rules"?'
    ]


def test_a_routing_of_something_else_is_not_a_gateways():
    source = {"agents": {"x": {"model": "opus", "type": "t"}}, "routing": {"strategy": "round-robin"}}
    loaded = read([source, NATIVE], {})
    assert loaded.options["agents"] == {"x": Agent("opus")}
    assert dict(loaded.ignored).keys() == {"source 1: routing", "source 1: agents.x.type"}
    grouped = {"routing": {"x": {"model": "opus"}}, "g": {"y": {"model": "opus"}}}
    assert load([grouped, NATIVE], {})["agents"].keys() == {"x", "y"}


def test_all_sections_may_be_in_one_file():
    source = {
        "architect": {"name": "Chief", "model": "opus"},
        "codingAgents": [{"name": "Python Expert", "type": "py", "model": "fast"}],
        "llm_routing": {
            "endpoints": {"proxy": {"url": "http://proxy.example.com/v1", "models": {"fast": "qwen"}}}
        },
        "llmGateway": {
            "providers": {"local": {"providerType": "ollama", "defaultModel": "q"}},
            "routing": {"modelTierRules": {"opus": "local"}, "fallbackChain": ["local"]},
        },
        "agent_model_overrides": {"py": "opus"},
        "performance_settings": {"max_retries": 0},
    }
    loaded = read(source, {})
    assert loaded.ignored == ()
    options = loaded.options
    assert {name: agent.model for name, agent in options["agents"].items()} == {
        "chief": "opus",
        "python-expert": "opus",
    }
    assert options["aliases"].resolve("opus").deployments == ("local/q",)
    assert options["aliases"].resolve("fast").deployments == ("proxy/qwen",)
    assert options["fallbacks"] == {"*": ["local/q"]}
    assert options["retry"] == RetryPolicy(2, per_deployment=1)


def test_a_disabled_section_of_endpoints_is_skipped():
    routing = {"enabled": False, "endpoints": {"p": {"url": "${NOPE}"}}}
    loaded = read({"llm_routing": routing, "x": {"model": "ollama/q"}}, {})
    assert loaded.ignored == (("llm_routing", "is disabled"),)
    routing = {"strategy": "x"}
    loaded = read({"llm_routing": routing, "x": {"model": "ollama/q"}}, {})
    assert loaded.ignored == (("llm_routing", "has no endpoints"),)
