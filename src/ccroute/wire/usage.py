"""Reads token counts from a server's answer, and estimates the output tokens where the count is unusable.

Knows token counts; must not know prices. A valid count is a whole number from 0 up. Any other count (absent,
NaN, negative, a float) is unknown.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

from ccroute.types import JSON, Choice, Usage
from ccroute.types.route import BillingDetails, new_usage
from ccroute.wire.reading import mapping, text, wrong

_MOST: Final = 1_000_000_000  # tokens; a higher count is a server's bug

STANDARD_TERMS: Final = {
    "service_tier": ("", "standard", "default", "auto", "on_demand"),
    "speed": ("", "standard"),
    "inference_geo": ("", "global", "not_available"),
}
"""The values that mean the usual price. `auto` asks for any tier, and an answer that names none had the usual
one. Tiers: https://platform.claude.com/docs/en/api/service-tiers, https://console.groq.com/docs/service-tiers;
`not_available` is of models that cannot be bound to a region."""

_TICK_PLACES: Final = 10  # a tick is 1e-10 USD

_PER_TOKEN: Final = 4  # characters: the usual rule of thumb for English and code

_ONE_TOKEN: Final = 8  # characters; a longer delta holds more than one token


def counts(value: JSON) -> dict[str, int]:
    """Return the valid token counts of a JSON object, by name."""
    if not isinstance(value, dict):
        return {}
    return {name: count for name, count in value.items() if type(count) is int and 0 <= count <= _MOST}


def read_billing(raw: Mapping[str, JSON], *, audio: bool = False) -> BillingDetails:
    """Return what a usage says about the bill besides token counts.

    The fields are those of Anthropic (https://platform.claude.com/docs/en/api/messages), OpenAI's
    `service_tier`, and the costs of OpenRouter, Perplexity and xAI.
    """
    terms = [(name, text(raw.get(name)).lower()) for name in STANDARD_TERMS]
    return BillingDetails(
        terms=tuple((name, value) for name, value in terms if value not in STANDARD_TERMS[name]),
        searches=counts(raw.get("server_tool_use")).get("web_search_requests", 0),
        audio=audio,
        cost=_stated_cost(raw),
    )


def _stated_cost(raw: Mapping[str, JSON]) -> Decimal | None:
    """Return the USD that the provider says it charges.

    xAI counts ticks: https://docs.x.ai/developers/cost-tracking. With a user's key for another provider,
    OpenRouter charges only its fee, and says what that provider charges:
    https://openrouter.ai/docs/use-cases/usage-accounting
    """
    ticks, cost = raw.get("cost_in_usd_ticks"), raw.get("cost")
    if type(ticks) is int:
        return _usd(ticks, -_TICK_PLACES)
    if isinstance(cost, dict):
        return _usd(cost.get("total_cost"))
    stated = _usd(cost)
    if stated is None or raw.get("is_byok") is not True:
        return stated
    upstream = _usd(mapping(raw.get("cost_details")).get("upstream_inference_cost"))
    return None if upstream is None else stated + upstream


def _usd(value: JSON, places: int = 0) -> Decimal | None:
    """Return an exact amount. A float counts as its shortest decimal."""
    if type(value) not in (int, float) or not 0 <= value <= _MOST:
        return None
    return Decimal(repr(value)).scaleb(places) if value else Decimal(0)


def estimate(characters: int) -> int:
    """Estimate the tokens in a text of that many characters."""
    return -(-characters // _PER_TOKEN)


def estimate_choices(choices: Iterable[Choice]) -> int:
    """Estimate the tokens in a whole answer: text, thinking and tool calls."""
    total = 0
    for message in (choice.message for choice in choices):
        written = [message.content or "", message.thinking or ""]
        for call in message.tool_calls or ():
            written += call.function.name, call.function.arguments
        total += estimate(sum(map(len, written)))
    return total


def estimate_deltas(deltas: Iterable[str]) -> int:
    """Estimate the tokens in streamed pieces. Servers send single tokens, so a short piece is one."""
    return sum(1 if len(delta) <= _ONE_TOKEN else estimate(len(delta)) for delta in deltas if delta)


def usage(
    *,
    input: int | None,
    output: int | None,
    cache_read: int = 0,
    cache_write_5m: int = 0,
    cache_write_1h: int = 0,
    reasoning: int = 0,
    output_estimate: Callable[[], int],
) -> Usage:
    """Return the usage of an answer. An output of None or 0 is estimated. An unknown prompt is 0; `estimated`
    then asks the caller to count it."""
    used = output or output_estimate()
    if input is None:
        cache_read = cache_write_5m = cache_write_1h = 0
    prompt = (input or 0) + cache_read + cache_write_5m + cache_write_1h
    return new_usage(
        input=input or 0,
        cache_read=cache_read,
        cache_write_5m=cache_write_5m,
        cache_write_1h=cache_write_1h,
        output=used,
        reasoning=min(reasoning, used),
        estimated=not prompt or output != used,
    )


def check_used(value: JSON, body: bytes) -> None:
    """Raise `ProtocolError` if all counts are 0. For a whole answer without a finish reason.

    Ollama's imitations of OpenAI and Anthropic end an answer so if the model only repeats itself.
    """
    if isinstance(value, dict) and value and all(count == 0 for count in value.values()):
        wrong("the server broke the answer off: it says neither why it ended nor what it used", body)
