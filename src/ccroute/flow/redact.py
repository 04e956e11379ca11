"""Takes keys and prompts out of what a server said, before anybody may see it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ccroute.errors import BackendError, RequestError
from ccroute.types import Request

_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|gsk|xai|key|ghp|hf)[-_][A-Za-z0-9_-]{8,}|\bBearer\s+\S+|\beyJ[A-Za-z0-9_.-]{20,}"
)
_URL_CREDENTIALS = re.compile(r"(://)[^/\s@]+@")
_LONG_WORD = 12
_SHORT_LINE = 6


def clean(error: BackendError | RequestError, secrets: Iterable[str], request: Request) -> None:
    """Remove `secrets`, anything that looks like a key, and the prompt from what `error` shows.

    Servers quote the key they refuse and the message they could not parse. A prompt's lines go as
    a whole, also as JSON and where the text was cut off within one; of what is left, any long word
    that the prompt holds too.
    """
    prompt = None
    for name in ("detail", "body"):
        text: str | None = getattr(error, name)
        if not text:
            continue
        for secret in secrets:
            text = text.replace(secret, "[key]")
        text = _URL_CREDENTIALS.sub(r"\1", _KEY_LIKE.sub("[key]", text))
        if prompt is None:
            prompt = _Prompt(request)
        setattr(error, name, prompt.remove_from(text))
    error.args = (error.detail,)


class _Prompt:
    def __init__(self, request: Request) -> None:
        texts = [text for message in request.messages for text in _texts(message.get("content"))]
        lines = {line.strip() for text in texts for line in text.splitlines()}
        long = [line for line in lines if len(line) >= _SHORT_LINE]
        as_json = (json.dumps(line, ensure_ascii=plain)[1:-1] for line in long for plain in (True, False))
        self._lines = sorted({*long, *as_json}, key=len, reverse=True)
        self._words = {
            word for line in lines for word in re.findall(r"[\w-]+", line) if len(word) >= _LONG_WORD
        }

    def remove_from(self, text: str) -> str:
        for line in self._lines:
            text = text.replace(line, "[prompt]")
            start = text.rfind(line[:_SHORT_LINE])
            if start >= 0 and line.startswith(text[start:].rstrip("\ufffd")):
                text = text[:start] + "[prompt]"
        return re.sub(r"[\w-]+", lambda word: "[prompt]" if word[0] in self._words else word[0], text)


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, list | tuple):
        return [
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
    return []
