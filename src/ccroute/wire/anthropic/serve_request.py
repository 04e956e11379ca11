"""A client's messages request in canonical form: the parameters. The turns are in `serve_turns.py`.

Knows the body's fields; must not know who will answer. What only Anthropic knows (a container, its own
tools) goes on marked as such; hints without a canonical form are left out and listed.
"""

from collections.abc import Mapping
from typing import Any, Final

from ccroute.types import JSON
from ccroute.wire.anthropic.serve_turns import read_system, read_turns
from ccroute.wire.fields import OfWire, OwnEffort
from ccroute.wire.serving import Fields, ParsedRequest, bad, load, options

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
"""Fields that go on to Anthropic, and to nobody else."""
_USUAL_EFFORT: Final = "high"
"""How much adaptive thinking thinks when it is not told."""


def parse_request(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """The keywords for `Router.complete` or `Router.stream` that a `POST /v1/messages` asks for.

    Raises `InvalidRequestError` naming the place, also for blocks that only Anthropic could read.
    """
    fields = load(body)
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
    return ParsedRequest(options(kwargs), stream, include_usage=True, ignored=(*rest, *unread))


def parse_count_tokens(body: bytes | Mapping[str, JSON]) -> ParsedRequest:
    """The same of a `POST /v1/messages/count_tokens`, whose body holds the prompt's fields only."""
    return parse_request(body)


def dump_count_tokens(tokens: int) -> dict[str, Any]:
    """The body that answers it."""
    return {"input_tokens": tokens}


def _messages(fields: Fields) -> list[dict[str, JSON]] | None:
    if fields.told.get("messages") is None:
        return None
    turns = fields.objects("messages")
    return read_system(fields) + read_turns(turns) if turns else []


def _tool(fields: Fields) -> Mapping[str, JSON]:
    """A client's own tool as a function, with its marks; one that Anthropic runs (web search) as it came."""
    if fields.text("type") not in (None, "custom"):
        return fields.told
    function: dict[str, JSON] = {"name": fields.needed("name")}
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
    """Whether a tool is the client's own, no tool that Anthropic defines."""
    return tool.told.get("type") in (None, "custom")


def _tool_choice(fields: Fields) -> dict[str, JSON]:
    if not fields.told:
        return {}
    kind = fields.needed("type")
    if kind == "tool":
        choice: JSON = {"type": "function", "function": {"name": fields.needed("name")}}
    elif kind in _CHOICES:
        choice = _CHOICES[kind]
    else:
        bad(fields.place("type"), "must be auto, any, tool or none")
    one_at_a_time = fields.flag("disable_parallel_tool_use")
    return {"tool_choice": choice, "parallel_tool_calls": False if one_at_a_time else None}


def _output(thinking: Fields, config: Fields) -> dict[str, JSON]:
    """How hard to think, and the schema that the answer follows."""
    effort = config.text("effort")
    if effort is not None and effort not in _EFFORTS:
        bad(config.place("effort"), f"must be one of {', '.join(_EFFORTS)}")
    form = config.fields("format")
    word = _effort(thinking, None if effort is None else _EFFORTS[effort])
    told: dict[str, JSON] = {"reasoning_effort": word and OwnEffort(word, thinking.told, effort)}
    if form.told:
        if form.needed("type") != "json_schema":
            bad(form.place("type"), "must be json_schema")
        schema = form.object("schema")
        if schema is None:
            bad(form.place("schema"), "is missing")
        # OpenAI wants a name; strict is what Anthropic means by a format.
        named = {"name": "answer", "schema": schema, "strict": True}
        told["response_format"] = {"type": "json_schema", "json_schema": named}
    return told


def _effort(thinking: Fields, effort: str | None) -> str | None:
    """Anthropic's budget of tokens, or its word, in canonical words; a word counts more."""
    if not thinking.told:
        return effort
    kind, budget = thinking.needed("type"), thinking.integer("budget_tokens")
    if kind not in _THINKING:
        bad(thinking.place("type"), f"must be one of {', '.join(_THINKING)}")
    if kind == "disabled":
        return "none"
    if kind != "enabled" or effort is not None:
        return effort or _USUAL_EFFORT
    if budget is None:
        bad(thinking.place("budget_tokens"), "is missing")
    return next((word for most, word in _BUDGETS if budget <= most), "max")
