"""Reads the parameters of a client's messages request. `messages.py` reads the conversation.

Must not know which backend will answer. Fields that only Anthropic knows (a container, its own tools) are
marked and sent to Anthropic only; hints without a form of ccroute's are left out and listed.
"""

from collections.abc import Mapping
from typing import Final

from ccroute.serve.anthropic.messages import read_messages
from ccroute.serve.body import Fields, ParsedRequest, bad, call_options, load
from ccroute.types import JSON
from ccroute.wire.fields import OfWire, OwnEffort

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
    fields = load(body)
    tools = fields.objects("tools")
    kwargs: dict[str, JSON] = {
        "model": fields.text("model"),
        "messages": read_messages(fields),
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
    """The same from a `POST /v1/messages/count_tokens`. Its body holds the prompt's fields only."""
    return parse_request(body)


def _tool(fields: Fields) -> Mapping[str, JSON]:
    """A client's own tool as a function. A tool that Anthropic runs (web search) stays as it is."""
    if fields.text("type") not in (None, "custom"):
        return fields.raw
    function: dict[str, JSON] = {"name": fields.required("name")}
    description, strict = fields.text("description"), fields.flag("strict")
    if description is not None:
        function["description"] = description
    function["parameters"] = fields.object("input_schema") or {"type": "object"}
    if strict is not None:
        function["strict"] = strict
    tool: dict[str, JSON] = {"type": "function", "function": function}
    marks = {
        "cache_control": fields.object("cache_control"),
        "allowed_callers": fields.texts("allowed_callers"),
        "defer_loading": fields.flag("defer_loading"),
        "eager_input_streaming": fields.flag("eager_input_streaming"),
        "input_examples": fields.items("input_examples"),
    }
    return tool | {name: value for name, value in marks.items() if value is not None}


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
