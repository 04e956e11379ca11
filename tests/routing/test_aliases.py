"""Model names → deployments: what each kind of key and target means, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ccroute import AliasTable
from ccroute.errors import ConfigError, UnknownModelError


def leads(aliases: Mapping[Any, Any], name: str, backends: set[str] | None = None) -> dict[str, float]:
    """The deployments behind a name and their weights."""
    found = AliasTable(aliases).resolve(name, backends)
    assert found.alias == name
    return dict(zip(found.deployments, found.weights, strict=True))


def faults(aliases: Mapping[Any, Any], **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        AliasTable(aliases, **options)
    return caught.value.faults


# -- Exact names


@pytest.mark.parametrize(
    ("aliases", "name", "deployments"),
    [
        ({"a": "m/x"}, "a", ["m/x"]),
        ({"a": ["m/x", "n/x"]}, "a", ["m/x", "n/x"]),
        ({"a": "b", "b": "c", "c": "m/x"}, "a", ["m/x"]),
        ({"a": ["b", "n/x"], "b": ["m/x", "m/y"]}, "a", ["m/x", "m/y", "n/x"]),
        ({"a": "m/qwen2.5-coder:32b-instruct"}, "a", ["m/qwen2.5-coder:32b-instruct"]),
        ({"a": "or/anthropic/claude-opus-4"}, "a", ["or/anthropic/claude-opus-4"]),
        ({"m/x": "n/y"}, "m/x", ["n/y"]),
        ({"m/x": "m/x"}, "m/x", ["m/x"]),
        ({"m/x": ["m/x", "n/x"]}, "m/x", ["m/x", "n/x"]),
        ({"a": "m/x", "m/x": "m/x"}, "a", ["m/x"]),
        ({"a": "b-1", "b-*": "m/*"}, "a", ["m/1"]),
    ],
)
def test_an_exact_alias_leads_to_its_deployments_in_order(
    aliases: Any, name: str, deployments: list[str]
) -> None:
    assert list(leads(aliases, name)) == deployments


@pytest.mark.parametrize(
    ("aliases", "weights"),
    [
        ({"a": {"m/x": 3, "n/x": 1}}, {"m/x": 3, "n/x": 1}),
        ({"a": ["m/x", "n/x"]}, {"m/x": 1, "n/x": 1}),
        ({"a": {"b": 2, "n/x": 1}, "b": {"m/x": 3, "m/y": 0.5}}, {"m/x": 6, "m/y": 1, "n/x": 1}),
        ({"a": ["b", "m/x"], "b": ["m/x", "n/x"]}, {"m/x": 2, "n/x": 1}),
        ({"a": {"b-x": 4}, "b-*": {"m/*": 0.5}}, {"m/x": 2}),
    ],
)
def test_weights_multiply_down_and_add_up(aliases: Any, weights: dict[str, float]) -> None:
    assert leads(aliases, "a") == weights


# -- Direct names


@pytest.mark.parametrize("name", ["m/x", "m/x:32b", "or/anthropic/claude", "m/ö"])
def test_a_name_with_a_slash_is_a_deployment(name: str) -> None:
    assert leads({}, name) == {name: 1}


@pytest.mark.parametrize("name", ["x", "/x", "m/", "/", ""])
def test_a_name_without_a_backend_or_a_model_is_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError):
        AliasTable().resolve(name)


def test_only_a_known_backends_name_is_a_direct_one() -> None:
    assert leads({"*": "m/*"}, "n/x", {"m"}) == {"m/n/x": 1}
    assert leads({"*": "m/*"}, "n/x", {"m", "n"}) == {"n/x": 1}


# -- Patterns


@pytest.mark.parametrize(
    ("key", "target", "name", "deployment"),
    [
        ("claude-*", "anthropic/claude-*", "claude-opus-4", "anthropic/claude-opus-4"),
        ("claude-*", "anthropic/claude-*", "claude-", "anthropic/claude-"),
        ("claude-*", "home/qwen", "claude-x", "home/qwen"),
        ("*", "or/*", "any-thing:v1", "or/any-thing:v1"),
        ("?-*", "m/*-?", "a-bc", "m/a-bc"),
        ("a.*", "m/*", "a.b", "m/b"),
        ("a*", r"m/\1-*", "ab", r"m/\1-b"),
        ("a*", "m/*", "a\nb", "m/\nb"),
        ("re:gpt-(\\d)", r"openai/gpt-\1", "gpt-4", "openai/gpt-4"),
        ("re:gpt-(?P<v>\\d)", r"openai/v\g<v>", "gpt-4", "openai/v4"),
        ("re:(?i)GPT(-mini)?", r"openai/gpt\1", "gpt", "openai/gpt"),
        (re.compile(r"gpt-(?P<v>\d)"), r"openai/gpt-\g<v>", "gpt-4", "openai/gpt-4"),
        (re.compile("GPT", re.IGNORECASE), "openai/gpt", "gpt", "openai/gpt"),
        (re.compile("gpt # any", re.VERBOSE), "openai/gpt", "gpt", "openai/gpt"),
    ],
)
def test_a_pattern_carries_its_match_over(key: Any, target: str, name: str, deployment: str) -> None:
    assert leads({key: target}, name) == {deployment: 1}


@pytest.mark.parametrize(
    ("key", "name"),
    [("claude-*", "my-claude-x"), ("a?", "a"), ("a?", "abc"), ("a.*", "aXb"), ("re:gpt-\\d", "gpt-41")],
)
def test_a_pattern_must_match_the_whole_name(key: str, name: str) -> None:
    with pytest.raises(UnknownModelError):
        AliasTable({key: "m/x"}).resolve(name)


def test_the_order_is_exact_then_direct_then_patterns_in_turn() -> None:
    aliases = {"m/*": "n/late-*", "a*": "m/first", "*": "m/second", "a1": "m/exact", "m/a": "n/exact"}
    assert list(leads(aliases, "a1")) == ["m/exact"]
    assert list(leads(aliases, "m/a")) == ["n/exact"]
    assert list(leads(aliases, "m/b")) == ["m/b"]
    assert list(leads(aliases, "m/b", {"n"})) == ["n/late-b"]
    assert list(leads(aliases, "a2")) == ["m/first"]
    assert list(leads(aliases, "b")) == ["m/second"]


def test_a_patterns_target_may_be_an_alias_or_meet_another_pattern() -> None:
    aliases = {"sonnet": ["m/x", "n/x"], "claude-*": "sonnet", "old-*": "claude-*"}
    assert leads(aliases, "old-1") == {"m/x": 1, "n/x": 1}


@given(st.text(st.characters(codec="ascii", exclude_characters="*?/"), min_size=1))
def test_any_name_without_wildcards_is_matched_literally(name: str) -> None:
    assume(not name.startswith("re:"))
    assert list(leads({f"{name}*": "m/*", "*": "other/x"}, name + "tail")) == ["m/tail"]


# -- What is refused


@pytest.mark.parametrize(
    ("aliases", "says"),
    [
        ({"a": []}, "aliases.a: has no target"),
        ({"a": {}}, "aliases.a: has no target"),
        ({"a": None}, "aliases.a: has no target"),
        ({"a": ""}, "aliases.a: a target must be a name, not ''"),
        ({"a": [" "]}, "aliases.a: a target must be a name, not ' '"),
        ({"a": [7]}, "aliases.a: a target must be a name, not 7"),
        ({"a-*": [7]}, "aliases.a-*: a target must be a name, not 7"),
        ({"a": "b"}, 'aliases.a: "b" is neither an alias nor backend/model'),
        ({"a": "m/"}, 'aliases.a: "m/" is neither'),
        ({"a": [["m/x"]]}, "a target must be a name"),
        ({"a": "/x"}, 'aliases.a: "/x" is neither'),
        ({"sonnet": "m/x", "b": "sonet"}, 'did you mean "sonnet"?'),
        ({"a": "a"}, "aliases.a: is a cycle: a → a"),
        ({"a": "b", "b": "c", "c": "a"}, "aliases.b: is a cycle: b → c → a → b"),
        ({"m/x": "n/x", "n/x": "m/x"}, "aliases.m/x: is a cycle"),
        ({"a": "b1", "b*": "bb*"}, "aliases.a: is a cycle: a → b1 → bb1 → …"),
        ({"a": {"m/x": 0}}, "aliases.a: the weight of m/x must be a positive number, not 0"),
        ({"a": {"m/x": -1}}, "not -1"),
        ({"a": {"m/x": True}}, "not True"),
        ({"a": {"m/x": "2"}}, "not '2'"),
        ({"a": {"m/x": float("nan")}}, "not nan"),
        ({"a": {"m/x": float("inf")}}, "not inf"),
        ({"a*": "m/*-*"}, 'aliases.a*: target "m/*-*" has more wildcards than the alias'),
        ({"re:(": "m/x"}, "aliases.re:(: missing )"),
        ({"re:a": r"m/\1"}, r"aliases.re:a: invalid group reference 1"),
        ({"re:a": r"m/\g<v>"}, "aliases.re:a: unknown group name 'v'"),
        ({re.compile("a"): r"m/\q"}, r"aliases.re:a: bad escape \q"),
    ],
)
def test_a_wrong_alias_is_refused_by_its_place(aliases: Any, says: str) -> None:
    assert any(says in fault for fault in faults(aliases))


def test_all_faults_of_aliases_are_reported_at_once() -> None:
    found = faults(
        {
            "empty": [],
            "weight": {"m/x": -1},
            "uses-empty": "empty",
            "loop": "loop2",
            "loop2": "loop",
            "dead": "nowhere",
            "many*": "m/**",
            "re:(": "m/x",
            "good": "m/x",
        },
        strategy="fastest",
    )
    places = sorted(fault.partition(": ")[0] for fault in found if not fault.startswith("aliases.re:"))
    assert places == [
        "aliases.dead",
        "aliases.empty",
        "aliases.loop",
        "aliases.loop2",
        "aliases.many*",
        "aliases.weight",
        "strategy",
    ]
    assert len(found) == len(places) + 1


def test_what_a_pattern_makes_of_a_name_may_be_unknown_too() -> None:
    table = AliasTable({"gpt-*": "nowhere-*", "a*": "aa*", "x-*": "y-*", "y-*": "x-*"})
    for name, says in [("gpt-4", '"nowhere-4" is neither'), ("ab", "is a cycle"), ("x-1", "neither")]:
        with pytest.raises(UnknownModelError, match=f'unknown model "{name}": .*{says}'):
            table.resolve(name)


def test_an_unknown_model_names_close_matches_in_any_case() -> None:
    table = AliasTable({"claude-sonnet": "m/x", "claude-opus": "m/y", "gpt": "m/z"})
    with pytest.raises(UnknownModelError, match='did you mean "claude-sonnet" or') as caught:
        table.resolve("Claude-Sonet")
    assert caught.value.suggestions == ("claude-sonnet", "claude-opus")
    with pytest.raises(UnknownModelError, match="add it to aliases, or write backend/model"):
        table.resolve("zzz")


# -- A mapping


def test_a_table_is_a_mapping_of_what_it_was_given() -> None:
    table = AliasTable({"a": ["m/x"], "b*": "m/*", re.compile("c"): "m/c"})
    assert dict(table) == {"a": ["m/x"], "b*": "m/*", "re:c": "m/c"}
    assert (len(table), list(table), "a" in table, "z" in table) == (3, ["a", "b*", "re:c"], True, False)
    assert table["re:c"] == "m/c"
    with pytest.raises(KeyError):
        table["z"]
    assert repr(table).startswith("AliasTable({'a': ['m/x'], ")
    assert AliasTable(dict(table)) == table


def test_a_table_may_be_empty() -> None:
    assert len(AliasTable()) == len(AliasTable({})) == 0


def test_a_table_knows_which_aliases_use_a_deployment() -> None:
    table = AliasTable({"a": "b", "b": ["m/x", "n/x"], "c*": "m/*", "d*": "b"})
    assert table.deployments() == {"m/x": ["a", "b"], "n/x": ["a", "b"]}
    assert {name: len(targets) for name, targets in table.pattern_targets().items()} == {"c*": 1, "d*": 0}


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.sampled_from([*"abcdef", "m/x", "n/y"]), min_size=1, max_size=3),
    )
)
def test_a_table_is_refused_or_every_alias_in_it_leads_somewhere(aliases: dict[str, list[str]]) -> None:
    try:
        table = AliasTable(aliases)
    except ConfigError:
        return
    for name in table:
        found = table.resolve(name)
        assert set(found.deployments) <= {"m/x", "n/y"}
        assert found.deployments
        assert all(weight > 0 for weight in found.weights)


# -- A strategy of an alias's own

OWN: Any = {
    "first": {"targets": ["m/x", "n/x"], "strategy": "ordered"},
    "shares": {"targets": {"m/x": 3, "n/x": 1}, "strategy": "least-busy"},
    "plain": ["m/x", "n/x"],
    "same": {"targets": ["m/x"]},
    "renamed": "first",
    "again": "renamed",
    "listed": ["first"],
    "both": ["first", "shares"],
    "over": {"targets": "first", "strategy": "cost"},
    "glob-*": {"targets": ["m/*", "n/*"], "strategy": "latency"},
    "globbed": "glob-1",
}


@pytest.mark.parametrize(
    ("name", "strategy", "weights"),
    [
        ("first", "ordered", {"m/x": 1, "n/x": 1}),
        ("shares", "least-busy", {"m/x": 3, "n/x": 1}),
        ("plain", "weighted", {"m/x": 1, "n/x": 1}),
        ("same", "weighted", {"m/x": 1}),
        ("renamed", "ordered", {"m/x": 1, "n/x": 1}),
        ("again", "ordered", {"m/x": 1, "n/x": 1}),
        ("listed", "ordered", {"m/x": 1, "n/x": 1}),
        ("both", "weighted", {"m/x": 4, "n/x": 2}),
        ("over", "cost", {"m/x": 1, "n/x": 1}),
        ("glob-1", "latency", {"m/1": 1, "n/1": 1}),
        ("globbed", "latency", {"m/1": 1, "n/1": 1}),
        ("m/x", "weighted", {"m/x": 1}),
    ],
)
def test_an_alias_may_have_a_strategy_of_its_own(name: str, strategy: str, weights: Any) -> None:
    found = AliasTable(OWN).resolve(name)
    assert found.strategy == strategy
    assert dict(zip(found.deployments, found.weights, strict=True)) == weights


def test_a_table_knows_which_strategies_it_needs() -> None:
    assert AliasTable(OWN).strategies == {"weighted", "ordered", "least-busy", "cost", "latency"}
    assert AliasTable({"a": "m/x"}, strategy="cost").strategies == {"cost"}
    assert AliasTable(OWN)["first"] == OWN["first"], "as it was written"


def test_aliases_named_targets_and_strategy_are_as_any_other() -> None:
    aliases = {"a": {"targets": 3, "strategy": 1}, "targets": "m/x", "strategy": "n/x"}
    assert leads(aliases, "a") == {"m/x": 3, "n/x": 1}
    own = {**aliases, "a": {"targets": {"targets": 3, "strategy": 1}, "strategy": "ordered"}}
    assert leads(own, "a") == {"m/x": 3, "n/x": 1}
    assert AliasTable(own).resolve("a").strategy == "ordered"


KNOWN = "weighted, least-busy, latency, cost, ordered"


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ({"targets": ["m/x"], "strategy": "cheap"}, f'unknown strategy "cheap", known are {KNOWN}'),
        ({"targets": ["m/x"], "strategy": ["cost"]}, f"unknown strategy \"['cost']\", known are {KNOWN}"),
        ({"strategy": "cost"}, "has no target; give a deployment such as backend/model"),
        ({"targets": [], "strategy": "cost"}, "has no target; give a deployment such as backend/model"),
        ({"targets": ["m/x"], "weights": 3}, 'unknown key "weights" beside targets'),
        (
            {"targets": ["m/x"], "stategy": 3},
            'unknown key "stategy" beside targets, did you mean "strategy"?',
        ),
        ({"targets": [7]}, "a target must be a name, not 7"),
        (
            {"targets": 7, "strategy": "cost"},
            "give a target, a list of targets or a mapping to weights, not int",
        ),
        ({"targets": {"m/x": 0}}, "the weight of m/x must be a positive number, not 0"),
        (7, "give a target, a list of targets or a mapping to weights, not int"),
        (None, "has no target; give a deployment such as backend/model"),
        ({"m/x"}, "give a target, a list of targets or a mapping to weights, not set"),
        (b"m/x", "give a target, a list of targets or a mapping to weights, not bytes"),
        ([{"m/x"}], "a target must be a name, not {'m/x'}"),
        ({"m/x": {"n/x": 1}}, "the weight of m/x must be a positive number, not {'n/x': 1}"),
    ],
)
def test_a_target_of_the_wrong_type_is_reported(target: Any, fault: str) -> None:
    assert faults({"a": target}) == (f"aliases.a: {fault}",)


@pytest.mark.parametrize("aliases", [["a"], "a", 7])
def test_aliases_are_a_mapping(aliases: Any) -> None:
    assert faults(aliases) == (f"aliases: give a mapping of names to targets, not {type(aliases).__name__}",)
    assert faults({7: "m/x"}) == ("aliases: an alias is a str or a compiled regex, not 7",)
