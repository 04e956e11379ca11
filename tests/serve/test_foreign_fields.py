"""Fields and tools of one API only, in a served request: they reach servers of that API, and no others."""

from __future__ import annotations

import json
from typing import Any

from ccroute import AnthropicBackend, OllamaBackend, OpenAIBackend
from ccroute.serve import anthropic, openai
from ccroute.types import Request
from ccroute.wire.fields import LeftOut, without

USER = {"role": "user", "content": "hi"}

OPENAIS = {
    "store": True,
    "verbosity": "low",
    "prediction": {"type": "content", "content": "a"},
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "service_tier": "flex",
    "web_search_options": {},
    "modalities": ["text"],
    "audio": {"voice": "x"},
}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def test_openais_own_fields_reach_only_openais_servers() -> None:
    request = parsed_by(openai, **OPENAIS)
    for backend in (AnthropicBackend(api_key="a-test-key"), OllamaBackend()):
        refused = backend.refusals(request, "m")
        assert refused.keys() == OPENAIS.keys()
        sent = backend.encode(without(request, refused), "m", False).body
        assert not OPENAIS.keys() & json.loads(sent).keys()
    vllm = OpenAIBackend("vllm", base_url="http://vllm.test")
    assert vllm.refusals(request, "m") == {}
    assert OPENAIS.items() <= json.loads(vllm.encode(request, "m", False).body).items()


def test_what_a_caller_gives_as_extra_himself_is_not_checked() -> None:
    request = Request(messages=(USER,), extra={"store": True})
    assert AnthropicBackend(api_key="a-test-key").refusals(request, "m") == {}


def test_anthropics_own_tools_are_refused_one_by_one() -> None:
    own = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
    request = parsed_by(anthropic, tools=[SEARCH, own])
    for backend in (OpenAIBackend("vllm", base_url="http://vllm.test"), OllamaBackend()):
        refused = backend.refusals(request, "m")
        assert list(refused) == ["tools[0]"]
        assert [tool["function"]["name"] for tool in without(request, refused).tools or ()] == ["f"]
    assert AnthropicBackend(api_key="a-test-key").refusals(request, "claude-opus-4-8") == {}


def test_tool_fields_of_anthropic_are_left_out_elsewhere() -> None:
    marked = {"name": "f", "input_schema": {"type": "object"}, "defer_loading": True, "allowed_callers": []}
    request = parsed_by(anthropic, tools=[SEARCH, marked, {"name": "g"}])
    for backend in (OpenAIBackend("vllm", base_url="http://vllm.test"), OllamaBackend()):
        refused = backend.refusals(request, "m")
        assert list(refused) == ["tools[0]", "tools[1].allowed_callers", "tools[1].defer_loading"]
        assert [isinstance(why, LeftOut) for why in refused.values()] == [False, True, True], "no refusal"
        sent = json.loads(backend.encode(without(request, refused), "m", False).body)["tools"]
        assert [tool["function"]["name"] for tool in sent] == ["f", "g"]
        assert all(tool.keys() == {"type", "function"} for tool in sent)
    assert AnthropicBackend(api_key="a-test-key").refusals(request, "claude-opus-4-8") == {}


def test_with_its_last_tool_a_choice_among_them_goes_too() -> None:
    request = parsed_by(
        anthropic, tools=[SEARCH], tool_choice={"type": "any", "disable_parallel_tool_use": True}
    )
    left = without(request, OpenAIBackend("vllm", base_url="http://vllm.test").refusals(request, "m"))
    assert (left.tools, left.tool_choice, left.parallel_tool_calls) == (None, None, None)


def parsed_by(wire: Any, **given: Any) -> Request:
    return Request(
        **dict(wire.parse_request({"model": "m", "max_tokens": 9, "messages": [USER], **given}).kwargs)
    )
