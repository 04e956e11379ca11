"""Where a call went and what it used: attempts, the route, token counts, and the list of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar, cast

from pydantic import VERSION, BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined

from ccroute.display import card, table, usd

P = ParamSpec("P")
F = TypeVar("F", bound="Frozen")
Outcome = Literal["ok", "failed", "cancelled", "interrupted"]
LEAST_LOAD = 0.05
"""Seconds from which on the time to load a model counts as a load: of one that is loaded, a server says 1 to
30 ms."""


class FailureClass(StrEnum):
    """What kind of failure ended an attempt. `ccroute.failures` has what follows from it.

    not_sent:        no byte of the request reached the server.
    rejected:        the server said that it did not start.
    ambiguous:       the server may have worked on it, and may charge for it.
    delivered:       content had already been returned.
    invalid_request: the request itself is at fault.
    context_length:  the prompt does not fit into the model's context window.
    credential:      the key is refused, may not do this, or has no quota left.
    unavailable:     the deployment does not have the model or the path.
    budget:          a budget does not allow it, so nothing was sent.
    """

    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    AMBIGUOUS = "ambiguous"
    DELIVERED = "delivered"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CREDENTIAL = "credential"
    UNAVAILABLE = "unavailable"
    BUDGET = "budget"


_CAN_BUILD_LATE = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
"""Whether a validator is built at its first use: to build all takes 20 ms, and ccroute itself needs few.
Before 2.14 two threads might build at once, and fail: https://github.com/pydantic/pydantic/pull/13438."""

Tokens = Annotated[int, Field(ge=0)]


class Frozen(BaseModel):
    """The base of every result: it cannot be changed, and takes no unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=_CAN_BUILD_LATE
    )


set_fields, set_given, set_extra, set_private = (
    vars(BaseModel)[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def unchecked(model: Callable[P, F]) -> Callable[P, F]:
    """The constructor of a result class without its checks, for values that ccroute made or checked itself.
    It costs a third, and a call makes seven results. All fields count as given."""
    kind = cast("type[F]", model)
    fields, new = kind.model_fields, kind.__new__
    names, size = set(fields), len(fields)
    defaults = {name: field.default for name, field in fields.items()}
    factories = [(name, field.default_factory) for name, field in fields.items() if field.default_factory]

    def make(**given: Any) -> F:
        if len(given) != size:
            given = {**defaults, **given}
            for name, factory in factories:
                if given[name] is PydanticUndefined:
                    given[name] = factory()  # type: ignore[call-arg]  # none of ours takes an argument
        made = new(kind)
        set_fields(made, given)
        set_given(made, names)
        set_extra(made, None)
        set_private(made, None)
        return made

    return cast("Callable[P, F]", make)


def with_facts(result: F, **facts: Any) -> F:
    """A copy of `result` with other values of these fields, unchecked."""
    made, given = type(result).__new__(type(result)), result.__pydantic_fields_set__
    set_fields(made, {**vars(result), **facts})
    set_given(made, given if given.issuperset(facts) else given | facts.keys())
    set_extra(made, result.__pydantic_extra__)
    set_private(made, result.__pydantic_private__)
    return made


class Usage(Frozen):
    """Tokens of one answer in disjoint buckets, none negative.

    `input` is the uncached part of the prompt; `reasoning` is the part of `output` that was
    thinking. `estimated` is true where the server did not say everything, and ccroute
    estimated the rest.
    """

    input: Tokens = 0
    cache_read: Tokens = 0
    cache_write_5m: Tokens = 0
    cache_write_1h: Tokens = 0
    output: Tokens = 0
    reasoning: Tokens = 0
    estimated: bool = False

    @property
    def cache_write(self) -> int:
        """Tokens written to the provider's cache, whatever their lifetime."""
        return self.cache_write_5m + self.cache_write_1h

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt, cached parts included: OpenAI's sense."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def completion_tokens(self) -> int:
        """The whole answer, thinking included: OpenAI's sense."""
        return self.output

    @property
    def total_tokens(self) -> int:
        """Prompt and answer together."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h + self.output

    def __add__(self, other: Usage) -> Usage:
        return new_usage(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write_5m=self.cache_write_5m + other.cache_write_5m,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            estimated=self.estimated or other.estimated,
        )


new_usage = unchecked(Usage)


class BillingDetails(NamedTuple):
    """What an answer says about its bill besides token counts. Most answers say nothing.

    terms:    how the request was served, if not in the standard way: `(("service_tier", "priority"),)`.
    searches: the web searches that the provider made.
    audio:    whether the prompt or the answer has audio tokens, which have another price than text.
    cost:     USD that the provider says it charges in total.
    """

    terms: tuple[tuple[str, str], ...] = ()
    searches: int = 0
    audio: bool = False
    cost: Decimal | None = None


BILLING = "_billing"
"""The key of the billing details in the `__dict__` of a usage. Pydantic ignores keys that are no fields. A
private attribute would give each usage a second dict."""


def with_billing(usage: Usage, billing: BillingDetails) -> Usage:
    """Add the billing details to a usage, and return it. A sum of usages does not have them."""
    vars(usage)[BILLING] = billing
    return usage


def billing_of(usage: Usage) -> BillingDetails | None:
    """The billing details of a usage; None if it has none."""
    found: BillingDetails | None = vars(usage).get(BILLING)
    return found


class Attempt(Frozen):
    """One try at one deployment.

    `started` is UTC, `duration` in seconds. `failure` is the failure class, `reason` a text for people;
    `cost` is in USD, `None` when the deployment's price is unknown. `queued` are the seconds that it waited
    before for a slot, for its turn under a rate limit, or for a budget. `load` are the seconds of `duration`
    in which the server loaded the model; `None` where it does not say.
    """

    deployment: str
    outcome: Outcome
    failure: FailureClass | None = None
    reason: str = ""
    status: int | None = None
    error: str | None = None
    started: datetime
    duration: float
    usage: Usage = Usage.model_construct()
    cost: Decimal | None = None
    queued: float = 0.0
    load: float | None = None


new_attempt = unchecked(Attempt)


class Route(Frozen):
    """Where a call went and why.

    `requested_model` is the model that the call named, `model` the alias that was used, `deployment` the
    `backend/model` that served. `overridden`: the agent's configured model replaced a different
    requested one. `fallback`: a fallback model served.
    """

    agent: str | None = None
    requested_model: str | None = None
    model: str = ""
    deployment: str = ""
    backend: str = ""
    overridden: bool = False
    fallback: bool = False
    cached: bool = False
    attempts: tuple[Attempt, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def queued(self) -> float:
        """Seconds that the call waited for slots, for its turn under a rate limit, or for a budget."""
        return sum((attempt.queued for attempt in self.attempts), 0.0)

    @property
    def load(self) -> float | None:
        """Seconds in which servers loaded a model for the call; None where none of them says."""
        known = [attempt.load for attempt in self.attempts if attempt.load is not None]
        return sum(known) if known else None

    def __str__(self) -> str:
        asked = self.requested_model or self.model
        path = " → ".join(dict.fromkeys((self.agent or "-", asked, self.model, self.deployment)))
        notes = [note for note, on in (("overridden", self.overridden), ("fallback", self.fallback)) if on]
        notes += _delays(self.queued, self.load)
        return path + (f" ({', '.join(notes)})" if notes else "")

    def __rich_repr__(self) -> Iterator[object]:
        yield str(self)
        for each in self.attempts:
            shown = f"{each.deployment}: {each.outcome}"
            yield "attempt", ", ".join([shown, *_delays(each.queued, each.load)])

    def _repr_html_(self) -> str:
        rows = [
            (
                each.deployment,
                each.outcome,
                ", ".join([f"{each.duration:.2f} s", *_delays(each.queued, each.load)]),
                usd(each.cost),
                each.reason,
            )
            for each in self.attempts
        ]
        return card(str(self), table=table(("deployment", "outcome", "time", "cost", "reason"), rows))


def _delays(queued: float, load: float | None) -> list[str]:
    """What made it slow, as far as it did."""
    named = (("waited", queued), ("model loaded in", load or 0.0))
    return [f"{what} {seconds:.1f} s" for what, seconds in named if seconds >= LEAST_LOAD]


new_route = unchecked(Route)


class ModelInfo(Frozen):
    """A name that `model=` takes, and its deployments.

    context_window: tokens.
    input_price, output_price: USD per million tokens now, of prompts of usual length; None if unknown, or if
                    the deployments have different ones.
    price_source:   where they are from: "model", "router", "free" or "genai-prices".
    """

    id: str
    kind: Literal["alias", "deployment", "pattern"]
    deployments: Sequence[str] = ()
    owned_by: str = ""
    context_window: int | None = None
    input_price: Decimal | None = None
    output_price: Decimal | None = None
    price_source: str | None = None
