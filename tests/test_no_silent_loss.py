"""What a caller sets is carried, or named as what cannot be: never just gone.

Every parameter × every dialect, alone through the public API, and in the company of every other one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from ccroute import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend, Router
from ccroute.backends.presets import PRESETS
from ccroute.errors import InvalidRequestError
from ccroute.types import Request
from ccroute.types.request import PARAMETERS

SCHEMA = {"type": "object", "properties": {"size": {"type": "integer"}}}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
VALUES: dict[str, Any] = {  # of each parameter one that no server would take for its default
    "max_tokens": 4321,
    "temperature": 0.25,
    "top_p": 0.75,
    "top_k": 17,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.625,
    "logit_bias": {"42": 7.5},
    "logprobs": True,
    "top_logprobs": 3,
    "stop": ["ENOUGH"],
    "seed": 99,
    "user": "u-1",
    "tools": [LOOK],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "size", "schema": SCHEMA}},
    "reasoning_effort": "high",
    "extra": {"provider_field": "as it is"},
}
MORE: list[tuple[str, Any]] = [  # other values that some wire has no word for, or another one
    ("tool_choice", "required"),
    ("tool_choice", "none"),
    ("response_format", {"type": "json_object"}),
    ("response_format", {"type": "grammar", "grammar": "root ::= [a-z]"}),
    ("reasoning_effort", "minimal"),
    ("reasoning_effort", "max"),
    ("stop", "ENOUGH"),
]

Places = Mapping[str, tuple[str, Any]]
"""Where a body holds a parameter, as a dotted path, and what stands there."""

EVERYWHERE: Places = {"extra": ("provider_field", "as it is"), "tools": ("tools.0.function.name", "look")}
OPENAI: Places = {name: (name, value) for name, value in VALUES.items()} | EVERYWHERE
OFFICIAL: Places = {**OPENAI, "max_tokens": ("max_completion_tokens", 4321)}
BY_PRESET: Mapping[str, Places] = {
    "openai": OFFICIAL,
    "dashscope": {**OPENAI, "reasoning_effort": ("enable_thinking", True)},
    "mistral": {**OPENAI, "seed": ("random_seed", 99)},
    "moonshot": {**OPENAI, "reasoning_effort": ("thinking.type", "enabled")},
}
ANTHROPIC: Places = {
    **OPENAI,
    "stop": ("stop_sequences", ["ENOUGH"]),
    "user": ("metadata.user_id", "u-1"),
    "tools": ("tools.0.name", "look"),
    "tool_choice": ("tool_choice.name", "look"),
    "parallel_tool_calls": ("tool_choice.disable_parallel_tool_use", True),
    "response_format": ("output_config.format.schema", {**SCHEMA, "additionalProperties": False}),
    "reasoning_effort": ("output_config.effort", "high"),
}
OLD_CLAUDE: Places = {
    **ANTHROPIC,
    "response_format": ("tools.-1.input_schema", SCHEMA),
    "reasoning_effort": ("thinking.type", "enabled"),
}
OLLAMA: Places = {
    **OPENAI,
    **{
        name: (f"options.{name}", VALUES[name])
        for name in ("temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty", "stop")
    },
    "max_tokens": ("options.num_predict", 4321),
    "response_format": ("format", SCHEMA),
    "reasoning_effort": ("think", True),
}
URL = "http://model.test"
EACH_DIALECT = {preset.dialect: name for name, preset in reversed(PRESETS.items())}.values()
"""Of the presets that share a dialect, the first."""
WIRES: dict[str, tuple[Backend, str, Places]] = {
    **{
        name: (
            OpenAIBackend(
                "b", preset=name, base_url=None if PRESETS[name].default_url else URL, api_key="a-test-key"
            ),
            "m",
            BY_PRESET.get(name, OPENAI),
        )
        for name in sorted(EACH_DIALECT)
    },
    "compatible": (OpenAIBackend("b", base_url=URL), "m", OPENAI),
    "claude, old": (AnthropicBackend("b", api_key="a-test-key"), "claude-3-5-sonnet-20241022", OLD_CLAUDE),
    "claude, new": (AnthropicBackend("b", api_key="a-test-key"), "claude-opus-4-6", ANTHROPIC),
    "ollama": (OllamaBackend("b"), "qwen3", OLLAMA),
    "ollama, levels": (
        OllamaBackend("b"),
        "gpt-oss:20b",
        {**OLLAMA, "reasoning_effort": ("think", "high")},
    ),
}
every_wire = pytest.mark.parametrize("wire", WIRES)


def body_of(wire: str, **options: Any) -> Any:
    backend, model, _ = WIRES[wire]
    request = Request(messages=({"role": "user", "content": "hi"},), **options)
    return json.loads(backend.encode(request, model, False).body)


def refused(wire: str, **options: Any) -> Mapping[str, str]:
    backend, model, _ = WIRES[wire]
    return backend.refusals(Request(**options), model)


def at(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body[int(key)] if isinstance(body, list) else body.get(key)
    return body


def with_company(name: str, value: Any) -> dict[str, Any]:
    """The parameter, and the tools without which some mean nothing."""
    return {"tools": [LOOK], name: value} if name in ("tool_choice", "parallel_tool_calls") else {name: value}


def asked(wire: str, options: Mapping[str, Any], *, drop_params: bool) -> tuple[Any, tuple[str, ...]]:
    """The body that a whole router sends, and the reasons in the route."""
    backend, model, _ = WIRES[wire]
    bodies: list[Any] = []
    with Router(
        [backend], drop_params=drop_params, transport=httpx.MockTransport(answering(bodies))
    ) as router:
        reply = router.complete("hi", model=f"b/{model}", **options)
    return bodies[0], reply.route.reasons


def answering(bodies: list[Any]) -> Any:
    """A server that any wire understands, and that remembers what it was sent."""
    openai = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    anthropic = {"content": [{"type": "text", "text": '{"size": 1}'}], "stop_reason": "end_turn"}
    ollama = {"message": {"content": "yes"}, "done": True}

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={**openai, **anthropic, **ollama})

    return answer


def test_there_is_a_value_for_every_parameter() -> None:
    assert VALUES.keys() == PARAMETERS


@every_wire
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_parameter_is_in_the_body_or_refused_by_its_name(wire: str, name: str) -> None:
    options = with_company(name, VALUES[name])
    if name in refused(wire, **options):
        with pytest.raises(InvalidRequestError, match=rf"cannot carry .*\b{name} \("):
            asked(wire, options, drop_params=False)
    else:
        path, value = WIRES[wire][2][name]
        assert at(asked(wire, options, drop_params=False)[0], path) == value


@every_wire
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_parameter_is_in_the_body_or_among_the_reasons(wire: str, name: str) -> None:
    options = with_company(name, VALUES[name])
    body, reasons = asked(wire, options, drop_params=True)
    dropped = any(f": {name} dropped, " in reason for reason in reasons)
    path, value = WIRES[wire][2][name]
    assert dropped == (name in refused(wire, **options))
    assert dropped or at(body, path) == value


@every_wire
@pytest.mark.parametrize(("name", "value"), MORE)
def test_a_less_usual_value_changes_the_body_or_is_refused(wire: str, name: str, value: Any) -> None:
    options = with_company(name, value)
    without = {key: given for key, given in options.items() if key != name}
    assert name in refused(wire, **options) or body_of(wire, **options) != body_of(wire, **without)


@every_wire
def test_no_two_parameters_lose_each_other(wire: str) -> None:
    places = WIRES[wire][2]
    for pair in itertools.combinations(sorted(PARAMETERS), 2):
        options = {"tools": [LOOK], **{name: VALUES[name] for name in pair}}
        gone = refused(wire, **options)
        body = body_of(wire, **{name: value for name, value in options.items() if name not in gone})
        for name in options.keys() - gone.keys():
            path, value = places[name]
            assert at(body, path) == value, (pair, name)


@every_wire
def test_all_parameters_at_once_are_each_carried_or_refused(wire: str) -> None:
    gone = refused(wire, **VALUES)
    body = body_of(wire, **{name: value for name, value in VALUES.items() if name not in gone})
    for name in PARAMETERS - gone.keys():
        path, value = WIRES[wire][2][name]
        assert at(body, path) == value, name
