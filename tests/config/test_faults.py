"""A wrong configuration is one error with every fault and its place."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccroute.backends import OllamaBackend
from ccroute.backends.registry import kind_names
from ccroute.config import load
from ccroute.config.native.settings import AgentTable, BackendTable, Settings
from ccroute.errors import ConfigError
from ccroute.routing import Agent


def test_every_fault_is_reported_at_once_with_its_place(faults):
    kinds = f"the kinds are {', '.join(kind_names())}"
    assert faults(
        {
            "agnts": {},
            "strategy": "random",
            "backends": {
                "local": {"kind": "olama"},
                "far": {"kind": "vllm", "base_url": "nope"},
                "blue": {"kind": "azure"},
                "nameless": {},
                "odd": {"kind": "openai", "keep_alive": "5m"},
                "old": {"kind": "ollama", "api_version": "1", "timeout": {"total": 0}, "keep_alive": 1.5},
                "bad/name": {"kind": "ollama"},
                "m": {
                    "kind": "ollama",
                    "models": {
                        "q": {"context_window": 0, "rpm": 0, "tpm": 1.5, "pric": 1, "price": {"inptu": 1}}
                    },
                },
                "scalar": 5,
            },
            "aliases": {
                "gpt-4": "local/qwen",
                "number": 5,
                "empty": [],
                "light": {"local/x": -1, "local/y": -2},
                "odd": {"local/x": "heavy"},
                "re:(": "local/x",
                "lost": "lcoal/x",
            },
            "agents": {
                "python-expert": {"model": "gpt4", "modell": "x", "triggers": ["rate_limit", "never"]},
                "go-expert": {"model": "gpt4", "params": {"temprature": 1}},
                "qa": {"fallback": ["anthropc/x", "number"], "model": "number", "group": "coder", "rpm": -1},
                "pm": {"model": "scalar/x"},
            },
            "groups": {"coders": {"agents": ["qa"]}},
            "prices": {
                "a": {"input": -1},
                "b": 5,
                "c": {"input": "much", "output": True},
                "d": {"input": 1, "cache_read": -1},
            },
            "retry": {"base": 9, "max": 1},
            "timeout": "soon",
            "default_model": "zz",
        }
    ) == (
        "strategy: should be 'weighted', 'least-busy', 'latency', 'cost' or 'ordered'",
        f'backends.local.kind: unknown kind "olama", did you mean "ollama"?; {kinds}',
        'backends.old.keep_alive: should be a duration such as "5m", or a whole number of seconds',
        "backends.old.timeout.total: should be greater than 0",
        "backends.m.models.q.context_window: should be greater than 0",
        "backends.m.models.q.price.input: is missing",
        "backends.m.models.q.price.output: is missing",
        'backends.m.models.q.price.inptu: unknown key, did you mean "input"?',
        "backends.m.models.q.rpm: should be greater than 0",
        "backends.m.models.q.tpm: should be a valid integer, got a number with a fractional part",
        'backends.m.models.q.pric: unknown key, did you mean "price"?',
        "backends.scalar: should be a table",
        "aliases.number: should be a name, a list of names, or names with their weights",
        "aliases.odd: a weight should be a number",
        "agents.python-expert.triggers[1]: should be 'token_limit', 'rate_limit', 'availability' or 'budget'",
        'agents.python-expert.modell: unknown key, did you mean "model"?',
        'agents.go-expert.params.temprature: unknown parameter "temprature", did you mean "temperature"?',
        "agents.qa.rpm: should be greater than 0",
        "timeout.total: should be a valid number, unable to parse string as a number",
        "prices.a.input: should be greater than or equal to 0",
        "prices.a.output: is missing",
        "prices.b: should be a table",
        "prices.c.input: should be a valid decimal",
        "prices.c.output: should be a number",
        "prices.d.output: is missing",
        "prices.d.cache_read: should be greater than or equal to 0",
        'agnts: unknown key, did you mean "agents"?',
        'groups.coders.agents[0]: "qa" is already in group "coder"',
        "retry: base and max are seconds, 0 <= base <= max",
        "backends.far.base_url: must look like http://localhost:11434 or https://host/v1",
        "backends.blue: it has no default address; give base_url=",
        f"backends.nameless.kind: is missing; {kinds}",
        "backends.odd.keep_alive: is not known to a backend of kind openai",
        "backends.bad/name: backend name 'bad/name': use printable ASCII without a slash",
        "aliases.empty: has no target; give a deployment such as backend/model",
        "aliases.light: the weight of local/x must be a positive number, not -1.0",
        "aliases.light: the weight of local/y must be a positive number, not -2.0",
        "aliases.re:(: missing ), unterminated subpattern at position 0",
        'aliases.lost: unknown backend "lcoal" in "lcoal/x", did you mean "local"?',
        'agents.python-expert.model, agents.go-expert.model: unknown alias "gpt4", did you mean "gpt-4"?',
        'agents.qa.fallback[0]: unknown backend "anthropc" in "anthropc/x", did you mean "anthropic"?',
        'default_model: unknown alias "zz"; give it a target, as in aliases={"zz": "backend/model"}',
    )


def test_a_faulty_alias_is_a_fault_and_its_users_are_not(faults):
    source = {
        "backends": {"local": {"kind": "ollama"}},
        "aliases": {"a": "b", "b": "a", "c": "nowhere", r"re:x(\d)": r"local/\1"},
        "agents": {"x": "a", "y": "c", "z": "x7", "lost": "y7"},
    }
    assert faults(source) == (
        "aliases.a: is a cycle: a → b → a",
        "aliases.b: is a cycle: b → a → b",
        'aliases.c: "nowhere" is neither an alias nor backend/model',
        'agents.lost.model: unknown alias "y7"; give it a target, as in aliases={"y7": "backend/model"}',
    )


def test_an_agent_of_an_unknown_group_is_a_fault(faults):
    source = {"agents": {"x": {"group": "coder"}}, "groups": {"coders": {}}}
    assert faults(source) == ('agents.x.group: unknown group "coder", did you mean "coders"?',)
    source = {"agents": {"x": {"group": "coder"}}}
    assert faults(source) == (
        'agents.x.group: unknown group "coder"; add it under "groups", where it may be empty',
    )
    assert load(source, {}, {"groups": {"coder": Agent()}})["agents"]["x"].group == "coder"


def test_two_groups_cannot_have_the_same_agent(faults):
    assert faults({"groups": {"a": {"agents": ["x"]}, "b": {"agents": "X"}}}) == (
        'groups.b.agents[0]: "X" is already in group "a"',
    )


@pytest.mark.parametrize(
    "section", ["backends", "aliases", "agents", "groups", "fallbacks", "retry", "prices"]
)
def test_a_section_that_is_no_table_is_a_fault(faults, section):
    assert faults({section: "x"}) == (f"{section}: should be a table",)


def test_parameters_hold_what_json_can_hold(faults, write):
    path = write("x.toml", "[agents.x.params]\nextra = {day = 2026-01-01}\nseed = 2026-01-01\ntop_p = nan")
    text = "should be what JSON can hold"
    assert faults(path) == tuple(f"agents.x.params.{name}: {text}" for name in ("extra", "seed", "top_p"))


def test_a_key_that_is_no_string_is_a_fault(faults):
    assert faults({"aliases": {True: "ollama/x"}}) == ("aliases.True: a key should be a string",)


def test_a_number_as_a_key_is_its_text():
    assert load({"aliases": {5: "ollama/x"}}, {})["aliases"].resolve("5").deployments == ("ollama/x",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "NaN", "Infinity", -1])
def test_amounts_and_limits_are_finite(faults, value):
    source = {
        "prices": {"m": {"input": value, "output": 1}},
        "timeout": {"idle": value},
        "retry": {"max": value},
        "backends": {"x": {"kind": "ollama", "memory_gb": value}},
    }
    places = [fault.partition(": ")[0] for fault in faults(source)]
    assert sorted(places) == ["backends.x.memory_gb", "prices.m.input", "retry.max", "timeout.idle"]


def test_a_literal_secret_is_in_no_message(faults):
    source = {
        "backends": {
            "a": {"kind": "openai", "api_key": "sk-literal\n"},
            "b": {"kind": "openai", "base_url": "https://user:sk-literal@host/v1"},
            "c": {"kind": "openai", "headers": {"x-key": "sk-literal\n"}},
            "d": {
                "kind": "openai",
                "api_key": ["sk-literal"],
                "headers": "sk-literal",
                "max_concurrency": "sk-literal",
            },
            "e": {"kind": "openai", "base_url": "https://host?key=sk-literal", "timeout": "sk-literal"},
            "f": {"kind": "openai", "base_url": "https://user:sk-literal\u2100@host"},
        },
        "prices": {"m": {"input": "sk-literal", "output": 1}},
    }
    found = faults(source)
    assert [fault.partition(": ")[0] for fault in found] == [
        "backends.d.api_key",
        "backends.d.headers",
        "backends.d.max_concurrency",
        "backends.e.timeout.total",
        "backends.f.base_url",
        "prices.m.input",
        "backends.a.api_key",
        "backends.b.base_url",
        "backends.c",
    ]
    assert "sk-literal" not in str(found)


def test_a_url_as_a_name_is_shown_without_its_credentials(faults):
    (fault,) = faults({"default_model": "https://user:sk-literal@host/m"})
    assert fault == 'default_model: unknown backend "https:" in "https://…@host/m"'


def test_an_error_keeps_no_other_error_that_would_show_the_file():
    with pytest.raises(ConfigError) as caught:
        load({"timeout": "sk-literal"}, {})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


odd = ["", "input", "[key]", "llm_routing", "endpoints", "endpoint", "baseUrl", "fallbackModel", "localOnly"]
odd += [
    "llmGateway",
    "providers",
    "providerType",
    "apiKeyRef",
    "modelAliases",
    "fallbackChain",
    "codingAgents",
]
odd += ["ccproxyMapping", "apiAlias", "ollama", "agentRules", "modelTierRules", "defaultProvider", "routing"]
odd += [
    "agent_model_overrides",
    "agent_rules",
    "performance_settings",
    "max_retries",
    "architect",
    "name",
    "type",
]
odd += [
    "enable_agent_override",
    "fallback_providers",
    "cost_settings",
    "offline_model",
    "triggers",
    "automatic",
]
odd += ["modle", "http://localhost:11434", "a/b", "re:(", "*", "$K", "${K}"]
keys = st.sampled_from([*Settings.model_fields, *BackendTable.model_fields, *AgentTable.model_fields, *odd])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | keys
tables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


agents = st.fixed_dictionaries(
    {"model": keys}, optional={"baseUrl": scalars, "local_only": scalars, "x": tables}
)
files = st.dictionaries(keys, tables | agents | st.dictionaries(keys, agents, max_size=2), max_size=4)


@settings(max_examples=150, deadline=None)
@given(files, st.none() | files)
def test_whatever_files_hold_they_load_or_are_a_config_error(one, other):
    with contextlib.suppress(ConfigError):
        assert load([one] if other is None else [one, other], {}).keys() >= {"backends", "aliases"}


def test_the_callers_own_aliases_are_checked_with_the_files(faults):
    source = {"agents": {"x": "opus"}}
    assert faults(source, aliases={"opus": "mini/x", "bad": None}, backends=[OllamaBackend("mini1")]) == (
        "aliases.bad: has no target; give a deployment such as backend/model",
        'aliases.opus: unknown backend "mini" in "mini/x", did you mean "mini1"?',
    )


def test_overrides_of_a_wrong_type_are_faults_with_their_place(faults):
    wrong = {
        "backends": ["ollama"],
        "aliases": ["a"],
        "agents": {"x": 3},
        "groups": {"g": Agent(fallback=3)},
        "fallbacks": {"m": 3},
    }
    assert faults({"default_model": "ollama/x"}, **wrong) == (
        "backends[0]: give a Backend such as OllamaBackend(), not str",
        "agents.x: give an Agent or a model's name, not int",
        "groups.g.fallback: give a list of models, not int",
        "fallbacks.m: give a list of models, not int",
        "aliases: give a mapping of names to targets, not list",
    )


def test_a_blank_or_unprintable_name_is_a_fault_where_it_is(faults):
    blank, odd = "should be a model's name, not blank", "should be a model's name, without control characters"
    assert faults(
        {
            "backends": {"local": {"kind": "ollama"}},
            "default_model": " ",
            "agents": {"a": {"model": "local/\x00", "fallback": ["", "local/b"]}},
            "aliases": {"x": "", "y": ["local/\n"], "z": {" ": 1}},
            "fallbacks": {"local/b": "\t"},
        }
    ) == (
        f"default_model: {blank}",
        f"aliases.x: {blank}",
        f"aliases.y: {odd}",
        f"aliases.z: {blank}",
        f"agents.a.model: {odd}",
        f"agents.a.fallback[0].model: {blank}",
        f"fallbacks.local/b[0].model: {blank}",
    )


def test_a_boolean_is_no_number(faults):
    wrong = {
        "backends": {"ollama": {"max_concurrency": True, "models": {"q": {"rpm": True, "weight": False}}}},
        "retry": {"attempts": True},
        "timeout": {"total": True},
        "prices": {"m": {"input": True, "output": 1}},
        "max_queue": False,
        "default_model": "ollama/q",
    }
    text = "should be a number"
    assert faults(wrong) == tuple(
        f"{place}: {text}"
        for place in (
            "max_queue",
            "backends.ollama.max_concurrency",
            "backends.ollama.models.q.weight",
            "backends.ollama.models.q.rpm",
            "retry.attempts",
            "timeout.total",
            "prices.m.input",
        )
    )
