"""What was read can be written as one native TOML file, without secrets; read again, it is the same."""

import json
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.test_mutations import ENV, NATIVE, VALID, mutated

from ccroute.backends import OpenAIBackend, register, registry
from ccroute.config import load, read
from ccroute.errors import ConfigError

FIXTURES = Path(__file__).parent / "fixtures"
REFERENCE = re.compile(r"\$\{(\w+)")


def written(sources, env=None, **overrides):
    return read(sources, env or {}, overrides).settings.to_toml()


def body(text):
    """What a file holds besides its comments."""
    return tomllib.loads(text, parse_float=Decimal)


def comments(text):
    return [line for line in text.splitlines() if line.startswith("#")]


def facts(options):
    """The options of a router as values that can be compared."""
    found = {key: value for key, value in options.items() if value is not None}
    table = found.pop("aliases")
    found["backends"] = {
        backend.name: (
            type(backend),
            backend.secrets(),
            backend.target.__self__._path,
            [(name, value) for name, value in vars(backend).items() if not name.startswith("_")],
            backend._headers,
        )
        for backend in found["backends"]
    }
    return found | {"aliases": list(table.items()), "strategy": table.strategy}


def assert_same_router(sources, env, overrides=None):
    """The file that is written makes the same router, in an environment with the variables that it names."""
    loaded = read(sources, env, overrides)
    text = loaded.settings.to_toml()
    made = loaded.settings._document.variables.made
    assert facts(load(body(text), env | made, overrides)) == facts(loaded.options)
    assert not [
        value for value in made.values() if value.startswith("sk-") and value in text.partition("\n[")[2]
    ]
    return text


# The same router.


@pytest.mark.parametrize("name", VALID)
def test_each_shape_written_and_read_again_is_the_same(name):
    document, overrides = VALID[name]
    assert_same_router(document, ENV, overrides)


TARGETS = {"sonnet": "ollama/qwen:7b", "opus": "anthropic/o", "haiku": "sonnet"}
TIERS = {"aliases": TARGETS | {"sonnet-4.5": "sonnet", "opus-4.1": "opus"}}


@pytest.mark.parametrize("file", sorted(FIXTURES.iterdir()), ids=lambda file: file.name)
def test_each_real_file_written_and_read_again_is_the_same(file):
    assert_same_router(file, ENV, TIERS)


@pytest.mark.parametrize("name", VALID)
@given(data=st.data())
def test_whatever_loads_is_the_same_once_written(name, data):
    document, overrides = VALID[name]
    changed = data.draw(mutated(document))
    try:
        read(changed, ENV, overrides)
    except ConfigError:
        return
    assert_same_router(changed, ENV, overrides)


texts = st.text(max_size=8) | st.sampled_from(
    ["${A}", "env:A", "os.environ/A", "x${A}", "${A:-b}", "a\nb", "#", '"""', "'", "\\", "\x7f", "\t"]
)
json_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
amounts = st.decimals(0, 10**6, allow_nan=False, allow_infinity=False) | st.floats(0, 10**6) | st.integers(0)


@given(
    names=st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4, unique=True),
    headers=st.dictionaries(
        st.sampled_from(["x-key", "authorization", "user-agent", "Cookie"]),
        st.sampled_from(["Bearer sk-1", "plain", "${A}", "Bearer ${A}", "sk-${A:-default}", "Basic eDp5"]),
    ),
    key=st.sampled_from([None, "sk-literal-1", "${A}", "${B:-sk-default}", "prefix-of-${A}", "A", ""]),
    extra=json_values,
    price=amounts,
    order=st.permutations(["x-*", "x-a*", "x-?", "x-ab"]),
)
def test_names_texts_and_amounts_survive(names, headers, key, extra, price, order):
    document = {
        "backends": {
            "far": {"kind": "openai", "base_url": "https://far.example.com", "headers": headers}
            | ({} if key is None else {"api_key": key} if "authorization" not in headers else {}),
            "local": {"kind": "ollama", "max_concurrency": None},
        },
        "aliases": {name: {"far/a": 1, "local/b": 2.5} if i % 2 else "far/c" for i, name in enumerate(order)},
        "agents": {name: {"model": "x-1", "params": {"extra": {"it": extra}}} for name in names},
        "prices": {"far/a": {"input": price, "output": price}},
        "timeout": {"total": None, "idle": 5},
    }
    try:
        read(document, {"A": "from-the-environment"})
    except ConfigError:
        return  # such as a name that is blank
    assert_same_router(document, {"A": "from-the-environment"})


def test_several_files_become_one(write):
    agents = write("agents.json", json.dumps({"agents": {"x": {"model": "opus"}}}))
    models = write("models.toml", '[backends.local]\nkind = "ollama"\n[aliases]\nopus = "local/qwen"')
    text = assert_same_router([agents, models], {})
    assert body(text) == {
        "backends": {"local": {"kind": "ollama"}},
        "aliases": {"opus": "local/qwen"},
        "agents": {"x": "opus"},
    }
    assert comments(text)[0].endswith("from agents.json and models.toml.")


def test_the_order_of_patterns_stays(write):
    source = {
        "baseline": None,
        "backends": {"l": {"kind": "ollama"}},
        "aliases": {"a*": {"l/x": 1, "l/y": 2}, "*": "l/z"},
    }
    assert [*body(written(source))["aliases"]] == ["a*", "*"]


def test_what_was_not_given_is_not_written():
    assert body(written({"backends": {"local": {"kind": "ollama"}}})) == {
        "backends": {"local": {"kind": "ollama"}}
    }


def test_a_file_is_laid_out_for_people():
    text = written(
        {
            "default_model": "m",
            "backends": {"local": {"kind": "ollama", "models": {"q:7b": {"context_window": 8192}}}},
            "aliases": {"m": "local/q:7b"},
            "agents": {"a": {"model": "m"}, "b": {"model": "m", "fallback": ["local/" + "x" * 90]}},
            "prices": {"q:7b": {"input": 0, "output": 0}, "z": {"input": 1.50, "output": 75}},
            "fallbacks": {"m": ["local/" + "x" * 90, "local/y"]},
        }
    )
    assert (
        text.partition("\n\n")[2]
        == f"""\
default_model = "m"

[backends.local]
kind = "ollama"

[backends.local.models]
"q:7b" = {{ context_window = 8192 }}

[aliases]
m = "local/q:7b"

[agents]
a = "m"

[agents.b]
model = "m"
fallback = [
    "local/{"x" * 90}",
]

[fallbacks]
m = [
    "local/{"x" * 90}",
    "local/y",
]

[prices]
"q:7b" = "free"
z = {{ input = 1.5, output = 75 }}
"""
    )


# References and secrets.


def test_references_stay_in_the_native_spelling():
    source = {
        "backends": {
            "a": {"kind": "openai", "api_key": "env:KEY_A", "headers": {"x-key": "Bearer ${KEY_B}"}},
            "b": {"kind": "vllm", "base_url": "${URL:-http://localhost:8000}/v1"},
        },
        "aliases": {"x": ["a/${MODEL}", "a/y"], "z": "os.environ/TARGET"},
        "agents": {"q": "${AGENT}", "p": {"fallback": "${AGENT}"}},
        "retry": {"attempts": "${N}"},
        "timeout": "${SECONDS}",
        "prices": {"m": "${PRICE}"},
    }
    env = {
        "KEY_A": "sk-a",
        "KEY_B": "sk-b",
        "MODEL": "m",
        "TARGET": "a/t",
        "AGENT": "x",
        "N": "5",
        "SECONDS": "9",
    }
    env["PRICE"] = "free"
    text = assert_same_router(source, env)
    source["backends"]["a"]["api_key"] = "${KEY_A}"
    source["aliases"]["z"] = "${TARGET}"
    assert body(text) == source
    assert not any(f'"{value}"' in text for value in env.values())


def test_references_of_another_tools_file_stay():
    source = {
        "x": {
            "model": "${MODEL}",
            "baseUrl": "${URL}",
            "apiKey": "os.environ/KEY",
            "fallbackModel": "env:OTHER",
        },
        "y": {"model": "m", "baseUrl": "${URL}"},
    }
    env = {"MODEL": "q", "URL": "http://proxy.example.com/v1/", "KEY": "sk-1", "OTHER": "r"}
    found = body(assert_same_router(source, env))
    assert found["backends"]["proxy"] == {"kind": "openai", "base_url": "${URL}", "api_key": "${KEY}"}
    assert found["agents"]["x"]["model"] == "${MODEL}"
    assert "sk-1" not in written(source, env)


def test_references_of_a_litellm_file_stay():
    params = {
        "model": "openai/gpt-4o",
        "api_base": "os.environ/BASE",
        "api_key": "os.environ/KEY",
        "rpm": "os.environ/RPM",
        "extra_headers": {"x-key": "hunter2"},
    }
    source = {"model_list": [{"model_name": "a", "litellm_params": params}]}
    text = assert_same_router(source, {"BASE": "https://far.example.com/v1", "KEY": "sk-1", "RPM": "60"})
    assert body(text)["backends"]["far"] == {
        "kind": "openai",
        "base_url": "${BASE}",
        "api_key": "${KEY}",
        "headers": {"x-key": "${FAR_X_KEY}"},
        "models": {"gpt-4o": {"rpm": "${RPM}"}},
    }


def test_references_in_headers_of_a_litellm_file_stay():
    # https://github.com/TheFermiSea/beefcake-swarm and https://github.com/Gapminder/gapminder-ai
    params = {
        "model": "openai/x",
        "api_base": "https://far.example.com/v1",
        "api_key": "os.environ/KEY",
        "organization": "os.environ/ORG",
        "extra_headers": {"x-api-key": "os.environ/KEY_2"},
    }
    own = params | {"extra_headers": {"Authorization": "os.environ/KEY_3"}, "organization": None}
    models = {"a": params, "b": own}
    source = {"model_list": [{"model_name": name, "litellm_params": each} for name, each in models.items()]}
    env = {"KEY": "sk-1", "KEY_2": "sk-2", "KEY_3": "sk-3", "ORG": "org-1"}
    backends = body(assert_same_router(source, env))["backends"]
    assert backends["far"]["headers"] == {"OpenAI-Organization": "${ORG}", "x-api-key": "${KEY_2}"}
    assert backends["far-2"]["api_key"] == "${KEY_3}"
    assert body(moved(source))["backends"] == backends


def test_a_literal_key_becomes_the_providers_usual_variable():
    text = written({"backends": {"main": {"kind": "anthropic", "api_key": "sk-ant-literal"}}})
    assert body(text)["backends"]["main"]["api_key"] == "${ANTHROPIC_API_KEY}"
    assert "sk-ant-literal" not in text
    assert "# Set this variable: backends.main.api_key held the value itself.\napi_key" in text
    assert "#   ANTHROPIC_API_KEY: backends.main.api_key" in text


@pytest.mark.parametrize(
    ("backend", "variable"), [("my-proxy", "MY_PROXY_API_KEY"), ("10.0.0.1", "SECRET_10_0_0_1_API_KEY")]
)
def test_a_literal_key_elsewhere_is_named_after_its_backend(backend, variable):
    table = {"kind": "vllm", "base_url": "http://proxy.example.com", "api_key": "sk-literal"}
    text = assert_same_router({"backends": {backend: table}}, {})
    assert body(text)["backends"][backend]["api_key"] == f"${{{variable}}}"


def test_a_variable_that_means_something_else_is_not_taken():
    key = {"kind": "openai", "api_key": "sk-one"}
    sources = [
        ({"backends": {"a": key, "b": {**key, "api_key": "sk-two"}}}, {}),
        (
            {"backends": {"a": key, "b": {**key, "api_key": "${OPENAI_API_KEY}"}}},
            {"OPENAI_API_KEY": "sk-two"},
        ),
        ({"backends": {"a": key, "b": {"kind": "openai"}}}, {}),
        ({"backends": {"a": key}}, {"OPENAI_API_KEY": "sk-other"}),
    ]
    names = [
        REFERENCE.findall(body(assert_same_router(*each))["backends"]["a"]["api_key"]) for each in sources
    ]
    assert names == [["OPENAI_API_KEY"], *[["OPENAI_API_KEY_2"]] * 3]


def test_the_same_literal_has_one_variable():
    table = {"kind": "openai", "base_url": "https://p.example.com", "api_key": "sk-one"}
    text = assert_same_router({"backends": {"a": table, "b": table}}, {})
    assert {backend["api_key"] for backend in body(text)["backends"].values()} == {"${A_API_KEY}"}
    assert "A_API_KEY: backends.a.api_key, backends.b.api_key" in text


def test_a_secret_default_of_a_reference_is_left_out():
    text = assert_same_router({"backends": {"a": {"kind": "openai", "api_key": "${MINE:-sk-default}"}}}, {})
    assert body(text)["backends"]["a"]["api_key"] == "${MINE}"
    assert "sk-default" not in text


def test_credentials_in_headers_become_variables_and_harmless_headers_stay():
    headers = {
        "Authorization": "Bearer sk-literal-1",
        "x-team": "blue-literal",
        "anthropic-beta": "context-1m-2025-08-07",
    }
    source = {"backends": {"a": {"kind": "vllm", "headers": headers}}}
    text = assert_same_router(source, {})
    assert body(text)["backends"]["a"]["headers"] == {
        "Authorization": "Bearer ${A_AUTHORIZATION}",
        "x-team": "${A_X_TEAM}",
        "anthropic-beta": "context-1m-2025-08-07",
    }
    assert "literal" not in text


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("redis://:hunter2@cache.example.com", "redis://:${CACHE_PASSWORD}@cache.example.com"),
        ("redis://hunter2@cache.example.com/0", "redis://${CACHE_PASSWORD}@cache.example.com/0"),
        ("redis://me:hunter2@cache.example.com", "redis://me:${CACHE_PASSWORD}@cache.example.com"),
        (
            "redis://c.example.com/?db=1&password=hunter2",
            "redis://c.example.com/?db=1&password=${CACHE_PASSWORD}",
        ),
        ("redis://${PW:-hunter2}@cache.example.com", "redis://${PW}@cache.example.com"),
        ("redis://me:${PW:-hunter2}@cache.example.com", "redis://me:${PW}@cache.example.com"),
        ("redis://me:$hunter2@cache.example.com", "redis://me:${CACHE_PASSWORD}@cache.example.com"),
        ("redis://me:${PW}@cache.example.com", "redis://me:${PW}@cache.example.com"),
        ("redis://cache.example.com", "redis://cache.example.com"),
    ],
)
def test_a_password_in_a_url_becomes_a_variable(url, result):
    text = written({"default_model": "ollama/x", "cache": url}, {"PW": "hunter2"})
    assert body(text)["cache"] == result
    assert "hunter2" not in text


def test_a_secret_in_what_may_hold_anything_becomes_a_variable():
    agent = {"model": "ollama/x", "params": {"extra": {"userToken": "hunter2", "max_tokens": 5, "tag": "a"}}}
    source = {"agents": {"x": agent}, "cache": {"redis_password": "hunter3", "ttl": 5}}
    text = written(source)
    assert body(text)["agents"]["x"]["params"]["extra"] == {
        "userToken": "${X_USERTOKEN}",
        "max_tokens": 5,
        "tag": "a",
    }
    assert body(text)["cache"] == {"redis_password": "${REDIS_PASSWORD}", "ttl": 5}
    assert "hunter" not in text


def test_a_secret_of_a_kind_of_ones_own_becomes_a_variable():
    @register
    class Mine(OpenAIBackend):
        kind = "mine-of-to-toml"

        def __init__(self, name: str, *, auth_token: str, region: str, **options: Any) -> None:
            super().__init__(name, **options)

    try:
        text = written({"backends": {"m": {"kind": Mine.kind, "auth_token": "hunter2", "region": "eu"}}})
    finally:
        del registry._KINDS[Mine.kind]
    assert body(text)["backends"]["m"] == {
        "kind": Mine.kind,
        "auth_token": "${M_AUTH_TOKEN}",
        "region": "eu",
    }


# A file that is only moved.


def moved(source):
    return read(source, {}, keep_unset=True).settings.to_toml()


def test_variables_need_not_be_set_to_move_a_file():
    source = {
        "backends": {
            "a": {"kind": "openai", "api_key": "${KEY_A}", "base_url": "${URL}", "max_concurrency": "${MAX}"},
            "b": {"kind": "${KIND}", "headers": {"x": "Bearer env:NO ${KEY_B}"}},
        },
        "aliases": {"x": ["a/${MODEL}", "a/y"], "z": "${TARGET}", "w": "z"},
        "agents": {
            "q": "${AGENT}",
            "p": {"model": "z", "triggers": ["${TRIGGER}"], "local_only": "${PRIVATE}"},
        },
        "retry": {"attempts": "${N}"},
        "timeout": "${SECONDS}",
        "health": "${HEALTH}",
        "prices": {"m": {"input": "${USD}", "output": 1}, "n": "${PRICE}"},
    }
    assert body(moved(source)) == source


def test_an_empty_key_is_as_good_as_none_to_move_a_file():
    source = {"backends": {"a": {"kind": "openai", "api_key": "${KEY}"}}}
    assert body(read(source, {"KEY": ""}, keep_unset=True).settings.to_toml()) == source


def test_another_tools_file_moves_without_its_variables():
    source = {"x": {"model": "${MODEL}", "baseUrl": "https://p.example.com", "apiKey": "env:KEY"}}
    found = body(moved(source))
    assert found["backends"]["p"]["api_key"] == "${KEY}"
    assert found["agents"]["x"] == "${MODEL}"


def test_other_faults_are_reported_also_if_a_file_is_only_moved():
    source = {
        "agents": {"q": "${AGENT}", "p": {"model": "nope", "modle": "${X}"}},
        "backends": {"ollama": {"models": "${MODELS}"}},
        "retry": {"max": "much"},
    }
    with pytest.raises(ConfigError) as caught:
        moved(source)
    assert [fault.partition(": ")[0] for fault in caught.value.faults] == [
        "backends.ollama.models",
        "agents.p.modle",
        "retry.max",
        "agents.p.model",
    ]


# Comments.


def test_the_comments_sum_up_what_was_ignored(fixtures):
    found = comments(written(fixtures / "orchestra-config-tdd.json"))
    assert found[0].endswith(" from orchestra-config-tdd.json.")
    [start] = [i for i, line in enumerate(found) if line == "# Not taken over:"]
    listed = " ".join(found[start + 1 :])
    assert "phase" in listed
    assert "says nothing about which model answers" in listed
    assert len(found) < 12


def test_names_in_comments_cannot_end_them():
    source = {"x": {"model": "ollama/y", 'evil\nname = 1\r[z]"': 5}}
    text = written(source)
    assert body(text) == {"agents": {"x": "ollama/y"}}


def test_a_null_that_toml_cannot_hold_is_left_out_and_named():
    source = {"agents": {"x": {"model": "ollama/y", "params": {"extra": {"a": None, "b": [1, None]}}}}}
    text = written(source)
    assert body(text)["agents"]["x"]["params"] == {"extra": {"b": [1]}}
    assert "agents.x.params.extra.a" in text
    assert "agents.x.params.extra.b[1]" in text


@pytest.mark.parametrize("value", [object(), "\ud800"])
def test_a_value_that_toml_cannot_hold_is_a_fault_with_its_place(value):
    with pytest.raises(ConfigError) as caught:
        written({"default_model": "ollama/x", "cache": {"a": value}})
    assert caught.value.faults == ("cache.a: TOML cannot hold this value",)


def test_off_is_null_in_toml(write):
    path = write("x.toml", '[backends.ollama]\nmax_concurrency = "off"\n[timeout]\ntotal = "off"\nfirst = 5')
    options = load(path, {})
    assert options["backends"][0].max_concurrency is None
    assert options["timeout"].total is None


def test_without_tomli_w_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tomli_w", None)
    with pytest.raises(ConfigError, match=r"pip install 'ccroute\[cli\]'"):
        written({"default_model": "ollama/x"})


def test_the_native_document_is_written_whole():
    found = body(written(NATIVE, ENV))
    assert found.keys() == NATIVE.keys()


def test_a_files_name_is_whole_in_a_comment():
    name = "a-very-" + "long-" * 16 + "name"
    settings = read({"agents": {"a": {"model": "ollama/q", "type": "x"}, name: {}}}).settings
    assert f"agents.{name}:" in settings.to_toml()
