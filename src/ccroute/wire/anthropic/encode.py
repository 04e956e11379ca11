"""Writes the parameters of a request for the Messages API. `turns.py` writes the turns.

Knows the body's field names and the rules of thinking. `Model` says what a model accepts.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from ccroute.types import JSON, Model, Request
from ccroute.wire.anthropic.turns import check_turns, continues_without_thinking, system_blocks, turns
from ccroute.wire.fields import (
    TOOL_MARKS,
    LeftOut,
    OfWire,
    OwnEffort,
    foreign,
    given,
    json_schema,
    merged,
    thinks,
)
from ccroute.wire.schemas import for_claude

SCHEMA_TOOL: Final = "ccroute_answer"
"""The forced tool that makes an answer follow a schema. The decoder turns its call into text."""

DEFAULT_MAX_TOKENS: Final = 4096
"""Sent if neither the caller nor the deployment gives a limit, because the field is required."""

_LEAST_BUDGET: Final = 1024  # tokens; Anthropic's own minimum
_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "max": 32_000}  # tokens
_SAMPLING: Final = {"temperature": 1, "top_p": 1, "top_k": None}
"""Sampling parameters with Anthropic's defaults, which need not be sent."""
_UNKNOWN: Final = ("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")
_BRANCHES: Final = frozenset({"anyOf", "oneOf", "allOf"})
_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}
_OF_BETAS: Final = frozenset(
    {"billing_policy", "compaction", "context_management", "fallbacks", "mcp_servers", "thread"}
)
"""Fields that Anthropic takes only with the header `anthropic-beta`."""

_WITHOUT_THINKING: Final = "the turn to continue began without this model's thinking, so it cannot think now"

USUAL: Final = Model()


class Form(NamedTuple):
    """How an answer is made to follow a schema: by `output_config.format`, a forced tool, or not at all."""

    kind: Literal["format", "tool", "none"]
    schema: Mapping[str, JSON]


def answer_form(request: Request, facts: Model, *, sure: bool) -> Form | None:
    """Return how this request's answer is made to follow its schema; None without a schema.

    `sure`: `facts.schema` is true for this server. Many servers other than Anthropic silently ignore
    `output_config`, but support tools.
    """
    schema = json_schema(request)
    if schema is None:
        return None
    kind = facts.schema or ("format" if sure else "tool")
    if kind == "format" and not sure and not (_takes_no_forced_tool(facts) or thinks(request)):
        kind = "tool"
    if kind != "format":
        return Form(kind, schema)
    closed = for_claude(schema)
    if closed is not None:
        return Form("format", closed)
    return Form("none" if _takes_no_forced_tool(facts) else "tool", schema)


def refusals(
    request: Request, facts: Model = USUAL, form: Form | None = None, *, beta: bool = True
) -> dict[str, str]:
    """Return the given parameters that the server cannot take, each with the reason.

    `beta`: whether the header `anthropic-beta` is sent.
    """
    # A penalty of 0, or no logprobs, is what Anthropic does anyway.
    why = {name: "Anthropic has no such parameter" for name in _UNKNOWN if getattr(request, name)}
    if request.seed is not None:
        why["seed"] = "Anthropic has no such parameter"
    if request.response_format:
        if request.response_format.get("type") not in ("text", "json_schema"):
            why["response_format"] = "Anthropic takes text and json_schema, no JSON without a schema"
        elif form is not None and form.kind == "none":
            why["response_format"] = (
                "this model cannot be held to this schema: it needs objects without free keys"
            )
    if facts.max_output is not None and (request.max_tokens or 0) > facts.max_output:
        why["max_tokens"] = f"this model answers with at most {facts.max_output} tokens"
    if request.tool_choice:
        choice = _choice(request.tool_choice)
        if choice is None:
            why["tool_choice"] = "Anthropic knows auto, required, none and one named function"
        elif choice["type"] in ("any", "tool") and _takes_no_forced_tool(facts):
            why["tool_choice"] = "this model takes no forced tool, only auto and none"
    if facts.sampling in ("one", "none"):
        asked = _sampling(request)
        if facts.sampling == "none":
            why |= dict.fromkeys(asked, "this model takes no sampling parameters")
        elif "temperature" in asked and "top_p" in asked:
            why["top_p"] = "this model takes temperature or top_p, not both"
    if request.extra:
        why |= foreign(request, "anthropic")
        if not beta and isinstance(request.extra, OfWire):
            needs = "Anthropic wants the header anthropic-beta for it: give it to the backend as headers="
            why |= dict.fromkeys(sorted(_OF_BETAS & request.extra.keys()), needs)
    if facts.refuses:
        refused = given(request, [name for name in facts.refuses if name != "tool_choice"])
        why = dict.fromkeys(refused, "this model does not take it") | why
    for i, tool in enumerate(request.tools or ()):
        if reason := _tool_fault(tool):
            why[f"tools[{i}]"] = reason
    if request.reasoning_effort is not None:
        why |= _refused_thinking(request, facts, form)
    return why


def _tool_fault(tool: Mapping[str, JSON]) -> str | None:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        own = "name" in tool or tool.get("type") == "mcp_toolset"
        return None if own else "it is neither a function nor a tool of Anthropic's own"
    if _BRANCHES.isdisjoint(function.get("parameters") or ()):
        return None
    return f"{function.get('name')}: Anthropic takes no anyOf, oneOf or allOf at the top of a tool's schema"


def _refused_thinking(request: Request, facts: Model, form: Form | None) -> dict[str, str]:
    effort = request.reasoning_effort
    if not thinks(request):
        always = facts.thinking == "adaptive_on" and "none" not in (facts.efforts or ())
        return {"reasoning_effort": "this model always thinks"} if always else {}
    if facts.thinking == "none":
        return {"reasoning_effort": "this model cannot think"}
    if facts.efforts is not None and _word(effort, facts) is None:
        return {"reasoning_effort": f"this model takes {', '.join(facts.efforts)}"}
    if not _is_adaptive(facts):
        if (request.max_tokens or facts.max_output or DEFAULT_MAX_TOKENS) <= _LEAST_BUDGET:
            least = f"thinking takes at least {_LEAST_BUDGET} tokens, max_tokens must be above that"
            return {"reasoning_effort": least}
        if facts.thinking == "budget" and continues_without_thinking(request.messages):
            return {"reasoning_effort": LeftOut(_WITHOUT_THINKING)}
    if form is not None and form.kind == "tool":
        return {
            "reasoning_effort": "a forced tool carries the schema, and Anthropic does not think before one"
        }
    why = {}
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
    request: Request, model: str, *, stream: bool, facts: Model = USUAL, form: Form | None = None
) -> dict[str, Any]:
    """Return the JSON body. `request` holds nothing that `refusals` names. `facts` describes the model."""
    limit = request.max_tokens if request.max_tokens is not None else facts.max_output or DEFAULT_MAX_TOKENS
    body: dict[str, JSON] = {"model": model, "max_tokens": limit}
    if system := system_blocks(request.messages):
        body["system"] = system
    body["messages"] = turns(request.messages, claude=facts.thinking is not None)
    check_turns(body["messages"], model, prefill=facts.prefill is not False)
    body |= _sampling(request) if facts.sampling in ("one", "none") else given(request, _SAMPLING)
    if request.stops:
        body["stop_sequences"] = list(request.stops)
    if request.user:
        body["metadata"] = {"user_id": request.user}
    if request.tools or request.tool_choice:
        _put_tools(body, request, strict=facts.schema != "tool")
    if form is not None:
        _put_schema(body, form)
    if request.reasoning_effort is not None:
        _put_thinking(body, request, request.reasoning_effort, facts)
    if stream:
        body["stream"] = True
    return merged(body, request, "output_config", "metadata") if request.extra else body


def _sampling(request: Request) -> dict[str, JSON]:
    """Return the given sampling parameters that differ from Anthropic's defaults."""
    return {name: value for name, value in given(request, _SAMPLING).items() if value != _SAMPLING[name]}


def _put_tools(body: dict[str, JSON], request: Request, *, strict: bool) -> None:
    if request.tools:
        body["tools"] = [_tool(tool, strict=strict) for tool in request.tools]
    choice = _choice(request.tool_choice)
    if request.tools and request.parallel_tool_calls is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice:
        body["tool_choice"] = choice


def _put_schema(body: dict[str, JSON], form: Form) -> None:
    if form.kind == "format":
        body["output_config"] = {"format": {"type": "json_schema", "schema": form.schema}}
        return
    answer = {
        "name": SCHEMA_TOOL,
        "description": "Give your answer by calling this tool.",
        "input_schema": form.schema,
    }
    # With other tools around, the model still decides which to call, but it must call one.
    others = body.get("tools", []) if body.get("tool_choice") != {"type": "none"} else []
    body["tools"] = [*others, answer]
    if body.get("tool_choice", {}).get("type") != "tool":
        forced = {"type": "any"} if others else {"type": "tool", "name": SCHEMA_TOOL}
        body["tool_choice"] = {**body.get("tool_choice", {}), **forced}


def _put_thinking(body: dict[str, JSON], request: Request, effort: str, facts: Model) -> None:
    if not thinks(request):
        # Models that think only when asked get no field: some of them refuse it.
        if facts.thinking == "adaptive_on":
            body["thinking"] = {"type": "disabled"}
    elif _is_adaptive(facts):
        _put_adaptive(body, effort, facts)
    else:
        own = effort.thinking if isinstance(effort, OwnEffort) else {}
        own = own if own.get("type") == "enabled" else {}
        budget = max(_LEAST_BUDGET, own.get("budget_tokens") or _BUDGETS[effort])
        if request.max_tokens is None and facts.max_output is None:
            body["max_tokens"] += budget
        if not own or budget >= body["max_tokens"]:
            # The budget is part of max_tokens: half of it is left for the answer.
            budget = max(_LEAST_BUDGET, min(budget, body["max_tokens"] // 2))
        body["thinking"] = {**own, "type": "enabled", "budget_tokens": budget}


def _put_adaptive(body: dict[str, JSON], effort: str, facts: Model) -> None:
    """Write the thinking fields for a model that decides by itself how long it thinks. A client's own fields
    are sent unchanged, except a budget, which such a model does not take."""
    # Newer models return their thinking only if asked.
    thinking: Mapping[str, JSON] = {"type": "adaptive", "display": "summarized"}
    word = _word(effort, facts)
    if isinstance(effort, OwnEffort) and effort.thinking.get("type") != "enabled":
        thinking, word = effort.thinking, effort.effort and (_word(effort.effort, facts) or word)
    if thinking:
        body["thinking"] = dict(thinking)
    if word is not None:
        body["output_config"] = {**body.get("output_config", {}), "effort": word}


def _is_adaptive(facts: Model) -> bool:
    return facts.thinking in ("adaptive", "adaptive_on")


def _takes_no_forced_tool(facts: Model) -> bool:
    return "tool_choice" in (facts.refuses or ())


def _word(effort: str | None, facts: Model) -> str | None:
    """Return Anthropic's name of an effort; None if the model does not take it."""
    word = "low" if effort == "minimal" else effort
    return word if facts.efforts is None or word in facts.efforts else None


def _choice(choice: str | Mapping[str, JSON] | None) -> dict[str, JSON] | None:
    """Return Anthropic's `tool_choice`; None for a choice that it does not have."""
    if isinstance(choice, str):
        return {"type": _CHOICES[choice]} if choice in _CHOICES else None
    name = ((choice or {}).get("function") or {}).get("name")
    return {"type": "tool", "name": name} if name else None


def _tool(tool: Mapping[str, JSON], *, strict: bool) -> dict[str, JSON]:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)  # a tool of Anthropic's own, such as web search
    schema = function.get("parameters") or {"type": "object"}
    closed = for_claude(schema) if strict and function.get("strict") else None
    made = {"name": function.get("name"), "input_schema": closed or {"type": "object", **schema}}
    if closed is not None:
        made["strict"] = True
    for name in ("description", "cache_control", *TOOL_MARKS):
        value = function.get(name, tool.get(name))
        if value is not None:
            made[name] = value
    return made
