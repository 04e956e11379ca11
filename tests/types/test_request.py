"""What a call may look like: its shape is checked, its words are never quoted."""

from __future__ import annotations

import inspect
from collections import UserDict
from typing import Any

import pytest

from ccroute.errors import InvalidRequestError
from ccroute.types import CallOptions, Function, Message, Request, Timeout, ToolCall
from ccroute.types.arguments.checked import build_request
from ccroute.types.request import PARAMETERS, takes_call_options

SECRET = "the canary sings"
ASKED = {"role": "user", "content": "hi"}


def built(*messages: Any, **options: Any) -> Request:
    return build_request(None, {"messages": messages, **options})  # type: ignore[typeddict-item]


def test_a_prompt_is_one_user_message() -> None:
    assert build_request("hi", {}).messages == (ASKED,)


def test_a_system_message_leads_a_prompt_or_the_messages() -> None:
    led = ({"role": "system", "content": "Be brief."}, ASKED)
    assert build_request("hi", {"system": "Be brief."}).messages == led
    assert built(ASKED, system="Be brief.").messages == led
    assert built(ASKED, system=None).messages == (ASKED,)


def test_a_system_message_may_have_parts() -> None:
    parts = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert built(ASKED, system=parts).messages[0] == {"role": "system", "content": parts}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_second_leading_system_message_is_refused(role: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"two system messages: system= and messages\[0\]"):
        built({"role": role, "content": "x"}, system="y")


def test_messages_are_kept_as_they_are_and_in_order() -> None:
    parts = {
        "role": "user",
        "content": [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        ],
    }
    result = {"role": "tool", "tool_call_id": "1", "content": ""}
    assert built(ASKED, parts, result).messages == (ASKED, parts, result)


def test_any_mapping_is_a_message() -> None:
    assert built(UserDict(ASKED)).messages[0]["content"] == "hi"


def test_an_assistants_message_may_have_no_content() -> None:
    assert built({"role": "assistant", "tool_calls": []}).messages[0]["role"] == "assistant"


def test_an_answers_own_message_continues_the_conversation() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "s"}
    calls = (ToolCall(id="1", function=Function(name="f", arguments="{}")),)
    reply = Message(content="yes", tool_calls=calls, thinking="hm", thinking_blocks=(block,))
    assert built(ASKED, reply).messages[1] == {
        "role": "assistant",
        "content": "yes",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        "thinking": "hm",
        "thinking_blocks": [block],
    }


def test_a_bare_answers_message_has_only_role_and_content() -> None:
    assert built(Message(content="yes")).messages == ({"role": "assistant", "content": "yes"},)


@pytest.mark.parametrize(
    ("prompt", "options", "says"),
    [
        (None, {}, "either prompt= or messages="),
        (SECRET, {"messages": [ASKED]}, "either prompt= or messages="),
        (7, {}, "prompt must be a str, not int"),
        (None, {"messages": SECRET}, "messages must be a list"),
        (None, {"messages": {"role": SECRET}}, "messages must be a list"),
        (None, {"messages": 7}, "messages must be a list"),
        (None, {"messages": ()}, "messages is empty"),
        (None, {"messages": [ASKED, SECRET]}, "messages[1] must be a dict or a Message, not str"),
        (None, {"messages": [{"content": SECRET}]}, "messages[0].role must be one of"),
        (None, {"messages": [{"role": SECRET, "content": ""}]}, "messages[0].role must be one of"),
        (None, {"messages": [{"role": [SECRET], "content": ""}]}, "messages[0].role must be one of"),
        (None, {"messages": [{"role": "user"}]}, "messages[0].content is missing"),
        (None, {"messages": [{"role": "user", "content": 7}]}, "messages[0].content must be a str or a list"),
        (None, {"messages": [{"role": "user", "content": b"x"}]}, "messages[0].content must be a str or"),
        (
            None,
            {"messages": [{"role": "user", "content": [SECRET]}]},
            "messages[0].content[0] must be a part",
        ),
        (None, {"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0] must be a part"),
        (
            None,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": [SECRET]}]}]},
            "messages[0].content[0].text must be a str",
        ),
    ],
)
def test_a_malformed_call_is_refused_by_place_and_not_quoted(prompt: Any, options: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build_request(prompt, options)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_unknown_keyword_is_pythons_own_type_error() -> None:
    with pytest.raises(TypeError, match="temprature"):
        built(ASKED, temprature=1)


def test_none_is_the_same_as_not_given() -> None:
    nothing: Any = dict.fromkeys(set(CallOptions.__annotations__) - {"messages"})
    assert built(ASKED, **nothing) == built(ASKED)


def test_stops_are_always_a_tuple() -> None:
    assert (Request().stops, Request(stop="x").stops, Request(stop=["x", "y"]).stops) == (
        (),
        ("x",),
        ("x", "y"),
    )


def test_defaults_fill_in_only_what_was_not_given() -> None:
    request = Request(temperature=0.0, extra={})
    filled = request.with_defaults({"temperature": 1.0, "top_p": 0.5, "extra": {"a": 1}})
    assert (filled.temperature, filled.top_p, filled.extra) == (0.0, 0.5, {"a": 1})


def test_a_request_knows_what_was_given() -> None:
    request = Request(seed=1, top_p=None)
    assert vars(request) == {"seed": 1, "top_p": None, "extra": {}, "metadata": {}}
    assert request == Request(seed=1)
    with pytest.raises(TypeError, match="temprature"):
        Request(temprature=1)  # type: ignore[call-arg]


def test_nothing_to_fill_in_is_the_same_request() -> None:
    request = Request(seed=1)
    assert request.with_defaults({"seed": 2}) is request


def test_parameters_are_what_shapes_an_answer() -> None:
    assert {"temperature", "tools", "extra", "max_tokens"} <= PARAMETERS
    assert not PARAMETERS & {"messages", "agent", "model", "timeout", "fallback", "session", "metadata"}


def test_call_options_and_request_have_the_same_fields_but_system() -> None:
    assert set(CallOptions.__annotations__) - {"system"} == set(Request.__dataclass_fields__)


def test_a_signature_shows_the_options_that_a_method_takes() -> None:
    @takes_call_options
    def ask(prompt: str | None = None, **options: Any) -> None: ...

    shown = inspect.signature(ask).parameters
    assert list(shown) == ["prompt", *CallOptions.__annotations__]
    assert shown["timeout"].annotation == "float | Timeout | None"
    assert {p.default for name, p in shown.items()} == {None}


def test_a_timeout_is_kept_as_given() -> None:
    assert built(ASKED, timeout=Timeout(total=3)).timeout == Timeout(total=3)
