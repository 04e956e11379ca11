"""Settings of the router: fallbacks, retries, limits of time, where they may stand."""

import logging

import pytest
from tests.config.litellm.files import entry, loaded

from ccroute.routing import Fallback
from ccroute.types import RetryPolicy

ROWS = [entry(name, f"ollama/{name}") for name in "abcdefgh"]
TOKENS = ("token_limit",)


def router(**settings):
    return loaded(*ROWS, router_settings=settings)


@pytest.mark.parametrize(
    "given",
    [[{"a": ["b", "c"]}], {"a": ["b", "c"]}, [{"a": ["b"]}, {"a": "c"}], [{"a": [{"model": "b"}, "c"]}]],
)
def test_fallbacks_are_read_in_every_form(given):
    assert router(fallbacks=given).fallbacks("a") == ["b", "c"]


def test_a_fallbacks_own_fallbacks_come_after_it():
    found = router(fallbacks=[{"a": ["b", "c"]}, {"b": ["d", "a"]}, {"c": ["b"]}], default_fallbacks=["h"])
    assert found.fallbacks("a") == ["b", "d", "h", "c"]
    assert found.fallbacks("b") == ["d", "h", "a", "c"]
    assert found.fallbacks("*") == ["h"]


def test_the_depth_of_fallbacks_is_limited():
    chain = [{"a": ["b"]}, {"b": ["c"]}, {"c": ["d"]}, {"d": ["e"]}, {"e": ["f"]}, {"f": ["g"]}]
    assert router(fallbacks=chain).fallbacks("a") == ["b", "c", "d", "e", "f"]
    assert router(fallbacks=chain, max_fallbacks=2).fallbacks("a") == ["b", "c"]
    assert router(fallbacks=chain, max_fallbacks=0).fallbacks("a") is None


def test_context_window_fallbacks_are_for_prompts_that_do_not_fit():
    found = router(context_window_fallbacks=[{"a": ["b", "c"]}], fallbacks=[{"a": ["c"]}, {"*": ["d"]}])
    assert found.fallbacks("a") == [Fallback("b", TOKENS), "c", "d"]
    assert found.fallbacks("*") == ["d"]


def test_an_alias_has_the_fallbacks_of_its_model():
    found = router(fallbacks=[{"a": ["b"]}, {"y": ["c"]}], model_group_alias={"x": "a", "y": "a"})
    assert (found.fallbacks("x"), found.fallbacks("y")) == (["b"], ["c"])


def test_a_fallback_may_be_the_id_of_a_deployment():
    found = loaded(
        entry("a", "ollama/x", {"id": "first"}),
        entry("a", "ollama/y", {"id": 2}),
        entry("a", "ollama/z", {"id": "unused"}),
        litellm_settings={"fallbacks": [{"first": ["2"]}]},
    )
    assert found.leads("first") == ("ollama/x",)
    assert found.leads("2") == ("ollama/y",)
    assert found.fallbacks("first") == ["2"]
    assert "unused" not in found.options["aliases"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["b"], "fallbacks[0]: should be a table: a model and the list of its fallbacks"),
        ([{"a": [5]}], "fallbacks[0].a[0]: should be a model's name"),
        ([{"a": 5}], "fallbacks[0].a: should be a model's name"),
        # https://github.com/MycosoftLabs/mycosoft-mas; LiteLLM does not start with it either.
        (
            [{"model_name": "a", "fallback_models": ["b"]}],
            "fallbacks[0]: should have one key, the model, as in {gpt-4o: [claude-sonnet]}",
        ),
    ],
)
def test_a_wrong_fallback_is_a_fault_with_its_place(faults, given, fault):
    (found,) = faults({"model_list": ROWS, "router_settings": {"fallbacks": given}})
    assert found.startswith(f"router_settings.{fault}")


def test_what_a_fallback_cannot_have_is_a_warning(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    router(fallbacks=[{"a": [{"model": "b", "temperature": 1}]}, {"x-*": ["b"]}])
    assert "fallbacks[0].a[0]: only its model is read" in caplog.text
    assert 'fallbacks[1].x-*[0]: fallbacks of "x-*" are never used' in caplog.text


# Retries.


@pytest.mark.parametrize(
    ("settings", "retry"),
    [
        ({"num_retries": 0}, {"per_deployment": 1, "attempts": 3}),
        ({"num_retries": 2}, {"per_deployment": 3, "attempts": 9}),
        ({"num_retries": 0, "fallbacks": [{"a": list("bcdef")}]}, {"per_deployment": 1, "attempts": 6}),
        ({"fallbacks": [{"a": list("bcd")}]}, {"attempts": 8}),
        ({"default_fallbacks": ["b"]}, {"attempts": 4}),
        ({"context_window_fallbacks": [{"a": ["b"]}]}, {"attempts": 4}),
        ({"retry_after": 10}, {"base": 10, "max": 10}),
        ({"retry_after": 1}, {"base": 1, "max": 8}),
    ],
)
def test_a_call_is_tried_often_enough_for_the_longest_chain(settings, retry):
    assert router(**settings).options["retry"] == RetryPolicy(**retry)


def test_without_retries_and_fallbacks_ours_stay():
    found = router(retry_after=0)
    assert "retry" not in found.options
    assert "timeout" not in found.options


def test_every_deployment_of_a_name_counts():
    rows = [entry("a", f"ollama/{i}") for i in range(4)]
    found = loaded(*rows, router_settings={"num_retries": 1, "model_group_alias": {"b": "a"}})
    assert found.options["retry"] == RetryPolicy(attempts=8, per_deployment=2)


# Time.


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({"timeout": 30, "stream_timeout": "5"}, (30, 5, 600)),
        ({"timeout": 300, "num_retries": 2}, (300, None, 2700)),
        ({"stream_timeout": 5}, (None, 5, 600)),
    ],
)
def test_a_timeout_limits_one_attempt(settings, limits):
    timeout = router(**settings).options["timeout"]
    assert (timeout.attempt, timeout.first, timeout.total) == limits


def test_a_servers_longer_timeout_is_possible():
    found = loaded(
        entry("a", "ollama/x", timeout=900),
        entry("b", "groq/x", api_key="k"),
        entry("c", "xai/x", api_key="k", timeout=5),
        litellm_settings={"request_timeout": 60},
    )
    assert found.options["timeout"].attempt == 900
    assert {name: each.timeout.total for name, each in found.backends.items()} == {
        "ollama": 900,
        "groq": 60,
        "xai": 5,
    }


# The rest, and where settings may stand.


@pytest.mark.parametrize(
    ("settings", "health"),
    [
        ({"disable_cooldowns": True}, "off"),
        ({"disable_cooldowns": "True"}, "off"),
        ({"cooldown_time": 0}, "off"),
        ({"disable_cooldowns": False, "cooldown_time": 30}, None),
    ],
)
def test_without_cooldowns_health_is_off(settings, health):
    found = router(**settings)
    assert found.options.get("health") == health
    assert ("router_settings.cooldown_time" in found.ignored) == (health is None)


def test_the_default_model_is_the_completion_model():
    assert loaded(*ROWS, general_settings={"completion_model": "b"}).options["default_model"] == "b"


@pytest.mark.parametrize(
    ("sections", "limit"),
    [
        ({"general_settings": {"max_parallel_requests": 3}}, 3),
        (
            {
                "router_settings": {"default_max_parallel_requests": 2},
                "general_settings": {"max_parallel_requests": 3},
            },
            2,
        ),
    ],
)
def test_parallel_requests_have_a_default(sections, limit):
    found = loaded(
        entry("a", "ollama/x"), entry("b", "groq/x", api_key="k", max_parallel_requests=9), **sections
    )
    assert {name: each.max_concurrency for name, each in found.backends.items()} == {
        "ollama": limit,
        "groq": 9,
    }


@pytest.mark.parametrize(
    "sections",
    [
        {"litellm_settings": {"num_retries": 0, "drop_params": True}},
        {"general_settings": {"litellm_settings": {"num_retries": 0, "drop_params": True}}},
        {
            "general_settings": {"router_settings": {"num_retries": 0}},
            "litellm_settings": {"drop_params": True},
        },
        {"router_settings": {"num_retries": 0}, "litellm_settings": {"num_retries": 5, "drop_params": True}},
    ],
)
def test_settings_count_wherever_litellms_users_put_them(sections):
    found = loaded(*ROWS, **sections)
    assert found.options["retry"].per_deployment == 1
    assert found.options["drop_params"] is True
    assert not found.ignored


def test_included_files_add_models_and_replace_sections(write, faults):
    from ccroute.config import load

    write(
        "models.yaml",
        "model_list: [{model_name: b, litellm_params: {model: ollama/y}}]\nrouter_settings: {num_retries: 0}",
    )
    write("bad.yaml", "model_list:\n- model_name: c\n  litellm_params: {modle: z}\n  litellm_params: {}\n")
    main = (
        "model_list:\n- {model_name: a, litellm_params: {model: ollama/x}}\nrouter_settings: {num_retries: 5}"
    )
    options = load(write("config.yaml", f"include: [models.yaml]\n{main}"), {})
    assert set(options["aliases"]) == {"a", "b"}
    assert options["retry"].per_deployment == 1
    assert load(write("only.yaml", "include: [models.yaml]"), {})["retry"].per_deployment == 1
    assert faults(write("config.yaml", f"include: [bad.yaml, nowhere.yaml, 5]\n{main}")) == (
        "bad.yaml: model_list[0].litellm_params: is there twice",
        "nowhere.yaml: cannot be read: No such file or directory",
        "include[2]: should be a file's name",
        "bad.yaml: model_list[0].litellm_params.model: is missing",
    )
    assert faults({"include": ["x.yaml"], "model_list": []})[0] == (
        "include[0]: can be followed from a file only: give the included file as a source of its own"
    )


def test_an_included_file_is_opened_like_any_other(write, faults):
    write("deep.yaml", "router_settings: " + "{a: " * 120 + "1" + "}" * 120)
    assert faults(write("config.yaml", "include: [deep.yaml]\nmodel_list: []")) == (
        "deep.yaml: is not YAML: it is nested too deeply (line 1, column 418)",
    )
    (name,) = faults(write("config.yaml", 'include: ["a\\0b"]\nmodel_list: []'))
    assert name == "a\\x00b: is no path"
