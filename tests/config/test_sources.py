"""Files are read by what they hold, and several sources are one."""

import json

import pytest

from ccroute.backends import OllamaBackend
from ccroute.config import load, read
from ccroute.types import RetryPolicy, Timeout


def test_json_is_recognised_by_its_content(write):
    path = write("settings.toml", ' \n{"default_model": "ollama/x"}')
    assert load(path, {})["default_model"] == "ollama/x"


def test_toml_is_recognised_by_its_content(write):
    path = write("settings.json", "[backends.ollama]\n[retry]\nattempts = 2")
    assert load(str(path), {})["retry"] == RetryPolicy(attempts=2)


def test_a_byte_order_mark_is_no_part_of_the_file(write):
    assert load(write("x.json", '\ufeff{"default_model": "ollama/x"}'), {})["default_model"] == "ollama/x"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": }', "x.conf: is not JSON: Expecting value: line 1 column 7 (char 6)"),
        ("[1, 2", "x.conf: is not TOML, and no JSON object: "),
        ("# Notes\n\nSome words.\n", "x.conf: is not TOML, and no JSON object: "),
        ("<xml/>", "x.conf: is not TOML, and no JSON object: "),
        ("[backends.x\nkind = 3", "x.conf: is not TOML, and no JSON object: "),
        ('{"a":' * 100_000, "x.conf: is nested too deeply"),
    ],
)
def test_a_file_with_broken_syntax_is_a_fault_that_names_it(write, faults, text, fault):
    (found,) = faults(write("x.conf", text))
    assert found.startswith(fault)


def test_a_file_that_cannot_be_read_is_a_fault_that_names_it(tmp_path, faults):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert faults([tmp_path / "missing.toml", binary, {"retri": {}}]) == (
        "missing.toml: cannot be read: No such file or directory",
        "binary.toml: is not UTF-8 text",
        'source 3: retri: unknown key, did you mean "retry"?',
    )


def test_agents_come_from_one_file_and_models_from_the_other(write):
    agents = write("agents.json", json.dumps({"agents": {"x": {"model": "opus"}}}))
    models = write("models.toml", '[backends.local]\nkind = "ollama"\n[aliases]\nopus = "local/qwen"')
    options = load([agents, models], {})
    assert options["agents"]["x"].model == "opus"
    assert options["aliases"].resolve("opus").deployments == ("local/qwen",)


def test_the_later_definition_of_a_name_wins_and_is_noted():
    loaded = read(
        [
            {
                "default_model": "a",
                "backends": {"local": {"kind": "ollama", "memory_gb": 1}},
                "aliases": {"a": "local/1", "b": "local/2", "x-*": "local/*"},
                "groups": {"g": {"model": "a"}},
                "retry": {"attempts": 9, "base": 1},
            },
            {
                "default_model": "b",
                "backends": {"local": {"kind": "vllm"}},
                "aliases": {"a": "local/3", "x-y*": "local/later"},
                "groups": {"g": {}},
                "retry": {"attempts": 2},
                "timeout": 5,
            },
        ],
        {},
    )
    options = loaded.options
    assert options["default_model"] == "b"
    assert [type(backend).__name__ for backend in options["backends"]] == ["OpenAIBackend"]
    assert options["backends"][0].memory_gb is None
    assert options["aliases"].resolve("a").deployments == ("local/3",)
    assert options["aliases"].resolve("b").deployments == ("local/2",)
    assert options["aliases"].resolve("x-yz").deployments == ("local/later",)
    assert options["groups"]["g"].model == "a"
    assert options["retry"] == RetryPolicy(attempts=2, base=1)
    assert options["timeout"] == Timeout(total=5)
    assert set(loaded.ignored) == {
        (f"source 1: {place}", f"source 2: {place} comes later and wins")
        for place in ("default_model", "backends.local", "aliases.a", "retry")
    }


def test_with_several_sources_a_place_begins_with_the_files_name(write, faults):
    one = write("agents.json", '{"agents": {"x": {"model": "opsu", "fallback": ["zzz"]}}}')
    two = write(
        "models.toml", '[aliases]\nopus = "lcal/x"\n[agents]\ny = "opsu"\n[backends.local]\nkind = "ollama"'
    )
    users = "models.toml: agents.y.model, agents.json: agents.x.model"
    advice = 'give it a target, as in aliases={"zzz": "backend/model"}'
    assert faults([one, two]) == (
        'models.toml: aliases.opus: unknown backend "lcal" in "lcal/x", did you mean "local"?',
        f'{users}: unknown alias "opsu", did you mean "opus"?',
        f'agents.json: agents.x.fallback[0]: unknown alias "zzz"; {advice}',
    )


def test_files_of_the_same_name_are_shown_by_their_path(write, faults):
    one, two = write("a/x.toml", "retri = 1"), write("b/x.toml", "retri = 1")
    assert [fault.partition(": ")[0] for fault in faults([one, two])] == [str(one), str(two)]


def test_a_later_source_can_disable_a_backend(faults):
    one = {"backends": {"far": {"kind": "openai", "api_key": "k"}}, "aliases": {"a": "far/x"}}
    assert faults([one, {"backends": {"far": {"enabled": False}}}]) == (
        'source 1: aliases.a: backend "far" of "far/x" is disabled',
    )


@pytest.mark.parametrize("source", [{"retry": {"attempts": 2}}, {"agents": {}}, [{}, {"agents": {}}]])
def test_an_empty_source_is_a_fault_that_says_what_is_expected(faults, source):
    (fault,) = faults(source)
    assert fault == (
        "source: holds no backends, agents or aliases; expected a path or a mapping (or several of them), "
        'such as {"backends": {"local": {"kind": "ollama"}}}'
    )


def test_an_empty_file_is_a_fault_that_names_it(write, faults):
    (fault,) = faults(write("ccroute.toml", "\n"))
    assert fault.startswith("ccroute.toml: is empty; expected a path or a mapping")


@pytest.mark.parametrize("source", [[], {}, [{}, {}]])
def test_nothing_at_all_is_a_fault(faults, source):
    (fault,) = faults(source)
    assert fault.startswith("source: is empty; expected a path or a mapping")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (None, "NoneType"),
        (5, "int"),
        ([None, {}, 5], "NoneType or int"),
        ([["x.toml"]], "list"),
        (b"x", "bytes"),
    ],
)
def test_what_is_no_source_is_a_fault_that_says_what_is_expected(faults, source, what):
    (fault,) = faults(source)
    assert fault.startswith("expected a path or a mapping (or several of them), such as {")
    assert fault.endswith(f", not {what}")


def test_a_file_may_hold_only_settings():
    source = {"retry": {"attempts": 2}}
    assert load(source, {}, {"backends": [OllamaBackend()]})["retry"] == RetryPolicy(attempts=2)
    assert load([source, {"default_model": "ollama/x"}], {})["retry"] == RetryPolicy(attempts=2)


def test_a_key_twice_in_a_json_object_is_a_fault_with_its_place(write, faults):
    path = write(
        "x.json",
        '{"agents": {"x": "ollama/a", "x": "ollama/b", "x": "ollama/c", "y": {"model": "a", "model": "a"}}'
        ', "aliases": {"a": "ollama/a"}, "retry": {"max": 1, "max": 2}, "retry": {}, "z": [{"": 1, "": 2}]}',
    )
    assert set(faults(path)) == {
        "agents.x: is there twice",
        "agents.y.model: is there twice",
        "retry: is there twice",
        "z[0].: is there twice",
    }


# Shapes that are not known.

OTHERS = [
    {"orchestration": {"providers": {"a": {"enabled": True}}}},
    {"workers": {"x": "opus"}, "enable_workers": True},
]


@pytest.mark.parametrize("source", OTHERS)
def test_a_fault_of_an_unknown_shape_names_the_known_shapes(write, faults, source):
    found = faults(write("x.json", json.dumps(source)))
    assert [fault.partition(": unknown key")[0] for fault in found[1:]] == [*source]
    assert found[0] == (
        "x.json: is like no known shape, and was read as the native one; known are tables such as backends, "
        "aliases and agents; agents in groups or in lists such as codingAgents; llm_routing.endpoints; "
        "llmGateway; agent_model_overrides; routing.agent_rules; and LiteLLM's model_list"
    )


@pytest.mark.parametrize(
    "source", [{"agents": {"x": {"modle": "y"}}}, {"retri": 5}, {"retry": {}, "other": {"x": 1}}]
)
def test_a_misspelled_native_file_gets_no_advice_on_shapes(faults, source):
    assert not any("shape" in fault for fault in faults(source))


def test_a_file_that_cannot_be_read_is_the_only_fault(faults, write):
    agents = write("agents.json", '{"agents": {"a": {"model": "opus", "type": "x"}}}')
    models = write("models.toml", "[aliases")
    assert [fault.partition(":")[0] for fault in faults([agents, models])] == ["models.toml"]
