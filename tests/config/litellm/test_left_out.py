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
        # https://github.com/NUbem000/NubemGenesis.V.1.1 has together/ and google/, and LiteLLM's own
        # load_balancer.yaml mistralai/. Its proxy starts with such entries (ignore_invalid_deployments).
        (
            entry("a", "together/x", api_key="os.environ/NOT_SET"),
            'together is no provider that ccroute knows, did you mean "together_ai"?',
        ),
        (
            entry("a", "x", custom_llm_provider="opnai"),
            'opnai is no provider that ccroute knows, did you mean "openai"?',
        ),
        (entry("a", "llama3"), '"llama3" names no provider: write one before it, as in openai/gpt-4o'),
        # https://github.com/BerriAI/litellm/blob/main/proxy_server_config.yaml
        (entry("a", "azure/", api_base="https://r.openai.azure.com"), '"azure/" names no model'),
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


def test_entries_that_are_left_out_for_one_reason_are_one_warning(caplog):
    # litellm/proxy/dev_config.yaml of LiteLLM has 23 such entries.
    caplog.set_level(logging.WARNING, "ccroute")
    loaded(*(entry(f"a{i}", "bedrock/x") for i in range(9)), OTHER)
    (record,) = caplog.records
    assert record.getMessage() == (
        "config: model_list[0].litellm_params, model_list[1].litellm_params and 7 more: "
        f"{AWS}; the entry is left out"
    )


def test_a_variable_that_many_entries_name_is_one_fault(faults):
    # https://github.com/BHQUAN97/Orchestrator-AI names one key 20 times.
    rows = [entry(f"a{i}", "openai/x", api_key="os.environ/GONE") for i in range(5)]
    assert faults({"model_list": [*rows, entry("b", "openai/x", api_key="os.environ/LOST")]}) == (
        (
            "model_list[0].litellm_params.api_key, model_list[1].litellm_params.api_key and 3 more: "
            "environment variable GONE is not set"
        ),
        "model_list[5].litellm_params.api_key: environment variable LOST is not set",
    )


def test_a_key_like_an_ignored_one_is_no_warning(caplog):
    # https://github.com/BaSeLab-Local-LLM/llm-root
    caplog.set_level(logging.WARNING, "ccroute")
    found = loaded(OTHER, general_settings={"allowed_origins": ["*"]})
    assert not caplog.records
    assert "general_settings.allowed_origins" in found.ignored


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
        f"source 1: quality.qa.model: {text}",
    )


def test_a_fallback_that_leads_nowhere_is_passed_over(caplog):
    # LiteLLM goes on to the next: https://github.com/Jackson57279/llm-optimizer-compose has fallbacks of a
    # name without an entry, and many files name a model of Bedrock.
    caplog.set_level(logging.WARNING, "ccroute")
    router = {"fallbacks": [{"b": ["a", "bb", "c"]}, {"a": ["d"]}, {"best": ["b"]}]}
    found = loaded(
        entry("a", "bedrock/x"), OTHER, entry("c", "ollama/y"), entry("d", "ollama/z"), router_settings=router
    )
    assert found.fallbacks("b") == ["d", "c"]
    assert list(found.options["fallbacks"]) == ["b"]
    messages = [record.getMessage().removeprefix("config: ") for record in caplog.records]
    assert messages[1:] == [
        f'router_settings.fallbacks[0].b[0]: fallback "a" is passed over: {AWS}',
        (
            'router_settings.fallbacks[0].b[1]: fallback "bb" is passed over: no model has that name, '
            'did you mean "b"?'
        ),
        f'router_settings.fallbacks[1].a[0]: fallbacks of "a" are never used: {AWS}',
        'router_settings.fallbacks[2].best[0]: fallbacks of "best" are never used: no model has that name',
    ]


def test_a_fallback_may_be_a_name_of_the_callers_or_of_another_source():
    from ccroute.config import load

    names = ["mine", "x-1", "ollama/y", "their", "own/z", "re"]
    file = {"model_list": [OTHER], "router_settings": {"fallbacks": [{"b": names}]}}
    other = {"model_list": [entry("their", "ollama/z")]}
    aliases = {"mine": "ollama/m", "x-*": "ollama/*", "re:re": "ollama/r"}
    options = load([file, other, {"backends": {"own": {"kind": "ollama"}}}], {}, {"aliases": aliases})
    assert options["fallbacks"]["b"] == names


def test_another_source_may_define_the_name():
    from ccroute.config import load

    file = {"model_list": [entry("a", "bedrock/x"), OTHER], "router_settings": {"fallbacks": [{"b": ["a"]}]}}
    options = load([file, {"aliases": {"a": "ollama/mine"}, "backends": {"ollama": {}}}], {})
    assert options["aliases"].resolve("a").deployments == ("ollama/mine",)


def test_a_file_without_any_usable_model_is_a_fault(faults):
    assert faults({"model_list": [entry("a", "bedrock/x")]}) == (
        f"model_list: has no model that ccroute can reach. a: {AWS}",
    )


@pytest.mark.parametrize("models", [{}, {"model_list": []}])
def test_a_file_whose_models_are_in_a_database_says_so(faults, models):
    # https://github.com/BerriAI/litellm: config.yaml, with store_model_in_db
    (found,) = faults(models | {"general_settings": {"store_model_in_db": True}})
    assert "model_list is missing or empty, and LiteLLM's database is not read" in found


@pytest.mark.parametrize(
    ("params", "fault"),
    [
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
        ({"model": 4}, "model: should be a string"),
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
    assert len(found) >= 4
    assert secret not in "".join(found) + caplog.text
