"""How many tokens a prompt probably has, before any server counted them."""

from __future__ import annotations

from ccroute.types import Request

CHARACTERS_PER_TOKEN = 4
"""OpenAI's and Anthropic's rule of thumb for English text and code."""

MESSAGE_TOKENS = 4
"""What a chat template adds around each message (OpenAI's cookbook counts 3 or 4)."""


def estimate(request: Request) -> int:
    """The prompt's length in tokens, by the number of characters in its text."""
    characters = 0
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif content is not None:
            texts = (part.get("text") for part in content)
            characters += sum(len(text) for text in texts if isinstance(text, str))
    return -(-characters // CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS * len(request.messages)


def estimate_text(text: str) -> int:
    """The length of an answer in tokens, by its number of characters."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)
