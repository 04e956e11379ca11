"""An Ollama server's native API, byte for byte, on top of the scripted server.

It knows the forms (NDJSON by default, Go's JSON escapes, nanosecond durations, its own error texts) and which
models are installed and loaded. It does not generate: a `ScriptedReply` is the answer, one piece a token.

    with FakeOllama(["qwen2.5-coder:7b"]) as ollama:
        httpx.post(ollama.url + "/api/chat", json={"model": "qwen2.5-coder:7b", "messages": [...]})
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.support.scripted import Request, ScriptedServer, Step, answer, stream

CREATED = "2026-01-01T00:00:00.123456789Z"
NEVER = "2318-04-12T23:47:16.854775807Z"  # what a negative keep_alive comes to
LOAD_NS, WARM_NS = 2_400_000_000, 21_000_000  # a model swap, and finding the model in memory
PROMPT_TOKEN_NS, TOKEN_NS = 1_000_000, 12_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """An installed model, trained for `context_length`; its Modelfile asks for `num_ctx`.

    `file` names its weights: models with the same one share it.
    """

    name: str
    size: int = 4_683_087_332
    context_length: int = 32_768
    num_ctx: int | None = None
    file: str = ""
    capabilities: Sequence[str] = ("completion", "tools", "thinking")

    @property
    def full_name(self) -> str:
        return self.name if ":" in self.name else f"{self.name}:latest"

    @property
    def blob(self) -> str:
        """The file as /api/show names it."""
        digest = hashlib.sha256((self.file or self.name).encode()).hexdigest()
        return f"/usr/share/ollama/.ollama/models/blobs/sha256-{digest}"

    @property
    def listing(self) -> dict[str, Any]:
        """What /api/tags says of it."""
        return {
            "name": self.full_name,
            "model": self.full_name,
            "modified_at": CREATED,
            "size": self.size,
            "digest": hashlib.sha256(self.full_name.encode()).hexdigest(),
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "qwen2",
                "families": ["qwen2"],
                "parameter_size": "7.6B",
                "quantization_level": "Q4_K_M",
            },
        }


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """What the model says; each piece is a token and a line of the stream."""

    pieces: Sequence[str] = ("Hello", " there", ".")
    thinking: Sequence[str] = ()
    tool_calls: Sequence[Mapping[str, Any]] = ()  # {"function": {"name": …, "arguments": {…}}}, sent whole
    done_reason: str | None = "stop"
    prompt_tokens: int = 26  # 0 is left out, as Go's omitempty does
    done: bool = True  # False: a repeat-abort, which ends a stream early and answers 200 with done false


Chat = Callable[[Request], ScriptedReply | Iterable[Step]]


class FakeOllama(ScriptedServer):
    """`says` answers every chat; `on_chat` decides per request, with a `ScriptedReply` or steps."""

    def __init__(
        self,
        models: Iterable[str | Model] = ("llama3.2:3b",),
        *,
        says: ScriptedReply | None = None,
        on_chat: Chat | None = None,
    ) -> None:
        super().__init__(self._answer)
        installed = (model if isinstance(model, Model) else Model(model) for model in models)
        self.models = {model.full_name: model for model in installed}
        self.loaded: dict[str, int] = {}  # name → num_ctx, as /api/ps shows them
        self._on_chat: Chat = on_chat or (lambda request: says or ScriptedReply())

    @property
    def chats(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests so far."""
        return [request.json for request in self.requests if request.target == "/api/chat"]

    def _answer(self, request: Request) -> Iterable[Step]:
        match request.method, request.target:
            case "GET", "/":
                return answer(body="Ollama is running")
            case "GET", "/api/version":
                return json_answer({"version": "0.15.0"})
            case "GET", "/api/tags":
                return json_answer({"models": [model.listing for model in self.models.values()]})
            case "GET", "/api/ps":
                return json_answer({"models": [self._running(name) for name in self.loaded]})
            case "POST", "/api/show":
                return self._show(request)
            case "POST", "/api/chat":
                return self._chat(request)
        return answer(404, body="404 page not found")

    def _find(self, request: Request) -> Model | None:
        name = request.json.get("model") or request.json.get("name") or ""
        return self.models.get(name if ":" in name else f"{name}:latest")

    def _running(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        listing = {key: value for key, value in model.listing.items() if key != "modified_at"}
        more = {"expires_at": NEVER, "size_vram": model.size, "context_length": self.loaded[name]}
        return listing | more

    def _show(self, request: Request) -> Iterable[Step]:
        model = self._find(request)
        if model is None:
            return fault(404, f'model "{request.json.get("model")}" not found')
        parameters = 'stop                           "<|im_end|>"'
        if model.num_ctx is not None:
            parameters = f"num_ctx                        {model.num_ctx}\n{parameters}"
        return json_answer(
            {
                "modelfile": f"# FROM {model.full_name}\n\nFROM {model.blob}\nPARAMETER stop <|im_end|>\n",
                "parameters": parameters,
                "template": "{{ .Prompt }}",
                "details": model.listing["details"],
                "model_info": {
                    "general.architecture": "qwen2",
                    "general.parameter_count": 7_615_616_512,
                    "qwen2.context_length": model.context_length,
                },
                "capabilities": list(model.capabilities),
                "modified_at": CREATED,
            }
        )

    # -- chat ----------------------------------------------------------------------------------------------

    def _chat(self, request: Request) -> Iterable[Step]:
        body = request.json
        model = self._find(request)
        if not body.get("model"):
            return fault(400, "model is required")
        if model is None:
            return fault(404, f'model "{body["model"]}" not found, try pulling it first')
        for field, capability in (("tools", "tools"), ("think", "thinking")):
            if body.get(field) and capability not in model.capabilities:
                return fault(400, f'"{body["model"]}" does not support {capability}')
        options = body.get("options") or {}
        num_ctx = min(options.get("num_ctx") or model.num_ctx or 4096, model.context_length)
        warm = self.loaded.get(model.full_name) == num_ctx  # another num_ctx reloads the model
        self.loaded[model.full_name] = num_ctx
        if not body.get("messages"):
            return self._load(model, body)
        if body.get("keep_alive") == 0:
            del self.loaded[model.full_name]
        said = self._on_chat(request)
        if not isinstance(said, ScriptedReply):
            return said
        lines = chat_lines(shortened(said, options.get("num_predict", -1)), body["model"], warm=warm)
        if body.get("stream", True):
            return stream(map(line, lines), content_type="application/x-ndjson")
        return json_answer(merged(lines))

    def _load(self, model: Model, body: Mapping[str, Any]) -> Iterable[Step]:
        unload = body.get("keep_alive") == 0
        if unload:
            del self.loaded[model.full_name]
        last = {"done": True, "done_reason": "unload" if unload else "load"}
        return json_answer(opening(body["model"], content="") | last)


def shortened(said: ScriptedReply, limit: int) -> ScriptedReply:
    """Cut at `num_predict` tokens; a negative limit is none."""
    if limit < 0 or len(said.pieces) <= limit:
        return said
    return replace(said, pieces=said.pieces[:limit], done_reason="length")


def opening(model: str, **message: Any) -> dict[str, Any]:
    return {"model": model, "created_at": CREATED, "message": {"role": "assistant", **message}}


def chat_lines(said: ScriptedReply, model: str, *, warm: bool = True) -> list[dict[str, Any]]:
    """The stream's objects in order: thinking, content, tool calls whole, and the end with its counts."""
    messages: list[dict[str, Any]] = [{"content": "", "thinking": piece} for piece in said.thinking]
    messages += [{"content": piece} for piece in said.pieces]
    if said.tool_calls:
        messages.append({"content": "", "tool_calls": list(said.tool_calls)})
    lines = [opening(model, **message) | {"done": False} for message in messages]
    if not said.done:
        return lines
    last = opening(model, content="") | {"done": True}
    if said.done_reason:
        last["done_reason"] = said.done_reason
    return [*lines, last | counts(said, warm=warm)]


def counts(said: ScriptedReply, *, warm: bool) -> dict[str, int]:
    """Token counts and durations in nanoseconds, in Ollama's order."""
    tokens = len(said.pieces) + len(said.thinking) + len(said.tool_calls)
    load, prompt, evaluation = (
        WARM_NS if warm else LOAD_NS,
        said.prompt_tokens * PROMPT_TOKEN_NS,
        tokens * TOKEN_NS,
    )
    figures = {
        "total_duration": load + prompt + evaluation,
        "load_duration": load,
        "prompt_eval_count": said.prompt_tokens,
        "prompt_eval_duration": prompt,
        "eval_count": tokens,
        "eval_duration": evaluation,
    }
    return {name: value for name, value in figures.items() if value}


def merged(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `stream: false` answers: the last object, with everything said before it."""
    messages = [item["message"] for item in lines]
    whole: dict[str, Any] = {"content": "".join(message["content"] for message in messages)}
    if thinking := "".join(message.get("thinking", "") for message in messages):
        whole["thinking"] = thinking
    if calls := [call for message in messages for call in message.get("tool_calls", ())]:
        whole["tool_calls"] = calls
    return dict(lines[-1]) | {"message": {"role": "assistant", **whole}}


# -- bytes ---------------------------------------------------------------------------------------------------


def go_json(value: object) -> bytes:
    """JSON as Go's encoder writes it: compact, UTF-8, with the characters that HTML minds escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def line(value: object) -> bytes:
    return go_json(value) + b"\n"


def json_answer(value: object, status: int = 200) -> list[Step]:
    content = {"content-type": "application/json; charset=utf-8"}
    return answer(status, body=go_json(value), headers=content)


def fault(status: int, text: str) -> list[Step]:
    return json_answer({"error": text}, status)


def broken_stream(lines: Iterable[Mapping[str, Any]], text: str) -> Iterator[bytes]:
    """Pieces for `stream`: these objects and then a bare error line, under the 200 already sent."""
    yield from map(line, lines)
    yield line({"error": text})
