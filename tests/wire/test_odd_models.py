"""What a user's own `Model(…)` or history may hold that no encoder has a word for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccroute import AnthropicBackend, Model, OllamaBackend, OpenAIBackend, errors
from ccroute.backends import Backend
from ccroute.types.arguments.checked import build_request
from ccroute.wire.fields import without

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "ab"]


def body(backend: Backend, **options: Any) -> dict[str, Any]:
    request = build_request(None if "messages" in options else "hi", options)  # type: ignore[arg-type]
    assert backend.refusals(request, "m") == {}
    sent: dict[str, Any] = json.loads(backend.encode(request, "m", False).body)
    return sent


def test_a_model_with_words_of_its_own_gets_the_effort_as_it_is() -> None:
    backend = OpenAIBackend("x", base_url="http://x", models={"m": Model(efforts=("default", "none"))})
    assert body(backend, reasoning_effort="high")["reasoning_effort"] == "high"
    levels = OllamaBackend("x", models={"m": Model(thinking="levels", efforts=("on",))})
    assert body(levels, reasoning_effort="high")["think"] == "high"


@pytest.mark.parametrize("kind", [OpenAIBackend, OllamaBackend])
def test_a_refused_tool_choice_is_one_that_forces_a_tool(kind: Any) -> None:
    backend = kind("x", base_url="http://x", models={"m": Model(refuses=("tool_choice",))})
    body(backend, tools=TOOLS, tool_choice="auto")
    forced = build_request("hi", {"tools": TOOLS, "tool_choice": "required"})
    assert "tool_choice" in backend.refusals(forced, "m")


def test_a_choice_of_a_tool_that_is_left_out_goes_with_it() -> None:
    choice = {"type": "function", "function": {"name": "a"}}
    request = build_request("hi", {"tools": TOOLS, "tool_choice": choice})
    left = without(request, {"tools[0]": "not here"})
    assert ([tool["function"]["name"] for tool in left.tools or ()], left.tool_choice) == (["b"], None)
    assert without(request, {"tools[1]": "not here"}).tool_choice == choice


HALF = "\ud800"


def asked(arguments: object) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": arguments}}
    return [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]


@pytest.mark.parametrize("kind", [OpenAIBackend, AnthropicBackend])
def test_arguments_with_half_a_character_in_their_text_are_mended(kind: Any) -> None:
    assert body(kind("x", base_url="http://x"), messages=asked('{"a": "\\ud800"}'))


@pytest.mark.parametrize("arguments", [{"a": object()}, {"a": HALF}])
@pytest.mark.parametrize("kind", [OpenAIBackend, AnthropicBackend])
def test_arguments_that_no_json_holds_are_refused(kind: Any, arguments: object) -> None:
    with pytest.raises(errors.InvalidRequestError, match="JSON"):
        body(kind("x", base_url="http://x"), messages=asked(arguments))


def test_blocks_of_another_kind_are_refused_by_their_place() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "blocks": "abc"}]
    with pytest.raises(errors.InvalidRequestError, match=r"messages\[1\].blocks must be a list of dicts"):
        build_request(None, {"messages": messages})
