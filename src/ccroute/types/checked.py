"""Whether a call has the right shape, told by place and without quoting what may be a prompt."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, get_args

from ccroute.errors import InvalidRequestError
from ccroute.types.policy import Timeout
from ccroute.types.request import JSON, CallOptions, Effort, Request
from ccroute.types.results import Message
from ccroute.types.shapes import check_image, check_response_format, check_tools

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
OWNED = frozenset({"model", "messages", "stream"})
"""Fields of every request body that are ccroute's to write."""

_NAMES = frozenset(f.name for f in dataclasses.fields(Request))
_ELSEWHERE = {
    "stream": "call stream() or astream()",
    "max_completion_tokens": "it is max_tokens here",
    "api_key": "it belongs to the backend",
    "base_url": "it belongs to the backend",
    "n": "every call has one answer",
}
_PRINTED = frozenset({"model", "agent", "session"})
Kinds: TypeAlias = tuple[type, ...]
_NUMBER: Kinds = (int, float)
_WHOLE: Kinds = (int,)
_FLAG: Kinds = (bool,)
_TEXT: Kinds = (str,)
_TABLE: Kinds = (Mapping,)
_LIST: Kinds = (list, tuple)
_TEXTS: Kinds = (str, list, tuple)
_CHOICE: Kinds = (str, Mapping)
_WORDS = {
    _NUMBER: "a number",
    _WHOLE: "an int",
    _TEXT: "a str",
    _TABLE: "a dict",
    _LIST: "a list",
    _FLAG: "a bool",
    _TEXTS: "a str or a list",
    _CHOICE: "a str or a dict",
}
_KINDS: dict[str, Kinds] = {
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), _NUMBER),
    **dict.fromkeys(("max_tokens", "top_k", "top_logprobs", "seed", "priority"), _WHOLE),
    **dict.fromkeys(("user", "agent", "model", "session"), _TEXT),
    **dict.fromkeys(("logit_bias", "response_format", "extra", "metadata"), _TABLE),
    **dict.fromkeys(("logprobs", "parallel_tool_calls"), _FLAG),
    "tools": _LIST,
    "stop": _TEXTS,
    "tool_choice": _CHOICE,
}


def build_request(prompt: str | None, options: CallOptions) -> Request:
    """Check the shape of a call and bring its messages into dict form.

    Raises `InvalidRequestError` naming the place (`messages[2].role`), never quoting a prompt, and
    `TypeError` for a keyword that does not exist.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    messages = given.get("messages")
    if prompt is None and messages is None:
        raise InvalidRequestError("nothing is asked: give either prompt= or messages=")
    if prompt is not None and messages is not None:
        raise InvalidRequestError("two things are asked: give either prompt= or messages=, not both")
    if prompt is None:
        given["messages"] = _checked_messages(messages)
    elif isinstance(prompt, str):
        given["messages"] = ({"role": "user", "content": prompt},)
    else:
        raise InvalidRequestError(
            f"prompt must be a str, not {type(prompt).__name__}; a list goes to messages="
        )
    for name, value in options.items():
        if fault := fault_of(name, value):
            raise InvalidRequestError(fault)
    if tools := given.get("tools"):
        check_tools(tools)
    if response_format := given.get("response_format"):
        check_response_format(response_format)
    if isinstance(given.get("fallback"), str):
        given["fallback"] = (given["fallback"],)
    return Request(**given)


def fault_of(name: str, value: object) -> str | None:
    """What is wrong with a parameter's value, or None. Raises `TypeError` for a name that does not exist."""
    kinds = _KINDS.get(name)
    if value is None and name in _NAMES:
        return None
    if kinds is None:
        return _special_fault(name, value)
    # A bool is an int to Python, but never what somebody means by one here.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{name} must be {_WORDS[kinds]}, not {type(value).__name__}"
    if name in _PRINTED and isinstance(value, str) and not value.isprintable():
        return f"a {name} name holds control characters"
    if name == "max_tokens" and isinstance(value, int) and value < 1:
        return "max_tokens must be at least 1"
    if name == "extra" and isinstance(value, Mapping) and (owned := OWNED & value.keys()):
        return f"extra may not hold {', '.join(sorted(owned))}: use model=, messages=, stream()"
    return None


def _special_fault(name: str, value: object) -> str | None:
    if name == "timeout":
        if isinstance(value, int | float) and not isinstance(value, bool):
            positive = 0 < value < float("inf")
            return None if positive else f"timeout must be a positive number of seconds, not {value!r}"
        return None if isinstance(value, Timeout) else "timeout must be a number of seconds or a Timeout"
    if name == "reasoning_effort":
        efforts = get_args(Effort)
        return None if value in efforts else f"reasoning_effort must be one of {', '.join(efforts)}"
    if name == "fallback":
        names = value is False or isinstance(value, str | list | tuple)
        return None if names else "fallback must be a list of models, or False for none"
    if name != "messages":
        raise TypeError(f"there is no argument {name!r}: {_ELSEWHERE.get(name) or _closest(name)}")
    return None


def _closest(name: str) -> str:
    close = difflib.get_close_matches(name, _NAMES, 1)
    return f"did you mean {close[0]!r}?" if close else "what only one provider knows goes into extra="


def _checked_messages(messages: object) -> tuple[Mapping[str, JSON], ...]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise InvalidRequestError(
            "messages must be a list of messages such as {'role': 'user', 'content': …}"
        )
    if not messages:
        raise InvalidRequestError("messages is empty: give at least one message")
    return tuple(_message(message, f"messages[{i}]") for i, message in enumerate(messages))


def _message(message: object, where: str) -> Mapping[str, JSON]:
    if isinstance(message, Message):
        return message.to_dict()
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} must be a dict or a Message, not {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequestError(f"{where}.role must be one of {', '.join(sorted(ROLES))}")
    content = message.get("content")
    if isinstance(content, str):
        return message
    if content is None:
        if role != "assistant":
            raise InvalidRequestError(f"{where}.content is missing")
        return message
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidRequestError(f"{where}.content must be a str or a list of parts")
    for i, part in enumerate(content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise InvalidRequestError(
                f"{where}.content[{i}] must be a part such as {{'type': 'text', 'text': …}}"
            )
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise InvalidRequestError(f"{where}.content[{i}].text must be a str")
        if part["type"] == "image_url":
            check_image(part, f"{where}.content[{i}]")
    return message
