"""`orchestra-config.json` loads unchanged, in the shapes that have been seen."""

import json

import pytest
from tests.config.shapes import ENV, backends, endpoint

from ccroute.backends import AnthropicBackend, OllamaBackend, OpenAIBackend
from ccroute.config import load, read
from ccroute.routing import Agent
from ccroute.types import Budget


@pytest.fixture
def flat(fixtures):
    return fixtures / "orchestra-config-tdd.json"


@pytest.fixture
def groups(fixtures):
    return fixtures / "orchestra-config-groups.json"


# Flat: agents, and endpoints with the names they know.


def test_the_real_file_loads_unchanged(flat):
    options = load(flat, ENV)
    assert len(options["agents"]) == 15
    assert options["agents"]["chief-architect"] == Agent("opus", fallback=["claude-3-5-sonnet"])
    assert options["agents"]["python-expert"] == Agent("gpt-3.5-turbo")
    assert backends(options) == {
        "claude-api": (AnthropicBackend, "https://api.anthropic.com", ("sk-ant",)),
        "ccproxy": (OpenAIBackend, "https://ccproxy.example.com", ()),
    }
    assert {name: options["aliases"].resolve(name).deployments for name in options["aliases"]} == {
        "opus": ("claude-api/claude-opus-4-1",),
        "sonnet": ("claude-api/claude-3-5-sonnet",),
        "qwen-fast": ("ccproxy/ollama/qwen2.5-coder:7b-instruct",),
        "qwen-quality": ("ccproxy/ollama/qwen2.5-coder:32b-instruct",),
        "gpt-3.5-turbo": ("ccproxy/ollama/qwen2.5-coder:7b-instruct",),
        "gpt-4": ("ccproxy/ollama/qwen2.5-coder:32b-instruct",),
        "claude-opus-4-1": ("claude-api/claude-opus-4-1",),
        "claude-3-5-sonnet": ("claude-api/claude-3-5-sonnet",),
        "ollama/qwen2.5-coder:7b-instruct": ("ccproxy/ollama/qwen2.5-coder:7b-instruct",),
        "ollama/qwen2.5-coder:32b-instruct": ("ccproxy/ollama/qwen2.5-coder:32b-instruct",),
    }


def test_the_callers_aliases_win_over_the_real_files(flat):
    aliases = {"opus": "local/qwen", "gpt-4": ["local/qwen", "ccproxy/x"]}
    options = load(flat, ENV, {"aliases": aliases, "backends": [OllamaBackend("local")]})
    assert options["aliases"].resolve("opus").deployments == ("local/qwen",)
    assert options["aliases"].resolve("gpt-4").deployments == ("local/qwen", "ccproxy/x")
    assert options["aliases"].resolve("sonnet").deployments == ("claude-api/claude-3-5-sonnet",)


def test_without_routing_the_real_file_names_missing_aliases(flat, faults):
    content = json.loads(flat.read_text("utf-8"))
    del content["llm_routing"]
    found = faults(content)
    names = ["opus", "claude-3-5-sonnet", "gpt-3.5-turbo", "gpt-4"]
    targets = ", ".join(f'"{name}": "backend/model"' for name in names)
    assert [fault.rpartition(": unknown alias ")[2].partition(";")[0] for fault in found] == [
        '"opus"',
        '"claude-3-5-sonnet"',
        '"gpt-3.5-turbo"',
        '"gpt-4"',
    ]
    assert found[1].startswith("agents.chief-architect.fallback_model: unknown alias")
    users = "agents.tdd-coding-agent.model, agents.python-expert.model and 9 more"
    assert found[2] == f'{users}: unknown alias "gpt-3.5-turbo"'
    assert found[3].endswith(f"; give each a target, as in aliases={{{targets}}}")
    aliases = dict.fromkeys(names, "ollama/qwen")
    assert len(load(content, {}, {"aliases": aliases})["agents"]) == 15


def test_what_is_not_about_routing_is_listed_as_ignored(flat):
    ignored = dict(read(flat, ENV).ignored)
    assert {
        "pipeline",
        "memory_structure",
        "agents.*.type (15 times)",
        "agents.*.phase (15 times)",
    } <= ignored.keys()
    assert not any("model" in place for place in ignored)


def test_an_alias_may_stand_for_a_short_name_of_its_endpoint():
    source = endpoint("https://p.example.com", models={"quality": "big-32b"}, aliases={"gpt-4": "quality"})
    assert dict(load(source, {})["aliases"]) == {
        "quality": "e/big-32b",
        "gpt-4": "e/big-32b",
        "big-32b": "e/big-32b",
    }


def test_a_list_of_models_gives_each_its_id_as_its_name(faults):
    source = endpoint("https://p.example.com", models=["a", "b/c"], aliases={"gpt-4": "b/c"})
    assert dict(load(source, {})["aliases"]) == {"a": "e/a", "b/c": "e/b/c", "gpt-4": "e/b/c"}
    assert faults(endpoint("https://p.example.com", models=["a", 5], aliases=["x"])) == (
        "llm_routing.endpoints.e.models[1]: should be a model id",
        "llm_routing.endpoints.e.aliases: should be a table of names and model ids",
    )


def test_a_name_of_two_endpoints_is_balanced_and_beats_a_model_id():
    source = {
        "llm_routing": {
            "strategy": "x",
            "endpoints": {
                "one": {"url": "http://one.example.com/v1", "models": {"fast": "m"}, "region": "eu"},
                "two": {"url": "http://two.example.com/v1", "models": {"fast": "m"}, "aliases": {"m": "n"}},
                "off": {"url": "${NOPE}", "enabled": False},
                "note": "text",
            },
        }
    }
    loaded = read(source, {})
    aliases = loaded.options["aliases"]
    assert dict(aliases) == {"fast": ["one/m", "two/m"], "m": "two/n", "n": "two/n"}
    assert [place for place, _ in loaded.ignored] == [
        "llm_routing.strategy",
        "llm_routing.endpoints.one.region",
        "llm_routing.endpoints.off",
        "llm_routing.endpoints.note",
    ]


def test_faults_of_endpoints_have_the_places_of_the_file(faults):
    source = {
        "llm_routing": {
            "endpoints": {
                "none": {"models": {"a": "x"}},
                "bad": {"url": "nope", "apiKey": "${NO_KEY}", "models": "x", "aliases": {"b": 5}},
                "host": {"url": "http://", "models": {"c": "${NO_MODEL}"}},
                "odd": {"url": 5},
            }
        },
        "agents": {"x": {"model": "a", "fallback_model": 5}, "y": {"model": 7, "fallbackModel": ["a", "zz"]}},
    }
    advice = 'give it a target, as in aliases={"zz": "backend/model"}'
    assert faults(source) == (
        "llm_routing.endpoints.none.url: is missing",
        "llm_routing.endpoints.bad.apiKey: environment variable NO_KEY is not set",
        "llm_routing.endpoints.bad.models: should be a table of names and model ids",
        "llm_routing.endpoints.bad.aliases.b: should be a model id",
        "llm_routing.endpoints.host.models.c: environment variable NO_MODEL is not set",
        "llm_routing.endpoints.odd.url: should be a string",
        "agents.x.fallback_model: should be a model's name, or a table with model and triggers",
        "agents.y.model: should be a valid string",
        f'agents.y.fallbackModel[1]: unknown alias "zz"; {advice}',
    )


@pytest.mark.parametrize("routing", [None, {}, {"endpoints": []}, {"other": 5}])
def test_routing_without_endpoints_is_a_fault(faults, routing):
    assert faults({"llm_routing": routing}) == ("llm_routing.endpoints: should be a table of endpoints",)


def test_misspelled_endpoints_are_a_fault_with_the_right_key(faults):
    text = 'unknown key, did you mean "endpoints"?'
    assert faults({"llm_routing": {"endpoint": {}}}) == (f"llm_routing.endpoint: {text}",)


# Nested groups: agents with their own addresses.


def test_agents_with_one_address_and_key_share_a_backend(groups):
    options = load(groups, ENV, {"aliases": {"sonnet": "anthropic/claude-sonnet-4-5"}})
    assert backends(options) == {
        "anthropic": (AnthropicBackend, "https://api.anthropic.com", ("sk-ant",)),
        "ccproxy": (OpenAIBackend, "https://ccproxy.example.com", ("token",)),
        "ollama": (OllamaBackend, "http://localhost:11434", ()),
        "localhost": (OpenAIBackend, "http://localhost:11434", ("ollama",)),
    }


def test_agents_keep_groups_and_models_lead_to_their_backend(groups):
    options = load(groups, ENV, {"aliases": {"sonnet": "anthropic/claude-sonnet-4-5"}})
    assert options["agents"] == {
        "chief-architect": Agent("claude-opus-4-1", fallback=["qwen-quality-128k:latest"]),
        "python-expert": Agent(
            "qwen2.5-coder:32b-instruct", fallback=["qwen-fast:latest"], group="coding-specialists"
        ),
        "go-expert": Agent("qwen2.5-coder:32b-instruct", group="coding-specialists"),
        "qa-engineer": Agent("ollama/qwen-quality-128k:latest", group="support-agents"),
        "credential-manager": Agent("qwen-fast:latest", group="support-agents", local_only=True),
        "documentation-lead": Agent("sonnet", group="support-agents"),
    }
    assert options["groups"] == {"coding-specialists": Agent(), "support-agents": Agent()}
    assert dict(options["aliases"]) == {
        "sonnet": "anthropic/claude-sonnet-4-5",
        "claude-opus-4-1": "anthropic/claude-opus-4-1",
        "qwen2.5-coder:32b-instruct": "ccproxy/qwen2.5-coder:32b-instruct",
        "ollama/qwen-quality-128k:latest": "ollama/qwen-quality-128k:latest",
        "qwen-fast:latest": "localhost/qwen-fast:latest",
        "qwen-quality-128k:latest": "anthropic/qwen-quality-128k:latest",
    }


def test_other_keys_in_groups_and_agents_are_ignored(groups):
    ignored = dict(read(groups, ENV, {"aliases": {"sonnet": "anthropic/x"}}).ignored)
    assert ignored == {
        "name": "says nothing about which model answers",
        "version": "says nothing about which model answers",
        "chief-architect.role": "says nothing about which model answers",
        "chief-architect.type": "says nothing about which model answers",
        "coding-specialists.python-expert.role": "says nothing about which model answers",
        "coding-specialists.python-expert.type": "says nothing about which model answers",
        "coding-specialists.go-expert.type": "says nothing about which model answers",
        "coding-specialists.cobol-expert": "is disabled",
        "support-agents.description": "says nothing about which model answers",
        "support-agents.qa-engineer.phase": "says nothing about which model answers",
        "support-agents.planned": "has no model, and no agents in it",
    }


def test_groups_may_stand_under_agents(groups):
    content = json.loads(groups.read_text("utf-8"))
    aliases = {"aliases": {"sonnet": "anthropic/x"}}
    nested = load({"version": "2", "agents": content}, ENV, aliases)
    assert nested["agents"] == load(groups, ENV, aliases)["agents"]


def test_a_model_used_at_two_addresses_is_named_with_its_backend():
    source = {
        "a": {"model": "big", "fallbackModel": "small", "baseUrl": "http://one.example.com/v1"},
        "b": {"model": "big", "fallbackModel": ["small", "big"], "baseUrl": "http://two.example.com/v1"},
        "c": {"model": "other", "fallbackModel": "big", "baseUrl": "http://two.example.com/v1"},
    }
    options = load(source, {})
    assert options["agents"] == {
        "a": Agent("one/big", fallback=["one/small"]),
        "b": Agent("two/big", fallback=["two/small", "two/big"]),
        "c": Agent("other", fallback=["two/big"]),
    }
    assert dict(options["aliases"]) == {"other": "two/other"}


def test_a_fallback_at_two_other_addresses_needs_an_alias(faults):
    source = {
        "a": {"model": "big", "baseUrl": "http://one.example.com/v1"},
        "b": {"model": "big", "baseUrl": "http://two.example.com/v1"},
        "c": {"model": "m", "fallbackModel": "big", "baseUrl": "http://three.example.com/v1"},
    }
    (fault,) = faults(source)
    assert fault.startswith('c.fallbackModel: unknown alias "big"')
    assert load(source, {}, {"aliases": {"big": "one/big"}})["agents"]["c"].fallback == ("big",)


def test_an_agents_address_beats_an_endpoint_with_the_name():
    source = endpoint("http://e.example.com/v1", models={"m": "x"}) | {
        "agents": {
            "own": {"model": "m", "baseUrl": "http://own.example.com/v1", "fallbackModel": "m"},
            "shared": {"model": "m"},
        }
    }
    options = load(source, {})
    assert options["agents"] == {"own": Agent("own/m", fallback=["m"]), "shared": Agent("m")}
    assert options["aliases"].resolve("m").deployments == ("e/x",)


@pytest.mark.parametrize(
    ("url", "kind", "name", "model", "deployment"),
    [
        ("https://api.anthropic.com", AnthropicBackend, "anthropic", "anthropic/c", "anthropic/c"),
        ("https://api.openai.com/v1", OpenAIBackend, "openai", "openai/gpt-5", "openai/gpt-5"),
        ("https://api.deepseek.com", OpenAIBackend, "deepseek", "deepseek/chat", "deepseek/chat"),
        (
            "https://openrouter.ai/api/v1",
            OpenAIBackend,
            "openrouter",
            "openrouter/auto",
            "openrouter/openrouter/auto",
        ),
        ("http://localhost:11434/", OllamaBackend, "ollama", "ollama/q", "ollama/q"),
        ("http://127.0.0.1:11434", OllamaBackend, "ollama", "ollama_chat/q", "ollama/q"),
        ("http://mini1.local:11434", OllamaBackend, "mini1", "ollama/q", "mini1/q"),
        ("http://192.168.1.5:11434", OllamaBackend, "192.168.1.5", "q", "192.168.1.5/q"),
        ("http://localhost:11434/v1", OpenAIBackend, "localhost", "ollama/q", "localhost/ollama/q"),
        ("https://api.mistral.ai/v1", OpenAIBackend, "mistral", "m", "mistral/m"),
        ("https://openai.example.com/v1", OpenAIBackend, "openai.example.com", "m", "openai.example.com/m"),
    ],
)
def test_an_address_gives_the_kind_of_server_and_its_name(url, kind, name, model, deployment):
    options = load({"x": {"model": model, "baseUrl": url, "apiKey": "k"}}, {})
    (backend,) = options["backends"]
    assert (type(backend), backend.name) == (kind, name)
    assert options["aliases"].resolve(model).deployments == (deployment,)


def test_one_address_with_two_keys_is_two_backends():
    source = {
        "a": {"model": "m", "baseUrl": "https://p.example.com/v1", "apiKey": "one"},
        "b": {"model": "n", "baseUrl": "https://p.example.com/v1", "apiKey": "two"},
    }
    options = load(source, {})
    assert [(backend.name, backend.secrets()) for backend in options["backends"]] == [
        ("p", ("one",)),
        ("p-2", ("two",)),
    ]
    assert options["aliases"].resolve("n").deployments == ("p-2/n",)


def test_faults_of_agents_have_the_places_of_the_file(faults):
    source = {
        "coders": {
            "a": {"model": "m", "baseUrl": "nope"},
            "b": {"model": "m2", "baseUrl": "http://[", "apiKey": "k"},
            "c": {"model": "m3", "baseUrl": "${NO_URL}"},
            "d": {"model": 5, "baseUrl": "http://d.example.com", "apiKey": "${NO_KEY}"},
            "e": {"model": "${NO_MODEL}", "localOnly": "perhaps"},
            "f": {"model": "m4", "fallbackModel": [1], "baseUrl": "http://f.example.com", "apiKey": "x\n"},
            "g": {"model": "lost", "fallbackModel": None, "apiKey": "${UNUSED}"},
        }
    }
    assert faults(source) == (
        "coders.c.baseUrl: environment variable NO_URL is not set",
        "coders.d.apiKey: environment variable NO_KEY is not set",
        "coders.e.localOnly: should be true or false",
        "coders.e.model: environment variable NO_MODEL is not set",
        "coders.b.baseUrl: must look like http://localhost:11434 or https://host/v1",
        "coders.d.model: should be a valid string",
        "coders.f.fallbackModel[0]: should be a model's name, or a table with model and triggers",
        "coders.a.baseUrl: must look like http://localhost:11434 or https://host/v1",
        'coders.g.model: unknown alias "lost"; give it a target, as in aliases={"lost": "backend/model"}',
    )


def test_a_key_without_an_address_is_ignored_and_never_sent():
    loaded = read({"x": {"model": "ollama/q", "apiKey": "${UNUSED}"}}, {})
    assert loaded.ignored == (("x.apiKey", "there is no baseUrl that it could be for"),)
    assert loaded.options["backends"][0].secrets() == ()


def test_an_agent_in_two_places_is_a_fault_that_names_both(faults):
    x = {"model": "ollama/a"}
    assert faults({"g": {"x": x}, "h": {"x": x, "in": {"x": x}}}) == (
        "h.x: an agent of that name is also at g.x",
        "h.in.x: an agent of that name is also at g.x",
    )
    assert load({"g": {"x": {**x, "enabled": False}}, "h": {"x": x}}, {})["agents"] == {
        "x": Agent("ollama/a", group="h")
    }


def test_the_same_agent_in_two_files_is_the_later_ones():
    x = {"model": "ollama/a"}
    assert load([{"g": {"x": x}}, {"h": {"x": x}}], {})["agents"]["x"].group == "h"


def test_a_disabled_group_is_skipped():
    loaded = read(
        {
            "g": {"enabled": False, "x": {"model": "nowhere"}},
            "y": {"model": "ollama/q", "disabled": True},
            "z": {"model": "ollama/q"},
        },
        {},
    )
    assert loaded.options["agents"] == {"z": Agent("ollama/q")}
    assert [place for place, _ in loaded.ignored] == ["g", "y"]


@pytest.mark.parametrize(
    ("keys", "budget"),
    [
        ({"budget": {"usd": 5}}, Budget(5)),
        ({"budget": {"usd": 5, "per": "hour", "then": "queue"}}, Budget(5, per="hour", then="queue")),
        ({"budget": {"tokens": 5}}, Budget(tokens=5)),
        ({"budget": {"monthly": "7.50"}}, Budget("7.5", per="month")),
        ({"dailyBudget": 3}, Budget(3)),
        ({"hourly_budget_usd": 3}, Budget(3, per="hour")),
        ({"monthlyCostLimit": "${LIMIT:-3}"}, Budget(3, per="month")),
        ({"max_daily_spend": 3}, Budget(3)),
        ({"daily_budget": None}, None),
        ({"budget": None}, None),
        (
            {"daily_budget": 3, "fallback": {"model": "ollama/r", "triggers": ["cost"]}},
            Budget(3, then="fallback"),
        ),
        ({"daily_budget": 3, "fallback": {"model": "ollama/r", "triggers": ["rate_limit"]}}, Budget(3)),
    ],
)
def test_an_agents_budget_is_read_where_it_is_clear(keys, budget):
    found = load({"x": {"model": "ollama/q", **keys}}, {})
    assert found.get("budgets", {}).get("agent:x") == budget


def test_lists_of_agents_have_budgets_as_well():
    found = load({"codingAgents": [{"name": "Go Expert", "model": "ollama/q", "daily_budget": 2}]}, {})
    assert found["budgets"] == {"agent:go-expert": Budget(2)}


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"budget": 5}, "budget"),
        ({"budget": "5 USD"}, "budget"),
        ({"budget": {"limit": 5}}, "budget.limit"),
        ({"costLimit": 5}, "costLimit"),
        ({"max_cost": 5}, "max_cost"),
        ({"maxBudgetUsd": 5}, "maxBudgetUsd"),
    ],
)
def test_a_budget_that_is_not_clear_is_a_warning(caplog, keys, place):
    found = read({"x": {"model": "ollama/q", **keys}}, {})
    reason = 'it names no window of time: write "budget": {"usd": 5, "per": "day"}'
    assert caplog.messages == [f"config: x.{place}: is not kept: {reason}"]
    assert found.ignored == ((f"x.{place}", reason),)
    assert "budgets" not in found.options


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ({"daily_budget": 5, "x": {"model": "ollama/q"}}, "daily_budget"),
        ({"budget": {"usd": 5}, "agents": {"x": {"model": "ollama/q", "role": "r"}}}, "budget"),
        ({"budgets": {"x": {"usd": 5}}, "agents": {"x": {"model": "ollama/q", "role": "r"}}}, "budgets"),
        ({"coding": {"budget": {"usd": 5}, "x": {"model": "ollama/q"}}}, "coding.budget"),
        ({"coding": {"maxDailySpend": 5, "x": {"model": "ollama/q"}}}, "coding.maxDailySpend"),
    ],
)
def test_a_budget_of_anyone_else_is_a_warning(caplog, source, place):
    found = read(source, {})
    reason = "it is read for an agent; others have one in cost_settings, or under budgets of a native file"
    assert caplog.messages == [f"config: {place}: is not kept: {reason}"]
    assert (place, reason) in found.ignored
    assert list(found.options["agents"]) == ["x"]


def test_an_agent_or_a_group_may_be_called_budget(caplog):
    found = load({"budget": {"model": "ollama/q"}, "budgets": {"x": {"model": "ollama/q"}}}, {})
    assert found["agents"].keys() == {"budget", "x"}
    assert not caplog.messages


def test_an_agent_has_one_budget(caplog):
    found = load({"x": {"model": "ollama/q", "daily_budget": 5, "monthly_budget": 50}}, {})
    assert found["budgets"] == {"agent:x": Budget(5)}
    place, reason = "x.monthly_budget", "an agent has one budget, which is daily_budget here"
    assert caplog.messages == [f"config: {place}: is not kept: {reason}"]


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"daily_budget": -5}, "daily_budget: should be greater than or equal to 0"),
        ({"budget": {"daily": "much"}}, "budget.daily: should be a valid decimal"),
        ({"budget": {"usd": 5, "pre": "day"}}, 'budget.pre: unknown key, did you mean "per"?'),
        ({"budget": {"usd": "${NOPE}"}}, "budget.usd: environment variable NOPE is not set"),
    ],
)
def test_a_fault_of_an_agents_budget_has_its_place(faults, keys, fault):
    assert faults({"x": {"model": "ollama/q", **keys}}) == (f"x.{fault}",)


# Which shape it is.


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"agents": {"x": {"model": "ollama/q", "fallbak": []}}}, "agents.x.fallbak: unknown key"),
        ({"agents": {"x": {"model": "ollama/q", "type": "t"}}, "aliases": {}}, "agents.x.type: unknown key"),
        ({"agent": {"x": {"model": "ollama/q"}}, "aliases": {}}, "agent: unknown key"),
        ({"agents": {"x": {"modell": "ollama/q"}}}, "agents.x.modell: unknown key"),
    ],
)
def test_a_misspelled_native_file_is_not_taken_for_an_orchestra(faults, source, fault):
    assert faults(source)[0].startswith(fault)


def test_an_orchestra_and_a_native_file_merge(flat, write):
    native = write(
        "ccroute.toml",
        """
        [backends.local]
        kind = "ollama"
        [aliases]
        opus = "local/qwen"
        [groups.coders]
        agents = ["python-expert"]
        params = { temperature = 0 }
        """,
    )
    options = load([flat, native], ENV)
    assert options["aliases"].resolve("opus").deployments == ("local/qwen",)
    assert options["agents"]["python-expert"] == Agent("gpt-3.5-turbo", group="coders")


def test_an_empty_group_does_not_replace_a_groups_settings(groups):
    native = {"groups": {"support-agents": {"local_only": True}}}
    options = load([native, groups], ENV, {"aliases": {"sonnet": "anthropic/x"}})
    assert options["groups"]["support-agents"] == Agent(local_only=True)


def flat_with(**more):
    server = {
        "url": "http://localhost:8000/v1",
        "models": {"opus": "big"},
        "aliases": {"gpt-4": "big"},
    } | more
    return {"agents": {"a": {"model": "gpt-4", "type": "x"}}, "llm_routing": {"endpoints": {"proxy": server}}}


@pytest.mark.parametrize("models", [{"opus": "gpt-4"}, ["gpt-4"]])
def test_a_name_of_a_disabled_endpoint_says_so(faults, models):
    text = '"gpt-4" leads nowhere, because llm_routing.endpoints.proxy is disabled'
    assert faults(flat_with(enabled=False, models=models)) == (f"agents.a.model: {text}",)
    load([flat_with(enabled=False), {"aliases": {"gpt-4": "ollama/q"}}])


def test_a_misspelled_section_is_a_warning_beside_its_faults(faults, caplog):
    document = flat_with()
    document["llm_routng"] = document.pop("llm_routing")
    assert faults(document)[0].startswith('agents.a.model: unknown alias "gpt-4"')
    assert caplog.messages == ['config: llm_routng: unknown key, did you mean "llm_routing"?']


@pytest.mark.parametrize(
    ("key", "meant"), [("falback_model", "fallback_model"), ("falbackModel", "fallbackModel")]
)
def test_a_suggestion_is_spelled_as_the_key_is(caplog, key, meant):
    load({"agents": {"a": {"model": "ollama/q", "type": "x", key: "ollama/r"}}})
    assert caplog.messages == [f'config: agents.a.{key}: unknown key, did you mean "{meant}"?']


def test_a_replaced_name_is_named_where_its_place_does_not_have_it():
    read_ignored = read([flat_with(), {"aliases": {"big": "ollama/q", "gpt-4": "ollama/q"}}]).ignored
    replaced = {each.place: each.reason for each in read_ignored if "later" in each.reason}
    assert replaced == {
        "source 1: llm_routing.endpoints.proxy.models.opus": 'for "big", source 2: aliases.big '
        "comes later and wins",
        "source 1: llm_routing.endpoints.proxy.aliases.gpt-4": "source 2: aliases.gpt-4 comes later and wins",
    }


def test_what_only_a_native_agent_has_comes_from_another_source():
    options = load([flat_with(), {"agents": {"a": {"rpm": 30, "params": {"temperature": 0}}}}])
    assert options["agents"]["a"] == Agent("gpt-4", rpm=30, params={"temperature": 0})
