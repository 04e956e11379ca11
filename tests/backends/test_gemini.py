"""examples/gemini.py: a backend that is not part of ccroute does all that one of ccroute's own does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.scripted import Script, ScriptedServer, answer, stream
from tests.test_no_silent_loss import VALUES

from ccroute import Router, errors
from ccroute.config import load
from ccroute.types import Request
from ccroute.types.request import PARAMETERS
from gemini import GeminiBackend

KEY = "made-up-key-1"
USAGE = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 20,
}
LOOK = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
}
SIGNED = [
    {"text": "hm", "thought": True},
    {"functionCall": {"name": "look", "args": {"at": "a"}}, "thoughtSignature": "signature-a"},
    {"functionCall": {"name": "look", "args": {"at": "b"}}},
]


def frame(*parts: dict[str, Any], ends: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [*parts]}} | ({"finishReason": ends} if ends else {})
    return {"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r-1", **more}


def events(*frames: dict[str, Any]) -> list[bytes]:
    return [f"data: {json.dumps(each)}\r\n\r\n".encode() for each in frames]


class GeminiSetup:
    """A router that a file describes, before a server that plays a script."""

    def __init__(self, path: Path, script: Script) -> None:
        self.server = ScriptedServer(script)
        self.path = path / "ccroute.toml"

    def __enter__(self) -> GeminiSetup:
        self.server.__enter__()
        self.path.write_text(
            f'default_model = "gemini/gemini-x"\n[backends.gemini]\nbase_url = "{self.server.url}/v1beta"\n'
            f'api_key = "{KEY}"\n'
        )
        self.router = Router.from_config(self.path)
        return self

    def __exit__(self, *_: Any) -> None:
        self.router.close()
        self.server.__exit__(None, None, None)

    @property
    def sent(self) -> Any:
        return self.server.requests[-1].json


def test_a_file_names_the_kind_and_a_call_is_answered(caller: Caller, tmp_path: Path) -> None:
    whole = frame({"text": "why", "thought": True}, {"text": "hello"}, usageMetadata=USAGE)
    with GeminiSetup(tmp_path, [answer(json=whole)]) as there:
        said = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hi"}]
        reply = caller.complete(there.router, messages=said, max_tokens=9, reasoning_effort="low")
        request = there.server.requests[0]
    assert (reply.text, reply.thinking, reply.finish_reason, reply.model) == (
        "hello",
        "why",
        "stop",
        "gemini-x",
    )
    used = reply.usage
    assert (used.input, used.cache_read, used.output, used.reasoning, used.estimated) == (8, 4, 8, 3, False)
    assert request.target == "/v1beta/models/gemini-x:generateContent"
    assert request.headers["x-goog-api-key"] == KEY
    assert request.json == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be short."}]},
        "generationConfig": {
            "maxOutputTokens": 9,
            "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True},
        },
    }


def test_a_stream_comes_piece_by_piece(caller: Caller, tmp_path: Path) -> None:
    pieces = events(
        frame({"text": "h"}, ends=None),
        frame({"text": "i"}, ends=None),
        frame({"text": ""}, usageMetadata=USAGE),
    )
    # However the network cuts it.
    cut = [b"".join(pieces)[i : i + 7] for i in range(0, len(b"".join(pieces)), 7)]
    with GeminiSetup(tmp_path, [stream(cut)]) as there:
        heard = caller.stream(there.router, "hi")
        assert there.server.requests[0].target.endswith("/gemini-x:streamGenerateContent?alt=sse")
    assert ([chunk.text for chunk in heard.chunks if chunk.text], heard.error) == (["h", "i"], None)
    assert (heard.completion.text, heard.completion.usage.output) == ("hi", 8)


@pytest.mark.parametrize("streamed", [False, True])
def test_calls_and_their_results_go_both_ways(caller: Caller, tmp_path: Path, streamed: bool) -> None:
    asked = stream(events(frame(*SIGNED, ends=None), frame())) if streamed else answer(json=frame(*SIGNED))
    with GeminiSetup(tmp_path, [asked, answer(json=frame({"text": "done"}))]) as there:
        options: dict[str, Any] = {"tools": [LOOK], "tool_choice": "required"}
        question = {"role": "user", "content": "look"}
        if streamed:
            reply = caller.stream(there.router, messages=[question], **options).completion
        else:
            reply = caller.complete(there.router, messages=[question], **options)
        first = there.sent
        results = [{"role": "tool", "tool_call_id": call.id, "content": "red"} for call in reply.tool_calls]
        caller.complete(there.router, messages=[question, reply.message, *results], **options)
        second = there.sent
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        ("look", {"at": "a"}),
        ("look", {"at": "b"}),
    ]
    assert len({call.id for call in reply.tool_calls}) == 2
    assert reply.finish_reason == "tool_calls"
    declared = {
        "name": "look",
        "description": "Looks.",
        "parametersJsonSchema": LOOK["function"]["parameters"],
    }
    assert first["tools"] == [{"functionDeclarations": [declared]}]
    assert first["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    result = {"functionResponse": {"name": "look", "response": {"result": "red"}}}
    assert second["contents"][1:] == [
        {"role": "model", "parts": SIGNED},  # with its signature, as it came
        {"role": "user", "parts": [result, result]},
    ]


def test_a_call_of_another_model_goes_on_here(tmp_path: Path) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "a"}'}}
    said = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image("data:image/png;base64,aGk=")]},
        {"role": "assistant", "content": "well", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "red"},
    ]
    with GeminiSetup(tmp_path, [answer(json=frame({"text": "done"}))]) as there:
        there.router.complete(messages=said)
        contents = there.sent["contents"]
    assert contents[0]["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    made = {"functionCall": {"name": "look", "args": {"at": "a"}, "id": "call_1"}}
    assert contents[1]["parts"] == [
        {"text": "well"},
        {**made, "thoughtSignature": "skip_thought_signature_validator"},
    ]
    result = {"name": "look", "id": "call_1", "response": {"result": "red"}}
    assert contents[2]["parts"] == [{"functionResponse": result}]


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def failed(code: int, message: str, **detail: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": "X", "details": [detail]}}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, failed(400, "API key not valid.", reason="API_KEY_INVALID"), errors.AuthenticationError),
        (403, failed(403, "Not allowed."), errors.PermissionDeniedError),
        (404, failed(404, "models/gemini-x is not found"), errors.ModelNotFoundError),
        (429, failed(429, "Quota exceeded.", retryDelay="34s"), errors.RateLimitError),
        (503, failed(503, "The model is overloaded."), errors.OverloadedError),
        (
            400,
            failed(400, "The input token count (2000) exceeds the maximum number of tokens allowed (1000)."),
            errors.ContextWindowExceededError,
        ),
        (200, {"promptFeedback": {"blockReason": "SAFETY"}}, errors.ContentPolicyError),
        (200, {"candidates": "what?"}, errors.ProtocolError),
        (200, frame({"text": "cut"}, ends=None), errors.ProtocolError),
    ],
)
def test_a_failure_has_its_type(
    caller: Caller, tmp_path: Path, status: int, body: Any, error: type[Exception]
) -> None:
    with GeminiSetup(tmp_path, lambda request: answer(status, json=body)) as there:
        with pytest.raises(error) as caught:
            caller.complete(there.router, "hi", timeout=0.3)
    assert type(caught.value) is error
    if status == 429:
        assert getattr(caught.value, "retry_after") == 34  # noqa: B009


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        (events(frame({"text": "h"}, ends=None)), errors.StreamInterruptedError),
        (events(frame({"text": "h"}, ends=None), failed(503, "overloaded")), errors.StreamInterruptedError),
        (events(failed(503, "overloaded")), errors.OverloadedError),
        ([b"data: nothing\n\n"], errors.ProtocolError),
    ],
)
def test_a_stream_that_fails_says_how(tmp_path: Path, pieces: list[bytes], error: type[Exception]) -> None:
    with GeminiSetup(tmp_path, lambda request: stream(pieces)) as there:
        heard = Caller("sync").stream(there.router, "hi", timeout=0.3)
    assert type(heard.error) is error
    if isinstance(heard.error, errors.StreamInterruptedError):
        assert heard.error.partial is not None
        assert heard.error.partial.text == "h"


def test_the_models_are_listed_with_their_windows(tmp_path: Path) -> None:
    models = {"models": [{"name": "models/gemini-x", "inputTokenLimit": 1000}]}
    with GeminiSetup(tmp_path, [answer(json=models)]) as there:
        [found] = there.router.discover()
    assert (found.id, found.context_window) == ("gemini/gemini-x", 1000)


GIVEN = VALUES | {
    "tools": [LOOK],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string"}}},
    "extra": {"generationConfig": {"topK": 18}, "safetySettings": []},
}


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_parameter_is_carried_or_refused(name: str) -> None:
    backend = GeminiBackend("gemini")
    options = {name: GIVEN[name]} | ({"tools": [LOOK]} if name == "tool_choice" else {})
    request = Request(messages=({"role": "user", "content": "hi"},), **options)
    plain = Request(
        messages=({"role": "user", "content": "hi"},), tools=options.get("tools") if name != "tools" else None
    )
    if name not in backend.refusals(request, "m"):
        assert backend.encode(request, "m", False).body != backend.encode(plain, "m", False).body


def test_its_own_variable_is_read_for_its_own_address() -> None:
    [backend] = load({"backends": {"gemini": {}}}, {"GEMINI_API_KEY": KEY})["backends"]
    assert (type(backend), backend.secrets()) == (GeminiBackend, (KEY,))
