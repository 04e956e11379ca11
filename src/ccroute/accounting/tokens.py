"""How many tokens a prompt probably has, before any server counted them.

Measured on a corpus of code and prose against cl100k (tests/accounting/fixtures/corpus.json): within
25 % for each document.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from operator import index
from typing import TypeAlias

from pydantic_core import to_json

from ccroute.errors import ConfigError
from ccroute.types import Request

TokenCounter: TypeAlias = Callable[[Request], int]
"""Counts the tokens of a whole prompt."""

BYTES_PER_TOKEN = 4
"""OpenAI's and Anthropic's rule of thumb for English text and code, where a character is a byte. Other
scripts take more bytes and more tokens a character, so bytes hold there too."""

MESSAGE_TOKENS = 4
"""What a chat template adds around each message (OpenAI's cookbook counts 3 or 4)."""

IMAGE_TOKENS = 1000
"""A picture of about a megapixel: 765 for OpenAI (high detail), width * height / 750 for Anthropic."""


def estimate(request: Request) -> int:
    """The prompt's length in tokens: its text, tool calls, pictures and tools."""
    return -(-sum(map(_size, _texts(request))) // BYTES_PER_TOKEN) + _framing(request)


def estimate_text(text: str) -> int:
    """The length of a text in tokens."""
    return -(-_size(text) // BYTES_PER_TOKEN)


def count_safely(count: TokenCounter, request: Request) -> int:
    """The tokens of a prompt that was sent, by `count`, or by an estimate if `count` fails: a call whose
    answer is here must not fail for that."""
    try:
        counted = index(count(request))
    except Exception as error:
        why = f"raised {type(error).__name__}"
    else:
        if counted >= 0:
            return counted
        why = "gave less than 0"
    logging.getLogger("ccroute").error("count_tokens %s: the tokens are estimated", why)
    return estimate(request)


class Prompt:
    """The length of one call's prompt, counted once, because a tokenizer is slow, and only if it is needed.

    tokens: None until it was counted.
    """

    tokens: int | None = None

    def count(self, count: TokenCounter, request: Request) -> int:
        """The prompt's tokens. Raises what `count` raises."""
        if self.tokens is None:
            self.tokens = count(request)
        return self.tokens

    def estimated(self, count: TokenCounter, request: Request) -> int:
        """The prompt's tokens, by length if `count` fails."""
        if self.tokens is None:
            self.tokens = count_safely(count, request)
        return self.tokens


def tiktoken_counter(encoding: str = "o200k_base") -> TokenCounter:
    """A counter for `Router(count_tokens=…)` that counts text with OpenAI's tokenizer (extra `tiktoken`).

    tiktoken fetches the encoding's table at its first use, unless its cache folder holds it. Raises
    `ConfigError` without tiktoken.
    """
    try:
        from tiktoken import get_encoding
    except ImportError as error:
        raise ConfigError(
            f"tiktoken_counter() needs tiktoken ({error}): pip install 'ccroute[tiktoken]'"
        ) from error

    table = get_encoding(encoding)

    def count(request: Request) -> int:
        texts = (len(table.encode(text, disallowed_special=())) for text in _texts(request))
        return sum(texts) + _framing(request)

    return count


def _texts(request: Request) -> Iterator[str]:
    """Everything in a prompt that a tokenizer would see."""
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif content:
            yield from (part["text"] for part in content if isinstance(part.get("text"), str))
        for call in message.get("tool_calls") or ():
            yield from (text for text in call.get("function", {}).values() if isinstance(text, str))
        if isinstance(thinking := message.get("thinking"), str):
            yield thinking
    if request.tools:
        yield to_json(request.tools).decode()


def _framing(request: Request) -> int:
    """Tokens for what is not text: the frame around each message, and pictures."""
    pictures = sum(
        part.get("type") in {"image_url", "image"}
        for message in request.messages
        if not isinstance(content := message.get("content"), str | None)
        for part in content
    )
    return MESSAGE_TOKENS * len(request.messages) + IMAGE_TOKENS * pictures


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
