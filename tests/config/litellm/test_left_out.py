"""What ccroute cannot reach is left out, with the reason; what leads there is a fault."""

import logging

import pytest
from tests.config.litellm.files import entry, loaded

AWS = "bedrock needs requests signed for AWS, which ccroute does not write"
OTHER = entry("b", "ollama/x")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (entry("a", "bedrock/anthropic.claude-v2", api_key="os.environ/NOT_SET"), AWS),
        (entry("a", "anthropic.claude-v2", aws_region_name="us-east-1"), AWS),
        (entry("a", "x", custom_llm_provider="sagemaker"), AWS.replace("bedrock", "sagemaker")),
        (entry("a", "zhipu/glm-4"), "zhipu is no provider that ccroute knows"),
        (entry("a", "openai/x", {"mode": "embedding"}), "its mode is embedding, and ccroute only chats"),
        (entry("a", "openai/x", {"blocked": True}), "is blocked"),
        (
            entry("a", "openai/x", mock_response="hi"),
            "answers with a text of the file, without a model (mock_response)",
        ),
    ],
)
def test_an_entry_that_cannot_be_reached_is_left_out(caplog, row, why):
    caplog.set_level(logging.WARNING, "ccroute")
    found = loaded(row, OTHER)
    assert list(found.options["aliases"]) == ["b"]
    assert why in found.ignored.values()
    assert f"{why}; the entry is left out" in caplog.text


def test_the_other_entries_of_a_name_stay():
    assert loaded(entry("b", "bedrock/x"), OTHER).leads("b") == ("ollama/x",)


def test_what_leads_to_a_name_that_is_left_out_is_a_fault_that_says_why(faults):
    file = {
        "model_list": [entry("a", "bedrock/x"), OTHER],
        "router_settings": {"fallbacks": [{"b": ["a"]}], "model_group_alias": {"c": "a"}},
    }
    agents = {"quality": {"qa": {"model": "a", "fallbackModel": "b"}}}
    text = f'"a" leads nowhere, because {AWS}'
    assert faults([agents, file], aliases={"d": "a"}) == (
        f"aliases.d: {text}",
        f"source 2: router_settings.model_group_alias.c: {text}",
        f"source 1: quality.qa.model, source 2: router_settings.fallbacks[0].b[0]: {text}",
    )


def test_another_source_may_define_the_name():
    from ccroute.config import load

    file = {"model_list": [entry("a", "bedrock/x"), OTHER], "router_settings": {"fallbacks": [{"b": ["a"]}]}}
    options = load([file, {"aliases": {"a": "ollama/mine"}, "backends": {"ollama": {}}}], {})
    assert options["aliases"].resolve("a").deployments == ("ollama/mine",)


def test_a_file_without_any_usable_model_is_a_fault(faults):
    assert faults({"model_list": [entry("a", "bedrock/x")]}) == (
        f"model_list: has no model that ccroute can reach. a: {AWS}",
    )


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"model": "antropic/x"}, 'model: names no provider, did you mean "anthropic"?'),
        (
            {"model": "x", "custom_llm_provider": "opnai"},
            'custom_llm_provider: names no provider, did you mean "openai"?',
        ),
        ({"model": "llama3"}, "model: names no provider: write one before it, as in openai/gpt-4o"),
        ({"model": "azure/x"}, "api_base: is missing: azure has no usual address, or set AZURE_API_BASE"),
        ({"model": "openai_like/x"}, "api_base: is missing: openai_like has no usual address"),
        ({"model": "azure/x", "api_base": "${NOT_SET}"}, "api_base: environment variable NOT_SET is not set"),
        (
            {"model": "ollama/x", "api_base": "http://[1"},
            "api_base: must look like http://localhost:11434 or https://host/v1",
        ),
        (
            {"model": "ollama/x", "keep_alive": 1.5},
            'keep_alive: should be a duration such as "5m", or a whole number of seconds',
        ),
        ({"model": " "}, "model: is empty"),
        ({"model": 4}, "model: should be a text"),
        ({"modle": "x"}, "model: is missing"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_a_fault(faults, params, fault):
    row = {"model_name": "a", "litellm_params": params}
    assert faults({"model_list": [row]}) == (f"model_list[0].litellm_params.{fault}",)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"model_list": {"a": 1}}, "model_list: should be a list"),
        ({"model_list": ["a"]}, "model_list[0]: should be a table"),
        ({"model_list": [{"litellm_params": {"model": "ollama/x"}}]}, "model_list[0].model_name: is missing"),
        ({"model_list": [{"model_name": "a"}]}, "model_list[0].litellm_params: is missing"),
        (
            {"model_list": [{"model_name": "a", "litellm_params": 3}]},
            "model_list[0].litellm_params: should be a table",
        ),
        ({"model_list": [OTHER], "router_settings": []}, "router_settings: should be a table"),
        (
            {"model_list": [OTHER], "router_settings": {"default_litellm_params": 3}},
            "router_settings.default_litellm_params: should be a table",
        ),
    ],
)
def test_a_wrong_shape_is_a_fault_with_its_place(faults, content, fault):
    assert faults(content) == (fault,)


def test_a_name_without_a_provider_at_an_address_is_like_openai(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    found = loaded(entry("a", "meta/llama", api_base="http://h.test/v1"))
    assert found.leads("a") == ("h/meta/llama",)
    assert (
        "litellm_params.model: names no provider, so its server is taken to be like OpenAI's" in caplog.text
    )


def test_unknown_keys_are_noted_and_misspelled_ones_are_warned_of(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    row = entry(
        "b", "ollama/x", {"suports_vision": True, "owner": "me", "mdoe": "chat"}, rpm_limit=5, tmeout=4, odd=1
    )
    found = loaded(row | {"x": 1}, router_settings={"num_retris": 1, "request_timeout": 3}, other={})
    assert [record.getMessage().partition("config: ")[2] for record in caplog.records] == [
        'router_settings.num_retris: unknown key, did you mean "num_retries"?',
        "router_settings.request_timeout: is read under litellm_settings only, by LiteLLM too",
        'model_list[0].litellm_params.rpm_limit: unknown key, did you mean "rpm"?',
        'model_list[0].litellm_params.tmeout: unknown key, did you mean "timeout"?',
        'model_list[0].model_info.mdoe: unknown key, did you mean "mode"?',
    ]
    assert found.ignored["model_list[0].litellm_params.odd"].startswith(
        "is not known; a field of the provider's"
    )
    assert {"other", "model_list[0].x", "model_list[0].model_info.owner"} <= found.ignored.keys()


def test_a_list_in_place_of_a_switch_is_a_warning(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    found = loaded(entry("b", "ollama/x", drop_params=["tool_choice"]))
    assert found.backends["ollama"].drop_params is False
    assert "names belong under additional_drop_params" in caplog.text


def test_a_secret_is_in_no_message(faults, caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    secret = "sk-0123456789-canary"
    rows = [
        entry("a", "openai/x", api_key=secret, api_base=f"http://user:{secret}@h.test", drop_params=secret),
        entry("b", "opnai/x", api_key=secret, odd=secret, rpm_limit=secret),
        entry("c", "openai/x", api_key=[secret]),
        entry("d", "azure/x", api_key=secret, timeout=secret),
    ]
    found = faults(
        {"model_list": rows, "environment_variables": {"X": secret}, "router_settings": {"fallbacks": secret}}
    )
    assert len(found) >= 5
    assert secret not in "".join(found) + caplog.text
