"""Writes a conversation for an OpenAI-compatible server: nearly unchanged.

Knows messages and the differences of servers (`Dialect`); must not know parameters.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Final

from pydantic_core import from_json, to_json

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON
from ccroute.wire.openai.dialect import Dialect
from ccroute.wire.openai.provider_fields import THOUGHTS, sent_back
from ccroute.wire.tools import as_object

Messages = list[dict[str, JSON]]

_OURS: Final = frozenset({"thinking", "thinking_blocks", "blocks", "is_error", "provider_fields"})
_PLAIN: Final = ("user", "system")
_SYSTEM: Final = ("system", "developer")
_THOUGHTS: Final = (*THOUGHTS, "reasoning_details")
_LONGEST_ID: Final = 40  # characters; OpenAI and Azure refuse more ("string_above_max_length")
_MADE_ID: Final = 9  # letters and digits; Mistral takes exactly these
_role: Final = itemgetter("role")
_END: Final[dict[str, JSON]] = {}  # marks the end of the messages


def encoded(messages: Sequence[Mapping[str, JSON]], dialect: Dialect, provider: str) -> Messages:
    """Return the messages for a server. `provider` is its host: it gets back the fields that came from it."""
    own = [_message(message, dialect, provider) for message in messages]
    if not dialect.tool_images and "tool" in map(_role, own):
        own = _images_after_results(own)
    if dialect.one_system:
        own = _one_system(own)
    if not dialect.blank_answers:
        own = [message for message in own if message["role"] != "assistant" or not _is_blank(message)]
    return own


def without_marks(thing: Mapping[str, JSON], dialect: Dialect) -> dict[str, JSON]:
    """Return a copy, without `cache_control` if the server does not read it."""
    return {name: value for name, value in thing.items() if dialect.cache_control or name != "cache_control"}


def _message(message: Mapping[str, JSON], dialect: Dialect, provider: str) -> dict[str, JSON]:
    if len(message) == 2 and message["role"] in _PLAIN and isinstance(message.get("content"), str):
        return dict(message)  # nearly every message
    own = {name: value for name, value in message.items() if name not in _OURS}
    role, mark = own["role"], own.pop("cache_control", None)
    if role == "developer" and not dialect.developer_role:
        own["role"] = "system"
    if isinstance(own.get("content"), list | tuple):
        own["content"] = [without_marks(part, dialect) for part in own["content"]]
    if mark and dialect.cache_control:
        _mark(own, mark)
    if role == "assistant":
        _put_assistant(own, message, dialect, provider)
    elif role == "tool" and own.get("tool_call_id"):
        own["tool_call_id"] = _call_id(own["tool_call_id"], dialect)
    return own


def _mark(own: dict[str, JSON], mark: JSON) -> None:
    """Put a message's `cache_control` on its last part, where servers read it."""
    content = own.get("content")
    if isinstance(content, str) and content:
        content = [{"type": "text", "text": content}]
    if isinstance(content, list) and content:
        own["content"] = [*content[:-1], {**content[-1], "cache_control": mark}]


def _put_assistant(
    own: dict[str, JSON], message: Mapping[str, JSON], dialect: Dialect, provider: str
) -> None:
    if dialect.own_fields:
        for name, value in sent_back(message, provider).items():
            own.setdefault(name, value)
    else:
        for name in _THOUGHTS:
            own.pop(name, None)
    if dialect.thoughts is not None:
        thoughts = own.get("reasoning_content") or own.pop("reasoning", None) or message.get("thinking")
        own["reasoning_content"] = thoughts or dialect.thoughts
    if own.get("tool_calls"):
        own["tool_calls"] = [_call(call, dialect, provider) for call in own["tool_calls"]]
    elif "tool_calls" in own:
        del own["tool_calls"]  # an empty list is refused by OpenAI
    if own.get("content") is None and (_is_blank(own) or not dialect.null_content):
        own["content"] = ""  # an answer with only thinking: null is refused without a call


def _is_blank(own: Mapping[str, JSON]) -> bool:
    return not any(own.get(name) for name in ("content", "tool_calls", "function_call", "refusal", "audio"))


def _call(call: Mapping[str, JSON], dialect: Dialect, provider: str) -> dict[str, JSON]:
    own = {name: value for name, value in call.items() if name != "provider_fields"}
    if isinstance(own.get("id"), str):
        own["id"] = _call_id(own["id"], dialect)
    function = own.get("function")
    if isinstance(function, Mapping) and (written := _arguments(function)) is not None:
        own["function"] = {**function, "arguments": written}
    if not dialect.own_fields:
        return {name: own[name] for name in ("id", "type", "function", "custom") if name in own}
    for name, value in sent_back(call, provider).items():
        if name == "function" and isinstance(value, Mapping):
            own["function"] = {**value, **own.get("function", {})}
        else:
            own.setdefault(name, value)
    return own


def _arguments(function: Mapping[str, JSON]) -> str | None:
    """Return the arguments as the text of a JSON object, because strict servers refuse any other. None: they
    already are."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            if isinstance(from_json(arguments, allow_inf_nan=False), dict):
                return None
        except (ValueError, TypeError):
            pass  # broken, or with NaN
    try:
        return to_json(as_object(arguments), inf_nan_mode="null").decode()
    except ValueError:
        raise InvalidRequestError(
            "the arguments of a call in messages hold a value that is not JSON"
        ) from None


def _call_id(id: str, dialect: Dialect) -> str:
    """Return the id. An id that the server would refuse is replaced, always by the same one."""
    if dialect.call_ids == "short" and len(id) > _LONGEST_ID:
        return "call_" + sha256(id.encode("utf-8", "replace")).hexdigest()[: _LONGEST_ID - len("call_")]
    if dialect.call_ids == "nine" and not (len(id) == _MADE_ID and id.isascii() and id.isalnum()):
        return sha256(id.encode("utf-8", "replace")).hexdigest()[:_MADE_ID]
    return id


def _images_after_results(messages: Messages) -> Messages:
    """Move images from tool results to a user message after them, because OpenAI accepts images only there.
    If no user message follows, a new one is added."""
    moved: Messages = []
    images: list[JSON] = []
    for message in (*messages, _END):
        role = message.get("role")
        if role == "tool":
            result, pictures = _without_images(message)
            moved.append(result)
            images += pictures
            continue
        if images and role == "user":
            moved.append({**message, "content": [*images, *_parts(message.get("content"))]})
        else:
            moved += [{"role": "user", "content": images}, message] if images else [message]
        images = []
    return moved[:-1]


def _without_images(result: dict[str, JSON]) -> tuple[dict[str, JSON], list[JSON]]:
    parts = result.get("content")
    pictures = [p for p in parts if p.get("type") == "image_url"] if isinstance(parts, list) else []
    if not pictures:
        return result, []
    rest = [part for part in parts or () if part.get("type") != "image_url"]
    rest = rest or [{"type": "text", "text": "The images follow in the next user message."}]
    label = {"type": "text", "text": f"Images from tool call {result.get('tool_call_id', '')}:"}
    return {**result, "content": rest}, [label, *pictures]


def _one_system(messages: Messages) -> Messages:
    """Join all system messages into one at the start. A chat template may accept no other."""
    system = [message for message in messages if message["role"] in _SYSTEM]
    if not system or (len(system) == 1 and messages[0] is system[0]):
        return messages
    others = [message for message in messages if message["role"] not in _SYSTEM]
    contents = [message.get("content") or "" for message in system]
    if all(isinstance(content, str) for content in contents):
        return [{**system[0], "content": "\n\n".join(filter(None, contents))}, *others]
    return [{**system[0], "content": [part for content in contents for part in _parts(content)]}, *others]


def _parts(content: JSON) -> Sequence[JSON]:
    """Return a message's content as a list of parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) and content else content or ()
