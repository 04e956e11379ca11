"""Messages requests of any shape, in canonical form and back: they must ask for the same."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.serve.test_anthropic_request import CACHED, SCHEMA, ask, round_trip, text

from ccroute.types import Model

CLOSED = {**SCHEMA, "additionalProperties": False}  # as Anthropic wants it
WORDS = st.text(min_size=1, max_size=12).filter(str.strip)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
OBJECTS = st.dictionaries(NAMES, st.one_of(WORDS, st.integers(), st.booleans()), max_size=3)
CACHES = st.sampled_from([{}, {}, {"cache_control": {"type": "ephemeral"}}, CACHED])
TEXTS = st.builds(lambda value, cache: text(value, **cache), WORDS, CACHES)
SOURCES = st.one_of(
    st.builds(
        lambda data: {
            "type": "base64",
            "media_type": "image/png",
            "data": base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode(),
        },
        st.binary(min_size=1, max_size=9),
    ),
    st.just({"type": "url", "url": "https://x/y.png"}),
)
IMAGES = st.builds(lambda source, cache: {"type": "image", "source": source, **cache}, SOURCES, CACHES)
SAID = st.lists(st.one_of(TEXTS, IMAGES), max_size=3)
THOUGHTS = st.one_of(
    st.builds(lambda t, s: {"type": "thinking", "thinking": t, "signature": s}, st.text(max_size=9), NAMES),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, NAMES),
)
TOOLS = st.builds(
    lambda name, description, schema, cache: {
        "name": name,
        **({"description": description} if description else {}),
        "input_schema": {"type": "object", "properties": schema},
        **cache,
    },
    NAMES,
    st.one_of(st.none(), WORDS),
    st.dictionaries(NAMES, OBJECTS.map(lambda value: {"default": value}), max_size=2),
    CACHES,
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """User and assistant in turn, each result under the call it answers."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(WORDS | SAID.filter(bool))}]
    number = 0
    for _ in range(draw(st.integers(0, 3))):
        blocks: list[Any] = []
        for _ in range(draw(st.integers(1, 2))):  # thinking may come back after an answer
            blocks += draw(st.lists(THOUGHTS, min_size=1 if blocks else 0, max_size=2))
            blocks += draw(st.lists(TEXTS, max_size=2))
        ids = [f"toolu_{number + i}" for i in range(draw(st.integers(0 if blocks else 1, 2)))]
        number += len(ids)
        blocks += [{"type": "tool_use", "id": id, "name": draw(NAMES), "input": draw(OBJECTS)} for id in ids]
        results = [draw(results_of(id)) for id in ids]
        turns.append({"role": "assistant", "content": blocks})
        turns.append({"role": "user", "content": results + draw(SAID if results else SAID.filter(bool))})
    return turns


@st.composite
def results_of(draw: st.DrawFn, id: str) -> dict[str, Any]:
    content = draw(st.one_of(st.none(), WORDS, st.just(""), SAID.filter(bool)))
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": id, **draw(CACHES)}
    if content is not None:
        result["content"] = content
    if draw(st.booleans()):
        result["is_error"] = draw(st.booleans())
    return result


CHOICES = st.sampled_from(
    [
        {"type": "auto"},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "none"},
        {"type": "tool", "name": "f", "disable_parallel_tool_use": False},
    ]
)
PARAMETERS = st.fixed_dictionaries(
    {"max_tokens": st.integers(64_000, 128_000)},
    optional={
        "system": st.one_of(WORDS, st.lists(TEXTS, min_size=1, max_size=3)),
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 50),
        "stop_sequences": st.lists(WORDS, min_size=1, max_size=2),
        "metadata": st.builds(lambda id: {"user_id": id}, NAMES),
        "tools": st.lists(TOOLS, min_size=1, max_size=2, unique_by=lambda tool: tool["name"]),
        "output_config": st.just({"format": {"type": "json_schema", "schema": CLOSED}}),
        "stream": st.just(True),
    },
)
THINKING = st.sampled_from([None, *({"type": "enabled", "budget_tokens": n} for n in (1024, 8192, 32_000))])


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """The same request as the encoder writes it: blocks for texts, nothing that is the default."""
    body = json.loads(json.dumps(body))
    for turn in body["messages"]:
        turn["content"] = blocks_of(turn["content"])
        for each in turn["content"]:
            if each["type"] == "tool_result":
                content = each.get("content", "")
                if not content:
                    each.pop("content", None)
                    if each.get("is_error"):
                        each["content"] = "error"
                if len(content) == 1 and isinstance(content, list) and content[0].keys() == {"type", "text"}:
                    each["content"] = content[0]["text"]
                if not each.get("is_error"):
                    each.pop("is_error", None)
    if "system" in body:
        body["system"] = blocks_of(body["system"])
    if body.get("tool_choice", {}).get("disable_parallel_tool_use") is False:
        del body["tool_choice"]["disable_parallel_tool_use"]
    return body


def blocks_of(content: str | list[Any]) -> list[Any]:
    return [text(content)] if isinstance(content, str) else content


@given(conversations(), PARAMETERS, CHOICES, THINKING)
def test_a_request_survives_the_round_trip(
    messages: list[dict[str, Any]], asked: dict[str, Any], choice: dict[str, Any], thinking: Any
) -> None:
    body = {"model": "m", "messages": messages, **asked}
    if "tools" in asked:
        body["tool_choice"] = choice
    if thinking:
        body["thinking"] = thinking
    assert normal(round_trip(body)) == normal(body)


@given(st.sampled_from(["low", "medium", "high", "max"]))
def test_adaptive_thinking_keeps_its_effort_in_a_round_trip(effort: str) -> None:
    body = ask(thinking={"type": "adaptive", "display": "summarized"}, output_config={"effort": effort})
    again = round_trip(body, Model(thinking="adaptive"))
    assert (again["thinking"], again["output_config"]) == (body["thinking"], body["output_config"])
