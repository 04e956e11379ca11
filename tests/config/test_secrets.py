"""References to the environment are expanded once, in values only, and what they held is never shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccroute.backends import OpenAIBackend
from ccroute.config import load, read
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Source


def expanded(value, env):
    source = Source("")
    result = Environment(env).expand(value, ("k",), source)
    assert source.faults == []
    return result


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${A}", "one"),
        ("env:A", "one"),
        ("os.environ/A", "one"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("${A:-d}", "one"),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${UNSET:-}", ""),
        ("${EMPTY}", ""),
        ("${UNSET:-a:-b c}", "a:-b c"),
        ("see env:A", "see env:A"),
        ("env:A b", "env:A b"),
        ("$A ${} ${1} ${A", "$A ${} ${1} ${A"),
        ("$${A}", "$one"),
    ],
)
def test_each_form_is_replaced_by_the_variable(value, result):
    assert expanded(value, {"A": "one", "B": "two", "EMPTY": ""}) == result


def test_values_are_expanded_at_any_depth_and_keys_never():
    value = {"${A}": ["${A}", {"env:A": "env:A"}], "n": 5, "t": (True, None)}
    assert expanded(value, {"A": "one"}) == {"${A}": ["one", {"env:A": "one"}], "n": 5, "t": [True, None]}


markers = ["${A}", "${B:-x}", "env:A", "os.environ/B", "${UNSET:-y}"]


@given(st.text() | st.sampled_from(markers), st.text() | st.sampled_from(markers), st.sampled_from(markers))
def test_what_comes_out_of_a_variable_is_not_expanded_again(a, b, value):
    env = {"A": a, "B": b}
    wanted = {"${A}": a, "${B:-x}": b or "x", "env:A": a, "os.environ/B": b, "${UNSET:-y}": "y"}
    assert expanded(value, env) == wanted[value]


@given(st.text().filter(lambda text: "${" not in text and not text.startswith(("env:", "os.environ/"))))
def test_text_without_a_marker_is_unchanged(text):
    assert expanded(text, {}) == text


def test_a_missing_variable_is_a_fault_with_its_name_and_place(faults):
    source = {
        "backends": {
            "a": {"kind": "openai", "api_key": "${KEY_A}"},
            "b": {"kind": "openai", "api_key": "env:KEY_B"},
        },
        "aliases": {"x": ["a/${MODEL}", "a/y"], "z": "os.environ/TARGET"},
        "agents": {"p": "x", "q": "z"},
        "prices": {"m": {"input": "${USD}", "output": 1}},
    }
    assert faults(source) == (
        "backends.a.api_key: environment variable KEY_A is not set",
        "backends.b.api_key: environment variable KEY_B is not set",
        "aliases.x[0]: environment variable MODEL is not set",
        "aliases.z: environment variable TARGET is not set",
        "prices.m.input: environment variable USD is not set",
    )


def test_a_default_cannot_hold_another_variable(faults):
    assert faults({"baseline": "${A:-${B}}"}) == (
        "baseline: the default of ${A} cannot hold another variable",
    )


@pytest.mark.parametrize(
    "botched",
    [
        "$KEY_A",
        "${KEY_A",
        "$(KEY_A)",
        "$KEY_A}",
        "${ KEY_A }",
        "${KEY_A-x}",
        "$env:KEY_A",
        "env: KEY_A",
        "os.environ['KEY_A']",
        "Bearer $KEY_A",
        "token ${KEY_A",
    ],
)
def test_what_resembles_a_reference_is_a_fault_as_a_secret(faults, botched):
    table = {"kind": "vllm", "api_key": botched, "headers": {"x-key": botched}}
    agent = {"model": "m", "baseUrl": "http://p.example.com", "apiKey": botched}
    text = "looks like a reference to a variable, but is none: write ${KEY_A}"
    assert faults({"backends": {"a": table, "b": {**table, "enabled": False}}}, {"KEY_A": "k"}) == (
        f"backends.a.api_key: {text}",
        f"backends.a.headers.x-key: {text}",
    )
    assert faults({"x": agent}, {"KEY_A": "k"}) == (f"x.apiKey: {text}",)


def test_what_may_be_a_secret_after_all_is_not_repeated(faults):
    (fault,) = faults({"backends": {"a": {"kind": "vllm", "api_key": "$ecret"}}})
    assert fault == "backends.a.api_key: looks like a reference to a variable, but is none: write ${NAME}"


@pytest.mark.parametrize("literal", ["sk-$A", "a$b", "$2b$10$x", "$", "env", "x env:A"])
def test_other_secrets_may_hold_a_dollar(literal):
    source = {"backends": {"a": {"kind": "vllm", "api_key": literal}}}
    assert load(source, {})["backends"][0].secrets() == (literal,)


def test_a_secret_from_the_environment_may_look_like_a_reference():
    source = {"backends": {"a": {"kind": "vllm", "api_key": "${A}", "headers": {"x": "Bearer ${A}"}}}}
    assert load(source, {"A": "$B"})["backends"][0].secrets()[0] == "$B"


@pytest.mark.parametrize("written", ["${A}", "env:A", "os.environ/A", "${A}${A}"])
def test_an_empty_variable_of_a_key_is_a_fault_with_its_name(faults, written):
    table = {"kind": "anthropic", "api_key": written}
    env = {"A": "", "ANTHROPIC_API_KEY": "sk-other"}
    (fault,) = faults({"backends": {"x": table, "off": {**table, "enabled": False}}}, env)
    assert fault.startswith("backends.x.api_key: environment variable A ")
    assert fault.endswith(" is empty")
    assert faults({"x": {"model": "m", "baseUrl": "http://p", "apiKey": written}}, env)[0].startswith(
        "x.apiKey: environment variable A "
    )


def test_a_reference_with_an_empty_default_needs_no_key():
    source = {"backends": {"x": {"kind": "vllm", "api_key": "${A:-}", "headers": {"x": "${B}"}}}}
    assert load(source, {"B": ""})["backends"][0].secrets() == ()


def test_without_env_the_process_environment_is_read_at_the_call(monkeypatch):
    monkeypatch.setenv("CCROUTE_TEST_KEY", "sk-now")
    (backend,) = load({"backends": {"x": {"kind": "openai", "api_key": "${CCROUTE_TEST_KEY}"}}})["backends"]
    assert backend.secrets() == ("sk-now",)


def test_numbers_and_switches_may_come_from_the_environment():
    options = load(
        {
            "default_model": "ollama/m",
            "retry": {"attempts": "${N}"},
            "agent_override": "${B}",
            "prices": {"m": {"input": "${P}", "output": 1}},
        },
        {"N": "5", "B": "false", "P": "0.1"},
    )
    assert options["retry"].attempts == 5
    assert options["agent_override"] is False
    assert str(options["prices"]["m"].input) == "0.1"


# Implied keys.


@pytest.mark.parametrize(
    ("table", "variable"),
    [
        ({"kind": "anthropic"}, "ANTHROPIC_API_KEY"),
        ({"kind": "anthropic", "base_url": "https://api.anthropic.com/v1"}, "ANTHROPIC_API_KEY"),
        ({"kind": "openai"}, "OPENAI_API_KEY"),
        ({"kind": "openai", "base_url": "https://api.openai.com:443"}, "OPENAI_API_KEY"),
        ({"kind": "deepseek"}, "DEEPSEEK_API_KEY"),
        ({"kind": "openrouter"}, "OPENROUTER_API_KEY"),
    ],
)
def test_an_official_origin_takes_the_providers_usual_variable(table, variable, caplog):
    (backend,) = load({"backends": {"x": table}}, {variable: "sk-1"})["backends"]
    assert backend.secrets() == ("sk-1",)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "base_url",
    [
        "https://proxy.example.com",
        "http://api.openai.com",
        "https://api.openai.com:8443",
        "https://api.openai.com.example.com",
    ],
)
def test_any_other_origin_takes_no_usual_variable(base_url, caplog):
    (backend,) = load(
        {"backends": {"x": {"kind": "openai", "base_url": base_url}}}, {"OPENAI_API_KEY": "sk-1"}
    )["backends"]
    assert backend.secrets() == ()
    assert caplog.messages == []


def test_a_key_in_the_file_wins_over_the_usual_variable():
    source = {"backends": {"x": {"kind": "openai", "api_key": "mine"}}}
    assert load(source, {"OPENAI_API_KEY": "theirs"})["backends"][0].secrets() == ("mine",)


@pytest.mark.parametrize("env", [{}, {"ANTHROPIC_API_KEY": ""}])
def test_a_missing_usual_variable_is_a_warning_that_names_it(env, caplog):
    load({"aliases": {"a": "anthropic/x"}}, env)
    assert caplog.messages == [
        "config: backends.anthropic: ANTHROPIC_API_KEY is not set, so there is no key for https://api.anthropic.com"
    ]


def test_an_impossible_key_in_a_variable_is_a_fault_without_it(faults):
    (fault,) = faults({"aliases": {"a": "anthropic/x"}}, {"ANTHROPIC_API_KEY": "sk-secret\n"})
    assert fault == "backends.anthropic.api_key: holds characters other than printable ASCII"


# Messages.


def test_a_name_from_the_environment_is_shown_as_its_variable(faults):
    source = {
        "backends": {"local": {"kind": "${KIND}"}, "x": {"kind": "openai", "base_url": "${URL}"}},
        "aliases": {"a": "${A}/model", "b": "${SHORT}"},
        "agents": {"x": "${MODEL}", "y": {"fallback": ["nope/${MODEL}"]}},
    }
    env = {"KIND": "sk-kind-1", "A": "sk-alias-1", "MODEL": "sk-model-1", "SHORT": "hm", "URL": "sk-url-1"}
    found = str(faults(source, env))
    assert "sk-" not in found
    assert '"hm"' not in found
    for name in ("KIND", "A", "MODEL", "SHORT"):
        assert f"${{{name}}}" in found


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=12, max_size=40).map("sk-".__add__))
def test_no_value_of_the_environment_is_in_any_message(faults_of, secret):
    source = {
        "backends": {
            "a": {"kind": "env:S", "headers": {"x": "${S}"}},
            "b": {"kind": "vllm", "base_url": "${S}", "api_key": "${S}\n"},
            "c": {"kind": "vllm", "base_url": "https://${S}@host", "timeout": "${S}"},
        },
        "aliases": {"x": "${S}", "y": {"b/x": "${S}"}, "z": "${S}/m"},
        "agents": {"p": "${S}", "q": {"triggers": "${S}", "group": "${S}", "params": {"extra": "${S}"}}},
        "groups": {"g": {"agents": ["${S}", "p"], "fallback": "${S}"}, "h": {"agents": ["${S}"]}},
        "prices": {"m": {"input": "${S}", "output": 1}},
        "retry": "${S}",
        "default_model": "${S}",
    }
    assert secret not in faults_of(source, {"S": secret})


@pytest.fixture(scope="module")
def faults_of():
    def faults_of(source, env):
        try:
            load(source, env)
        except Exception as error:
            return f"{error} {error!r}"
        raise AssertionError("this configuration has faults")

    return faults_of


def test_a_secret_is_in_no_repr():
    table = {"kind": "openai", "api_key": "sk-literal", "headers": {"X-Key": "sk-literal", "X-Other": "${K}"}}
    loaded = read({"backends": {"x": table}}, {"K": "sk-literal"})
    assert isinstance(loaded.options["backends"][0], OpenAIBackend)
    assert "sk-literal" not in repr(loaded)
