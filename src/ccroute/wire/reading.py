"""Reads JSON from a server. The JSON may be broken, and a field may hold any value.

Knows JSON and `ProtocolError`, the only error that it raises; must not know which server sent the answer.
An invalid UTF-8 byte becomes U+FFFD within a text. Elsewhere it is an error.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from pydantic_core import from_json

from ccroute.errors import ProtocolError
from ccroute.types import JSON, FinishReason

BODY_READ: Final = 4096
"""Bytes of a body that an error holds at first. Half of them remain after secrets are removed."""

# Half a pair of surrogates is not a character. The pattern begins with fixed text, for a fast search: no
# deadline can end a running search.
_SURROGATE: Final = re.compile(
    r"\\u[dD](?:([89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)
_ESCAPE: Final = len(r"\ud800")
_MAX_REPAIRS: Final = 10_000
"""Surrogates that are repaired in one text. A text with more is an attack."""


def load(data: bytes) -> JSON:
    """Return the JSON value of `data`. Raises `ProtocolError` that says what came instead."""
    try:
        return from_json(data)
    except ValueError:
        return _load_repaired(data)


def load_object(data: bytes) -> dict[str, JSON]:
    """Return the JSON object of `data`. Raises `ProtocolError` for any other data."""
    try:  # not through `load`: a stream comes here for every chunk
        value = from_json(data)
    except ValueError:
        value = _load_repaired(data)
    if not isinstance(value, dict):
        wrong("the server's answer is JSON, but not an object", data)
    return value


def is_whole(data: bytes) -> bool:
    """Whether `data` is a complete JSON object."""
    try:
        return isinstance(load(data), dict)
    except ProtocolError:
        return False


def wrong(detail: str, body: bytes = b"") -> NoReturn:
    """Raise `ProtocolError` with the start of `body`."""
    raise ProtocolError(detail, body=shown(body) if body else None)


def shown(body: bytes) -> str:
    """Return the start of a body as text, for an error."""
    return body[:BODY_READ].decode("utf-8", "replace")


def text(value: object) -> str:
    """Return `value` if it is a str, else `""`. For fields that the answer can lack."""
    return value if isinstance(value, str) else ""


def answer_text(value: object) -> str:
    """Return a text of the answer; null becomes `""`. Raises `ProtocolError` for any other value."""
    if value is None or isinstance(value, str):
        return value or ""
    wrong("a part of the answer that must be text is not")


def mapping(value: object) -> dict[str, JSON]:
    """Return `value` if it is a JSON object, else an empty one. For fields that the answer can lack."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[JSON]:
    """Return `value` if it is a JSON array, else an empty one. For fields that the answer can lack."""
    return value if isinstance(value, list) else []


def unix_time(value: object) -> int:
    """Return a Unix time in whole seconds; 0 if `value` is not a time before the year 10000."""
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 253_402_300_800 else 0


def finish_reason(
    raw: str | None, words: Mapping[str, FinishReason], calls: Sequence[object]
) -> FinishReason:
    """Return the canonical form of a provider's finish reason. Servers send `stop` with tool calls (OpenAI
    for a forced tool) and `tool_calls` without any (vLLM), so the calls decide."""
    reason = words.get((raw or "").lower(), "other")
    if reason in ("stop", "tool_calls"):
        return "tool_calls" if calls else "stop"
    return reason


def _repaired(found: re.Match[str]) -> str:
    """Return a surrogate pair unchanged, half a pair as U+FFFD. Its backslash may itself be escaped."""
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
