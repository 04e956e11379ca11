"""Careful reading of what a server sent: JSON that may be broken, fields that may be anything.

Knows JSON and `ProtocolError`; must not know whose answer it reads. A byte that is no UTF-8 becomes
U+FFFD inside a text and a fault inside the structure; nothing here raises anything but `ProtocolError`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from pydantic_core import from_json

from ccroute.errors import ProtocolError
from ccroute.types import JSON, FinishReason

BODY_READ: Final = 4096
"""How much of a body an error holds at first, in bytes; half of it is kept when secrets are removed."""

# Half a pair of surrogates is no character. It begins with what can be searched for fast: no deadline ends
# a search that has begun.
_SURROGATE: Final = re.compile(
    r"\\u[dD](?:([89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)
_ESCAPE: Final = len(r"\ud800")
_MAX_REPAIRS: Final = 10_000
"""Surrogates looked at in one text; with more, it is no answer but an attack."""


def load(data: bytes) -> JSON:
    """The JSON value of `data`. Raises `ProtocolError` saying what came instead."""
    try:
        return from_json(data)
    except ValueError:
        return _load_repaired(data)


def load_object(data: bytes) -> dict[str, JSON]:
    """The JSON object of `data`; anything else is a `ProtocolError`."""
    try:  # not through `load`: a stream comes here for every chunk
        value = from_json(data)
    except ValueError:
        value = _load_repaired(data)
    if not isinstance(value, dict):
        wrong("the server's answer is JSON, but not an object", data)
    return value


def is_whole(data: bytes) -> bool:
    """Whether `data` is a complete JSON object: what was cut off is none."""
    try:
        return isinstance(load(data), dict)
    except ProtocolError:
        return False


def wrong(detail: str, body: bytes = b"") -> NoReturn:
    """Raise `ProtocolError`, with the start of what came."""
    raise ProtocolError(detail, body=shown(body) if body else None)


def shown(body: bytes) -> str:
    """The start of a body as text, for an error to keep."""
    return body[:BODY_READ].decode("utf-8", "replace")


def text(value: object) -> str:
    """`value` if it is a str, else `""`: for fields nothing depends on."""
    return value if isinstance(value, str) else ""


def said(value: object) -> str:
    """A text that the answer is made of: null is none, and what is no text is a `ProtocolError`."""
    if value is None or isinstance(value, str):
        return value or ""
    wrong("a part of the answer that must be text is not")


def mapping(value: object) -> dict[str, JSON]:
    """`value` if it is a JSON object, else an empty one: for fields nothing depends on."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[JSON]:
    """`value` if it is a JSON array, else an empty one: for fields nothing depends on."""
    return value if isinstance(value, list) else []


def unix_time(value: object) -> int:
    """A Unix time in whole seconds, 0 if `value` is none (dates beyond year 9999 are not)."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 253_402_300_800 else 0


def finish_reason(
    raw: str | None, words: Mapping[str, FinishReason], calls: Sequence[object]
) -> FinishReason:
    """A provider's word in canonical form. Servers say `stop` beside tool calls (OpenAI itself for a forced
    tool), and `tool_calls` where there are none (vLLM): the calls decide."""
    reason = words.get((raw or "").lower(), "other")
    if reason in ("stop", "tool_calls"):
        return "tool_calls" if calls else "stop"
    return reason


def _repaired(found: re.Match[str]) -> str:
    """A pair as it is, half of one as U+FFFD. After an odd run of backslashes its own one is a text."""
    before = found.start()
    while before and found.string[before - 1] == "\\":
        before -= 1
    if (found.start() - before) % 2:
        return found[0][:_ESCAPE] + (r"\ufffd" if found[1] else "")
    return found[0] if found[1] else r"\ufffd"


def _load_repaired(data: bytes) -> JSON:
    repaired = _SURROGATE.sub(_repaired, data.decode("utf-8", "replace"), count=_MAX_REPAIRS)
    try:
        return from_json(repaired)
    except ValueError:
        start = data.lstrip()
    if not start:
        wrong("the server's answer is empty")
    if start.startswith(b"<"):
        wrong(
            "the server answered with a web page, not with JSON: check base_url, and any login in between",
            data,
        )
    wrong("the server's answer is not valid JSON", data)
