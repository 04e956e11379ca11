"""An agent that names its server is answered there, whatever the caller and other sources define."""

import pytest
from tests.config.shapes import ENV, backends, endpoint

from ccroute.backends import OllamaBackend
from ccroute.config import load
from ccroute.routing import Agent

AT_HOME = {"hr": {"model": "sonnet", "baseUrl": "http://10.0.0.5:11434", "apiKey": "k"}}
HOME = {"10.0.0.5": (OllamaBackend, "http://10.0.0.5:11434", ("k",))}


@pytest.mark.parametrize(
    "sources",
    [
        [AT_HOME, {"backends": {"a": {"kind": "vllm"}}, "aliases": {"sonnet": "a/far"}}],
        [{"backends": {"a": {"kind": "vllm"}}, "aliases": {"sonnet": "a/far"}}, AT_HOME],
        [
            AT_HOME,
            {"llm_routing": {"endpoints": {"a": {"url": "http://localhost:8000", "models": ["sonnet"]}}}},
        ],
    ],
)
def test_an_agents_address_wins_over_another_sources_alias(sources):
    options = load(sources, ENV)
    assert options["agents"]["hr"].model == "10.0.0.5/sonnet"
    assert options["aliases"].resolve("sonnet").deployments[0].startswith("a/")
    assert backends(options).items() >= HOME.items()


def test_an_agents_address_wins_over_the_callers_pattern(caplog):
    options = load(AT_HOME, ENV, {"aliases": {"so*": "anthropic/far"}})
    assert options["aliases"].resolve(options["agents"]["hr"].model).deployments == ("10.0.0.5/sonnet",)
    assert caplog.messages == []


def test_a_callers_alias_beats_an_agents_address_with_a_warning(caplog):
    options = load(AT_HOME, ENV, {"aliases": {"sonnet": "anthropic/far"}})
    assert options["agents"] == {"hr": Agent("sonnet")}
    assert options["aliases"].resolve("sonnet").deployments == ("anthropic/far",)
    assert backends(options).keys() == {"anthropic"}
    assert caplog.messages == [
        'config: hr.baseUrl: is not used for "sonnet", because the caller gives an alias for that name'
    ]


@pytest.mark.parametrize("target", ["10.0.0.5/sonnet", ["10.0.0.5/sonnet"]])
def test_a_callers_alias_to_the_agents_own_address_is_no_warning(caplog, target):
    options = load(AT_HOME, ENV, {"aliases": {"sonnet": target}})
    assert options["aliases"].resolve(options["agents"]["hr"].model).deployments == ("10.0.0.5/sonnet",)
    assert backends(options) == HOME
    assert caplog.messages == []


def test_no_backend_is_made_that_nothing_leads_to():
    aliases = {"sonnet": "anthropic/far"}
    spare = {"hr": AT_HOME["hr"] | {"fallbackModel": "haiku"}}
    assert backends(load(spare, ENV, {"aliases": aliases})).keys() == {"anthropic", "10.0.0.5"}
    aliases["haiku"] = "anthropic/near"
    assert backends(load(spare, ENV, {"aliases": aliases})).keys() == {"anthropic"}
    assert backends(load(spare, ENV, {"aliases": {**aliases, "x": "10.0.0.5/y"}})).keys() == {
        "anthropic",
        "10.0.0.5",
    }


def test_an_address_is_not_another_server_of_the_same_name():
    here = {"x": {"model": "ollama/q", "baseUrl": "http://localhost:11434"}}
    elsewhere = "http://mini1.local:11434"
    for options in (
        load(here, {}, {"backends": [OllamaBackend("ollama", elsewhere)]}),
        load([here, {"backends": {"ollama": {"base_url": elsewhere}}}], {}),
        load([{"backends": {"ollama": {"base_url": "${URL}"}}}, here], {"URL": elsewhere}),
        load([{"llm_routing": {"endpoints": {"ollama": {"url": elsewhere}}}}, here], {}),
    ):
        assert str({b.name: b.origin for b in options["backends"]}["ollama"]) == elsewhere
        (deployment,) = options["aliases"].resolve(options["agents"]["x"].model).deployments
        assert (deployment, backends(options)["ollama-2"][1]) == ("ollama-2/q", "http://localhost:11434")


def test_an_invalid_address_is_a_single_fault(faults):
    bad = {"x": {"model": "m", "baseUrl": "http://["}}
    assert faults([bad, {"backends": {"backend": {"kind": "vllm"}}}]) == (
        "source 1: x.baseUrl: must look like http://localhost:11434 or https://host/v1",
    )


def test_an_alias_like_its_deployment_does_not_hide_an_address():
    source = endpoint("http://e.example.com", models=["ollama/q"]) | {
        "agents": {
            "x": {"model": "ollama/q", "baseUrl": "http://localhost:11434"},
            "y": {"model": "ollama/q"},
        }
    }
    options = load(source, {})
    assert options["aliases"].resolve(options["agents"]["x"].model).deployments == ("ollama-2/q",)
    assert options["aliases"].resolve(options["agents"]["y"].model).deployments == ("e/ollama/q",)


@pytest.mark.parametrize("keys", [("one", "one"), ("one", None), (None, None)])
def test_another_sources_backend_at_the_agents_address_is_used(keys):
    native = {"backends": {"ollama": {"memory_gb": 8} | ({"api_key": keys[0]} if keys[0] else {})}}
    agent = {"model": "q", "baseUrl": "http://localhost:11434"} | ({"apiKey": keys[1]} if keys[1] else {})
    for sources in ([native, {"x": agent}], [{"x": agent}, native]):
        (backend,) = load(sources, {})["backends"]
        assert (backend.name, backend.memory_gb, backend.secrets()) == (
            "ollama",
            8,
            tuple(filter(None, keys[:1])),
        )
    nobody = load([native, {"x": agent}], {}, {"aliases": {"q": "anthropic/q"}})
    assert "ollama" in backends(nobody)


def test_two_keys_at_one_address_are_two_backends():
    one, two = ({n: {"model": n, "baseUrl": "http://p.example.com", "apiKey": n}} for n in ("a", "b"))
    options = load([one, two], {})
    assert {name: secrets for name, (_, _, secrets) in backends(options).items()} == {
        "p": ("a",),
        "p-2": ("b",),
    }
    assert options["aliases"].resolve("b").deployments == ("p-2/b",)
