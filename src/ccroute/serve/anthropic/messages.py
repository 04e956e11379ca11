"""Reads the conversation of a client's messages request: the reverse of `wire/anthropic/turns.py`.

Knows content blocks, must not know parameters. What an assistant's text, calls and thinking cannot express
(their order, the blocks of Anthropic's own tools) is kept beside them, for a backend that is Anthropic.
"""

from collections.abc import Sequence

from pydantic_core import to_json

from ccroute.serve.body import Fields, bad
from ccroute.types import JSON
from ccroute.wire.anthropic.decode import is_plain
from ccroute.wire.anthropic.turns import THINKING
from ccroute.wire.fields import named

Messages = list[dict[str, JSON]]


def read_messages(fields: Fields) -> Messages | None:
    """The system prompt and the turns as messages; None if there are no `messages`."""
    if fields.raw.get("messages") is None:
        return None
    turns = fields.objects("messages")
    system = _blocks(fields, "system") if turns else None
    messages: Messages = [{"role": "system", "content": _content(system)}] if system else []
    for turn in turns:
        role = turn.required("role")
        blocks = _blocks(turn, "content")
        if blocks is None:
            bad(turn.place("content"), "is missing")
        if role == "user":
            messages += _user(blocks)
        elif role == "assistant":
            messages.append(_assistant(blocks))
        elif role == "system":
            messages.append({"role": role, "content": _content(blocks)})
        else:
            bad(turn.place("role"), "must be user, assistant or system")
    return messages


def _blocks(fields: Fields, name: str) -> list[Fields] | None:
    """The blocks of a field; a text is one block. None if the field is absent."""
    given = fields.raw.get(name)
    if isinstance(given, str):
        return [Fields({"type": "text", "text": fields.text(name)}, fields.place(name))]
    return None if given is None else fields.objects(name)


def _user(blocks: Sequence[Fields]) -> Messages:
    """Tool results come first, as every API requires: they answer the turn before."""
    results = [block for block in blocks if _kind(block) == "tool_result"]
    others = [block for block in blocks if _kind(block) != "tool_result"]
    messages = [_result(block) for block in results]
    if others or not results:
        messages.append({"role": "user", "content": _content(others)})
    return messages


def _result(block: Fields) -> dict[str, JSON]:
    content = _content(_blocks(block, "content") or ())
    message: dict[str, JSON] = {"role": "tool", "tool_call_id": block.required("tool_use_id")}
    message["content"] = content
    if block.flag("is_error"):
        message["is_error"] = True
    return message | _cached(block)


def _assistant(blocks: Sequence[Fields]) -> dict[str, JSON]:
    """One message. Of thinking without a signature only the text is kept: it is another provider's, and
    Anthropic would refuse it."""
    parts = [block for block in blocks if _kind(block) in ("text", "image")]
    calls = [_call(block) for block in blocks if _kind(block) == "tool_use"]
    thoughts = [block for block in blocks if _kind(block) in THINKING]
    for block in thoughts:
        block.text("signature") if _kind(block) == "thinking" else block.required("data")
    thinking = "".join(block.required("thinking") for block in thoughts if _kind(block) == "thinking")
    signed = [dict(block.raw) for block in thoughts if _is_signed(block)]
    message: dict[str, JSON] = {
        "role": "assistant",
        "content": None if calls and not parts else _content(parts),
    }
    if calls:
        message["tool_calls"] = calls
    if thinking:
        message["thinking"] = thinking
    if signed:
        message["thinking_blocks"] = signed
    if not is_plain([block.raw for block in blocks]):
        message["blocks"] = [
            dict(block.raw) for block in blocks if _kind(block) not in THINKING or _is_signed(block)
        ]
        message["content"] = "".join(block.raw["text"] for block in parts if _kind(block) == "text") or None
    return message


def _is_signed(block: Fields) -> bool:
    return bool(block.raw.get("signature") or block.raw.get("data"))


def _call(block: Fields) -> dict[str, JSON]:
    arguments = to_json(block.object("input") or {}).decode()
    function = {"name": block.required("name"), "arguments": arguments}
    return {"id": block.required("id"), "type": "function", "function": function}


def _content(blocks: Sequence[Fields]) -> str | list[dict[str, JSON]]:
    """Texts and images as parts. A single text is a plain str, which every server accepts."""
    parts = [_part(block) for block in blocks]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _part(block: Fields) -> dict[str, JSON]:
    kind = _kind(block)
    if kind == "text":
        part: dict[str, JSON] = {"type": "text", "text": block.required("text")}
    elif kind == "image":
        part = {"type": "image_url", "image_url": {"url": _url(block.fields("source"))}}
    else:
        what = named(block.raw, "block")
        bad(block.place("type"), f"is not supported: {what}; send text, images and tools")
    return part | _cached(block)


def _url(source: Fields) -> str:
    kind = source.required("type")
    if kind == "url":
        return source.required("url")
    if kind != "base64":
        bad(source.place("type"), "must be base64 or url: uploaded files are only at Anthropic")
    return f"data:{source.required('media_type')};base64,{source.required('data')}"


def _cached(block: Fields) -> dict[str, JSON]:
    control = block.object("cache_control")
    return {} if control is None else {"cache_control": control}


def _kind(block: Fields) -> str:
    kind = block.raw.get("type")
    if not isinstance(kind, str):
        bad(block.place("type"), "must be a string")
    return kind
