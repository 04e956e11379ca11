"""Writes a request for Ollama's `/api/chat`.

Knows the body's field names and its `options`; must not know the server. `num_ctx` is the deployment's
window, the same in all calls: Ollama reloads the model when it changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON, Model, Request
from ccroute.wire.fields import foreign, given, image, json_schema, merged, unknown_part
from ccroute.wire.ollama.tools import tool
from ccroute.wire.tools import as_object, named_function

_UNKNOWN: Final = ("logit_bias", "user")
_OPTIONS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",  # not repeat_penalty, whose neutral value is 1
)
_ROLES: Final = {"developer": "system", "function": "tool"}
_ORDER: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_LEVELS: Final = ("none", "low", "medium", "high", "max")
_USUAL: Final = Model()


def refusals(request: Request, model: Model = _USUAL, *, hosted: bool = False) -> dict[str, str]:
    """Return the given parameters that Ollama cannot take, each with the reason.

    `model` describes the model. `hosted`: it runs at ollama.com.
    """
    why = dict.fromkeys(given(request, _UNKNOWN), "Ollama has no such parameter")
    if request.tool_choice and request.tool_choice not in ("auto", "none"):
        why["tool_choice"] = "Ollama cannot force a tool; only auto and none"
    if request.parallel_tool_calls is False and offers_tools(request):
        why["parallel_tool_calls"] = "Ollama cannot forbid several calls at once"
    form = request.response_format or {}
    if form and form.get("type") not in ("text", "json_object", "json_schema"):
        why["response_format"] = "Ollama knows text, json_object and json_schema"
    elif form and form.get("type") != "text" and offers_tools(request) and not hosted:
        why["response_format"] = (
            "Ollama's format keeps the model from calling tools; ask for it without tools"
        )
    if request.reasoning_effort not in (None, "none") and model.thinking == "none":
        why["reasoning_effort"] = "the model does not think"
    if model.refuses:
        refused = given(request, model.refuses)
        if request.tool_choice in ("auto", "none"):
            refused.pop("tool_choice", None)
        why |= dict.fromkeys(refused, "the model refuses it")
    return why | foreign(request, "ollama") if request.extra or request.tools else why


def offers_tools(request: Request) -> bool:
    """Whether the model may call a tool."""
    return bool(request.tools) and request.tool_choice != "none"


def encode(
    request: Request,
    model: str,
    *,
    stream: bool,
    known: Model = _USUAL,
    keep_alive: str | int | None = None,
) -> dict[str, Any]:
    """Return the JSON body. `request` holds nothing that `refusals` names.

    `known` describes the model. `keep_alive` is a duration such as `"5m"`, or seconds.
    """
    # Without these two Ollama drops the oldest messages silently when the prompt does not fit.
    body: dict[str, JSON] = {"model": model, "messages": _messages(request.messages), "stream": stream}
    body |= {"truncate": False, "shift": False}
    options = given(request, _OPTIONS)
    if known.context_window is not None:
        options["num_ctx"] = known.context_window
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.stops:
        options["stop"] = list(request.stops)
    if options:
        body["options"] = options
    if keep_alive is not None:
        body["keep_alive"] = keep_alive
    if request.tools and offers_tools(request):
        body["tools"] = [tool(each, f"tools[{i}]") for i, each in enumerate(request.tools)]
    if request.response_format:
        schema = json_schema(request)
        if schema is not None:
            body["format"] = schema
        elif request.response_format.get("type") == "json_object":
            body["format"] = "json"
    if request.reasoning_effort is not None:
        body["think"] = _think(request.reasoning_effort, known)
    body |= given(request, ("logprobs", "top_logprobs"))
    return merged(body, request, "options") if request.extra else body


def _think(effort: str, known: Model) -> bool | str:
    """Return the value nearest to an effort: on or off, or a level of the model (of two, the higher one)."""
    if known.thinking != "levels":
        return effort != "none"
    levels = [level for level in known.efforts or () if level in _ORDER] or _LEVELS
    wanted = _ORDER.index(effort)
    level = min(levels, key=lambda each: (abs(_ORDER.index(each) - wanted), -_ORDER.index(each)))
    return False if level == "none" else level


def _messages(messages: Sequence[Mapping[str, JSON]]) -> list[dict[str, JSON]]:
    names: dict[str, str] = {}  # tool names by the id of their latest call
    own = [_message(message, f"messages[{i}]", names) for i, message in enumerate(messages)]
    return own if all(message["role"] != "system" for message in own[1:]) else _system_first(own)


def _system_first(messages: list[dict[str, JSON]]) -> list[dict[str, JSON]]:
    """Join all system messages into one at the start. Many templates (Qwen's, …) answer 500 to any other."""
    texts = [message["content"] for message in messages if message["role"] == "system" and message["content"]]
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(texts)}, *rest] if texts else rest


def _message(message: Mapping[str, JSON], where: str, names: dict[str, str]) -> dict[str, JSON]:
    role = message["role"]
    content, images = _content(message.get("content"), where)
    own: dict[str, JSON] = {"role": _ROLES.get(role, role), "content": content}
    if images:
        own["images"] = images
    if role == "assistant":
        if message.get("thinking"):
            own["thinking"] = message["thinking"]
        if message.get("tool_calls"):
            own["tool_calls"] = [
                _call(call, f"{where}.tool_calls[{j}]", names) for j, call in enumerate(message["tool_calls"])
            ]
    elif own["role"] == "tool":
        id = message.get("tool_call_id") or ""
        name = message.get("name") or names.get(id)
        own |= {key: value for key, value in (("tool_name", name), ("tool_call_id", id)) if value}
    return own


def _content(content: JSON, where: str) -> tuple[str, list[str]]:
    """Return a message's text, one line for each part, and its images in base64."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts, images = [], []
    for j, part in enumerate(content):
        place = f"{where}.content[{j}]"
        if part["type"] == "text":
            texts.append(part["text"])
        elif part["type"] == "image_url":
            picture = image(part, place)
            if picture.url:
                raise InvalidRequestError(f"{place}: Ollama fetches no image URL; send data:image/…;base64,…")
            images.append(picture.data)
        else:
            unknown_part(part, place, "Ollama")
    return "\n".join(texts), images


def _call(call: JSON, where: str, names: dict[str, str]) -> dict[str, JSON]:
    function = named_function(call, where)
    own = {"function": {"name": function["name"], "arguments": as_object(function.get("arguments"))}}
    if id := call.get("id"):
        names[id] = function["name"]
        return {"id": id, **own}
    return own
