"""`llmGateway`: its providers are backends, and its rules are aliases, agents' models and fallbacks."""

import pytest
from tests.config.shapes import ANTHROPIC, ENV, backends

from ccroute import Router
from ccroute.backends import AnthropicBackend, OllamaBackend, OpenAIBackend
from ccroute.config import load, read
from ccroute.routing import Agent
from ccroute.types import Request, RetryPolicy, Timeout

LOCAL = {
    "providerType": "ollama",
    "baseUrl": "http://localhost:11434",
    "defaultModel": "qwen-fast",
    "modelAliases": {"opus": "qwen-quality"},
}
OFF = {"enabled": False, "providerType": "unheard-of", "apiKeyRef": "env:NOPE", "baseUrl": "${NOPE}"}
PROVIDERS = {"anthropic": ANTHROPIC, "local": LOCAL, "off": OFF}


def gateway(providers=PROVIDERS, agents=None, **routing):
    return {**(agents or {}), "llmGateway": {"enabled": True, "providers": providers, "routing": routing}}


def one(**provider):
    """The only backend of a gateway with this provider."""
    (backend,) = load(gateway({"p": provider}, defaultProvider="p"), ENV)["backends"]
    return backend


def aliases(options):
    found = options["aliases"]
    return {name: found.resolve(name).deployments for name in found if not name.startswith("re:")}


# Providers.


def test_an_enabled_provider_is_a_backend():
    options = load(gateway(), ENV)
    assert backends(options) == {
        "anthropic": (AnthropicBackend, "https://api.anthropic.com", ("sk-ant",)),
        "local": (OllamaBackend, "http://localhost:11434", ()),
    }
    assert options["backends"][0].timeout == Timeout(total=60)


def test_a_disabled_provider_needs_nothing_and_is_skipped_everywhere():
    source = gateway(
        defaultProvider="off",
        agentRules={"a": "off"},
        modelTierRules={"opus": "off", "sonnet": "anthropic"},
        fallbackChain=["off", "local"],
        agents={"a": {"model": "sonnet"}},
    )
    loaded = read(source, ENV)
    assert loaded.options["agents"] == {"a": Agent("sonnet")}
    assert loaded.options.get("default_model") is None
    assert loaded.options["fallbacks"]["*"] == ["local/qwen-fast"]
    assert "opus" not in loaded.options["aliases"]
    skipped = [place for place, reason in loaded.ignored if reason == "its provider is disabled"]
    assert skipped == [
        f"llmGateway.routing.{rule}"
        for rule in ("fallbackChain[0]", "defaultProvider", "modelTierRules.opus", "agentRules.a")
    ]


def test_a_disabled_gateway_is_skipped():
    source = {"llmGateway": {"enabled": False, "providers": {"x": {"apiKeyRef": "env:NOPE"}}}}
    assert load({**source, "a": {"model": "ollama/q"}}, {})["agents"] == {"a": Agent("ollama/q")}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Anthropic", AnthropicBackend),
        ("claude", AnthropicBackend),
        ("OpenAI", OpenAIBackend),
        ("openai-compatible", OpenAIBackend),
        ("openai_compatible", OpenAIBackend),
        ("OpenAICompatible", OpenAIBackend),
        ("vLLM", OpenAIBackend),
        ("llama.cpp", OpenAIBackend),
        ("deepseek", OpenAIBackend),
        ("azure", OpenAIBackend),
        ("AzureOpenAI", OpenAIBackend),
        ("ollama", OllamaBackend),
    ],
)
def test_a_type_of_provider_has_many_spellings(said, kind):
    url = "http://host.example.com"
    assert type(one(providerType=said, baseUrl=url, apiKey="k", defaultModel="m")) is kind


@pytest.mark.parametrize(
    ("provider", "kind", "origin"),
    [
        ({"baseUrl": "http://host.example.com/v1"}, OpenAIBackend, "http://host.example.com"),
        ({"type": "ollama"}, OllamaBackend, "http://localhost:11434"),
        (
            {"provider_type": "ollama", "base_url": "http://a.example.com/v1/"},
            OllamaBackend,
            "http://a.example.com",
        ),
    ],
)
def test_a_provider_needs_a_type_or_an_address(provider, kind, origin):
    backend = one(**provider, defaultModel="m")
    assert (type(backend), str(backend.origin)) == (kind, origin)


def test_a_providers_id_may_be_its_type():
    source = gateway({"ollama": {"defaultModel": "q"}}, defaultProvider="ollama")
    assert backends(load(source, {})) == {"ollama": (OllamaBackend, "http://localhost:11434", ())}


@pytest.mark.parametrize(
    "reference", ["env:CCPROXY_TOKEN", "${CCPROXY_TOKEN}", "CCPROXY_TOKEN", "os.environ/CCPROXY_TOKEN"]
)
def test_a_reference_to_a_key_has_many_forms(reference):
    backend = one(providerType="vllm", apiKeyRef=reference, defaultModel="m")
    assert backend.secrets() == ("token",)


def test_azures_version_is_sent_and_others_are_ignored():
    azure = {"providerType": "azure", "baseUrl": "https://x.openai.azure.com", "apiVersion": "2024-06-01"}
    asked = one(**azure, apiKey="k").encode(Request(messages=[{"role": "user", "content": "x"}]), "m", False)
    assert asked.path.endswith("?api-version=2024-06-01")
    loaded = read(gateway(), ENV)
    assert ("llmGateway.providers.anthropic.apiVersion", "only Azure's API needs a version") in loaded.ignored


def test_faults_of_providers_have_their_places(faults):
    types = "the types are "
    found = faults(
        gateway(
            {
                "a": {"providerType": "antropic"},
                "b": {"providerType": "openai-compatible"},
                "c": {"providerType": "vllm", "apiKeyRef": "sk-literal-canary"},
                "d": {"providerType": "vllm", "apiKeyRef": "env:NOPE"},
                "e": {"defaultModel": "x"},
                "f": {"providerType": "vllm", "baseUrl": "nope", "timeoutSecs": 0, "maxRetries": -1},
                "g": {"providerType": "vllm", "modelAliases": {"x": 5}, "defaultModel": 5},
                "h": {"providerType": "vllm", "modelAliases": []},
                "i": {"providerType": "vllm", "apiKeyRef": "keychain:x", "localOnly": True},
                "j": {"providerType": "vllm", "baseUrl": "http://[", "apiVersion": "1"},
            },
            defaultProvider="anthropic-x",
            fallbackChain=["a", "f", 5],
            agentRules={"x": "olama"},
            modelTierRules={"opus": "z"},
        )
    )
    place = "llmGateway.providers."
    reference = "should be a reference to a variable: write env:NAME"
    assert [fault.partition(types)[0] for fault in found] == [
        f'{place}a.providerType: unknown type "antropic", did you mean "anthropic"?; ',
        f"{place}b.baseUrl: is missing",
        f"{place}c.apiKeyRef: {reference}",
        f"{place}d.apiKeyRef: environment variable NOPE is not set",
        f"{place}e.providerType: is missing; ",
        f"{place}f.maxRetries: should be a whole number, at least 0",
        f"{place}g.modelAliases.x: should be a name",
        f"{place}g.defaultModel: should be a string",
        f"{place}h.modelAliases: should be a table",
        f"{place}i.localOnly: belongs to an agent or to a group of agents",
        f"{place}i.apiKeyRef: {reference}",
        "llmGateway.routing.fallbackChain[2]: should be a provider's name",
        'llmGateway.routing.defaultProvider: unknown provider "anthropic-x"',
        'llmGateway.routing.modelTierRules.opus: unknown provider "z"',
        'llmGateway.routing.agentRules.x: unknown provider "olama"',
        f"{place}f.timeoutSecs: should be greater than 0",
        f"{place}j.baseUrl: must look like http://localhost:11434 or https://host/v1",
    ]
    assert "canary" not in str(found)


def test_a_misspelled_key_of_a_gateway_is_a_warning(caplog):
    source = gateway({"p": {"providerType": "ollama", "defaultModle": "x", "region": "eu"}}, fallbackChian=[])
    read(source | {"a": {"model": "ollama/q"}}, {})
    assert caplog.messages == [
        f'config: llmGateway.{place}: unknown key, did you mean "{meant}"?'
        for place, meant in (
            ("providers.p.defaultModle", "defaultModel"),
            ("routing.fallbackChian", "fallbackChain"),
        )
    ]


def test_a_callers_backend_replaces_a_provider():
    source = gateway({"p": {"providerType": "openai", "apiKeyRef": "env:NOPE"}}, agentRules={"x": "p"})
    options = load(source | {"x": {"model": "q"}}, {}, {"backends": [OllamaBackend("p")]})
    assert options["agents"]["x"].model == "p/q"
    assert backends(options) == {"p": (OllamaBackend, "http://localhost:11434", ())}


# Rules.


def test_a_tier_is_an_alias_of_its_providers_model():
    options = load(gateway(modelTierRules={"opus": "anthropic", "haiku": "local"}), ENV)
    assert aliases(options) == {
        "haiku": ("local/qwen-fast",),
        "opus": ("anthropic/claude-opus-4-1",),
        "sonnet": ("anthropic/claude-sonnet-4-5",),
    }
    resolve = options["aliases"].resolve
    assert resolve("opus-4.1").deployments == ("anthropic/claude-opus-4-1",)
    assert resolve("haiku-3").deployments == ("local/qwen-fast",)


def test_a_name_without_a_rule_is_the_default_providers_then_the_chains():
    three = {name: {"providerType": "vllm", "modelAliases": {"m": name}} for name in ("a", "b", "c")}
    assert aliases(load(gateway(three), {})) == {"m": ("a/a",)}
    assert aliases(load(gateway(three, fallbackChain=["b"]), {})) == {"m": ("b/b",)}
    assert aliases(load(gateway(three, fallbackChain=["b"], defaultProvider="c"), {})) == {"m": ("c/c",)}


def test_the_default_provider_gives_the_default_model():
    assert load(gateway(defaultProvider="anthropic"), ENV)["default_model"] == "anthropic/claude-sonnet-4-5"


@pytest.mark.parametrize(
    ("model", "provider", "deployment"),
    [
        ("opus", "local", "local/qwen-quality"),
        ("opus-4.1", "local", "local/qwen-quality"),
        ("haiku", "local", "local/qwen-fast"),
        ("sonnet", "local", "local/qwen-fast"),
        ("sonnet-4.5", "anthropic", "anthropic/claude-sonnet-4-5"),
        ("claude-3-5-haiku", "anthropic", "anthropic/claude-3-5-haiku"),
        ("ollama/qwen:7b", "local", "local/qwen:7b"),
        ("local/qwen:7b", "local", "local/qwen:7b"),
    ],
)
def test_a_rule_sends_the_agents_model_to_its_provider(model, provider, deployment):
    agents = {"someAgents": [{"name": "Python Expert", "type": "py", "model": model}]}
    for name in ("python-expert", "Python Expert", "py"):
        options = load(gateway(agents=agents, agentRules={name: provider}), ENV)
        assert options["agents"]["python-expert"].model == deployment


def test_a_rule_holds_for_an_agent_of_another_source():
    agents = {"python-expert": {"model": "opus", "fallbackModel": "haiku"}}
    rules = gateway(agentRules={"Python Expert": "local"}, modelTierRules={"haiku": "anthropic"})
    options = load([agents, rules], ENV)
    assert options["agents"] == {"python-expert": Agent("local/qwen-quality", fallback=["haiku"])}
    later = load([agents, rules, {"agents": {"python-expert": "opus"}}], ENV)
    assert later["agents"]["python-expert"].model == "opus"


def test_a_rule_uses_the_model_of_the_agents_group():
    native = {"groups": {"g": {"model": "opus", "agents": ["x"]}}}
    assert (
        load([native, gateway(agentRules={"x": "local"})], ENV)["agents"]["x"].model == "local/qwen-quality"
    )


def test_a_rule_for_an_agent_that_no_source_defines_makes_one(caplog):
    options = load(gateway(agentRules={"x": "local"}), ENV)
    assert options["agents"] == {"x": Agent("local/qwen-fast")}
    bare = {"p": {"providerType": "ollama"}, "q": LOCAL}
    load(gateway(bare, agentRules={"x": "p"}), {})
    assert caplog.messages == [
        (
            "config: llmGateway.routing.agentRules.x: "
            "has no effect: neither the agent nor the provider has a model"
        )
    ]


def test_a_rule_whose_agent_is_nearly_a_known_one_is_a_warning(caplog):
    load(gateway(agents={"python-expert": {"model": "opus"}}, agentRules={"python-experts": "local"}), ENV)
    assert caplog.messages == [
        (
            'config: llmGateway.routing.agentRules.python-experts: "python-experts" is a new agent; '
            'was "python-expert" meant?'
        )
    ]


def test_a_rule_may_name_a_backend_of_another_source():
    agents = {"x": {"model": "q"}, "y": {"model": "anthropic/claude-3"}}
    rules = gateway({}, agents, agentRules={"x": "mini", "y": "anthropic"})
    options = load([rules, {"backends": {"mini": {"kind": "ollama"}}}], ENV)
    assert [each.model for each in options["agents"].values()] == ["mini/q", "anthropic/claude-3"]


def test_the_callers_alias_says_what_a_tier_is_at_the_provider():
    agents = {"x": {"model": "haiku"}}
    rules = gateway(agents=agents, agentRules={"x": "anthropic"})
    over = {"aliases": {"haiku": "anthropic/claude-3-haiku"}}
    assert load(rules, ENV, over)["agents"]["x"].model == "haiku"
    over = {"aliases": {"haiku": "elsewhere/x"}, "backends": [OllamaBackend("elsewhere")]}
    assert load(rules, ENV, over)["agents"]["x"].model == "anthropic/claude-sonnet-4-5"


def test_the_chain_gives_every_model_fallbacks():
    options = load(gateway(fallbackChain=["anthropic", "local"]), ENV)
    assert options["fallbacks"] == {
        "*": ["anthropic/claude-sonnet-4-5", "local/qwen-fast"],
        "opus": ["anthropic/claude-opus-4-1", "local/qwen-quality"],
    }


def test_the_chain_knows_the_tier_of_an_agents_model():
    agents = {"x": {"model": "opus-4.1"}, "y": {"model": "opus"}, "z": {"model": "sonnet"}}
    rules = {"modelTierRules": {"opus": "anthropic"}, "agentRules": {"y": "local"}}
    source = gateway(agents=agents, **rules, fallbackChain=["anthropic", "local"])
    with Router.from_config(source, env=ENV) as router:
        tried = {
            name: [candidate.deployment for candidate in router.explain("x", agent=name).candidates]
            for name in agents
        }
    assert tried == {
        "x": ["anthropic/claude-opus-4-1", "local/qwen-quality"],
        "y": ["local/qwen-quality", "anthropic/claude-opus-4-1"],
        "z": ["anthropic/claude-sonnet-4-5", "local/qwen-fast"],
    }


def test_one_model_for_several_tiers_has_the_fallbacks_of_all_models():
    providers = PROVIDERS | {"local": {"providerType": "ollama", "defaultModel": "qwen"}}
    rules = {"agentRules": {"x": "local"}, "fallbackChain": ["anthropic", "local"]}
    with Router.from_config(gateway(providers, **rules), env=ENV) as router:
        tried = [candidate.deployment for candidate in router.explain("x", agent="x").candidates]
    assert tried == ["local/qwen", "anthropic/claude-sonnet-4-5"]


def test_a_provider_of_the_chain_without_a_model_is_ignored():
    loaded = read(gateway({"a": LOCAL, "b": {"providerType": "vllm"}}, fallbackChain=["b", "a"]), {})
    assert loaded.options["fallbacks"]["*"] == ["a/qwen-fast"]
    assert ("llmGateway.routing.fallbackChain[0]", "this provider has no defaultModel") in loaded.ignored


def test_retries_are_the_routers_if_the_providers_agree():
    assert load(gateway(fallbackChain=["anthropic", "local"]), ENV)["retry"] == RetryPolicy(
        6, per_deployment=4
    )
    two = {"anthropic": ANTHROPIC, "local": LOCAL | {"maxRetries": 1}}
    loaded = read(gateway(two), ENV)
    assert "retry" not in loaded.options
    places = [place for place, reason in loaded.ignored if "number of retries" in reason]
    assert places == [f"llmGateway.providers.{name}.maxRetries" for name in two]


def test_a_gateway_beside_agents_with_addresses_keeps_both():
    agents = {"x": {"model": "opus", "baseUrl": "http://own.example.com/v1"}, "y": {"model": "opus"}}
    options = load(gateway(agents=agents, modelTierRules={"opus": "anthropic"}), ENV)
    assert [each.model for each in options["agents"].values()] == ["own/opus", "opus"]
    assert options["aliases"].resolve("opus").deployments == ("anthropic/claude-opus-4-1",)


def test_names_of_another_files_gateway_keep_their_meaning():
    agents = {"x": {"model": "opus", "baseUrl": "http://local.example.com/v1"}}
    options = load([agents, gateway()], ENV)
    assert options["agents"]["x"].model == "local-2/opus"
    assert backends(options)["local-2"][1] == "http://local.example.com"
