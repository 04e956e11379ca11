"""Reads a client's messages request.

Must not know which backend will answer. Fields that only Anthropic knows (a container, its own tools) are
marked and sent to Anthropic only; hints without a form of ccroute's are left out and listed. What an
assistant's text, calls and thinking cannot express (their order, the blocks of Anthropic's own tools) is
kept beside them, for a backend that is Anthropic. `wire/anthropic/turns.py` does the reverse.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pydantic_core import to_json

from ccroute.serve.body import Fields, ParsedRequest, bad, call_options, load_fields
from ccroute.types import JSON
from ccroute.wire.anthropic.decode import is_plain
from ccroute.wire.anthropic.turns import THINKING, is_signed
from ccroute.wire.fields import OfWire, OwnEffort, part_type

Messages: TypeAlias = list[dict[str, JSON]]
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_BUDGETS: Final = ((1024, "minimal"), (2048, "low"), (8192, "medium"), (16_384, "high"))  # tokens, at most
_THINKING: Final = ("enabled", "adaptive", "between_tools", "disabled")
_OWN: Final[tuple[str, ...]] = (
    "cache_control",
    "container",
    "context_management",
    "inference_geo",
    "mcp_servers",
    "service_tier",
    "speed",
)
"""Fields that are sent to Anthropic only."""
_USUAL_EFFORT: Final = "high"
"""The effort of adaptive thinking where the client gives none."""


def parse_request(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """The keyword arguments for `Router.complete` or `Router.stream` from a `POST /v1/messages`.

    Raises `InvalidRequestError` that names the place, also for blocks that only Anthropic could read.
    """
    fields = load_fields(body)
    tools = fields.objects("tools")
    kwargs: dict[str, JSON] = {
        "model": fields.text("model"),
        "messages": _messages(fields),
        "max_tokens": fields.integer("max_tokens"),
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "top_k": fields.integer("top_k"),
        "stop": fields.texts("stop_sequences") or None,
        "user": fields.fields("metadata").text("user_id"),
        "tools": [_tool(tool) for tool in tools] or None,
    }
    kwargs |= _tool_choice(fields.fields("tool_choice"))
    kwargs |= _output(fields.fields("thinking"), fields.fields("output_config"))
    stream = fields.flag("stream") or False
    rest = fields.rest
    own = {name: rest.pop(name) for name in _OWN if name in rest}
    kwargs["extra"] = OfWire("anthropic", own) if own else None
    unread = [tool.place(name) for tool in tools if _is_clients(tool) for name in tool.rest]
    return ParsedRequest(call_options(kwargs), stream, include_usage=True, ignored=(*rest, *unread))


def parse_count_tokens(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """`parse_request` for a `POST /v1/messages/count_tokens`. Its body has only the prompt's fields."""
    return parse_request(body)


def _tool(fields: Fields) -> Mapping[str, JSON]:
    """A client's own tool as a function. A tool that Anthropic runs (web search) stays as it is."""
    if fields.text("type") not in (None, "custom"):
        return fields.raw
    function = _given(
        name=fields.required("name"),
        description=fields.text("description"),
        parameters=fields.object("input_schema") or {"type": "object"},
        strict=fields.flag("strict"),
    )
    return _given(
        type="function",
        function=function,
        cache_control=fields.object("cache_control"),
        allowed_callers=fields.texts("allowed_callers"),
        defer_loading=fields.flag("defer_loading"),
        eager_input_streaming=fields.flag("eager_input_streaming"),
        input_examples=fields.items("input_examples"),
    )


def _is_clients(tool: Fields) -> bool:
    """Whether a tool is the client's own and not one that Anthropic defines."""
    return tool.raw.get("type") in (None, "custom")


def _tool_choice(fields: Fields) -> dict[str, JSON]:
    if not fields.raw:
        return {}
    kind = fields.required("type")
    if kind == "tool":
        choice: JSON = {"type": "function", "function": {"name": fields.required("name")}}
    elif kind in _CHOICES:
        choice = _CHOICES[kind]
    else:
        bad(fields.place("type"), "must be auto, any, tool or none")
    one_at_a_time = fields.flag("disable_parallel_tool_use")
    return {"tool_choice": choice, "parallel_tool_calls": False if one_at_a_time else None}


def _output(thinking: Fields, config: Fields) -> dict[str, JSON]:
    """The reasoning effort, and the schema of the answer."""
    effort = config.text("effort")
    if effort is not None and effort not in _EFFORTS:
        bad(config.place("effort"), f"must be one of {', '.join(_EFFORTS)}")
    form = config.fields("format")
    word = _effort(thinking, None if effort is None else _EFFORTS[effort])
    output: dict[str, JSON] = {"reasoning_effort": word and OwnEffort(word, thinking.raw, effort)}
    if form.raw:
        if form.required("type") != "json_schema":
            bad(form.place("type"), "must be json_schema")
        schema = form.object("schema")
        if schema is None:
            bad(form.place("schema"), "is missing")
        # OpenAI requires a name; Anthropic's formats are always strict.
        named = {"name": "answer", "schema": schema, "strict": True}
        output["response_format"] = {"type": "json_schema", "json_schema": named}
    return output


def _effort(thinking: Fields, effort: str | None) -> str | None:
    """Anthropic's effort or budget of tokens as ccroute's effort. The effort wins over the budget."""
    if not thinking.raw:
        return effort
    kind, budget = thinking.required("type"), thinking.integer("budget_tokens")
    if kind not in _THINKING:
        bad(thinking.place("type"), f"must be one of {', '.join(_THINKING)}")
    if kind == "disabled":
        return "none"
    if kind != "enabled" or effort is not None:
        return effort or _USUAL_EFFORT
    if budget is None:
        bad(thinking.place("budget_tokens"), "is missing")
    return next((word for most, word in _BUDGETS if budget <= most), "max")


def _messages(fields: Fields) -> Messages | None:
    """The system prompt and the turns as messages; None if there are no `messages`."""
    if fields.raw.get("messages") is None:
        return None
    turns = fields.objects("messages")
    system = _blocks(fields, "system") if turns else None
    messages: Messages = [{"role": "system", "content": _content(system)}] if system else []
    for turn in turns:
        role = turn.required("role")
        blocks = _blocks(turn, "content")
        if blocks is None:
            bad(turn.place("content"), "is missing")
        if role == "user":
            messages += _user(blocks)
        elif role == "assistant":
            messages.append(_assistant(blocks))
        elif role == "system":
            messages.append({"role": role, "content": _content(blocks)})
        else:
            bad(turn.place("role"), "must be user, assistant or system")
    return messages


def _blocks(fields: Fields, name: str) -> list[Fields] | None:
    """The blocks of a field; a text is one block. None if the field is absent."""
    given = fields.raw.get(name)
    if isinstance(given, str):
        return [Fields({"type": "text", "text": fields.text(name)}, fields.place(name))]
    return None if given is None else fields.objects(name)


def _user(blocks: Sequence[Fields]) -> Messages:
    """Tool results come first, as every API requires: they answer the turn before."""
    results = [block for block in blocks if _kind(block) == "tool_result"]
    others = [block for block in blocks if _kind(block) != "tool_result"]
    messages = [_result(block) for block in results]
    if others or not results:
        messages.append({"role": "user", "content": _content(others)})
    return messages


def _result(block: Fields) -> dict[str, JSON]:
    content = _content(_blocks(block, "content") or ())
    message: dict[str, JSON] = {"role": "tool", "tool_call_id": block.required("tool_use_id")}
    message["content"] = content
    if block.flag("is_error"):
        message["is_error"] = True
    return message | _given(cache_control=block.object("cache_control"))


def _assistant(blocks: Sequence[Fields]) -> dict[str, JSON]:
    """One message. Thinking without a signature is another provider's: only its text is kept, because
    Anthropic would refuse the block."""
    parts = [block for block in blocks if _kind(block) in ("text", "image")]
    calls = [_call(block) for block in blocks if _kind(block) == "tool_use"]
    thoughts = [block for block in blocks if _kind(block) in THINKING]
    for block in thoughts:
        block.text("signature") if _kind(block) == "thinking" else block.required("data")
    thinking = "".join(block.required("thinking") for block in thoughts if _kind(block) == "thinking")
    signed = [dict(block.raw) for block in thoughts if is_signed(block.raw)]
    message: dict[str, JSON] = {
        "role": "assistant",
        "content": None if calls and not parts else _content(parts),
    }
    if calls:
        message["tool_calls"] = calls
    if thinking:
        message["thinking"] = thinking
    if signed:
        message["thinking_blocks"] = signed
    if not is_plain([block.raw for block in blocks]):
        message["blocks"] = [
            dict(block.raw) for block in blocks if _kind(block) not in THINKING or is_signed(block.raw)
        ]
        message["content"] = "".join(block.raw["text"] for block in parts if _kind(block) == "text") or None
    return message


def _call(block: Fields) -> dict[str, JSON]:
    arguments = to_json(block.object("input") or {}).decode()
    function = {"name": block.required("name"), "arguments": arguments}
    return {"id": block.required("id"), "type": "function", "function": function}


def _content(blocks: Sequence[Fields]) -> str | list[dict[str, JSON]]:
    """Texts and images as parts. A single text is a plain str, which every server accepts."""
    parts = [_part(block) for block in blocks]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _part(block: Fields) -> dict[str, JSON]:
    kind = _kind(block)
    if kind == "text":
        part: dict[str, JSON] = {"type": "text", "text": block.required("text")}
    elif kind == "image":
        part = {"type": "image_url", "image_url": {"url": _url(block.fields("source"))}}
    else:
        what = part_type(block.raw, "block")
        bad(block.place("type"), f"is not supported: {what}; send text, images and tools")
    return part | _given(cache_control=block.object("cache_control"))


def _url(source: Fields) -> str:
    kind = source.required("type")
    if kind == "url":
        return source.required("url")
    if kind != "base64":
        bad(source.place("type"), "must be base64 or url: uploaded files are only at Anthropic")
    return f"data:{source.required('media_type')};base64,{source.required('data')}"


def _given(**fields: JSON) -> dict[str, JSON]:
    return {name: value for name, value in fields.items() if value is not None}


def _kind(block: Fields) -> str:
    kind = block.raw.get("type")
    if not isinstance(kind, str):
        bad(block.place("type"), "must be a string")
    return kind
