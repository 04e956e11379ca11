"""Entries with the same server share a backend; its address, key and name come from the entry."""

import logging

import pytest
from tests.config.litellm.files import Read, entry, loaded

from ccroute import AnthropicBackend, OllamaBackend, OpenAIBackend
from ccroute.backends import HttpRequest
from ccroute.config import read


def kinds(found):
    return {name: (type(each), getattr(each, "preset", None)) for name, each in found.backends.items()}


@pytest.mark.parametrize(
    ("model", "params", "name", "address", "on_wire"),
    [
        ("anthropic/claude-opus-4-1", {}, "anthropic", "https://api.anthropic.com", "claude-opus-4-1"),
        ("claude-opus-4-1", {}, "anthropic", "https://api.anthropic.com", "claude-opus-4-1"),
        ("gpt-4o", {}, "openai", "https://api.openai.com/v1", "gpt-4o"),
        ("o3-mini", {}, "openai", "https://api.openai.com/v1", "o3-mini"),
        ("openai/responses/gpt-5", {}, "openai", "https://api.openai.com/v1", "gpt-5"),
        ("ollama/x:7b", {}, "ollama", "http://localhost:11434", "x:7b"),
        ("ollama_chat/x", {"api_base": "http://gpu1.test:11434"}, "gpu1", "http://gpu1.test:11434", "x"),
        (
            "ollama/x",
            {"api_base": "http://localhost:11434/v1"},
            "localhost",
            "http://localhost:11434/v1",
            "x",
        ),
        (
            "ollama/x",
            {"api_base": "http://localhost:11434/api/generate"},
            "ollama",
            "http://localhost:11434",
            "x",
        ),
        ("groq/llama", {}, "groq", "https://api.groq.com/openai/v1", "llama"),
        (
            "gemini/gemini-2.5-pro",
            {},
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini-2.5-pro",
        ),
        ("openrouter/openai/gpt-4o", {}, "openrouter", "https://openrouter.ai/api/v1", "openai/gpt-4o"),
        (
            "fireworks_ai/llama-v3",
            {},
            "fireworks_ai",
            "https://api.fireworks.ai/inference/v1",
            "accounts/fireworks/models/llama-v3",
        ),
        ("huggingface/together/a/b", {}, "huggingface", "https://router.huggingface.co/v1", "a/b:together"),
        (
            "huggingface/a/b",
            {"api_base": "https://x.endpoints.test"},
            "x",
            "https://x.endpoints.test/v1",
            "a/b",
        ),
        ("hosted_vllm/q", {"api_base": "http://h.test:8000/v1/"}, "h", "http://h.test:8000/v1", "q"),
        (
            "openai//model",
            {"api_base": "http://localhost:3/v1"},
            "localhost",
            "http://localhost:3/v1",
            "/model",
        ),
        (
            "q/w",
            {"custom_llm_provider": "openai", "base_url": "http://h.test/v1"},
            "h",
            "http://h.test/v1",
            "q/w",
        ),
        (
            "anthropic/c",
            {"api_base": "https://p.test/anthropic/v1/messages"},
            "p",
            "https://p.test/anthropic",
            "c",
        ),
        (
            "azure/o_series/d",
            {"api_base": "https://r.openai.azure.com/"},
            "azure",
            "https://r.openai.azure.com",
            "d",
        ),
        (
            "azure_ai/k",
            {"api_base": "https://r.services.ai.azure.com"},
            "azure_ai",
            "https://r.services.ai.azure.com/models",
            "k",
        ),
        (
            "azure_ai/claude-opus-4-1",
            {"api_base": "https://r.services.ai.azure.com"},
            "r",
            "https://r.services.ai.azure.com/anthropic",
            "claude-opus-4-1",
        ),
        (
            "azure_ai/k",
            {"api_base": "https://k.eastus.models.ai.azure.com"},
            "k",
            "https://k.eastus.models.ai.azure.com/v1",
            "k",
        ),
    ],
)
def test_an_entry_becomes_a_deployment(model, params, name, address, on_wire):
    found = loaded(entry("a", model, api_key="k", **params))
    assert found.leads("a") == (f"{name}/{on_wire}",)
    assert repr(found.backends[name]).partition(", ")[2] == f"{address!r})"


def test_the_kind_of_backend_is_the_providers():
    found = loaded(
        entry("a", "anthropic/c", api_key="k"),
        entry("b", "ollama/x"),
        entry("c", "mistral/m", api_key="k"),
        entry("d", "azure/d", api_key="k", api_base="https://r.openai.azure.com"),
        entry("e", "hosted_vllm/q", api_base="http://h.test/v1"),
    )
    assert kinds(found) == {
        "anthropic": (AnthropicBackend, None),
        "ollama": (OllamaBackend, None),
        "mistral": (OpenAIBackend, "mistral"),
        "azure": (OpenAIBackend, "azure"),
        "h": (OpenAIBackend, "vllm"),
    }


def test_entries_with_the_same_server_share_a_backend():
    found = loaded(
        entry("a", "openai/x", api_key="k", api_base="http://h.test/v1", timeout=5),
        entry("b", "openai/y", api_key="k", api_base="http://h.test/v1/", timeout=5.0),
        entry("c", "openai/x", api_key="other", api_base="http://h.test/v1", timeout=5),
        entry("d", "openai/x", api_key="k", api_base="http://h.test/v1", timeout=6),
        entry("e", "openai/x", api_key="k", api_base="http://h.test/v1", timeout=5),
    )
    assert [found.leads(name)[0] for name in "abcde"] == ["h/x", "h/y", "h-2/x", "h-3/x", "h/x"]


def test_a_model_described_in_two_ways_needs_two_backends():
    found = loaded(entry("a", "ollama/x"), entry("b", "ollama/x", temperature=1), entry("c", "ollama/y"))
    assert [found.leads(name)[0] for name in "abc"] == ["ollama/x", "ollama-2/x", "ollama/y"]
    assert found.model("ollama-2/x").params == {"temperature": 1}


def test_a_deployment_never_has_another_aliass_name():
    found = loaded(
        entry("openai/gpt-4o", "azure/d", api_key="k", api_base="https://r.openai.azure.com"),
        entry("a", "openai/gpt-4o", api_key="k"),
        entry("groq/x", "groq/x", api_key="k"),
        entry("b", "groq/x", api_key="k"),
    )
    assert found.leads("openai/gpt-4o") == ("azure/d",)
    assert found.leads("a") == ("openai-2/gpt-4o",)
    assert found.leads("groq/x") == found.leads("b") == ("groq/x",)


def test_a_backend_of_another_source_keeps_its_name():
    native = {"backends": {"ollama": {"kind": "ollama", "base_url": "http://gpu.test:11434"}}, "aliases": {}}
    found = Read(read([native, {"model_list": [entry("a", "ollama/x")]}], {}))
    assert found.leads("a") == ("ollama-2/x",)
    assert str(found.backends["ollama"].origin) == "http://gpu.test:11434"


def test_what_an_entry_says_of_its_server_is_the_backends(tmp_path):
    found = loaded(
        entry(
            "a",
            "ollama/x",
            keep_alive=-1,
            timeout="30",
            stream_timeout=5,
            extra_headers={"X-Team": 7},
            headers={"X-Other": "b"},
            drop_params="true",
            max_parallel_requests=8,
        ),
        entry(
            "b",
            "ollama/y",
            keep_alive=-1,
            timeout=30,
            stream_timeout=5,
            drop_params=True,
            extra_headers={"X-Team": "7", "X-Other": "b"},
            max_parallel_requests=4,
        ),
    )
    (backend,) = found.backends.values()
    assert backend.keep_alive == -1
    assert (backend.timeout.total, backend.timeout.first) == (30, 5)
    assert backend.drop_params is True
    assert backend.max_concurrency == 4
    headers = dict(backend.auth_headers(HttpRequest("/"))[0])
    assert (headers[b"x-team"], headers[b"x-other"]) == (b"7", b"b")


def test_each_organization_is_a_deployment():
    found = loaded(entry("a", "openai/x", api_key="k", organization=["org-1", "org-2"]))
    assert found.leads("a") == ("openai/x", "openai-2/x")
    found = loaded(entry("a", "openai/x", api_key="k", organization="org-1"))
    assert found.leads("a") == ("openai/x",)


def test_a_header_with_the_key_wins_over_it():
    found = loaded(entry("a", "openai/x", api_key="k", extra_headers={"Authorization": "Bearer t"}))
    assert (b"authorization", b"Bearer t") in found.backends["openai"].auth_headers(HttpRequest("/"))[0]
    found = loaded(entry("a", "azure/x", azure_ad_token="t", api_base="https://r.openai.azure.com"))
    assert "Bearer t" in found.backends["azure"].secrets()


@pytest.mark.parametrize(
    ("params", "env", "query"),
    [
        ({"api_version": "2024-06-01"}, {}, "?api-version=2024-06-01"),
        ({"api_version": "latest"}, {}, ""),
        ({}, {"AZURE_API_VERSION": "2024-06-01"}, "?api-version=2024-06-01"),
        ({}, {}, ""),
    ],
)
def test_azures_version_is_the_entrys_or_the_environments(params, env, query):
    found = loaded(
        entry("a", "azure/d", api_key="k", api_base="https://r.openai.azure.com", **params), env=env
    )
    assert found.backends["azure"].listing().path.partition("/models")[2] == query


def test_azures_whole_url_of_a_deployment_is_understood():
    url = "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-06-01"
    backend = loaded(entry("a", "azure/d", api_key="k", api_base=url)).backends["azure"]
    assert repr(backend) == "OpenAIBackend('azure', 'https://r.openai.azure.com/openai/deployments/d')"
    assert backend.listing().path == "/models?api-version=2024-06-01"


# Keys and variables.


def test_the_providers_variable_is_sent_to_its_own_address_only(caplog):
    caplog.set_level(logging.WARNING, "ccroute")
    env = {"GROQ_API_KEY": "gsk-0123", "HOSTED_VLLM_API_KEY": "vllm-0123"}
    found = loaded(
        entry("a", "groq/x"),
        entry("b", "groq/x", api_base="https://proxy.test/v1"),
        entry("c", "hosted_vllm/x", api_base="http://h.test/v1"),
        entry("d", "xai/x"),
        entry("e", "xai/y"),
        entry("f", "openai/y"),
        entry("g", "lm_studio/y"),
        env=env,
    )
    assert "gsk-0123" in found.backends["groq"].secrets()
    assert not found.backends["proxy"].secrets()
    assert not found.backends["h"].secrets()
    assert [record.getMessage() for record in caplog.records] == [
        (
            "config: model_list[1].litellm_params: GROQ_API_KEY is not sent to this address; write api_key: "
            "os.environ/GROQ_API_KEY if it is for it"
        ),
        (
            "config: model_list[2].litellm_params: HOSTED_VLLM_API_KEY is not sent to this address; write "
            "api_key: os.environ/HOSTED_VLLM_API_KEY if it is for it"
        ),
        "config: model_list[3].litellm_params: XAI_API_KEY is not set, so there is no key for https://api.x.ai/v1",
        (
            "config: model_list[5].litellm_params: OPENAI_API_KEY is not set, so there is no key for "
            "https://api.openai.com"
        ),
    ]


def test_azures_variable_is_for_azures_hosts():
    env = {"AZURE_API_KEY": "az-0123-4567", "AZURE_API_BASE": "https://r.openai.azure.com"}
    found = loaded(entry("a", "azure/d"), env=env)
    assert "az-0123-4567" in found.backends["azure"].secrets()
    assert not loaded(entry("a", "azure/d", api_base="https://r.test"), env=env).backends["azure"].secrets()


def test_a_variable_may_give_the_address():
    found = loaded(entry("a", "ollama/x"), env={"OLLAMA_API_BASE": "http://gpu1.test:11434"})
    assert found.leads("a") == ("gpu1/x",)


def test_a_migrated_file_names_the_variables_that_litellm_implies():
    pytest.importorskip("tomli_w", reason="to_toml() needs the extra cli")
    env = {"GROQ_API_KEY": "gsk-0123456789", "OLLAMA_API_BASE": "http://gpu1.test:11434"}
    written = read({"model_list": [entry("a", "groq/x"), entry("b", "ollama/x")]}, env).settings.to_toml()
    assert 'api_key = "${GROQ_API_KEY}"' in written
    assert 'base_url = "${OLLAMA_API_BASE}"' in written
    assert "gsk-0123456789" not in written


def test_a_missing_variable_is_a_fault_with_its_place(faults):
    source = {"model_list": [entry("a", "groq/x", api_key="os.environ/GROQ_API_KEY", api_base="${BASE}")]}
    assert faults(source) == (
        "model_list[0].litellm_params.api_base: environment variable BASE is not set",
        "model_list[0].litellm_params.api_key: environment variable GROQ_API_KEY is not set",
    )


def test_the_file_may_set_variables_for_itself():
    found = loaded(
        entry("a", "groq/x", api_key="os.environ/MINE"),
        entry("b", "openai/x"),
        environment_variables={
            "MINE": "os.environ/OTHER",
            "OPENAI_API_KEY": "sk-of-the-file",
            "LOST": "${NO}",
        },
        env={"OTHER": "gsk-0123", "OPENAI_API_KEY": "sk-of-the-environment"},
    )
    assert "gsk-0123" in found.backends["groq"].secrets()
    assert "sk-of-the-file" in found.backends["openai"].secrets()


def test_a_credential_gives_what_the_entry_lacks(faults):
    credentials = [
        {
            "credential_name": "europe",
            "credential_values": {"api_base": "https://eu.test/v1", "api_key": "k1234567"},
        }
    ]
    found = loaded(
        entry("a", "openai/x", litellm_credential_name="europe"),
        entry("b", "openai/x", litellm_credential_name="europe", api_key="own12345"),
        credential_list=credentials,
    )
    assert found.leads("a") == ("eu/x",)
    assert "own12345" in found.backends["eu-2"].secrets()
    assert str(found.backends["eu-2"].origin) == "https://eu.test"
    wrong = {
        "model_list": [entry("a", "openai/x", litellm_credential_name="eurpe")],
        "credential_list": [*credentials, {"credential_name": 5}],
    }
    assert faults(wrong) == (
        "credential_list[1]: should be a table with credential_name and credential_values",
        (
            "model_list[0].litellm_params.litellm_credential_name: there is no credential of that name in "
            'credential_list, did you mean "europe"?'
        ),
    )


def test_a_fault_of_a_credential_has_its_place(faults):
    credential = {"credential_name": "c", "credential_values": {"api_key": "os.environ/NOT_THERE"}}
    source = {
        "model_list": [entry("a", "openai/x", litellm_credential_name="c")],
        "credential_list": [credential],
    }
    assert faults(source) == (
        "credential_list[0].credential_values.api_key: environment variable NOT_THERE is not set",
    )


def test_a_certificate_authority_is_taken_from_ssl_verify(faults, caplog):
    row = entry("a", "openai/x", api_key="k", ssl_verify="/nowhere/ca.pem")
    assert faults({"model_list": [row]}) == (
        "model_list[0].litellm_params: there is no ca_file /nowhere/ca.pem",
    )
    caplog.set_level(logging.WARNING, "ccroute")
    loaded(entry("a", "openai/x", api_key="k"), litellm_settings={"ssl_verify": False})
    assert "litellm_settings.ssl_verify: certificates are always checked" in caplog.text
