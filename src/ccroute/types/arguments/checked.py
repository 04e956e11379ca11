"""Checks the arguments of a call. An error names the place and quotes no value: it may be a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple, get_args

from ccroute.display import shortened
from ccroute.errors import InvalidRequestError
from ccroute.types.arguments.shapes import check_image
from ccroute.types.policy import Amount, Timeout, exact_usd
from ccroute.types.request import JSON, MADE_OF_TYPES, CallOptions, Effort, Request, as_dicts
from ccroute.types.results import Completion, Message

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
OWNED = frozenset({"model", "messages", "stream"})
"""Fields of every request body that only ccroute writes."""

_PLAIN = ("user", "system")
_DICT = (dict, Mapping)  # dict first: a check of an abstract class calls Python code
_LIST = (list, tuple)
_SEQUENCE = (*_LIST, Sequence)


class _Rule(NamedTuple):
    """What an option's value must be: its types, in words too, and what else may be wrong with it."""

    kinds: tuple[type, ...]
    words: str
    fault: Callable[[Any], str | None] | None = None


def build_request(prompt: str | None, options: Mapping[str, object]) -> Request:
    """Check the arguments of a call and turn messages, tools and `response_format` into dicts.

    Raises `InvalidRequestError` naming the place (`messages[2].role`), never quoting a prompt, and
    `TypeError` for a keyword that does not exist.
    """
    messages = options.get("messages")
    if prompt is None and messages is None:
        raise InvalidRequestError("no input: give either prompt= or messages=")
    if prompt is not None and messages is not None:
        raise InvalidRequestError("two inputs: give either prompt= or messages=, not both")
    if prompt is None:
        messages = _checked_messages(messages)
    elif isinstance(prompt, str):
        messages = ({"role": "user", "content": prompt},)
    else:
        raise InvalidRequestError(
            f"prompt must be a str, not {type(prompt).__name__}; a list goes to messages="
        )
    if fault := _fault_in(options):
        raise InvalidRequestError(fault)
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    given["messages"] = messages
    if "system" in given:
        given["messages"] = _led(given.pop("system"), messages)
    if isinstance(given.get("fallback"), str):
        given["fallback"] = (given["fallback"],)
    if "waiting_cost" in given:
        given["waiting_cost"] = exact_usd(given["waiting_cost"], "waiting_cost")
    if "tools" in given or "response_format" in given:
        given = as_dicts(given)
    return Request(**given)


def fault_of(name: str, value: object) -> str | None:
    """What is wrong with a parameter's value, or None. Raises `TypeError` for an unknown name."""
    if name not in MADE_OF_TYPES:
        return _fault_in({name: value})
    try:
        as_dicts({name: value})
    except InvalidRequestError as error:
        return error.detail
    return None


def check_names(options: Mapping[str, object], where: str = "", *, also: str | None = None) -> None:
    """Raise `TypeError` if there is a keyword that a call does not take; `also` is allowed, too."""
    for name in options:
        if name not in _RULES and name != also:
            raise _unknown(name, where)


def _unknown(name: object, where: str = "") -> TypeError:
    from ccroute.types.hints import hint  # only where something is wrong

    return TypeError(f"{where}there is no argument {shortened(str(name))!r}: {hint(str(name), _RULES)}")


def _fault_in(options: Mapping[str, Any]) -> str | None:
    """The first fault, as of `fault_of`, but for `MADE_OF_TYPES`, which `as_dicts` checks."""
    for name, value in options.items():
        rule, kind = _RULES.get(name), type(value)
        if rule is None:
            raise _unknown(name)
        if value is None:
            continue
        kinds, words, find_fault = rule
        # A bool is an int to Python, but always a mistake here.
        if kind not in kinds and (kind is bool or not issubclass(kind, kinds)):
            return f"{name} must be {words}, not {kind.__name__}"
        if find_fault is not None and (fault := find_fault(value)):
            return fault
    return None


def _name_fault(kind: str) -> Callable[[str], str | None]:
    return lambda name: None if name.isprintable() else f"a {kind} name holds control characters"


def _extra_fault(extra: Mapping[str, Any]) -> str | None:
    owned = ", ".join(sorted(OWNED & extra.keys()))
    return f"extra may not hold {owned}: use model=, messages=, stream()" if owned else None


def _timeout_fault(timeout: float | Timeout) -> str | None:
    fits = isinstance(timeout, Timeout) or 0 < timeout < float("inf")
    return None if fits else f"timeout must be a positive number of seconds, not {timeout!r}"


def waiting_cost_fault(given: Amount) -> str | None:
    """What is wrong with a price of waiting, or None."""
    try:
        exact_usd(given, "waiting_cost")
    except (TypeError, ValueError):
        return "waiting_cost must be USD per hour, a number or a str such as '2.50', of at least 0"
    return None


def max_wait_fault(seconds: float) -> str | None:
    """What is wrong with the longest wait, or None."""
    return None if seconds >= 0 else f"max_wait_free must be seconds of at least 0, not {seconds!r}"


def _effort_fault(effort: object) -> str | None:
    known = get_args(Effort)
    return None if effort in known else f"reasoning_effort must be one of {', '.join(known)}"


def _choice_fault(choice: str | Mapping[str, Any]) -> str | None:
    if isinstance(choice, str):
        return None
    function = choice.get("function")
    named = isinstance(function, Mapping) and isinstance(function.get("name"), str)
    if choice.get("type") == "function" and not named:
        return "tool_choice.function.name is missing"
    return None if isinstance(choice.get("type"), str) else "tool_choice.type is missing"


def _list_fault(fallback: object) -> str | None:
    if fallback is False or isinstance(fallback, str):
        return None
    if not isinstance(fallback, _LIST):
        return "fallback must be a list of models, or False for none"
    wrong = [(i, each) for i, each in enumerate(fallback) if not isinstance(each, str)]
    return (
        f"fallback[{wrong[0][0]}] must be a model's name, not {type(wrong[0][1]).__name__}" if wrong else None
    )


_ANY: Final[_Rule] = _Rule((object, bool), "anything")
_RULES: Final[dict[str, _Rule]] = {
    **dict.fromkeys(CallOptions.__annotations__, _ANY),
    **dict.fromkeys(
        ("temperature", "top_p", "frequency_penalty", "presence_penalty"), _Rule((int, float), "a number")
    ),
    **dict.fromkeys(("top_k", "top_logprobs", "seed", "priority"), _Rule((int,), "an int")),
    "max_tokens": _Rule((int,), "an int", lambda most: "max_tokens must be at least 1" if most < 1 else None),
    "user": _Rule((str,), "a str"),
    **{name: _Rule((str,), "a str", _name_fault(name)) for name in ("agent", "model", "session")},
    **dict.fromkeys(("logit_bias", "metadata"), _Rule(_DICT, "a dict")),
    "extra": _Rule(_DICT, "a dict", _extra_fault),
    **dict.fromkeys(("logprobs", "parallel_tool_calls"), _Rule((bool,), "a bool")),
    "stop": _Rule((str, *_LIST), "a str or a list"),
    "tool_choice": _Rule((str, *_DICT), "a str or a dict", _choice_fault),
    "timeout": _Rule((int, float, Timeout), "a number of seconds or a Timeout", _timeout_fault),
    "waiting_cost": _Rule(
        (int, float, str, Decimal), "a number or a str, in USD per hour", waiting_cost_fault
    ),
    "max_wait_free": _Rule((int, float), "a number of seconds", max_wait_fault),
    "reasoning_effort": _ANY._replace(fault=_effort_fault),
    "fallback": _ANY._replace(fault=_list_fault),
}


def _led(system: object, messages: Sequence[Mapping[str, JSON]]) -> tuple[Mapping[str, JSON], ...]:
    """The messages, with a system message before them."""
    if not isinstance(system, (str, *_LIST)):
        raise InvalidRequestError(f"system must be a str or a list of parts, not {type(system).__name__}")
    if messages[0]["role"] in ("system", "developer"):
        raise InvalidRequestError("two system messages: system= and messages[0]; give one of them")
    return (_message({"role": "system", "content": system}, "system"), *messages)


def _checked_messages(messages: Any) -> tuple[Mapping[str, JSON], ...]:
    if isinstance(messages, (str, bytes)) or not isinstance(messages, _SEQUENCE):
        raise InvalidRequestError(
            "messages must be a list of messages such as {'role': 'user', 'content': …}"
        )
    if not messages:
        raise InvalidRequestError("messages is empty: give at least one message")
    checked: list[Mapping[str, JSON]] = []
    for i, message in enumerate(messages):
        if type(message) is dict and message.get("role") in _PLAIN and type(message.get("content")) is str:
            checked.append(message)  # nearly every message
        else:
            checked.append(_message(message, f"messages[{i}]"))
    return tuple(checked)


def _message(message: object, where: str) -> Mapping[str, JSON]:
    if not isinstance(message, _DICT):
        if isinstance(message, Message):
            return message.to_dict()
        own = "; append its .message" if isinstance(message, Completion) else ""
        raise InvalidRequestError(f"{where} must be a dict or a Message, not {type(message).__name__}{own}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequestError(f"{where}.role must be one of {', '.join(sorted(ROLES))}")
    if role == "assistant":
        _check_answer(message, where)
    elif role in ("tool", "function") and not isinstance(message.get("tool_call_id"), str | None):
        raise InvalidRequestError(f"{where}.tool_call_id must be a str")
    if isinstance(content, str) or (content is None and role == "assistant"):
        return message
    if content is None:
        raise InvalidRequestError(f"{where}.content is missing")
    if isinstance(content, bytes) or not isinstance(content, _SEQUENCE):
        raise InvalidRequestError(f"{where}.content must be a str or a list of parts")
    for i, part in enumerate(content):
        if not isinstance(part, _DICT) or not isinstance(part.get("type"), str):
            raise InvalidRequestError(
                f"{where}.content[{i}] must be a part such as {{'type': 'text', 'text': …}}"
            )
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise InvalidRequestError(f"{where}.content[{i}].text must be a str")
        if part["type"] == "image_url":
            check_image(part, f"{where}.content[{i}]")
    return message


def _check_answer(message: Mapping[str, Any], where: str) -> None:
    """Check what only an assistant's message has."""
    for name in ("thinking_blocks", "blocks"):
        blocks = message.get(name)
        if blocks and not (isinstance(blocks, _LIST) and all(isinstance(each, _DICT) for each in blocks)):
            raise InvalidRequestError(f"{where}.{name} must be a list of dicts")
    calls, where = message.get("tool_calls"), f"{where}.tool_calls"
    if not isinstance(calls, (*_LIST, type(None))):
        raise InvalidRequestError(f"{where} must be a list, not {type(calls).__name__}")
    for i, call in enumerate(calls or ()):
        if not isinstance(call, _DICT):
            raise InvalidRequestError(f"{where}[{i}] must be a dict, not {type(call).__name__}")
        if not isinstance(call.get("id"), str | None):
            raise InvalidRequestError(f"{where}[{i}].id must be a str")
        if call.get("type", "function") != "function":
            continue  # a call of the server's own tools
        function = call.get("function")
        if not isinstance(function, _DICT) or not isinstance(function.get("name"), str):
            raise InvalidRequestError(f"{where}[{i}].function must be {{'name': …, 'arguments': …}}")
