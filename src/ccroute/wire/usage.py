"""Counting tokens from what a server said, and from the answer itself where it said nothing usable.

Knows token counts; must not know prices. A count is believed only if it is a whole number of at least
0: anything else (absent, NaN, negative, a float) is unknown, and unknown is estimated, never 0.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from ccroute.types import JSON, Message, Usage

_MOST: Final = 1_000_000_000  # tokens; beyond it a figure is nonsense

CHARACTERS_PER_TOKEN: Final = 4
"""The usual rule of thumb for English and code."""

_ONE_TOKEN: Final = 8  # characters; a longer delta holds more than one token


def count(value: object) -> int | None:
    """A server's token count, `None` if it is not one."""
    return value if type(value) is int and 0 <= value <= _MOST else None


def estimate(characters: int) -> int:
    """Tokens in a text of that many characters."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def estimate_message(message: Message) -> int:
    """Tokens in a whole answer: text, thinking and tool calls."""
    calls = [call.function for call in message.tool_calls or ()]
    written = sum(len(call.name) + len(call.arguments) for call in calls)
    return estimate(len(message.content or "") + len(message.thinking or "") + written)


def estimate_deltas(deltas: Iterable[str]) -> int:
    """Tokens in streamed pieces: servers send a token at a time, so a short piece is one."""
    return sum(1 if len(delta) <= _ONE_TOKEN else estimate(len(delta)) for delta in deltas if delta)


def usage(
    *,
    input: int | None,
    output: int | None,
    cache_read: int = 0,
    cache_write_5m: int = 0,
    cache_write_1h: int = 0,
    reasoning: int = 0,
    prompt_estimate: int,
    output_estimate: int,
) -> Usage:
    """The usage of an answer; what is unknown (`None`, or 0 where there must be some) is estimated."""
    prompt_known = input is not None and input + cache_read + cache_write_5m + cache_write_1h > 0
    output_known = output is not None and (output > 0 or output_estimate == 0)
    told = output if output is not None and output_known else output_estimate
    if input is None or not prompt_known:
        input, cache_read, cache_write_5m, cache_write_1h = prompt_estimate, 0, 0, 0
    return Usage(
        input=input,
        cache_read=cache_read,
        cache_write_5m=cache_write_5m,
        cache_write_1h=cache_write_1h,
        output=told,
        reasoning=min(reasoning, told),
        estimated=not (prompt_known and output_known),
    )


def is_broken_off(frame: Mapping[str, JSON]) -> bool:
    """Whether a whole answer under HTTP 200 was given up: it does not say why it ended, and that no token was
    used. So do Ollama's imitations of OpenAI and Anthropic where a model only repeats itself."""
    choices = frame.get("choices")
    ends = choices[0] if isinstance(choices, list) and choices else frame
    used = frame.get("usage")
    if not isinstance(ends, dict) or ends.get("finish_reason") or ends.get("stop_reason") or not used:
        return False
    return isinstance(used, dict) and all(value == 0 for value in used.values())
