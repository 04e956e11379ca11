"""Fields that only one provider knows: ccroute keeps them from an answer, to send them back.

DeepSeek's `reasoning_content`, OpenRouter's `reasoning_details` and Gemini's `extra_content` must come back
in the next turn. An answer keeps them under the provider's host (with an unusual port). Other
providers never get them.
"""

from collections.abc import Mapping
from typing import Final

from ccroute.types import JSON

THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_text")
"""The names of the field that holds the model's thinking."""
USUAL: Final = frozenset({"role", "content", "tool_calls", "function_call", "refusal", "audio", *THOUGHTS})
"""The fields of a message that are not the provider's own."""
_GROWING: Final = frozenset({"text", "summary", "content", "thinking"})
_APART: Final = ("type", "id")  # entries of a list that differ in one of these are different entries


def of_message(message: Mapping[str, JSON], *, has_calls: bool) -> dict[str, JSON]:
    """Return the fields of a message that OpenAI does not have, without empty ones.

    Thinking is included only with tool calls: in a tool loop the provider wants it back.
    """
    fields = {name: _joined(value) for name, value in message.items() if value and name not in USUAL}
    if has_calls:
        fields |= {name: message[name] for name in THOUGHTS if message.get(name)}
    return fields


def add_delta(kept: dict[str, JSON], delta: Mapping[str, JSON]) -> None:
    """Add one delta of a stream to `kept`, the fields of the deltas before it, for `of_message`.

    Thinking is left out: the stream has its text.
    """
    _merge(kept, {name: value for name, value in delta.items() if name not in USUAL})


def sent_back(message: Mapping[str, JSON], provider: str) -> Mapping[str, JSON]:
    """Return the fields of a message or a call that came from `provider`."""
    kept = message.get("provider_fields")
    own = kept.get(provider) if isinstance(kept, Mapping) else None
    return own if isinstance(own, Mapping) else {}


class _Pieces(list[str]):
    """The pieces of a text, joined once at the end."""


def _joined(value: JSON) -> JSON:
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    return [_joined(inner) for inner in value] if isinstance(value, list) else value


def _merge(kept: dict[str, JSON], more: Mapping[str, JSON]) -> None:
    """Add `more` to `kept`. Lists get new entries, `_GROWING` texts get longer, others are replaced."""
    for name, value in more.items():
        before = kept.get(name)
        if not value and name in kept:
            continue
        if isinstance(value, str) and isinstance(before, _Pieces):
            before.append(value)
        elif isinstance(value, list) and isinstance(before, list | None) and not isinstance(before, _Pieces):
            kept[name] = before or []
            for entry in value:
                _add_entry(kept[name], entry)
        elif isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        elif isinstance(value, str) and isinstance(before, str) and name in _GROWING:
            kept[name] = _Pieces([before, value])
        else:
            kept[name] = dict(value) if isinstance(value, dict) else value


def _add_entry(entries: list[JSON], entry: JSON) -> None:
    """Add a piece of an earlier entry to that entry, or a new entry. An encrypted entry is never a piece."""
    if not isinstance(entry, dict):
        entries.append(entry)
        return
    index = entry.get("index")
    for other in reversed(entries):
        if not isinstance(other, dict) or any(
            other.get(name) and entry.get(name) and other[name] != entry[name] for name in _APART
        ):
            continue
        encrypted = "data" in entry or "data" in other
        if encrypted and other.get("data") == entry.get("data"):
            return  # some servers send it twice, but the provider accepts it only once
        if not encrypted and other.get("index") == index and (index is not None or other is entries[-1]):
            _merge(other, entry)
            return
    entries.append(dict(entry))
