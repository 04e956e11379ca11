"""Results of a call: frozen pydantic models in OpenAI's shape, with the route, the cost and more added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, overload

from pydantic import Field
from typing_extensions import TypeVar as TypeVarWithDefault

from ccroute.display import card, cut, table, usd
from ccroute.errors import InvalidOutputError, InvalidRequestError
from ccroute.types.arguments.structured import AnswerFormat
from ccroute.types.arguments.tools import Tools, read_arguments, tool_of, validated_arguments
from ccroute.types.route import (
    Frozen,
    Route,
    Usage,
    set_extra,
    set_fields,
    set_given,
    set_private,
    unchecked,
)
from ccroute.types.signatures import completed_live

T = TypeVar("T")
Kind: TypeAlias = type[T]
Parsed = TypeVarWithDefault("Parsed", covariant=True, default=object)
"""The type of `Completion.parsed`: the `response_format` of the call, if that was a class."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Function(Frozen):
    """A function call's name, and its arguments as the JSON text the model wrote, valid or not."""

    name: str = ""
    arguments: str = ""


class ToolCall(Frozen):
    """One call of a tool. In a `Chunk` it is a delta: `index` says which call it continues.

    `provider_fields` as in `Message`.
    """

    id: str = ""
    type: Literal["function"] = "function"
    function: Function = Function.model_construct()
    index: int = 0
    provider_fields: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The call as an entry of an OpenAI-format message's `tool_calls`."""
        call = {"id": self.id, "type": self.type, "function": self.function.model_dump()}
        return {**call, "provider_fields": dict(self.provider_fields)} if self.provider_fields else call

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.function.name

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as a dict. Raises `InvalidOutputError` where the model wrote no JSON object, or was
        cut off in the middle of one."""
        return read_arguments(self.function.name, self.function.arguments, cut="_cut" in vars(self))

    @overload
    def validated(self, tool: Kind[T]) -> T: ...

    @overload
    def validated(self, tool: Callable[..., object] | None = None) -> Any: ...

    def validated(self, tool: Callable[..., object] | None = None) -> Any:
        """The arguments as the tool takes them: a class's instance, or a function's keywords, so that
        `search(**call.validated())` works. Defaults are the function's own.

        tool: the class or function; None: the one of that name among the call's `tools=`.

        Raises `InvalidOutputError`, whose message can go back to the model: no such tool, no JSON, or
        arguments that do not fit.
        """
        name, tools = self.function.name, vars(self).get("_tools")
        found: Mapping[str, Any] = {}
        if tool is not None:
            found = tool_of(tool, "validated():")
        elif isinstance(tools, Tools):
            found = tools.named(name)
        return validated_arguments(name, self.function.arguments, found, cut="_cut" in vars(self))


class Message(Frozen):
    """An answer's message. Append it to `messages` to continue the conversation.

    `thinking_blocks` are the provider's own blocks (`{"type": "thinking", "thinking": …,
    "signature": …}`), sent back unchanged by codecs that know them. `blocks` is the whole answer in the
    provider's own blocks and order, where the other fields cannot express it: calls of tools that the
    provider runs itself, citations, thoughts between calls. Anthropic gets it back unchanged.
    `provider_fields` are further fields of the provider, under its host name
    (`{"openrouter.ai": {"reasoning_details": […]}}`): they are sent back to that provider only.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    thinking: str | None = None
    thinking_blocks: tuple[Mapping[str, Any], ...] = ()
    blocks: tuple[Mapping[str, Any], ...] = ()
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
        if self.blocks:
            message["blocks"] = [dict(block) for block in self.blocks]
        if self.provider_fields:
            message["provider_fields"] = dict(self.provider_fields)
        return message


class Choice(Frozen):
    """The answer and why it ended."""

    index: int = 0
    message: Message = Message.model_construct()
    finish_reason: FinishReason | None = None
    logprobs: Any = None


class Completion(Frozen, Generic[Parsed]):
    """A whole answer: OpenAI's chat completion, with the route, the cost and more added.

    `Completion[Finding]` is the answer to `response_format=Finding`; that is for type checkers, at run
    time it is `Completion` itself.

    `model` is the model that served. `cost` is in USD over all attempts: `None` when the price of
    one of them is unknown, `Decimal(0)` when it was free. `latency` is in seconds. `raw` is the
    provider's own payload (of a stream: None, or its closing frame where that holds more than usage).
    `response_type` is the name of the type given as `response_format`.
    """

    id: str = ""
    object: Literal["chat.completion"] = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = (Choice.model_construct(),)
    usage: Usage = Usage.model_construct()
    cost: Decimal | None = None
    latency: float = 0.0
    route: Route = Route.model_construct()
    request_id: str | None = None
    raw_finish_reason: str | None = None
    response_type: str | None = None
    raw: Any = Field(default=None, repr=False)

    @property
    @completed_live
    def message(self) -> Message:
        """The answer's message; append it to `messages` to continue."""
        return self.choices[0].message

    @property
    def text(self) -> str:
        """The answer's text, `""` if it has none."""
        return self.choices[0].message.content or ""

    @property
    def thinking(self) -> str | None:
        """The model's thoughts before its answer, if the server sent them."""
        return self.choices[0].message.thinking

    @property
    @completed_live
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools the model wants called, empty if none."""
        return self.choices[0].message.tool_calls or ()

    @property
    @completed_live
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; the provider's own value is `raw_finish_reason`."""
        return self.choices[0].finish_reason

    @property
    def index(self) -> int | None:
        """The place of the request in its batch, from 0; None outside a batch. Not a part of the stored
        answer."""
        return vars(self).get("_index")

    @property
    def parsed(self) -> Parsed:
        """The answer as an instance of the class given as `response_format`, always the same one; None
        where no class was given.

        Raises `InvalidOutputError` where the answer does not fit: its message says why, its `text` is the
        answer; and `InvalidRequestError` for an answer that was stored as JSON, or pickled without its class.
        """
        state = vars(self)
        form, name = state.get("_form"), self.response_type
        if isinstance(form, AnswerFormat) and "_parsed" not in state:
            try:
                made = form.parse(self.text, self.finish_reason, self.route.deployment)
            except InvalidOutputError as error:
                error.attempts, error.reasons = self.route.attempts, self.route.reasons
                raise
            state.setdefault("_parsed", made)  # of two threads the first one's instance counts
        elif "_parsed" not in state and name is not None:
            raise InvalidRequestError(
                f"the type {name} was not kept when this answer was stored: read its text, such as by "
                f"{name}.model_validate_json(reply.text)"
            )
        return cast("Parsed", state.get("_parsed"))

    def to_dict(self) -> dict[str, Any]:
        """All but `raw`, ready for JSON: money is a str, times are ISO 8601, the message is a dict that
        `messages=` takes."""
        whole = self.model_dump(mode="json", exclude={"raw"})
        for choice, entry in zip(self.choices, whole["choices"], strict=True):
            entry["message"] = choice.message.to_dict()
        return whole

    def _asked_with(self, form: Any, tools: Any) -> None:
        """Keep what parses this answer: in `__dict__`, because pydantic ignores there what is no field, and a
        private attribute would cost every answer a microsecond."""
        if isinstance(form, AnswerFormat):
            vars(self)["_form"], vars(self)["response_type"] = form, form.name
        if isinstance(tools, Tools):
            for call in self.tool_calls:
                vars(call)["_tools"] = tools
        if self.finish_reason == "length" and self.tool_calls:
            vars(self.tool_calls[-1])["_cut"] = True

    def _came_as(self, index: int) -> None:
        """Keep the place in a batch, as `_asked_with` does."""
        vars(self)["_index"] = index

    def __getstate__(self) -> dict[Any, Any]:
        """Without the parsed instance, which may not be picklable: `parsed` makes it again."""
        state = super().__getstate__()
        return {**state, "__dict__": {k: v for k, v in state["__dict__"].items() if k != "_parsed"}}

    @classmethod
    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __repr__(self) -> str:
        """In one short line; `model_dump()` and `to_dict()` have everything."""
        calls = [cut(f"{call.name}({call.function.arguments})") for call in self.tool_calls]
        shown = {
            "model": self.model,
            **({"tool_calls": calls} if calls else {}),
            "finish_reason": self.finish_reason,
            "cost": usd(self.cost),
            "route": str(self.route),
        }
        facts = "".join(f", {name}={value!r}" for name, value in shown.items())
        return f"Completion({cut(self.text)!r}{facts})"

    __str__ = __repr__

    def __rich_repr__(self) -> Iterator[Any]:
        if self.thinking:
            yield "thinking", cut(self.thinking)
        yield self.text
        for call in self.tool_calls:
            yield "tool", f"{call.name}({call.function.arguments})"
        yield from self._facts()

    def _repr_html_(self) -> str:
        calls = table(
            ("tool", "arguments"), [(call.name, call.function.arguments) for call in self.tool_calls]
        )
        return card("", self._facts(), text=self.text, thoughts=self.thinking or "", table=calls)

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield "route", self.route
        yield "tokens", f"{self.usage.prompt_tokens} in, {self.usage.output} out"
        yield "cost", usd(self.cost)
        yield "seconds", f"{self.latency:.2f}"
        if self.finish_reason not in ("stop", "tool_calls"):
            yield "ended", self.finish_reason
        try:
            _ = "_form" in vars(self) and self.parsed
        except (InvalidOutputError, InvalidRequestError) as error:
            yield "parsed", cut(str(error))


new_message = unchecked(Message)
new_choice = unchecked(Choice)
new_completion = unchecked(Completion[Any])


class Chunk(Frozen):
    """A piece of a streamed answer. The last one holds `finish_reason` and `usage`.

    `block` is a whole block of the provider's own that is neither thinking nor a call of one of the
    call's tools, such as the result of a web search. A text block is one only if it has citations or stands
    right before another text block; its text came as `text` before.
    """

    text: str = ""
    thinking: str = ""
    signature: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    block: Mapping[str, Any] | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


_EMPTY_CHUNK: Final = vars(Chunk.model_construct())
_ONLY_TEXT: Final = {"text"}


def text_chunk(text: str) -> Chunk:
    """`Chunk(text=text)` without validation, for 0.5 µs instead of 1.1: a stream makes thousands of them."""
    chunk, fields = object.__new__(Chunk), _EMPTY_CHUNK.copy()
    fields["text"] = text
    set_fields(chunk, fields)
    set_given(chunk, _ONLY_TEXT)
    set_extra(chunk, None)
    set_private(chunk, None)
    return chunk
