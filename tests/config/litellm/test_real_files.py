"""LiteLLM files that are in use load unchanged, alone and beside an orchestra file."""

import json
import time

import pytest
import yaml
from tests.config.litellm.files import entry, loaded

from ccroute import OllamaBackend
from ccroute.config import load
from ccroute.routing import Agent

ENV = {"ANTHROPIC_API_KEY": "sk-ant-0123"}


def leads(options, name):
    return options["aliases"].resolve(name).deployments


def test_the_hybrid_file_leads_to_anthropic_and_to_ollama(fixtures):
    options = load(fixtures / "ccproxy-config-hybrid.yaml", ENV)
    assert {name: leads(options, name) for name in options["aliases"]} == {
        "claude-opus-4": ("anthropic/claude-opus-4-20250514",),
        "claude-sonnet-4-5": ("anthropic/claude-sonnet-4-20250514",),
        "claude-3-5-sonnet": ("ollama/qwen2.5-coder:32b-instruct",),
        "claude-3-haiku": ("ollama/qwen-fast:latest",),
        "gpt-4": ("ollama/qwen-quality-128k:latest",),
    }
    assert options["health"] == "off"
    assert options["drop_params"] is True
    assert options["timeout"].attempt == 300
    assert options["retry"].per_deployment == 1
    ollama = {backend.name: backend for backend in options["backends"]}["ollama"]
    assert ollama.models["qwen-quality-128k"].params == {"max_tokens": 131072}


def test_names_that_look_like_deployments_stay_names(fixtures):
    options = load(fixtures / "ccproxy-config.yaml", {})
    assert leads(options, "ollama/qwen-fast") == ("ollama/qwen2.5-coder:7b-instruct",)
    assert leads(options, "gpt-4-turbo") == ("ollama/qwen2.5-coder:32b-instruct-128k",)


@pytest.mark.parametrize("turned", [False, True])
def test_an_orchestra_file_and_a_litellm_file_are_one(fixtures, turned):
    files = [fixtures / "orchestra-config-tdd.json", fixtures / "ccproxy-config-hybrid.yaml"]
    options = load(files[::-1] if turned else files, ENV)
    backend, _, model = leads(options, "claude-3-haiku")[0].partition("/")
    assert model == "qwen-fast:latest"
    origins = {each.name: str(each.origin) for each in options["backends"]}
    assert origins[backend] == "http://localhost:11434"
    # The orchestra file has a name "ollama/qwen2.5-coder:32b-instruct", which leads to its own endpoint.
    assert leads(options, "ollama/qwen2.5-coder:32b-instruct") == (
        "ccproxy/ollama/qwen2.5-coder:32b-instruct",
    )
    later = "claude-api" if turned else backend
    assert leads(options, "claude-3-5-sonnet")[0].startswith(f"{later}/")
    assert options["agents"]["chief-architect"] == Agent("opus", fallback=["claude-3-5-sonnet"])


def test_a_litellm_file_may_be_json_or_a_mapping(write):
    content = {"model_list": [entry("a", "ollama/x")], "general_settings": {"completion_model": "a"}}
    for source in (content, write("x.json", json.dumps(content)), write("x.yaml", yaml.safe_dump(content))):
        assert leads(load(source, {}), "a") == ("ollama/x",)
        assert load(source, {})["default_model"] == "a"


def test_the_callers_backend_takes_the_place_of_the_files():
    mine = OllamaBackend("ollama", max_concurrency=4)
    options = load({"model_list": [entry("a", "ollama/x")]}, {}, {"backends": [mine]})
    assert options["backends"] == [mine]
    assert leads(options, "a") == ("ollama/x",)


def test_three_hundred_entries_load_quickly(write):
    rows = [
        entry(f"m{i}", f"groq/x{i}", {"mode": "chat", "x": 1}, api_key="k", input_cost_per_token=1e-6, rpm=9)
        for i in range(300)
    ]
    path = write("config.yaml", yaml.safe_dump({"model_list": rows}))
    best = 9.0
    for _ in range(3):
        begun = time.process_time()
        load(path, {"GROQ_API_KEY": "k"})
        best = min(best, time.process_time() - begun)
    assert best < 0.3  # seconds of computing; about 0.06


def test_a_missing_price_is_no_fault_and_the_model_has_none():
    found = loaded(entry("a", "ollama/x", input_cost_per_token=1))
    assert found.leads("a") == ("ollama/x",)
    assert "x" not in found.backends["ollama"].models
