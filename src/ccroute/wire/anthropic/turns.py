"""Writes a conversation for the Messages API: system blocks, and alternating user and assistant turns.

Knows messages and content blocks; must not know parameters. An error names a place, never a prompt.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON
from ccroute.wire.fields import image, unknown_part
from ccroute.wire.tools import as_object, named_function

Blocks = list[dict[str, JSON]]

_SYSTEM: Final = ("system", "developer")
_BAD_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
_USUAL: Final = ("text", "tool_use", "tool_result", "image")
THINKING: Final = ("thinking", "redacted_thinking")


class _Ids:
    """Makes tool call ids that Anthropic accepts: only certain characters, and each id once.

    Other servers number the calls of every answer from 0, so a conversation may hold `call_0` twice.
    """

    def __init__(self) -> None:
        self._current: dict[str, str] = {}
        self._used: set[str] = set()

    def of_call(self, id: str) -> str:
        """Return the id for a new call."""
        clean = base = _BAD_ID.sub("_", id) or "call"
        again = 1
        while clean in self._used:
            again += 1
            clean = f"{base}_{again}"
        self._used.add(clean)
        self._current[id] = clean
        return clean

    def of_result(self, id: str) -> str:
        """Return the new id of the latest call that had the id `id`."""
        return self._current.get(id) or _BAD_ID.sub("_", id)


def system_blocks(messages: Sequence[Mapping[str, JSON]]) -> Blocks:
    """Return all system messages as blocks. Empty ones are dropped."""
    blocks: Blocks = []
    for i, message in enumerate(messages):
        if message["role"] in _SYSTEM:
            blocks += _content(message, f"messages[{i}]")
    return blocks


def turns(messages: Sequence[Mapping[str, JSON]], *, claude: bool = False) -> list[dict[str, JSON]]:
    """Return the other messages as turns. Neighbours of the same side become one turn.

    `claude`: the model is a Claude, which accepts the blocks of Anthropic's tools, and only signed thinking.
    """
    merged: list[dict[str, JSON]] = []
    ids = _Ids()
    for i, message in enumerate(messages):
        if message["role"] in _SYSTEM:
            continue
        side = "assistant" if message["role"] == "assistant" else "user"
        blocks = _blocks(message, f"messages[{i}]", ids, claude)
        if merged and merged[-1]["role"] == side:
            merged[-1]["content"] += blocks
        elif blocks:
            merged.append({"role": side, "content": blocks})
    for turn in merged:
        if turn["role"] == "user":  # tool results must come first
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return merged


def check_turns(turns: Sequence[dict[str, JSON]], model: str, *, prefill: bool) -> None:
    """Make Anthropic accept the last turn. Raises `InvalidRequestError` if that is not possible.

    `prefill`: whether the model can continue an assistant message.
    """
    if not turns:
        raise InvalidRequestError("messages: Anthropic wants at least one user message with content")
    last = turns[-1]
    if last["role"] != "assistant":
        return
    # Any other block belongs to a tool that Anthropic runs: it paused this turn and can continue it.
    if not prefill and all(block["type"] in (*_USUAL, *THINKING) for block in last["content"]):
        raise InvalidRequestError(
            f"messages: {model} does not continue an assistant message (prefill): end with a user message"
        )
    if last["content"][-1]["type"] == "text":  # Anthropic refuses one that ends in white space
        last["content"][-1] = {**last["content"][-1], "text": last["content"][-1]["text"].rstrip()}


def continues_without_thinking(messages: Sequence[Mapping[str, JSON]]) -> bool:
    """Whether the answer continues a turn (a tool loop, a prefill) that began without signed thinking.

    A Claude with a thinking budget then refuses to think: "Expected `thinking`". Adaptive ones do not.
    """
    # A turn begins after the user's last message, so earlier messages do not matter.
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=0)
    merged = turns(messages[last:], claude=True)
    begun = len(merged)
    while begun and (
        merged[begun - 1]["role"] == "assistant"
        or any(block["type"] == "tool_result" for block in merged[begun - 1]["content"])
    ):
        begun -= 1
    first = next((turn for turn in merged[begun:] if turn["role"] == "assistant"), None)
    return first is not None and first["content"][0]["type"] not in THINKING


def _blocks(message: Mapping[str, JSON], where: str, ids: _Ids, claude: bool) -> Blocks:
    role = message["role"]
    if role == "assistant":
        return _assistant(message, where, ids, claude)
    if role == "tool":
        return [_tool_result(message, where, ids)]
    if role == "user":
        return _content(message, where)
    raise InvalidRequestError(
        f"{where}.role: Anthropic cannot carry {role!r}; use 'tool' with a tool_call_id"
    )


def _assistant(message: Mapping[str, JSON], where: str, ids: _Ids, claude: bool) -> Blocks:
    """Return the kept blocks, if there are any, else signed thinking, then text, then calls. Thinking without
    blocks came from another provider and is not sent."""
    kept = message.get("blocks") or ()
    if kept and _still_says(message, kept):
        return [again for block in kept for again in _replayed(block, ids, claude)]
    blocks = [dict(block) for block in message.get("thinking_blocks") or () if not claude or is_signed(block)]
    blocks += _content(message, where)
    for j, call in enumerate(message.get("tool_calls") or ()):
        function = named_function(call, f"{where}.tool_calls[{j}]")
        use = {"type": "tool_use", "id": ids.of_call(call.get("id") or f"call_{j}"), "name": function["name"]}
        blocks.append({**use, "input": as_object(function.get("arguments"))})
    return blocks


def _still_says(message: Mapping[str, JSON], blocks: Sequence[Mapping[str, JSON]]) -> bool:
    """Whether the blocks agree with the message's other fields, which the caller may have edited."""
    said = "".join(block.get("text") or "" for block in blocks if block.get("type") == "text")
    called = [block.get("id") for block in blocks if block.get("type") == "tool_use"]
    calls = [call.get("id") for call in message.get("tool_calls") or ()]
    return said == (message.get("content") or "") and called == calls


def _replayed(block: Mapping[str, JSON], ids: _Ids, claude: bool) -> Blocks:
    kind = block.get("type")
    if kind in THINKING:
        return [dict(block)] if not claude or is_signed(block) else []
    again = {name: value for name, value in block.items() if value is not None}
    if kind == "text":
        return [again] if again.get("text", "").strip() else []
    if kind == "tool_use":
        return [again | {"id": ids.of_call(again.get("id", ""))}]
    return [again] if claude else []


def is_signed(block: Mapping[str, JSON]) -> bool:
    """Whether a thinking block has a signature. Anthropic refuses a block without one."""
    return bool(block.get("signature") or block.get("data"))


def _tool_result(message: Mapping[str, JSON], where: str, ids: _Ids) -> dict[str, JSON]:
    id = message.get("tool_call_id")
    if not isinstance(id, str) or not id:
        raise InvalidRequestError(f"{where}.tool_call_id is missing")
    block: dict[str, JSON] = {"type": "tool_result", "tool_use_id": ids.of_result(id)}
    content = message["content"]
    result = content if isinstance(content, str) else _content({"content": content}, where)
    if result or message.get("is_error"):
        block["content"] = result or "error"  # Anthropic refuses an error without text
    for name in ("is_error", "cache_control"):
        if message.get(name):
            block[name] = message[name]
    return block


def _content(message: Mapping[str, JSON], where: str) -> Blocks:
    """Return a message's text and images. Blank texts are dropped, because Anthropic refuses them."""
    content = message.get("content") or ()
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    blocks: Blocks = []
    for j, part in enumerate(parts):
        block = _block(part, f"{where}.content[{j}]")
        if block["type"] != "text" or block["text"].strip():
            blocks.append(block)
        elif blocks and "cache_control" in block:
            blocks[-1]["cache_control"] = block["cache_control"]
    if blocks and message.get("cache_control"):
        blocks[-1]["cache_control"] = message["cache_control"]
    return blocks


def _block(part: Mapping[str, JSON], where: str) -> dict[str, JSON]:
    kind = part["type"]
    if kind == "text":
        block: dict[str, JSON] = {"type": "text", "text": part["text"]}
    elif kind == "image_url":
        picture = image(part, where)
        source = {"type": "base64", "media_type": picture.media_type, "data": picture.data}
        block = {"type": "image", "source": {"type": "url", "url": picture.url} if picture.url else source}
    else:
        unknown_part(part, where, "Anthropic")
    if part.get("cache_control"):
        block["cache_control"] = part["cache_control"]
    return block
