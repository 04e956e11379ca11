"""Your own backend: Google's Gemini API (`generateContent`), as a package could publish it.

It has text, system instructions, images in data URLs, tools, JSON schemas, usage, errors and streams. Efforts
are written as `thinkingLevel`, which models from Gemini 3 on take. Google's documentation:

    https://ai.google.dev/api/generate-content                   requests, answers, usage
    https://ai.google.dev/gemini-api/docs/function-calling       tools
    https://ai.google.dev/gemini-api/docs/thought-signatures     what must come back in the next turn
    https://ai.google.dev/gemini-api/docs/troubleshooting        errors

A configuration file names it with `kind = "gemini"` once this module is imported, or installed by a package
with the entry point `gemini = "your_package:GeminiBackend"` in the group `ccroute.backends`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ccroute import Backend, Chunk, Completion, Message, Usage, errors
from ccroute.backends import HttpRequest, register
from ccroute.types import Choice, FinishReason, Function, Request, ToolCall

JSON = Any  # what json.loads gives
PARAMETERS = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
}
UNKNOWN = ("logit_bias", "logprobs", "top_logprobs", "user")
SYSTEM = ("system", "developer")
MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
FILTERED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
REASONS: dict[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length"}
REASONS |= dict.fromkeys(FILTERED, "content_filter")
OUR_ID = "call-"  # ids that Gemini did not give are not sent back
UNSIGNED = "skip_thought_signature_validator"  # what Google documents for calls of other models


@register
class GeminiBackend(Backend):
    """A server with `POST {base_url}/models/{model}:generateContent`."""

    kind = "gemini"
    default_url = "https://generativelanguage.googleapis.com/v1beta"
    key_variable = "GEMINI_API_KEY"
    model_prefixes = ("gemini/",)

    def key_headers(self, key: str) -> Mapping[str, str]:
        return {"x-goog-api-key": key}

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        why = {name: "Gemini has no such parameter" for name in UNKNOWN if getattr(request, name)}
        if request.parallel_tool_calls is False:
            why["parallel_tool_calls"] = "Gemini cannot forbid several calls at once"
        if request.reasoning_effort == "none":
            why["reasoning_effort"] = "thinking cannot be switched off"
        if (request.response_format or {}).get("type", "text") not in ("text", "json_object", "json_schema"):
            why["response_format"] = "Gemini knows text, json_object and json_schema"
        return why

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        body: dict[str, JSON] = {"contents": self._contents(request.messages)}
        said = [(i, message) for i, message in enumerate(request.messages) if message["role"] in SYSTEM]
        if system := [part for i, message in said for part in _parts(message, i)]:
            body["systemInstruction"] = {"parts": system}
        if request.tools:
            functions = [_declaration(tool["function"]) for tool in request.tools if "function" in tool]
            own = [tool for tool in request.tools if "function" not in tool]  # such as {"googleSearch": {}}
            body["tools"] = [*([{"functionDeclarations": functions}] if functions else ()), *own]
        if request.tools and request.tool_choice:
            body["toolConfig"] = {"functionCallingConfig": _choice(request.tool_choice)}
        given = ((theirs, getattr(request, ours)) for ours, theirs in PARAMETERS.items())
        config = {name: value for name, value in given if value is not None}
        if request.stops:
            config["stopSequences"] = list(request.stops)
        if request.reasoning_effort:
            level = "high" if request.reasoning_effort == "max" else request.reasoning_effort
            config["thinkingConfig"] = {"thinkingLevel": level, "includeThoughts": True}
        if (form := request.response_format or {}).get("type", "text") != "text":
            config["responseMimeType"] = "application/json"
            if form["type"] == "json_schema":
                config["responseJsonSchema"] = form["json_schema"]["schema"]
        body["generationConfig"] = config | request.extra.get("generationConfig", {})
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = f"/models/{quote(model, safe='')}:{verb}"
        return HttpRequest(path, json.dumps({**request.extra, **body}).encode())

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        answer = Answer(self)
        answer.add(_object(body))
        return answer.finish()

    def decoder(self, status: int, headers: Mapping[str, str]) -> Answer:
        return Answer(self)

    def listing(self) -> HttpRequest:
        return HttpRequest("/models?pageSize=1000", method="GET")

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        models = _object(body).get("models", [])
        return {model["name"].removeprefix("models/"): model.get("inputTokenLimit") for model in models}

    def _contents(self, messages: Sequence[Mapping[str, JSON]]) -> list[dict[str, JSON]]:
        """The turns. Results of parallel calls must be in one turn, so equal roles are joined."""
        contents: list[dict[str, JSON]] = []
        names: dict[str, str] = {}
        for i, message in enumerate(messages):
            role, turn = message["role"], "user"
            if role == "assistant":
                turn = "model"
                calls = message.get("tool_calls") or ()
                names |= {call["id"]: call["function"]["name"] for call in calls}
                own = message.get("provider_fields", {}).get(self.origin.authority, {})
                # An answer with signatures goes back as it came.
                parts = own.get("parts") or [*_parts(message, i), *map(_call, calls, range(len(calls)))]
            elif role == "tool":
                id = message.get("tool_call_id", "")
                given = {} if id.startswith(OUR_ID) else {"id": id}
                text = "".join(part.get("text", "") for part in _parts(message, i))
                name = message.get("name") or names.get(id, "")
                parts = [{"functionResponse": {"name": name, **given, "response": {"result": text}}}]
            else:
                parts = [] if role in SYSTEM else _parts(message, i)
            if parts and contents and contents[-1]["role"] == turn:
                contents[-1]["parts"] += parts
            elif parts:
                contents.append({"role": turn, "parts": [*parts]})
        return contents


class Answer:
    """An answer that grows frame by frame. A whole answer is one frame, a stream sends one in each event."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.parts: list[dict[str, JSON]] = []
        self.calls: list[ToolCall] = []
        self.id = self.model = self.reason = ""
        self.usage, self.rest = Usage(), b""
        self.failure: errors.CcrouteError | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        chunks: list[Chunk] = []
        try:
            for line in lines:
                if line.startswith(b"data:") and self.failure is None:
                    chunks += self.add(_object(line[5:]))
        except errors.CcrouteError as error:
            self.failure = error  # `finish` raises it: what came before it in `data` is content
            if not chunks:
                raise
        return chunks

    def add(self, frame: dict[str, JSON]) -> list[Chunk]:
        if "error" in frame:
            code = frame["error"].get("code") if isinstance(frame["error"], dict) else None
            status = code if isinstance(code, int) else 500
            raise self.backend.classify(status, {}, json.dumps(frame).encode())
        try:
            if blocked := frame.get("promptFeedback", {}).get("blockReason"):
                raise errors.ContentPolicyError(f"the prompt was blocked ({blocked}): rephrase it")
            candidate = (frame.get("candidates") or [{}])[0]
            self.id, self.model = frame.get("responseId", self.id), frame.get("modelVersion", self.model)
            self.reason = candidate.get("finishReason", self.reason)
            self.usage = _usage(frame["usageMetadata"]) if "usageMetadata" in frame else self.usage
            parts = candidate.get("content", {}).get("parts", [])
            self.parts += parts
            return [chunk for part in parts if (chunk := self._chunk(part))]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            # A BackendError lets another candidate answer.
            raise errors.ProtocolError("the server's answer is none of generateContent") from None

    def _chunk(self, part: dict[str, JSON]) -> Chunk | None:
        if call := part.get("functionCall"):
            index = len(self.calls)
            function = Function(name=call["name"], arguments=json.dumps(call.get("args") or {}))
            id = call.get("id") or f"{OUR_ID}{index}"
            self.calls.append(ToolCall(id=id, function=function, index=index))
            return Chunk(tool_calls=(self.calls[-1],))
        text = part.get("text")
        return (Chunk(thinking=text) if part.get("thought") else Chunk(text=text)) if text else None

    def finish(self) -> Completion:
        if self.failure is not None:
            raise self.failure
        if not self.reason:
            raise errors.ProtocolError("the answer ended without a finishReason: it is not complete")
        return self.partial()

    def partial(self) -> Completion:
        signed = any("thoughtSignature" in part for part in self.parts)
        message = Message(
            content=self._text(thought=False) or None,
            thinking=self._text(thought=True) or None,
            tool_calls=tuple(self.calls) or None,
            provider_fields={self.backend.origin.authority: {"parts": self.parts}} if signed else {},
        )
        reason = REASONS.get(self.reason, "other") if self.reason else None
        reason = "tool_calls" if self.calls and reason == "stop" else reason
        return Completion(
            id=self.id,
            model=self.model,
            choices=(Choice(message=message, finish_reason=reason),),
            usage=self.usage,
            raw_finish_reason=self.reason or None,
        )

    def _text(self, *, thought: bool) -> str:
        return "".join(part.get("text", "") for part in self.parts if part.get("thought", False) is thought)


def _parts(message: Mapping[str, JSON], i: int) -> list[dict[str, JSON]]:
    """A message's content. Raises `InvalidRequestError` with the place of what Gemini cannot take."""
    content: JSON = message.get("content") or []
    if isinstance(content, str):
        return [{"text": content}]
    parts: list[dict[str, JSON]] = []
    for j, part in enumerate(content):
        url = (part.get("image_url") or {}).get("url", "")
        if part["type"] == "text":
            parts.append({"text": part["text"]})
        elif part["type"] == "image_url" and url.startswith("data:") and ";base64," in url:
            mime, _, data = url.removeprefix("data:").partition(";base64,")
            parts.append({"inlineData": {"mimeType": mime, "data": data}})
        else:
            raise errors.InvalidRequestError(
                f"messages[{i}].content[{j}]: Gemini takes text, and images as data:image/…;base64,…"
            )
    return parts


def _call(call: Mapping[str, JSON], index: int) -> dict[str, JSON]:
    """A call that another model made, or one whose signature was lost."""
    try:
        arguments = json.loads(call["function"].get("arguments") or "{}")
    except ValueError:
        raise errors.InvalidRequestError(f"tool_calls[{index}]: the arguments are no JSON") from None
    given = {} if call["id"].startswith(OUR_ID) else {"id": call["id"]}
    signature = {} if index else {"thoughtSignature": UNSIGNED}  # only the first of several needs one
    return {"functionCall": {"name": call["function"]["name"], "args": arguments, **given}, **signature}


def _declaration(function: Mapping[str, JSON]) -> dict[str, JSON]:
    declared = {name: function[name] for name in ("name", "description") if name in function}
    return {**declared, "parametersJsonSchema": function.get("parameters") or {"type": "object"}}


def _choice(choice: JSON) -> dict[str, JSON]:
    if isinstance(choice, str):
        return {"mode": MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}


def _usage(used: Mapping[str, int]) -> Usage:
    """Gemini counts cached tokens within the prompt, and thoughts beside the answer."""
    cached, thoughts = used.get("cachedContentTokenCount", 0), used.get("thoughtsTokenCount", 0)
    return Usage(
        input=max(0, used.get("promptTokenCount", 0) - cached),
        cache_read=cached,
        output=used.get("candidatesTokenCount", 0) + thoughts,
        reasoning=thoughts,
    )


def _object(data: bytes) -> dict[str, JSON]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    value = value[0] if isinstance(value, list) and value else value  # some errors come in a list
    if not isinstance(value, dict):
        raise errors.ProtocolError("the server sent no JSON object")
    return value
