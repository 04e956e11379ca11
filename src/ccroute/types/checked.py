"""Whether a call has the right shape, told by place and without quoting what may be a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, get_args

from ccroute.display import shortened
from ccroute.errors import InvalidRequestError
from ccroute.types.policy import Timeout
from ccroute.types.request import JSON, MADE_OF_TYPES, CallOptions, Effort, Request, as_dicts
from ccroute.types.results import Completion, Message
from ccroute.types.shapes import check_image

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
OWNED = frozenset({"model", "messages", "stream"})
"""Fields of every request body that are ccroute's to write."""

_NAMES = frozenset(CallOptions.__annotations__)
_PRINTED = frozenset({"model", "agent", "session"})
Kinds: TypeAlias = tuple[type, ...]
_NUMBER: Kinds = (int, float)
_WHOLE: Kinds = (int,)
_FLAG: Kinds = (bool,)
_TEXT: Kinds = (str,)
_TABLE: Kinds = (Mapping,)
_TEXTS: Kinds = (str, list, tuple)
_CHOICE: Kinds = (str, Mapping)
_WORDS = {
    _NUMBER: "a number",
    _WHOLE: "an int",
    _TEXT: "a str",
    _TABLE: "a dict",
    _FLAG: "a bool",
    _TEXTS: "a str or a list",
    _CHOICE: "a str or a dict",
}
_KINDS: dict[str, Kinds] = {
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), _NUMBER),
    **dict.fromkeys(("max_tokens", "top_k", "top_logprobs", "seed", "priority"), _WHOLE),
    **dict.fromkeys(("user", "agent", "model", "session"), _TEXT),
    **dict.fromkeys(("logit_bias", "extra", "metadata"), _TABLE),
    **dict.fromkeys(("logprobs", "parallel_tool_calls"), _FLAG),
    "stop": _TEXTS,
    "tool_choice": _CHOICE,
}


def build_request(prompt: str | None, options: Mapping[str, object]) -> Request:
    """Check the shape of a call and bring messages, tools and `response_format` into dict form.

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
        if fault := _fault_of(name, value):
            raise InvalidRequestError(fault)
    if "system" in given:
        given["messages"] = _led(given.pop("system"), given["messages"])
    if isinstance(given.get("fallback"), str):
        given["fallback"] = (given["fallback"],)
    if "tools" in given or "response_format" in given:
        given = as_dicts(given)
    return Request(**given)


def fault_of(name: str, value: object) -> str | None:
    """What is wrong with a parameter's value, or None. Raises `TypeError` for a name that does not exist."""
    if name in MADE_OF_TYPES:
        try:
            as_dicts({name: value})
        except InvalidRequestError as error:
            return error.detail
    return _fault_of(name, value)


def _fault_of(name: str, value: object) -> str | None:
    """The same, but of what may be made of types: that is checked when it is made."""
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
    if name == "tool_choice" and isinstance(value, Mapping):
        return _choice_fault(value)
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
        return None if value is False or isinstance(value, str) else _list_fault(value)
    if name not in _NAMES:
        from ccroute.types.hints import hint  # only where something is wrong

        raise TypeError(f"there is no argument {shortened(name)!r}: {hint(name, _NAMES)}")
    return None


def _choice_fault(choice: Mapping[str, Any]) -> str | None:
    function = choice.get("function")
    named = isinstance(function, Mapping) and isinstance(function.get("name"), str)
    if choice.get("type") == "function" and not named:
        return "tool_choice.function.name is missing"
    return None if isinstance(choice.get("type"), str) else "tool_choice.type is missing"


def _list_fault(fallback: object) -> str | None:
    if not isinstance(fallback, list | tuple):
        return "fallback must be a list of models, or False for none"
    wrong = next(((i, each) for i, each in enumerate(fallback) if not isinstance(each, str)), None)
    return wrong and f"fallback[{wrong[0]}] must be a model's name, not {type(wrong[1]).__name__}"


def _led(system: object, messages: Sequence[Mapping[str, JSON]]) -> tuple[Mapping[str, JSON], ...]:
    """The messages after a system message."""
    if not isinstance(system, str | list | tuple):
        raise InvalidRequestError(f"system must be a str or a list of parts, not {type(system).__name__}")
    if messages[0]["role"] in ("system", "developer"):
        raise InvalidRequestError("two system messages: system= and messages[0]; give one of them")
    return (_message({"role": "system", "content": system}, "system"), *messages)


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
        own = "; append its .message" if isinstance(message, Completion) else ""
        raise InvalidRequestError(f"{where} must be a dict or a Message, not {type(message).__name__}{own}")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequestError(f"{where}.role must be one of {', '.join(sorted(ROLES))}")
    if role == "assistant":
        _check_answer(message, where)
    elif role in ("tool", "function") and not isinstance(message.get("tool_call_id"), str | None):
        raise InvalidRequestError(f"{where}.tool_call_id must be a str")
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


def _check_answer(message: Mapping[str, Any], where: str) -> None:
    """What only an assistant's message has."""
    if (calls := message.get("tool_calls")) is not None:
        _check_calls(calls, f"{where}.tool_calls")
    for name in ("thinking_blocks", "blocks"):
        _check_blocks(message.get(name), f"{where}.{name}")


def _check_blocks(blocks: object, where: str) -> None:
    if blocks and not (isinstance(blocks, list | tuple) and all(isinstance(b, Mapping) for b in blocks)):
        raise InvalidRequestError(f"{where} must be a list of dicts")


def _check_calls(calls: object, where: str) -> None:
    if not isinstance(calls, list | tuple):
        raise InvalidRequestError(f"{where} must be a list, not {type(calls).__name__}")
    for i, call in enumerate(calls):
        if not isinstance(call, Mapping):
            raise InvalidRequestError(f"{where}[{i}] must be a dict, not {type(call).__name__}")
        if not isinstance(call.get("id"), str | None):
            raise InvalidRequestError(f"{where}[{i}].id must be a str")
        if call.get("type", "function") != "function":
            continue  # a call of its server's own tools
        function = call.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequestError(f"{where}[{i}].function must be {{'name': …, 'arguments': …}}")
