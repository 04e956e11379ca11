"""A request as Anthropic's messages want it: the parameters. The turns are in `turns.py`.

Knows the body's field names and the rules that come with thinking; must not know which server it is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ccroute.types import JSON, Request
from ccroute.wire.anthropic.turns import system_blocks, turns
from ccroute.wire.fields import given, json_schema, merged, wants_schema

SCHEMA_TOOL: Final = "ccroute_answer"
"""The forced tool through which an answer takes the form of a schema; undone when it is decoded."""

DEFAULT_MAX_TOKENS: Final = 4096
"""What is sent where neither the caller nor the deployment says: the field is required."""

_LEAST_BUDGET: Final = 1024  # tokens; Anthropic's own minimum
_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "max": 32_000}  # tokens
_AS_THEY_ARE: Final = ("temperature", "top_p", "top_k")
_UNKNOWN: Final = ("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")
_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How models and servers that speak Anthropic's wire differ.

    schema:   how an answer is held to a JSON schema: by `output_config.format`, or by a forced tool.
    thinking: how `reasoning_effort` is said: as a `budget` of tokens (models before Claude 4.6), or as
              `output_config.effort` with adaptive thinking.
    """

    schema: Literal["format", "tool"] = "format"
    thinking: Literal["budget", "effort"] = "budget"


PLAIN: Final = Dialect()


def refusals(request: Request, dialect: Dialect = PLAIN) -> dict[str, str]:
    """The parameters that were given but cannot be carried, each with the reason."""
    # A penalty of 0, or no logprobs, is what Anthropic does anyway.
    why = {name: "Anthropic has no such parameter" for name in _UNKNOWN if getattr(request, name)}
    if request.seed is not None:
        why["seed"] = "Anthropic has no such parameter"
    form = request.response_format or {}
    if given(form) and form.get("type") not in ("text", "json_schema"):
        why["response_format"] = "Anthropic takes text and json_schema, no JSON without a schema"
    if given(request.tool_choice) and _choice(request.tool_choice) is None:
        why["tool_choice"] = "Anthropic knows auto, required, none and one named function"
    if _thinks(request):
        why |= _refused_by_thinking(request, dialect)
    return why


def _refused_by_thinking(request: Request, dialect: Dialect) -> dict[str, str]:
    why = {}
    if dialect.thinking == "budget" and (request.max_tokens or DEFAULT_MAX_TOKENS) <= _LEAST_BUDGET:
        why["reasoning_effort"] = (
            f"thinking takes at least {_LEAST_BUDGET} tokens, max_tokens must be above that"
        )
    if dialect.schema == "tool" and wants_schema(request):
        why["reasoning_effort"] = "a forced tool carries the schema, and Anthropic does not think before one"
    if "reasoning_effort" in why:
        return why
    if request.temperature not in (None, 1):
        why["temperature"] = "Anthropic thinks only at temperature 1"
    if request.top_k is not None:
        why["top_k"] = "Anthropic does not take it while thinking"
    if request.top_p is not None and request.top_p < 0.95:
        why["top_p"] = "Anthropic takes 0.95 to 1 while thinking"
    if (_choice(request.tool_choice) or {}).get("type") in ("any", "tool"):
        why["tool_choice"] = "Anthropic does not think before a forced tool"
    return why


def encode(
    request: Request, model: str, *, stream: bool, max_output: int | None = None, dialect: Dialect = PLAIN
) -> dict[str, Any]:
    """The JSON body. `request` holds nothing that `refusals` names; `max_output` is the most tokens the
    deployment can answer with."""
    limit = request.max_tokens if request.max_tokens is not None else max_output or DEFAULT_MAX_TOKENS
    body: dict[str, JSON] = {"model": model, "max_tokens": limit}
    if system := system_blocks(request.messages):
        body["system"] = system
    body["messages"] = turns(request.messages)
    for name in _AS_THEY_ARE:
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.stops:
        body["stop_sequences"] = list(request.stops)
    if given(request.user):
        body["metadata"] = {"user_id": request.user}
    _put_tools(body, request)
    _put_schema(body, request, dialect)
    _put_thinking(body, request, dialect, may_grow=request.max_tokens is None and max_output is None)
    if stream:
        body["stream"] = True
    return merged(body, request, "output_config", "metadata")


def _put_tools(body: dict[str, JSON], request: Request) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    choice = _choice(request.tool_choice)
    if request.tools and request.parallel_tool_calls is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice:
        body["tool_choice"] = choice


def _put_schema(body: dict[str, JSON], request: Request, dialect: Dialect) -> None:
    schema = json_schema(request)
    if schema is None:
        return
    if dialect.schema == "format":
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return
    answer = {
        "name": SCHEMA_TOOL,
        "description": "Give your answer by calling this tool.",
        "input_schema": schema,
    }
    # With other tools around, the model still decides which to call, but it must call one.
    others = body.get("tools", []) if body.get("tool_choice") != {"type": "none"} else []
    body["tools"] = [*others, answer]
    if body.get("tool_choice", {}).get("type") != "tool":
        forced = {"type": "any"} if others else {"type": "tool", "name": SCHEMA_TOOL}
        body["tool_choice"] = {**body.get("tool_choice", {}), **forced}


def _put_thinking(body: dict[str, JSON], request: Request, dialect: Dialect, *, may_grow: bool) -> None:
    effort = request.reasoning_effort
    if dialect.thinking == "effort":
        if effort == "none":
            body["thinking"] = {"type": "disabled"}
        elif effort is not None:
            body["thinking"] = {"type": "adaptive"}
            effort = "low" if effort == "minimal" else effort
            body["output_config"] = {**body.get("output_config", {}), "effort": effort}
    elif effort is not None and effort != "none":
        budget = _BUDGETS[effort]
        if may_grow:
            body["max_tokens"] += budget
        # The budget is part of max_tokens: half of it is left for the answer.
        budget = max(_LEAST_BUDGET, min(budget, body["max_tokens"] // 2))
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _thinks(request: Request) -> bool:
    return request.reasoning_effort not in (None, "none")


def _choice(choice: str | Mapping[str, JSON] | None) -> dict[str, JSON] | None:
    """Anthropic's `tool_choice`, `None` for what it has no word for."""
    if isinstance(choice, str):
        return {"type": _CHOICES[choice]} if choice in _CHOICES else None
    name = ((choice or {}).get("function") or {}).get("name")
    return {"type": "tool", "name": name} if name else None


def _tool(tool: Mapping[str, JSON]) -> dict[str, JSON]:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)  # a tool of Anthropic's own, such as web search
    made = {"name": function.get("name"), "input_schema": function.get("parameters") or {"type": "object"}}
    for name in ("description", "strict", "cache_control"):
        value = function.get(name, tool.get(name))
        if value is not None:
            made[name] = value
    return made
