"""What a call gives back: frozen pydantic models in OpenAI's shape, with what ccroute knows added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
Outcome = Literal["ok", "failed", "cancelled", "interrupted"]
FailureClass = Literal["W0", "W1", "W2", "W3", "C", "L", "A", "M"]
"""What a failure cost and what may follow: see the table in docs/architecture.md."""
Tokens = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Usage(_Frozen):
    """Tokens of one answer in disjoint buckets, none negative.

    `input` is the uncached part of the prompt; `reasoning` is the part of `output` that was
    thinking. `estimated` is true when the server did not say and ccroute counted.
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
        return self.prompt_tokens + self.output

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write_5m=self.cache_write_5m + other.cache_write_5m,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            estimated=self.estimated or other.estimated,
        )


class Function(_Frozen):
    """A function call's name and its arguments as the JSON text the model wrote, valid or not."""

    name: str = ""
    arguments: str = ""


class ToolCall(_Frozen):
    """One call of a tool. In a `Chunk` it is a delta: `index` says which call it continues.

    `provider_fields` as in `Message`.
    """

    id: str = ""
    type: Literal["function"] = "function"
    function: Function = Function()
    index: int = 0
    provider_fields: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The call as an entry of an OpenAI-format message's `tool_calls`."""
        call = {"id": self.id, "type": self.type, "function": self.function.model_dump()}
        return {**call, "provider_fields": dict(self.provider_fields)} if self.provider_fields else call


class Message(_Frozen):
    """An answer's message. Append it to `messages` to continue the conversation.

    `thinking_blocks` are the provider's own blocks (`{"type": "thinking", "thinking": …,
    "signature": …}`), replayed verbatim by wires that know them. `provider_fields` are what else the
    provider said, under its host name (`{"openrouter.ai": {"reasoning_details": […]}}`): they are sent
    back to that provider, and to no other.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    thinking: str | None = None
    thinking_blocks: tuple[Mapping[str, Any], ...] = ()
    provider_fields: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The message as an OpenAI-format dict, thinking included."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.thinking is not None:
            message["thinking"] = self.thinking
        if self.thinking_blocks:
            message["thinking_blocks"] = [dict(block) for block in self.thinking_blocks]
        if self.provider_fields:
            message["provider_fields"] = dict(self.provider_fields)
        return message


class Choice(_Frozen):
    """The answer and why it ended."""

    index: int = 0
    message: Message = Message()
    finish_reason: FinishReason | None = None
    logprobs: Any = None


class Attempt(_Frozen):
    """One try at one deployment.

    `started` is UTC, `duration` in seconds. `failure` is the failure class and `reason` says in
    words what happened; `cost` is in USD, `None` when the deployment's price is unknown.
    """

    deployment: str
    outcome: Outcome
    failure: FailureClass | None = None
    reason: str = ""
    status: int | None = None
    error: str | None = None
    started: datetime
    duration: float
    usage: Usage = Usage()
    cost: Decimal | None = None


class Route(_Frozen):
    """Where a call went and why.

    `requested_model` is what the caller named, `model` the alias that was used, `deployment` the
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

    def __str__(self) -> str:
        asked = self.requested_model or self.model
        path = " → ".join(dict.fromkeys((self.agent or "-", asked, self.model, self.deployment)))
        notes = [note for note, on in (("overridden", self.overridden), ("fallback", self.fallback)) if on]
        return path + (f" ({', '.join(notes)})" if notes else "")


class Completion(_Frozen):
    """A whole answer, in the shape of OpenAI's chat completion plus what ccroute knows of it.

    `model` is the model that served. `cost` is in USD over all attempts: `None` when the price of
    one of them is unknown, `Decimal(0)` when it was free. `latency` is in seconds. `raw` is the
    provider's own payload (of a stream: None, or its closing frame where that holds more than usage).
    """

    id: str = ""
    object: Literal["chat.completion"] = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = (Choice(),)
    usage: Usage = Usage()
    cost: Decimal | None = None
    latency: float = 0.0
    route: Route = Route()
    request_id: str | None = None
    raw_finish_reason: str | None = None
    raw: Any = Field(default=None, repr=False)

    @property
    def message(self) -> Message:
        """The answer's message; append it to `messages` to continue."""
        return self.choices[0].message

    @property
    def text(self) -> str:
        """The answer's text, `""` if it has none."""
        return self.choices[0].message.content or ""

    @property
    def thinking(self) -> str | None:
        """What the model thought before answering, if it said so."""
        return self.choices[0].message.thinking

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools the model wants called, empty if none."""
        return self.choices[0].message.tool_calls or ()

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; the provider's own word is in `raw_finish_reason`."""
        return self.choices[0].finish_reason


class Chunk(_Frozen):
    """A piece of a streamed answer. The last one holds `finish_reason` and `usage`."""

    text: str = ""
    thinking: str = ""
    signature: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class ModelInfo(_Frozen):
    """A name a caller may ask for and what it leads to. `context_window` is in tokens."""

    id: str
    kind: Literal["alias", "deployment", "pattern"]
    deployments: Sequence[str] = ()
    owned_by: str = ""
    context_window: int | None = None
