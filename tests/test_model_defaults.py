"""A model's `params`, its `drops` and fallbacks with triggers, from outside, on each wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support import anthropic_like, openai_like
from tests.support.ollama import FakeOllama
from tests.support.scripted import ScriptedServer, answer, stream

from ccroute import AnthropicBackend, Fallback, Model, OllamaBackend, OpenAIBackend, Router, errors

OPUS = "claude-opus-4-20250514"
PROMPT = "x" * 4000  # about 1,004 tokens
TOO_LONG = answer(400, json=openai_like.error("too long", code="context_length_exceeded"))


def anthropic() -> ScriptedServer:
    return ScriptedServer(
        [
            answer(json=anthropic_like.message("hi")),
            stream(anthropic_like.message_sse(["hi"])),
        ]
    )


def openai() -> ScriptedServer:
    return ScriptedServer(
        [answer(json=openai_like.chat("hi")), stream(openai_like.chat_sse(["hi"]))],
    )


WIRES: list[Any] = [
    pytest.param(
        anthropic,
        lambda url, models: AnthropicBackend("main", base_url=url, api_key="k", models=models),
        OPUS,
        {"params": {"max_tokens": 200_000}},
        lambda body: body["max_tokens"],
        32_000,
        id="anthropic",
    ),
    pytest.param(
        openai,
        lambda url, models: OpenAIBackend("main", base_url=url, models=models),
        "qwen",
        {"params": {"max_tokens": 131_072}, "max_output": 8192},
        lambda body: body["max_tokens"],
        8192,
        id="openai",
    ),
    pytest.param(
        lambda: FakeOllama(["qwen"]),
        lambda url, models: OllamaBackend("main", url, models=models),
        "qwen",
        {"params": {"max_tokens": 131_072}, "context_window": 32_768},
        lambda body: body["options"]["num_predict"],
        32_768 - 1004 - 1004 // 4,
        id="ollama",
    ),
]


@pytest.mark.parametrize(("serve", "make", "model", "facts", "limit_in", "limit"), WIRES)
def test_a_default_limit_is_clamped_on_each_wire(
    caller: Caller,
    serve: Callable[[], ScriptedServer],
    make: Callable[..., Any],
    model: str,
    facts: dict[str, Any],
    limit_in: Callable[[Any], int],
    limit: int,
) -> None:
    with serve() as server, Router([make(server.url, {model: Model(**facts)})]) as router:
        reply = caller.complete(router, PROMPT, model=f"main/{model}")
        heard = caller.stream(router, PROMPT, model=f"main/{model}")
        asked = [limit_in(each.json) for each in server.requests if each.method == "POST"]
    assert asked == [limit, limit]
    wanted = facts["params"]["max_tokens"]
    for route in (reply.route, heard.completion.route):
        (reason,) = [reason for reason in route.reasons if "max_tokens" in reason]
        assert reason.startswith(f"main/{model}: max_tokens {wanted} → {limit}, ")


def test_a_models_params_and_drops_change_what_is_sent(caller: Caller) -> None:
    quiet = Model(params={"temperature": 0.2}, drops=["user"])
    with openai() as server:
        backend = OpenAIBackend("main", base_url=server.url, models={"quiet": quiet})
        with Router([backend]) as router:
            reply = caller.complete(router, "hi", model="main/quiet", user="u-17")
        (request,) = server.requests
    assert (request.json["temperature"], "user" in request.json) == (0.2, False)
    assert "main/quiet: user dropped, the model's drops name it" in reply.route.reasons


@pytest.mark.parametrize(
    ("failure", "served"), [(TOO_LONG, "long"), (answer(503), "spare"), (answer(404), "spare")]
)
def test_a_fallback_serves_for_its_own_triggers(caller: Caller, failure: Any, served: str) -> None:
    with ScriptedServer([failure]) as first, ScriptedServer([answer(json=openai_like.chat("hi"))]) as other:
        backends = [OpenAIBackend("first", base_url=first.url), OpenAIBackend("other", base_url=other.url)]
        fallbacks = {
            "first/m": [
                Fallback("other/long", triggers=["token_limit"]),
                Fallback("other/spare", triggers=["rate_limit", "availability"]),
            ]
        }
        with Router(backends, fallbacks=fallbacks) as router:
            reply = caller.complete(router, "hi", model="first/m")
    assert (reply.route.deployment, reply.route.fallback) == (f"other/{served}", True)


def test_a_call_takes_names_of_fallback_models_only(caller: Caller) -> None:
    with Router([OpenAIBackend("main", base_url="http://main.test")]) as router:
        fallback: Any = [Fallback("main/n")]
        with pytest.raises(errors.InvalidRequestError, match=r"fallback\[0\] must be a model's name"):
            caller.complete(router, "hi", model="main/m", fallback=fallback)
