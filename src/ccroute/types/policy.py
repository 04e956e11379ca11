"""Small values that several layers share: limits, waits, prices, models. Each checks itself when made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from tenacity import RetryCallState

Amount = int | float | str | Decimal
"""Money as users write it. A float counts as its shortest decimal: 0.1 is a tenth."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call is tried, and how long it waits in between.

    `attempts` bounds the whole call, fallbacks included; `per_deployment` bounds one deployment.
    Before trying a deployment again the call sleeps `uniform(0, min(max, base * 2**n))` seconds
    ("full jitter"), or as long as `wait` says: any of tenacity's wait strategies, such as
    `tenacity.wait_fixed(1) + tenacity.wait_random(0, 2)`, which sees the error as the outcome of the
    attempt. A server's Retry-After wins. A failure before anything was sent does not use up an attempt.
    """

    attempts: int = 3
    per_deployment: int = 2
    base: float = 0.5
    max: float = 8.0
    wait: Callable[[RetryCallState], float] | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.per_deployment < 1:
            raise ValueError("attempts and per_deployment must be at least 1")
        if not 0 <= self.base <= self.max:
            raise ValueError("base and max are seconds, 0 <= base <= max")
        if not (self.wait is None or callable(self.wait)):
            raise TypeError(f"wait is a tenacity wait strategy such as wait_fixed(1), not {self.wait!r}")


@dataclass(frozen=True, slots=True)
class Timeout:
    """Limits of one call, in seconds; `None` switches one off.

    total:   the whole call: queue, waits, every attempt and the whole stream.
    connect: name look-up, TCP and TLS of one new connection.
    first:   from sending to the first content. Not set: `idle` for a stream, only `total` otherwise.
    idle:    between two pieces of content of a stream, counting only time spent waiting on the server.
    attempt: one try at one deployment, without its wait for a slot there. A try that takes longer is given
             up for the next candidate, while `total` ends the call.
    """

    total: float | None = 600.0
    connect: float | None = 5.0
    first: float | None = None
    idle: float | None = 120.0
    attempt: float | None = None

    def __post_init__(self) -> None:
        for name in ("total", "connect", "first", "idle", "attempt"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(
                    f"timeout {name} must be a positive number of seconds or None, not {value!r}"
                )


@dataclass(frozen=True, slots=True, init=False)
class Price:
    """What a model costs, in USD per million tokens, exact.

    A missing `cache_write_1h` is the 5-minute write price; a missing cache price is the input
    price, never zero. `Price(0, 0)` is free.

    above:      prices of long prompts, `{200_000: Price(6, "22.5")}`: a request whose whole prompt, cached
                parts included, has more tokens than that costs this price for all of its tokens. Kept as
                pairs, shortest prompts first.
    web_search: USD for a thousand web searches that the provider itself makes for an answer. None: unknown,
                so the cost of an answer with searches is unknown, too.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    above: tuple[tuple[int, Price], ...]
    web_search: Decimal | None

    def __init__(
        self,
        input: Amount,
        output: Amount,
        *,
        cache_read: Amount | None = None,
        cache_write: Amount | None = None,
        cache_write_1h: Amount | None = None,
        above: Mapping[int, Price] | Iterable[tuple[int, Price]] | None = None,
        web_search: Amount | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "input", _usd(input))
        put(self, "output", _usd(output))
        put(self, "cache_read", self.input if cache_read is None else _usd(cache_read))
        put(self, "cache_write", self.input if cache_write is None else _usd(cache_write))
        put(self, "cache_write_1h", self.cache_write if cache_write_1h is None else _usd(cache_write_1h))
        put(self, "above", _tiers(above) if above else ())
        put(self, "web_search", None if web_search is None else _usd(web_search))

    def tier(self, prompt_tokens: int) -> Price:
        """The price of a request with a prompt of this length in tokens, cached parts included."""
        price = self
        for limit, tier in self.above:
            if prompt_tokens > limit:
                price = tier
        return price


_MOST_USD = 10**9
"""The highest price or budget. A limit is needed, because Decimal cannot multiply amounts of any size."""


def _usd(amount: Amount) -> Decimal:
    return exact_usd(amount, "a price", " per million tokens")


def exact_usd(amount: Amount, what: str, per: str = "") -> Decimal:
    """The amount in USD. Raises `TypeError` and `ValueError`; their texts name `what` it is, and `per`
    what."""
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        raise TypeError(f"{what} is a number or a str, in USD{per}, not {amount!r}")
    try:
        # float.__repr__, since that of a subclass (numpy's float64) may say more than the number.
        usd = Decimal(float.__repr__(amount) if isinstance(amount, float) else amount)
    except InvalidOperation:
        raise ValueError(f"{amount!r} is not an amount in USD") from None
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{what} must be a finite amount of at least 0, not {amount!r}")
    if usd > _MOST_USD:
        raise ValueError(f"{what} must be at most {_MOST_USD} USD{per}")
    return usd


def _tiers(above: Mapping[int, Price] | Iterable[tuple[int, Price]]) -> tuple[tuple[int, Price], ...]:
    tiers = dict(above)
    for limit, price in tiers.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"above: a tier begins above a number of tokens such as 200_000, not {limit!r}")
        if not isinstance(price, Price):
            raise TypeError(f"above[{limit}] is a Price, not {price!r}")
        if price.above:
            raise ValueError(f"above[{limit}] has tiers of its own: write all of them in one above=")
    return tuple(sorted(tiers.items()))


FREE: Final = Price(0, 0)


Thinking = Literal["none", "budget", "adaptive", "adaptive_on", "effort", "switch", "template", "levels"]
"""How a request switches a model's thinking on: see `Model`."""


@dataclass(frozen=True, slots=True)
class Model:
    """The facts about one model behind a backend.

    context_window: tokens of prompt and answer together.
    max_output:     the most tokens it can answer with.
    price:          USD per million tokens, or "free".
    memory_gb:      memory it occupies when loaded, in GB.
    weight:         its share among the deployments of an alias, relative to the others.
    params:         parameters for requests to it, such as `{"temperature": 0.2}`, where neither the call nor
                    its agent gives them. One that it cannot take is left out. `max_tokens` there is at most
                    `max_output` and what the prompt leaves of the context window.
    drops:          parameters that requests to it never have, also those of the call, such as `["seed"]`;
                    `"extra.store"` is a field of `extra`. `route.reasons` lists what was left out.
    rpm, tpm:       the most requests, and tokens of prompts and answers, in a minute; None: no limit.

    The following differ from model to model behind one API. None: the value of
    `ccroute.backends.known_models`, or else what most models do. A value given here wins.

    sampling: which of `temperature`, `top_p` and `top_k` it takes: "any", only "one" of temperature and
              top_p, "none", or any of them only while "not_thinking".
    thinking: how `reasoning_effort` is written for it. "none": it cannot think. Anthropic: "budget" (tokens),
              "adaptive" (with an effort) or "adaptive_on" (the same, and it also thinks unasked).
              OpenAI-compatible: "effort" (a word), "switch" (`thinking: {"type": "enabled"}`) or "template"
              (`chat_template_kwargs`). Ollama: "switch" or "levels".
    efforts:  the words of `reasoning_effort` that it takes.
    schema:   how an answer is held to a JSON schema: "format" (a field of the API), "tool" (a forced tool),
              or "none".
    refuses:  further parameters of a call that it answers with an error. `tool_choice` there means one
              that forces a tool.
    prefill:  whether a conversation may end with an assistant message that the model goes on with.
    """

    context_window: int | None = None
    max_output: int | None = None
    price: Price | Literal["free"] | None = None
    memory_gb: float | None = None
    weight: float = 1.0
    params: Mapping[str, Any] | None = None
    drops: Collection[str] | None = None
    rpm: int | None = None
    tpm: int | None = None
    sampling: Literal["any", "one", "none", "not_thinking"] | None = None
    thinking: Thinking | None = None
    efforts: Sequence[str] | None = None
    schema: Literal["format", "tool", "none"] | None = None
    refuses: Collection[str] | None = None
    prefill: bool | None = None

    def __post_init__(self) -> None:
        for name, kind, what in (
            ("context_window", int | None, "a number of tokens such as 8_192"),
            ("max_output", int | None, "a number of tokens such as 8_192"),
            ("memory_gb", int | float | None, "a number such as 2.5"),
            ("weight", int | float, "a number such as 2.5"),
            ("rpm", int | None, "a number of requests such as 60"),
            ("tpm", int | None, "a number of tokens such as 40_000"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise TypeError(f"Model: {name} is {what}, not {value!r}")
            if value is not None and name != "memory_gb" and not value > 0:
                raise ValueError(f"Model: {name} must be positive, not {value!r}")
        price: object = self.price
        if not (price is None or price == "free" or isinstance(price, Price)):
            raise TypeError(f'Model: price is a Price or "free", not {price!r}')

    def over(self, known: Model) -> Model:
        """This model, with the values of `known` for those that are None."""
        missing = {
            field.name: value
            for field in dataclasses.fields(Model)
            if getattr(self, field.name) is None and (value := getattr(known, field.name)) is not None
        }
        return dataclasses.replace(self, **missing) if missing else self
