"""Ollama's imitations of OpenAI's and Anthropic's APIs, through those backends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.conftest import Caller
from tests.ollama.conftest import FORMAT, TOOL
from tests.support.ollama_real import RealOllama

from ccroute import AnthropicBackend, OpenAIBackend, RetryPolicy, Router, errors

WORDS = "Hello there, wörld 🚀 end."
WIRES = ["openai", "anthropic"]


@pytest.fixture
def router(ollama_server: RealOllama) -> Iterator[Router]:
    backends = [
        OpenAIBackend("openai", base_url=ollama_server.url, local=True),
        AnthropicBackend("anthropic", base_url=ollama_server.url, api_key="ollama-takes-any", local=True),
    ]
    with Router(backends, retry=RetryPolicy(attempts=1)) as router:
        yield router


@pytest.mark.parametrize("wire", WIRES)
def test_a_chat_is_answered_whole_and_streamed(router: Router, caller: Caller, wire: str) -> None:
    whole = caller.complete(router, "hi", model=f"{wire}/say-hello", max_tokens=50)
    heard = caller.stream(router, "hi", model=f"{wire}/say-hello", max_tokens=50)
    assert whole.text == heard.text == WORDS
    assert whole.usage == heard.completion.usage
    assert (whole.usage.input, whole.usage.output, whole.usage.estimated) == (24, 6, False)
    assert whole.finish_reason == heard.completion.finish_reason == "stop"


@pytest.mark.parametrize("wire", WIRES)
def test_a_limit_ends_with_length(router: Router, wire: str) -> None:
    reply = router.complete("hi", model=f"{wire}/say-hello", max_tokens=2)
    assert (reply.text, reply.finish_reason) == ("Hello there", "length")


@pytest.mark.parametrize("wire", WIRES)
def test_calls_are_the_same_whole_and_streamed(router: Router, caller: Caller, wire: str) -> None:
    options = {"model": f"{wire}/say-tool2", "tools": [TOOL], "max_tokens": 50}
    whole = caller.complete(router, "hi", **options)
    heard = caller.stream(router, "hi", **options)
    for completion in (whole, heard.completion):
        assert [json.loads(call.function.arguments) for call in completion.tool_calls] == [
            {"city": "Oslo"},
            {"city": "Rome", "days": 3},
        ]
        assert completion.finish_reason == "tool_calls"


@pytest.mark.parametrize("wire", WIRES)
def test_a_call_in_broken_json_is_an_empty_answer(router: Router, wire: str) -> None:
    reply = router.complete("hi", model=f"{wire}/say-badtool", tools=[TOOL], max_tokens=50)
    assert (reply.text, reply.tool_calls, reply.usage.output) == ("", (), 4)


@pytest.mark.parametrize("wire", WIRES)
def test_thoughts_and_answer_are_apart(router: Router, caller: Caller, wire: str) -> None:
    whole = caller.complete(router, "hi", model=f"{wire}/say-think", max_tokens=50)
    heard = caller.stream(router, "hi", model=f"{wire}/say-think", max_tokens=50)
    for completion in (whole, heard.completion):
        assert (completion.thinking, completion.text) == ("I should greet.", "Hello there.")


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_that_only_repeats_itself_is_no_success(router: Router, caller: Caller, wire: str) -> None:
    """Neither a finish nor usage comes, whole or streamed."""
    with pytest.raises(errors.ProtocolError):
        caller.complete(router, "hi", model=f"{wire}/say-loop", max_tokens=100)
    heard = caller.stream(router, "hi", model=f"{wire}/say-loop", max_tokens=100)
    assert isinstance(heard.error, errors.StreamInterruptedError)
    assert isinstance(heard.error.__cause__, errors.ProtocolError)


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_that_a_killed_runner_ends_is_no_success(
    router: Router, ollama_server: RealOllama, wire: str
) -> None:
    with pytest.raises(errors.StreamInterruptedError):
        with router.stream("hi", model=f"{wire}/say-cycle", max_tokens=400) as stream:
            for came, _ in enumerate(stream):
                if came == 2:
                    [runner] = ollama_server.runners()
                    runner.kill()


@pytest.mark.parametrize("wire", WIRES)
def test_an_unknown_model_and_missing_tools_have_their_errors(
    router: Router, caller: Caller, wire: str
) -> None:
    with pytest.raises(errors.ModelNotFoundError):
        caller.complete(router, "hi", model=f"{wire}/nope")
    with pytest.raises(errors.InvalidRequestError, match="does not support tools"):
        caller.complete(router, "hi", model=f"{wire}/say-hello", tools=[TOOL])


def test_a_schema_holds_on_the_imitation_of_openai(router: Router) -> None:
    reply = router.complete("hi", model="openai/tiny-a", response_format=FORMAT, max_tokens=100, seed=1)
    assert json.loads(reply.text)["severity"] in ("low", "high")


def test_a_schema_that_the_anthropic_imitation_ignores_is_an_error(router: Router, caller: Caller) -> None:
    with pytest.raises(errors.InvalidRequestError, match="without regard to response_format"):
        caller.complete(router, "hi", model="anthropic/say-tooltext", response_format=FORMAT, max_tokens=50)
    heard = caller.stream(router, "hi", model="anthropic/say-tooltext", response_format=FORMAT, max_tokens=50)
    assert isinstance(heard.error, errors.StreamInterruptedError)


def test_models_are_listed(router: Router) -> None:
    found = {model.id for model in router.discover()}
    assert {"openai/say-hello:latest", "anthropic/say-hello:latest"} <= found
