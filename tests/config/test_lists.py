"""Agents in lists: their names, fallbacks, and where their models run."""

import json

import pytest
from tests.config.shapes import ENV

from ccroute import Router
from ccroute.backends import OllamaBackend
from ccroute.config import load, read
from ccroute.errors import UnknownAgentError
from ccroute.routing import Agent, Fallback

NATIVE = {
    "backends": {"local": {"kind": "ollama"}},
    "aliases": {"opus-4.1": "local/big", "sonnet-4.5": "local/m"},
}


def agent(name, model="sonnet-4.5", **more):
    return {"name": name, "model": model, **more}


def agents(*sources, **overrides):
    return load([*sources, NATIVE], ENV, overrides)["agents"]


@pytest.fixture
def lists(fixtures):
    return fixtures / "orchestra-config-lists.json"


# Names.


def test_a_file_of_lists_loads_unchanged(lists):
    aliases = {"opus-4.1": "anthropic/claude-opus-4-1", "sonnet-4.5": "anthropic/claude-sonnet-4-5"}
    options = load(lists, ENV, {"aliases": aliases})
    assert options["agents"] == {
        "chief-architect": Agent(
            "opus-4.1",
            fallback=[Fallback("sonnet-4.5", ["token_limit", "rate_limit", "availability"])],
            other_names=["system-architect", "architect"],
        ),
        "python-expert": Agent("sonnet-4.5", other_names=["python-dev"]),
        "go-expert": Agent("sonnet-4.5"),
        "rust-expert": Agent("sonnet-4.5"),
        "api-explorer": Agent("claude-3-haiku", other_names=["researcher"]),
        "qa-engineer": Agent("sonnet-4.5", other_names=["test-automator"], local_only=True),
    }
    assert options["aliases"].resolve("claude-3-haiku").deployments == ("ccproxy/qwen-fast",)


def test_calls_find_an_agent_by_name_slug_and_type(lists):
    aliases = {"opus-4.1": "ollama/big", "sonnet-4.5": "ollama/m"}
    with Router.from_config(lists, env=ENV, aliases=aliases) as router:
        for name in ("python-expert", "Python Expert", "python-dev", "Python Dev"):
            assert router.explain("x", agent=name).agent == "python-expert"
        assert router.explain("x", agent="architect").agent == "chief-architect"
        with pytest.raises(UnknownAgentError):
            router.explain("x", agent="backend-dev")


def test_a_type_of_several_agents_is_no_second_name():
    source = {"someAgents": [agent("A", type="dev"), agent("B", type="dev"), agent("C", type="c")]}
    loaded = read([source, NATIVE], {})
    assert [each.other_names for each in loaded.options["agents"].values()] == [(), (), ()]
    reason = "is no second name, because several agents have it"
    assert loaded.ignored == (
        ("source 1: someAgents[0].type", reason),
        ("source 1: someAgents[1].type", reason),
    )


def test_a_second_name_does_not_shadow_a_real_agent():
    source = {"someAgents": [agent("A", type="B"), agent("B", "opus-4.1", type="A B"), agent("A b")]}
    assert agents(source) == {"a": Agent("sonnet-4.5"), "b": Agent("opus-4.1"), "a-b": Agent("sonnet-4.5")}


def test_agents_may_be_a_list():
    assert agents({"agents": [agent("A"), agent("B")]}).keys() == {"a", "b"}
    assert agents({"agents": {"coders": [agent("A")], "c": agent("x")}}).keys() == {"a", "c"}
    assert agents({"agents": {"x": {"model": "sonnet-4.5"}}, "architect": agent("Chief")}).keys() == {
        "x",
        "chief",
    }


def test_other_lists_and_tables_beside_lists_hold_no_agents():
    source = {
        "someAgents": [agent("A"), "text"],
        "agents": {"total": 1},
        "futureAgents": ["B"],
        "pipeline": {"phase": {"model": "nowhere"}},
        "phases": [agent("phase", "nowhere")],
        "helper": agent("Helper"),
    }
    loaded = read([source, NATIVE], {})
    assert loaded.options["agents"].keys() == {"a", "helper"}
    assert [place for place, _ in loaded.ignored] == [
        f"source 1: {place}" for place in ("agents", "futureAgents", "pipeline", "phases", "someAgents[1]")
    ]


def test_an_agent_that_is_twice_the_same_is_one():
    loaded = read([{"aAgents": [agent("A", prompt="x")], "bAgents": [agent("A", prompt="y")]}, NATIVE], {})
    assert loaded.options["agents"].keys() == {"a"}
    assert ("source 1: bAgents[0]", "is the agent at source 1: aAgents[0]") in loaded.ignored


@pytest.mark.parametrize(
    "other",
    [{"model": "opus-4.1"}, {"localOnly": True}, {"ccproxyMapping": {"ollama": "q"}}, {"fallback": "x"}],
)
def test_two_agents_of_one_slug_are_a_fault_with_both_places(faults, other):
    source = {"aAgents": [agent("A B")], "bAgents": [agent("a-b") | other]}
    found = faults([source, NATIVE | {"aliases": {**NATIVE["aliases"], "x": "local/x"}}])
    assert found == ("source 1: bAgents[0]: an agent of that name is also at source 1: aAgents[0]",)


def test_an_agent_of_a_list_needs_a_name(faults):
    source = {"someAgents": [{"model": "m"}, {"nmae": "x", "model": "m"}, agent(5), agent("?!")]}
    assert faults(source) == (
        "someAgents[0].name: is missing",
        'someAgents[1].nmae: unknown key, did you mean "name"?',
        "someAgents[2].name: should be a name",
        "someAgents[3].name: should be a name",
    )
    assert agents({"someAgents": [{"id": "x", "model": "sonnet-4.5"}]}).keys() == {"x"}


def test_an_agent_without_a_model_uses_that_of_the_call():
    assert agents({"someAgents": [agent("A"), {"name": "B"}]})["b"] == Agent()


def test_a_misspelled_model_in_a_list_is_a_fault(faults):
    source = {"someAgents": [{"name": "A", "modle": "x"}]}
    assert faults([source, NATIVE]) == ('source 1: someAgents[0].modle: unknown key, did you mean "model"?',)


def test_disabled_agents_of_a_list_are_left_out():
    off = [agent("B", "nowhere", enabled=False), agent("C", "nowhere", disabled=True)]
    source = {"someAgents": [agent("A"), *off], "architect": agent("D", "nowhere", enabled=False)}
    assert agents(source).keys() == {"a"}


def test_local_only_holds_in_lists():
    options = agents({"someAgents": [agent("A", local_only=True), agent("B")]})
    assert [each.local_only for each in options.values()] == [True, False]
    options = agents(
        {"localOnly": True, "someAgents": [agent("A", localOnly=False)], "architect": agent("B")}
    )
    assert [each.local_only for each in options.values()] == [True, True]


def test_many_ignored_keys_of_one_name_are_one_entry(lists):
    aliases = {"opus-4.1": "ollama/big", "sonnet-4.5": "ollama/m"}
    ignored = dict(read(lists, ENV, {"aliases": aliases}).ignored)
    assert "*Agents[].prompt (5 times)" in ignored
    assert "architect.prompt" in ignored
    assert "codingAgents[].tools (4 times)" not in ignored
    assert len(ignored) < 20
    many = {"aAgents": [agent(f"A {i}", x=1) for i in range(4)]}
    ignored = dict(read([many, NATIVE], {}).ignored)
    assert ignored == {"source 1: aAgents[].x (4 times)": "says nothing about which model answers"}


# Fallbacks.


@pytest.mark.parametrize(
    ("given", "fallback"),
    [
        ("opus-4.1", ["opus-4.1"]),
        (["opus-4.1", "sonnet-4.5"], ["opus-4.1", "sonnet-4.5"]),
        ({"model": "opus-4.1"}, ["opus-4.1"]),
        ({"models": ["opus-4.1", "local/x"]}, ["opus-4.1", "local/x"]),
        (
            [{"model": "opus-4.1", "triggers": ["rate_limit"]}, "local/x"],
            [Fallback("opus-4.1", ["rate_limit"]), "local/x"],
        ),
        ({"model": "opus-4.1", "triggers": "TokenLimit"}, [Fallback("opus-4.1", ["token_limit"])]),
        ({"model": "opus-4.1", "triggers": []}, ["opus-4.1"]),
        ({"model": "opus-4.1", "automatic": "true"}, ["opus-4.1"]),
        ({"model": "${MODEL:-opus-4.1}"}, ["opus-4.1"]),
        (None, []),
        ("", []),
        (False, []),
        ({}, []),
        ([], []),
    ],
)
def test_a_fallback_has_many_forms(given, fallback):
    assert agents({"someAgents": [agent("A", fallback=given)]})["a"] == Agent("sonnet-4.5", fallback=fallback)


@pytest.mark.parametrize(
    ("word", "trigger"),
    [
        ("token-limit", "token_limit"),
        ("TOKEN_LIMIT", "token_limit"),
        ("contextLength", "token_limit"),
        ("rateLimit", "rate_limit"),
        ("too_many_requests", "rate_limit"),
        ("unavailable", "availability"),
        ("timeout", "availability"),
        ("cost", "budget"),
    ],
)
def test_a_trigger_has_many_spellings(word, trigger):
    fallback = {"model": "opus-4.1", "triggers": [word, word]}
    (found,) = agents({"someAgents": [agent("A", fallback=fallback)]})["a"].fallback
    assert found.triggers == (trigger,)


def test_faults_of_a_fallback_have_their_places(faults):
    source = {
        "someAgents": [
            agent("A", fallback={"model": "opus-4.1", "triggers": ["rate_limits", "rate_limit"]}),
            agent("B", fallback=[{"modle": "x"}, {"triggers": ["cost"]}, 5]),
            agent("C", fallback={"model": "lost", "automatic": "perhaps"}),
            agent("D", fallback={"model": "lost", "trigers": ["cost"]}),
        ]
    }
    known = "the triggers are token_limit, rate_limit, availability, budget"
    assert faults([source, NATIVE]) == tuple(
        f"source 1: someAgents{fault}"
        for fault in (
            f'[0].fallback.triggers[0]: unknown trigger "rate_limits", did you mean "rate_limit"?; {known}',
            '[1].fallback[0].modle: unknown key, did you mean "model"?',
            "[1].fallback[1].model: is missing",
            "[2].fallback.automatic: should be true or false",
            "[1].fallback[2]: should be a model's name, or a table with model and triggers",
            (
                '[3].fallback.model (d): unknown alias "lost"; give it a target, as in '
                'aliases={"lost": "backend/model"}'
            ),
        )
    )


def test_a_fallback_that_is_not_automatic_is_not_used():
    fallback = {"model": "nowhere", "automatic": False, "tokenThreshold": 5}
    source = {
        "someAgents": [agent("A", fallback=fallback), agent("B", fallback={"model": "x", "enabled": False})]
    }
    loaded = read([source, NATIVE], {})
    assert loaded.options["agents"] == {"a": Agent("sonnet-4.5"), "b": Agent("sonnet-4.5")}
    assert loaded.ignored == (
        ("source 1: someAgents[0].fallback", "is not used by itself: automatic is false"),
        ("source 1: someAgents[1].fallback", "is disabled"),
    )


def test_a_token_threshold_is_ignored_with_the_reason():
    source = {"someAgents": [agent("A", fallback={"model": "opus-4.1", "tokenThreshold": 150_000})]}
    ((place, reason),) = read([source, NATIVE], {}).ignored
    assert place == "source 1: someAgents[0].fallback.tokenThreshold"
    assert "does not fit the model's context window" in reason


def test_fallbacks_of_all_keys_and_shapes_are_read():
    source = {"x": {"model": "sonnet-4.5", "fallback": {"model": "opus-4.1"}, "fallbackModel": "local/x"}}
    assert agents(source)["x"].fallback == ("opus-4.1", "local/x")
    url = "http://one.example.com/v1"
    source = {
        "a": {"model": "big", "baseUrl": url, "fallback": {"model": "small", "triggers": ["cost"]}},
        "b": {"model": "big", "baseUrl": "http://two.example.com/v1", "fallback": "small"},
    }
    found = load(source, {})["agents"]
    assert found["a"].fallback == (Fallback("one/small", ["budget"]),)
    assert found["b"].fallback == ("two/small",)


@pytest.mark.parametrize("key", ["automatic", "tokenThreshold"])
def test_a_fallback_shows_that_agents_are_an_orchestras(key):
    fallback = {"model": "opus-4.1", "triggers": ["rateLimit"], key: True}
    for given in (fallback, [fallback]):
        found = agents({"agents": {"x": {"model": "sonnet-4.5", "fallback": given}}})
        assert found["x"].fallback == (Fallback("opus-4.1", ["rate_limit"]),)


# Where a model runs.

MAPPED = {"apiAlias": "claude-3-5-sonnet", "ollama": "qwen2.5-coder:32b", "phase": 1}
PROXY = {
    "backends": {"proxy": {"kind": "litellm"}},
    "aliases": {"claude-3-5-sonnet": "proxy/claude-3-5-sonnet"},
}


def mapped(*sources, mapping=MAPPED, **overrides):
    source = {"someAgents": [agent("A", "sonnet-9", ccproxyMapping=mapping)]}
    return load([source, *sources], {}, overrides)["agents"]["a"].model


def test_a_model_with_a_target_is_used_whatever_the_mapping_says():
    defined = {"aliases": {"sonnet-9": "ollama/x"}}
    assert mapped(defined, PROXY) == "sonnet-9"
    assert mapped(PROXY, aliases={"sonnet-9": "ollama/x"}) == "sonnet-9"
    assert mapped(PROXY, aliases={"sonnet-*": "ollama/*"}) == "sonnet-9"


def test_without_a_target_the_alias_at_the_proxy_is_used():
    assert mapped(PROXY) == "claude-3-5-sonnet"
    assert mapped(aliases={"claude-3-5-sonnet": "ollama/x"}) == "claude-3-5-sonnet"
    endpoint = {
        "llmRouting": {"endpoints": {"p": {"url": "http://p.example.com", "models": ["claude-3-5-sonnet"]}}}
    }
    assert mapped(endpoint) == "claude-3-5-sonnet"


def test_without_any_target_the_model_in_ollama_is_used():
    assert mapped() == "ollama/qwen2.5-coder:32b"
    assert mapped(mapping={"ollama": "ollama/q"}) == "ollama/q"
    assert (
        mapped(backends=[OllamaBackend("ollama", "http://mini1.example.com:11434")])
        == "ollama/qwen2.5-coder:32b"
    )


def test_an_alias_whose_target_has_a_fault_is_a_target(faults):
    source = {"someAgents": [agent("A", "sonnet-9", ccproxyMapping=MAPPED)]}
    assert faults([source, {"aliases": {"sonnet-9": "${NOPE}"}}]) == (
        "source 2: aliases.sonnet-9: environment variable NOPE is not set",
    )


def test_a_stand_in_is_listed_with_the_model_it_is_for():
    source = {"someAgents": [agent("A", "sonnet-9", ccproxyMapping=MAPPED)]}
    ignored = dict(read(source, {}).ignored)
    assert ignored["someAgents[0].model"] == '"sonnet-9" has no target: ccproxyMapping is used'


def test_a_mapping_without_a_model_gives_the_model():
    source = {"someAgents": [{"name": "A", "ccproxyMapping": MAPPED}, {"name": "B", "ccproxyMapping": "x"}]}
    assert agents(source, PROXY, aliases={"x": "local/x"}) == {
        "a": Agent("claude-3-5-sonnet"),
        "b": Agent("x"),
    }
    assert (
        load({"someAgents": source["someAgents"][:1]}, {})["agents"]["a"].model == "ollama/qwen2.5-coder:32b"
    )


def test_another_sources_model_has_no_stand_in(faults):
    source = {"someAgents": [agent("A", "sonnet-9", ccproxyMapping=MAPPED)]}
    (fault,) = faults([source, {"agents": {"a": "sonet"}}])
    assert fault.startswith('source 2: agents.a.model: unknown alias "sonet"')


def test_a_mapping_that_leads_nowhere_leaves_the_models_fault(faults):
    source = {"someAgents": [agent("A", "sonnet-9", ccproxyMapping={"apiAlias": "lost", "olama": "x"})]}
    (fault,) = faults(source)
    assert fault.startswith('someAgents[0].model (a): unknown alias "sonnet-9"; give it a target')


# Names without a target.


def test_unknown_names_are_one_error_with_the_aliases_to_give(faults):
    tiers = ["opus-4", "sonnet-4", "haiku"]
    source = {
        "aAgents": [agent(f"A {i}", tiers[i % 3]) for i in range(9)],
        "architect": agent("Chief", "opus-4", fallback={"model": "haiku"}),
    }
    assert faults(source) == (
        'aAgents[0].model (a-0), aAgents[3].model (a-3) and 2 more: unknown alias "opus-4"',
        'aAgents[1].model (a-1), aAgents[4].model (a-4), aAgents[7].model (a-7): unknown alias "sonnet-4"',
        (
            'aAgents[2].model (a-2), aAgents[5].model (a-5) and 2 more: unknown alias "haiku"; '
            'give each a target, as in aliases={"opus-4": "backend/model", "sonnet-4": "backend/model", '
            '"haiku": "backend/model"}'
        ),
    )
    assert len(load(source, {}, {"aliases": dict.fromkeys(tiers, "ollama/q")})["agents"]) == 10


def test_a_big_file_of_agents_loads(write):
    prompt = "Write code.\n" * 500
    everyone = [agent(f"Expert {i}", prompt=prompt, type=f"t{i}", x1=1, x2=2, x3={}) for i in range(119)]
    path = write("big.json", json.dumps({"aAgents": everyone[:50], "bAgents": everyone[50:]}))
    loaded = read([path, NATIVE], {})
    assert len(loaded.options["agents"]) == 119
    assert [place for place, _ in loaded.ignored] == [
        f"big.json: *Agents[].{key} (119 times)" for key in ("prompt", "x1", "x2", "x3")
    ]
    assert prompt not in repr(loaded)
