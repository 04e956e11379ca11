"""The native shape gives the objects that a caller would write by hand."""

import json
import re
from dataclasses import fields
from decimal import Decimal

import httpx
import pytest
from tests.support.certificates import Authority

from ccroute import Fallback, Router, errors
from ccroute.backends import AnthropicBackend, HttpRequest, OllamaBackend, OpenAIBackend
from ccroute.config import load
from ccroute.config.native.settings import ModelTable
from ccroute.errors import ConfigError
from ccroute.routing import Agent, AliasTable
from ccroute.types import FREE, Model, Price, RetryPolicy, Timeout

SAMPLE = """
default_model = "claude-sonnet-4-5"
baseline = "anthropic/claude-opus-4-20250514"

[backends.local]
kind = "ollama"
base_url = "http://localhost:11434"
max_concurrency = 1
memory_gb = 40

[backends.local.models."qwen-quality-128k:latest"]
context_window = 131072
memory_gb = 35

[backends.anthropic]
kind = "anthropic"
api_key = "${ANTHROPIC_API_KEY}"

[aliases]
claude-opus-4     = "anthropic/claude-opus-4-20250514"
claude-sonnet-4-5 = "local/qwen-quality-128k:latest"
claude-3-5-sonnet = "local/qwen2.5-coder:32b-instruct"
claude-3-haiku    = "local/qwen-fast:latest"
gpt-4             = "local/qwen-quality-128k:latest"

[agents.chief-architect]
model = "claude-opus-4"
fallback = ["gpt-4"]
budget = { usd = 5.00, per = "day", then = "fallback" }

[groups.coding-specialists]
model = "claude-3-5-sonnet"
agents = ["python-expert", "go-expert"]

[agents.phi-processor]
model = "gpt-4"
local_only = true

[retry]
attempts = 3
[timeout]
total = 600
[prices]
"anthropic/claude-opus-4-20250514" = { input = 15, output = 75, cache_read = 1.5, cache_write = 18.75 }
"""


def backend(**table):
    return load({"backends": {"x": table}}, {})["backends"][0]


def test_the_documented_sample_becomes_what_it_says(write):
    options = load(write("ccroute.toml", SAMPLE), {"ANTHROPIC_API_KEY": "example-key-1"})
    local, anthropic = options["backends"]
    assert isinstance(local, OllamaBackend)
    assert (local.name, str(local.origin), local.max_concurrency) == ("local", "http://localhost:11434", 1)
    assert local.memory_gb == 40
    assert local.local is True
    assert local.model("qwen-quality-128k:latest") == Model(context_window=131072, memory_gb=35)
    assert isinstance(anthropic, AnthropicBackend)
    assert anthropic.secrets() == ("example-key-1",)
    assert options["default_model"] == "claude-sonnet-4-5"
    assert options["baseline"] == "anthropic/claude-opus-4-20250514"
    assert options["aliases"].resolve("gpt-4").deployments == ("local/qwen-quality-128k:latest",)
    assert options["agents"] == {
        "chief-architect": Agent("claude-opus-4", fallback=["gpt-4"]),
        "phi-processor": Agent("gpt-4", local_only=True),
        "python-expert": Agent(group="coding-specialists"),
        "go-expert": Agent(group="coding-specialists"),
    }
    assert options["groups"] == {"coding-specialists": Agent("claude-3-5-sonnet")}
    assert options["retry"] == RetryPolicy(attempts=3)
    assert options["timeout"] == Timeout(total=600)
    price = Price(15, 75, cache_read="1.5", cache_write="18.75")
    assert options["prices"] == {"anthropic/claude-opus-4-20250514": price}


def test_what_a_file_leaves_out_is_left_to_the_router():
    assert load({"default_model": "ollama/x"}, {}).keys() - {"default_model"} == {
        "backends",
        "aliases",
        "agents",
        "groups",
        "fallbacks",
        "prices",
    }


def test_a_whole_file_of_every_router_option_is_handed_on():
    options = load(
        {
            "agent_override": False,
            "unknown_agent": "default",
            "drop_params": True,
            "trust_env": True,
            "health": "off",
            "max_queue": 7,
            "strategy": "ordered",
            "timeout": 30,
            "default_model": "ollama/x",
        },
        {},
    )
    assert options["default_model"] == "ollama/x"
    assert options["agent_override"] is False
    assert options["unknown_agent"] == "default"
    assert options["drop_params"] is True
    assert options["trust_env"] is True
    assert (options["health"], options["max_queue"]) == ("off", 7)
    assert options["aliases"].strategy == "ordered"
    assert options["timeout"] == Timeout(total=30)


def test_null_turns_a_timer_off_and_a_missing_one_is_default(write):
    options = load(
        write("x.json", '{"backends": {"ollama": {}}, "timeout": {"total": null, "first": 5}}'), {}
    )
    assert options["timeout"] == Timeout(total=None, first=5)


@pytest.mark.parametrize(
    ("written", "usd"),
    [("0.1", "0.1"), ("15", "15"), ('"0.075"', "0.075"), ("1e-3", "0.001"), ("0.30000000000000004", None)],
)
def test_money_is_the_amount_as_it_is_written(write, written, usd):
    toml = load(write("x.toml", f"[backends.ollama]\n[prices.m]\ninput = {written}\noutput = 0"), {})
    text = json.dumps({"backends": {"ollama": {}}, "prices": {"m": {"input": "?", "output": 0}}})
    text = text.replace('"?"', written)
    expected = Decimal(usd or written)
    assert toml["prices"]["m"].input == expected
    assert load(write("x.json", text), {})["prices"]["m"].input == expected


def test_a_float_of_a_mapping_is_taken_by_its_decimal_text():
    prices = load({"default_model": "ollama/m", "prices": {"m": {"input": 0.1, "output": 0.3}}}, {})["prices"]
    assert prices == {"m": Price("0.1", "0.3")}


def test_free_is_a_price():
    options = load(
        {
            "prices": {"m": "free"},
            "backends": {"local": {"kind": "vllm", "models": {"m": {"price": "free", "weight": 2}}}},
        },
        {},
    )
    assert options["prices"] == {"m": FREE}
    assert options["backends"][0].model("m") == Model(price=FREE, weight=2)


def test_an_agent_and_a_fallback_may_be_only_a_name():
    agents = load(
        {
            "aliases": {"a": "ollama/a"},
            "agents": {"x": "a", "y": {"model": "a", "fallback": "a", "triggers": "rate_limit"}},
        },
        {},
    )["agents"]
    assert agents == {"x": Agent("a"), "y": Agent("a", fallback=["a"], triggers=["rate_limit"])}


def test_parameters_are_plain_json_again(write):
    path = write(
        "x.toml", "[agents.x.params]\ntemperature = 0.25\nstop = ['a']\nextra = {top_a = 0.5, n = [1.5]}"
    )
    params = load(path, {})["agents"]["x"].params
    assert json.loads(json.dumps(params)) == {
        "temperature": 0.25,
        "stop": ["a"],
        "extra": {"top_a": 0.5, "n": [1.5]},
    }


def test_an_agent_is_found_in_its_group_by_slug():
    options = load(
        {
            "aliases": {"m": "ollama/m"},
            "agents": {"python-expert": {"model": "m", "group": "coders"}},
            "groups": {"coders": {"agents": ["Python Expert", "Go Expert"], "params": {"seed": 1}}},
        },
        {},
    )
    assert options["agents"] == {
        "python-expert": Agent("m", group="coders"),
        "Go Expert": Agent(group="coders"),
    }
    assert options["groups"] == {"coders": Agent(params={"seed": 1})}


def test_a_listed_agent_named_nearly_like_another_is_a_warning(caplog):
    source = {
        "aliases": {"m": "ollama/m"},
        "agents": {"hr-assistant": "m", "qa": "m"},
        "groups": {"p": {"agents": ["hr-asistant", "Hr Assistant", "dev", "qb"], "local_only": True}},
    }
    assert load(source, {})["agents"]["hr-asistant"] == Agent(group="p")
    assert caplog.messages == [
        'config: groups.p.agents[0]: "hr-asistant" is a new agent; was "hr-assistant" meant?'
    ]
    caplog.clear()
    load(source, {}, {"agents": {"hr-asistant": "m"}})
    assert caplog.messages == []


def test_aliases_may_be_patterns_lists_and_weights(write):
    path = write(
        "x.toml",
        """
        [aliases]
        "claude-*" = "anthropic/claude-*"
        're:gpt-(\\d)' = 'openai/gpt-\\g<1>'
        both = ["ollama/a", "ollama/b"]
        weighted = { "ollama/a" = 3, "ollama/b" = 0.5 }
        """,
    )
    table = load(path, {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "b"})["aliases"]
    assert table.resolve("claude-x").deployments == ("anthropic/claude-x",)
    assert table.resolve("gpt-4").deployments == ("openai/gpt-4",)
    assert table.resolve("both").deployments == ("ollama/a", "ollama/b")
    assert table.resolve("weighted").weights == (3, 0.5)


def test_every_setting_of_a_backend_reaches_it(tmp_path):
    Authority().write(tmp_path)
    made = backend(
        kind="vllm",
        base_url="http://10.0.0.7:8000",
        api_key="key",
        local=False,
        timeout={"connect": 1},
        headers={"x-team": "orchestra"},
        drop_params=True,
        max_concurrency=4,
        memory_gb=0.5,
        ca_file=str(tmp_path / "ca.pem"),
        models={"m": {"context_window": 1, "max_output": 1, "price": {"input": 1, "output": 2}}},
    )
    assert isinstance(made, OpenAIBackend)
    assert (made.name, str(made.origin), made.secrets()) == (
        "x",
        "http://10.0.0.7:8000",
        ("key", "orchestra"),
    )
    assert (made.preset, made.local, made.drop_params, made.max_concurrency) == ("vllm", False, True, 4)
    assert (made.timeout, made.memory_gb, made.ca_file) == (Timeout(connect=1), 0.5, str(tmp_path / "ca.pem"))
    assert made.model("m") == Model(context_window=1, max_output=1, price=Price(1, 2))
    assert (b"x-team", b"orchestra") in made.auth_headers(HttpRequest(""))[0]


def test_a_backends_timeout_may_be_one_number():
    assert backend(kind="ollama", timeout=90).timeout == Timeout(total=90)


@pytest.mark.parametrize("keep_alive", ["5m", -1, 300])
def test_ollama_keeps_its_models_as_long_as_the_file_says(keep_alive):
    assert backend(kind="ollama", keep_alive=keep_alive).keep_alive == keep_alive


def test_null_takes_the_limit_off_an_ollama_host():
    assert backend(kind="ollama", max_concurrency=None, base_url=None).max_concurrency is None


def test_azure_gets_its_api_version():
    made = backend(
        kind="azure", base_url="https://me.openai.azure.com", api_version="2024-10-21", api_key="k"
    )
    assert re.search("2024-10-21", str(vars(made)))


def test_finish_required_can_be_turned_off_in_a_file():
    stream = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n'
    decoder = backend(kind="vllm", finish_required=False).decoder(200, {})
    decoder.feed(stream)
    assert decoder.finish().text == "x"
    with pytest.raises(ConfigError, match="finish_required: is not known to a backend of kind ollama"):
        backend(kind="ollama", finish_required=False)


def test_a_backend_named_like_its_kind_needs_no_kind():
    made = load({"backends": {"ollama": {}}}, {})["backends"]
    assert [type(backend) for backend in made] == [OllamaBackend]


def test_a_disabled_backend_needs_no_variable():
    source = {"backends": {"x": {"kind": "openai", "enabled": False, "api_key": "${NOPE}"}}}
    assert load(source, {})["backends"] == []


def test_an_alias_does_not_enable_a_disabled_provider(faults):
    source = {"backends": {"anthropic": {"enabled": False}}, "aliases": {"a": "anthropic/x"}}
    assert faults(source) == ('aliases.a: backend "anthropic" of "anthropic/x" is disabled',)


# Well-known providers.


def test_well_known_providers_exist_when_a_name_leads_to_them():
    keys = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o", "DEEPSEEK_API_KEY": "d"}
    options = load(
        {
            "aliases": {"opus": "anthropic/claude-opus-4-1", "best": "opus"},
            "agents": {"x": {"model": "openai/gpt-5", "fallback": ["deepseek/chat"]}},
            "groups": {"g": {"model": "ollama/qwen", "agents": ["x"]}},
        },
        keys,
    )
    assert {b.name: (str(b.origin), b.secrets()) for b in options["backends"]} == {
        "anthropic": ("https://api.anthropic.com", ("a",)),
        "ollama": ("http://localhost:11434", ()),
        "openai": ("https://api.openai.com", ("o",)),
        "deepseek": ("https://api.deepseek.com", ("d",)),
    }


def test_well_known_providers_exist_only_if_a_name_needs_them():
    options = load({"backends": {"a": {"kind": "vllm"}}, "aliases": {"openai": "a/x"}}, {})
    assert [backend.name for backend in options["backends"]] == ["a"]


def test_an_alias_that_is_its_own_deployment_brings_its_provider():
    options = load({"aliases": {"ollama/llama3": "ollama/llama3"}}, {})
    assert [backend.name for backend in options["backends"]] == ["ollama"]


def test_a_pattern_that_redirects_a_provider_stays_in_force():
    source = {
        "backends": {"local": {"kind": "ollama"}},
        "aliases": {"openai/*": "local/*"},
        "agents": {"x": "openai/gpt-4"},
    }
    options = load(source, {})
    assert [backend.name for backend in options["backends"]] == ["local"]
    assert options["aliases"].resolve("openai/gpt-4", {"local"}).deployments == ("local/gpt-4",)


def test_a_patterns_backend_is_not_checked_before_it_matches():
    assert load({"aliases": {"via-*-*": "*/*"}}, {})["backends"] == []


# What this version does not do.


def test_what_is_not_enforced_is_a_warning(caplog):
    load({"cache": {"ttl": 60}, "default_model": "ollama/x"}, {})
    text = "config: cache: cache is not enforced by this version of ccroute"
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("ccroute", "WARNING", text)
    ]


# What the caller gives.


def test_the_callers_backends_and_aliases_win_over_the_files(fixtures):
    source = {
        "backends": {"a": {"kind": "ollama"}, "b": {"kind": "openai", "api_key": "${NOT_SET}"}},
        "aliases": {"x": "a/file", "y": "b/file", "claude-3-*": "a/file"},
    }
    mine = OllamaBackend("b")
    options = load(
        source, {}, {"backends": [mine], "aliases": {"x": "b/mine", re.compile("(?i)claude.*"): "b/any"}}
    )
    assert [backend.name for backend in options["backends"]] == ["a", "b"]
    assert options["backends"][1] is mine
    resolve = options["aliases"].resolve
    assert resolve("x").deployments == ("b/mine",)
    assert resolve("y").deployments == ("b/file",)
    assert resolve("Claude-3-5").deployments == ("b/any",)
    assert resolve("claude-3-5").deployments == ("b/any",)


def test_an_alias_table_of_the_caller_brings_its_strategy():
    table = AliasTable({"x": "ollama/a"}, strategy="ordered")
    options = load({"aliases": {"y": "ollama/b"}, "strategy": "weighted"}, {}, {"aliases": table})
    assert options["aliases"].strategy == "ordered"
    assert set(options["aliases"]) == {"x", "y"}


def test_what_an_override_replaces_is_not_looked_up(faults):
    source = {"agents": {"x": "nowhere"}, "default_model": "nowhere", "unknown_agent": "default"}
    retry = RetryPolicy(attempts=1)
    overrides = {"agents": {"y": "ollama/a"}, "default_model": None, "retry": retry, "transport": "anything"}
    options = load(source, {}, overrides)
    assert options["agents"] == {"y": "ollama/a"}
    assert options["default_model"] is None
    assert options["retry"] is retry
    assert options["transport"] == "anything"
    assert [backend.name for backend in options["backends"]] == ["ollama"]
    (fault,) = faults(source, agents=None)
    assert fault.startswith('default_model: unknown alias "nowhere"')


def test_models_have_fallbacks():
    source = {
        "aliases": {"sonnet": "ollama/a", "gpt-4": "ollama/b"},
        "fallbacks": {"sonnet": ["gpt-4"], "*": "ollama/c", "ollama/x": []},
    }
    options = load(source, {})
    assert options["fallbacks"] == {"sonnet": ["gpt-4"], "*": ["ollama/c"], "ollama/x": []}
    assert load(source, {}, {"fallbacks": {}})["fallbacks"] == {}
    both = load([source, {"fallbacks": {"sonnet": "ollama/d"}}], {})["fallbacks"]
    assert both == {"sonnet": ["ollama/d"], "*": ["ollama/c"], "ollama/x": []}
    busy = httpx.MockTransport(lambda request: httpx.Response(503))
    with Router.from_config(
        source, transport=busy, retry=RetryPolicy(attempts=9, per_deployment=1)
    ) as router:
        for model, tried in (("sonnet", "ab"), ("gpt-4", "bc")):
            with pytest.raises(errors.OverloadedError) as raised:
                router.complete("hi", model=model)
            assert [each.deployment for each in raised.value.attempts] == [f"ollama/{name}" for name in tried]


def test_a_fallback_may_have_triggers_of_its_own(faults):
    source = {
        "aliases": {"a": "ollama/a", "b": "ollama/b"},
        "fallbacks": {"a": ["b", {"model": "ollama/c", "triggers": "token_limit"}], "*": {"model": "b"}},
        "agents": {
            "x": {"model": "a", "fallback": {"model": "b", "triggers": ["rate_limit", "availability"]}},
            "y": {"fallback": ["b", {"model": "a", "triggers": []}], "group": "g"},
        },
        "groups": {"g": {"model": "b", "fallback": [{"model": "a"}]}},
    }
    options = load(source, {})
    assert options["fallbacks"] == {"a": ["b", Fallback("ollama/c", ["token_limit"])], "*": ["b"]}
    assert options["agents"]["x"] == Agent("a", fallback=[Fallback("b", ["rate_limit", "availability"])])
    assert options["agents"]["y"].fallback == ("b", Fallback("a", []))
    assert options["groups"]["g"].fallback == ("a",)
    over = {"a": Fallback("ollama/z", ["token_limit"])}
    assert load(source, {}, {"fallbacks": over})["fallbacks"] == over
    wrong = {
        "aliases": {"a": "ollama/a"},
        "fallbacks": {"a": [{"model": "b", "trigger": "token_limit"}, {"triggers": ["tokens"]}, 3]},
        "agents": {"x": {"model": "a", "fallback": [{"model": "a", "modle": "b"}, {"model": "zz"}]}},
    }
    one_of = "should be 'token_limit', 'rate_limit', 'availability' or 'budget'"
    assert faults(wrong) == (
        'agents.x.fallback[0].modle: unknown key, did you mean "model"?',
        'fallbacks.a[0].trigger: unknown key, did you mean "triggers"?',
        "fallbacks.a[1].model: is missing",
        f"fallbacks.a[1].triggers[0]: {one_of}",
        "fallbacks.a[2]: should be a model's name, or a table with model and triggers",
        'agents.x.fallback[1]: unknown alias "zz"',
        (
            'fallbacks.a[0]: unknown alias "b"; give each a target, as in aliases={"zz": "backend/model", '
            '"b": "backend/model"}'
        ),
    )


def test_a_model_has_parameters_and_drops(write, faults):
    path = write(
        "ccroute.toml",
        """
[backends.anthropic.models."claude-opus-4-20250514"]
params = { max_tokens = 200000, temperature = 0.2, extra = { service_tier = "auto" } }
drops = ["seed", "extra.store"]

[aliases]
opus = "anthropic/claude-opus-4-20250514"
""",
    )
    (backend,) = load(path, {"ANTHROPIC_API_KEY": "k"})["backends"]
    model = backend.model("claude-opus-4-20250514")
    assert model.params == {"max_tokens": 200_000, "temperature": 0.2, "extra": {"service_tier": "auto"}}
    assert (model.drops, model.max_output) == (["seed", "extra.store"], 32_000)
    models = {
        "a": {"params": {"temperatur": 1}},
        "b": {"params": {"temperature": "hot", "seed": 1.5}, "drops": "sed"},
        "c": {"drops": "seed"},
    }
    where = "backends.ollama.models"
    assert faults({"backends": {"ollama": {"models": models}}, "default_model": "ollama/a"}) == (
        f'{where}.a.params.temperatur: unknown parameter "temperatur", did you mean "temperature"?',
        f"{where}.b.params: temperature must be a number, not str; seed must be an int, not float",
        f'{where}.b.drops[0]: unknown parameter "sed", did you mean "seed"?',
    )


def test_an_agents_wrong_parameter_is_a_fault_of_the_file(faults):
    source = {"agents": {"x": {"model": "ollama/a", "params": {"max_tokens": 0}}}}
    assert faults(source) == ("agents.x.params: max_tokens must be at least 1",)


def test_unknown_fallbacks_are_faults_with_their_place(faults):
    source = {
        "aliases": {"sonnet": "ollama/a"},
        "fallbacks": {"sonet": ["sonnet"], "sonnet": ["ollama/b", "gtp"]},
    }
    assert faults(source) == (
        'fallbacks.sonet: unknown alias "sonet", did you mean "sonnet"?',
        'fallbacks.sonnet[1]: unknown alias "gtp"; give it a target, as in aliases={"gtp": "backend/model"}',
    )
    assert faults({"default_model": "ollama/x", "fallbacks": {"a": 3}}) == (
        "fallbacks.a: should be a valid list",
    )


@pytest.mark.parametrize(
    ("target", "strategy", "weights"),
    [
        ({"targets": ["ollama/a", "ollama/b"], "strategy": "ordered"}, "ordered", (1, 1)),
        ({"targets": {"ollama/a": 3, "ollama/b": "1"}, "strategy": "cost"}, "cost", (3, 1)),
        ({"targets": ["ollama/a", "ollama/b"]}, "latency", (1, 1)),
        (["ollama/a", "ollama/b"], "latency", (1, 1)),
    ],
)
def test_an_alias_may_have_a_strategy_of_its_own(target, strategy, weights):
    table = load({"strategy": "latency", "aliases": {"x": target, "y": "x"}}, {})["aliases"]
    for name in ("x", "y"):
        found = table.resolve(name)
        assert found == (name, ("ollama/a", "ollama/b"), weights, strategy)


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ({"strategy": "ordered"}, "targets is missing beside strategy"),
        ({"targets": ["ollama/a"], "strategy": "best"}, 'unknown strategy "best", known are weighted, '),
        (
            {"targets": ["ollama/a"], "stratgy": "x"},
            'unknown key "stratgy" beside targets, did you mean "strategy"',
        ),
        ({"targets": [3]}, "should be a name, a list of names, or names with their weights"),
        ({"targets": ["far/a"]}, 'unknown backend "far" in "far/a"'),
    ],
)
def test_a_wrong_target_beside_a_strategy_is_a_fault(faults, target, fault):
    (found,) = faults({"backends": {"ollama": {}}, "aliases": {"x": target}})
    assert found.startswith(f"aliases.x: {fault}")


def test_a_price_has_tiers(write):
    toml = """
[backends.gemini]
kind = "openai"
[prices]
short = { input = 1.25, output = 10 }
[prices."gemini-2.5-pro"]
input = 1.25
output = 10
above = { 200_000 = { input = 2.5, output = 15, cache_read = 0.625 } }
[backends.gemini.models.own.price]
input = 1
output = 2
[backends.gemini.models.own.price.above]
128000 = { input = 2, output = 4 }
256000 = { input = 3, output = 6 }
"""
    options = load(write("x.toml", toml), {})
    above = {200_000: Price("2.5", 15, cache_read="0.625")}
    assert options["prices"] == {"short": Price("1.25", 10), "gemini-2.5-pro": Price("1.25", 10, above=above)}
    own = Price(1, 2, above={128_000: Price(2, 4), 256_000: Price(3, 6)})
    assert options["backends"][0].models["own"].price == own
    mapping = {
        "default_model": "ollama/m",
        "prices": {"m": {"input": 1, "output": 2, "above": {9: {"input": 2, "output": 3}}}},
    }
    assert load(mapping, {})["prices"]["m"] == Price(1, 2, above={9: Price(2, 3)})


@pytest.mark.parametrize(
    ("above", "fault"),
    [
        (
            {"many": {"input": 1, "output": 1}},
            "above.many: should be a valid integer, unable to parse string as an integer",
        ),
        ({"0": {"input": 1, "output": 1}}, "above.0: should be greater than 0"),
        ({"9": {"input": 1}}, "above.9.output: is missing"),
        ({"9": {"input": 1, "output": 1, "above": {}}}, "above.9.above: unknown key"),
        ({"9": 3}, "above.9: should be a table"),
        (3, "above: should be a table"),
    ],
)
def test_a_wrong_tier_is_a_fault_with_its_place(faults, above, fault):
    source = {"default_model": "ollama/m", "prices": {"m": {"input": 1, "output": 1, "above": above}}}
    assert faults(source) == (f"prices.m.{fault}",)


def test_what_varies_by_model_may_be_written_down():
    facts = {
        "sampling": "one",
        "thinking": "adaptive",
        "efforts": ["low", "high"],
        "schema": "tool",
        "refuses": "top_k",
        "prefill": False,
    }
    (made,) = load({"backends": {"anthropic": {"api_key": "k", "models": {"m": facts}}}}, {})["backends"]
    expected = Model(**{**facts, "refuses": ["top_k"]})
    assert made.models["m"] == expected
    assert {field.name for field in fields(Model)} == set(ModelTable.keys())


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"sampling": "some"}, "sampling: should be 'any', 'one', 'none' or 'not_thinking'"),
        ({"schema": "json"}, "schema: should be 'format', 'tool' or 'none'"),
        ({"shema": "tool"}, 'shema: unknown key, did you mean "schema"?'),
        ({"refuses": ["topk"]}, 'refuses[0]: unknown parameter "topk", did you mean "top_k"?'),
        ({"prefill": "sometimes"}, "prefill: should be a valid boolean, unable to interpret input"),
    ],
)
def test_wrong_facts_of_a_model_are_faults_with_their_place(faults, facts, fault):
    source = {"backends": {"anthropic": {"api_key": "k", "models": {"m": facts}}}}
    assert faults(source) == (f"backends.anthropic.models.m.{fault}",)


def test_the_limit_of_an_attempt_is_a_timeout():
    assert load({"default_model": "ollama/m", "timeout": {"attempt": 20}}, {})["timeout"] == Timeout(
        attempt=20
    )
    assert backend(kind="ollama", timeout={"attempt": 5}).timeout == Timeout(attempt=5)


def test_the_price_of_waiting_reaches_agents_and_groups():
    options = load(
        {
            "groups": {"coders": {"model": "ollama/m", "max_wait_free": 30, "agents": ["go"]}},
            "agents": {"rust": {"model": "ollama/m", "waiting_cost": "2.50"}},
        },
        {},
    )
    assert options["groups"]["coders"].max_wait_free == 30
    assert options["agents"]["rust"].waiting_cost == Decimal("2.50")
    for key in ("waiting_cost", "max_wait_free"):
        with pytest.raises(ConfigError, match=f"agents.rust.{key}"):
            load({"agents": {"rust": {"model": "ollama/m", key: -1}}}, {})


def test_rate_limits_reach_models_agents_and_groups():
    options = load(
        {
            "backends": {"local": {"kind": "ollama", "models": {"q": {"rpm": 60, "tpm": 40_000}}}},
            "groups": {"coders": {"model": "local/q", "rpm": 30, "agents": ["go", "rust"]}},
            "agents": {"rust": {"rpm": 5}},
        },
        {},
    )
    assert options["backends"][0].models["q"] == Model(rpm=60, tpm=40_000)
    assert options["groups"]["coders"].rpm == 30
    assert [options["agents"][name].rpm for name in ("go", "rust")] == [None, 5]
