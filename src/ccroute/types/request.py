"""A request in one canonical form: OpenAI chat completions.

`CallOptions` is the one list of keywords that `complete`, `acomplete`, `stream` and `astream` take;
`Request` holds them as plain dicts of checked shape. Each codec says which of them it can send.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

from pydantic import TypeAdapter

from ccroute.types.arguments.structured import answer_format
from ccroute.types.arguments.tools import ToolLike, checked_tools
from ccroute.types.policy import Amount, Timeout
from ccroute.types.results import Message
from ccroute.types.signatures import M, with_keywords

JSON: TypeAlias = Any
"""A JSON payload."""

Effort = Literal["none", "minimal", "low", "medium", "high", "max"]
"""How much a model may think before it answers."""

MessageLike: TypeAlias = Mapping[str, JSON] | Message

A = TypeVar("A")
Form: TypeAlias = type[A] | TypeAdapter[A] | Mapping[str, JSON] | None
"""A `response_format`: a type to parse the answer into, or OpenAI's dict."""


class MostOptions(TypedDict, total=False):
    """The keywords of a call but `response_format`, on which the type of its answer depends."""

    # The input and the parameters.
    system: str | Sequence[Mapping[str, JSON]] | None
    messages: Sequence[MessageLike]
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    user: str | None
    tools: Sequence[ToolLike] | None
    tool_choice: str | Mapping[str, JSON] | None
    parallel_tool_calls: bool | None
    reasoning_effort: Effort | None
    extra: Mapping[str, JSON]
    # The agent, and how the call is handled.
    agent: str | None
    model: str | None
    timeout: float | Timeout | None
    fallback: Sequence[str] | Literal[False] | None
    priority: int | None
    waiting_cost: Amount | None
    max_wait_free: float | None
    session: str | None
    metadata: Mapping[str, JSON]


class CallOptions(MostOptions, total=False):
    """The keywords of a call. Everything is optional but `prompt` or `messages`, exactly one of them."""

    response_format: Form[Any]


@dataclass(frozen=True)
class Request:
    """One call, as routing, the codecs and token counters see it. `vars()` of it has what was given.

    `messages` are OpenAI-format dicts: `role` and `content` (a str, or a list of parts such as
    `{"type": "text", "text": …}`), and the fields of a role (`tool_calls`, `tool_call_id`, …).
    Parameters that are `None` were not given and are not sent. `priority`: among calls that wait for a slot,
    the highest number goes first, and among equals the oldest call. `waiting_cost` (USD per hour) and
    `max_wait_free` (seconds) say when it does not wait, but goes to a candidate that may serve it at once.
    """

    messages: Sequence[Mapping[str, JSON]] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stop: str | Sequence[str] | None = None
    seed: int | None = None
    user: str | None = None
    tools: Sequence[Mapping[str, JSON]] | None = None
    tool_choice: str | Mapping[str, JSON] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, JSON] | None = None
    reasoning_effort: Effort | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)
    agent: str | None = None
    model: str | None = None
    timeout: float | Timeout | None = None
    fallback: Sequence[str] | Literal[False] | None = None
    priority: int = 0
    waiting_cost: Decimal | None = None
    max_wait_free: float | None = None
    session: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)

    if not TYPE_CHECKING:  # dataclass's own one sets 28 fields, at five times the cost

        def __init__(self, **given: Any) -> None:
            if not given.keys() <= Request.__dataclass_fields__.keys():
                raise TypeError(f"a Request has no {given.keys() - Request.__dataclass_fields__.keys()}")
            vars(self).update({"extra": {}, "metadata": {}, **given})

    def __repr__(self) -> str:
        """Without any content: only how many messages, and the names of the parameters."""
        names = [(f.name, f.default) for f in dataclasses.fields(self) if f.name != "messages"]
        given = "".join(f", {n}" for n, default in names if getattr(self, n) not in (None, {}, default))
        return f"Request({len(self.messages)} messages{given})"

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences as a tuple, empty if none was given."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def with_defaults(self, params: Mapping[str, JSON]) -> Request:
        """The same request with `params` filled in where the call gave nothing."""
        missing = {name: value for name, value in params.items() if getattr(self, name) in (None, {})}
        return dataclasses.replace(self, **as_dicts(missing)) if missing else self


PARAMETERS = frozenset(f.name for f in dataclasses.fields(Request)).difference(
    (
        "messages",
        "agent",
        "model",
        "timeout",
        "fallback",
        "priority",
        "waiting_cost",
        "max_wait_free",
        "session",
        "metadata",
    )
)
"""The names that shape an answer: an agent's `params` may set them, and each codec sends or refuses them."""

EXTRA = "extra."
"""The prefix that names a field of `extra`: `extra.store`."""

MADE_OF_TYPES = ("response_format", "tools")
"""The parameters that may be given as Python types and functions."""


def as_dicts(given: dict[str, Any]) -> dict[str, Any]:
    """`given`, with types and functions turned into dicts. Raises `InvalidRequestError`."""
    if (form := given.get("response_format")) is not None:
        given["response_format"] = answer_format(form)
    if (tools := given.get("tools")) is not None:
        given["tools"] = checked_tools(tools)
    return given


def takes_call_options(method: M) -> M:
    """Show each keyword of `CallOptions` in a method's signature and help()."""
    method.__signature__ = with_keywords(method, CallOptions.__annotations__)  # type: ignore[attr-defined]  # inspect reads it; typeshed lacks it
    return method
