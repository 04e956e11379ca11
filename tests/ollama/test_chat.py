"""Chats with a real Ollama: whole and streamed, with their limits and options."""

from __future__ import annotations

import time

import pytest
from tests.conftest import Caller
from tests.ollama.conftest import WIDE
from tests.support.ollama_real import RealOllama

from ccroute import Model, OllamaBackend, Price, Router, errors

WORDS = "Hello there, wörld 🚀 end."


def test_a_chat_is_answered_whole_and_streamed(router: Router, caller: Caller) -> None:
    whole = caller.complete(router, "hi", model="local/say-hello")
    heard = caller.stream(router, "hi", model="local/say-hello")
    assert whole.text == heard.text == WORDS
    assert [chunk.text for chunk in heard.chunks if chunk.text] == [
        "Hello",
        " there",
        ", wörld",
        " 🚀",
        " end.",
    ]
    assert whole.usage == heard.completion.usage
    assert (whole.usage.input, whole.usage.output, whole.usage.estimated) == (24, 6, False)
    assert (whole.finish_reason, heard.completion.finish_reason) == ("stop", "stop")
    assert heard.completion.raw["total_duration"] > 0
    assert whole.cost == 0


def test_a_limit_ends_the_answer_with_length(router: Router, caller: Caller) -> None:
    whole = caller.complete(router, "hi", model="local/say-hello", max_tokens=2)
    heard = caller.stream(router, "hi", model="local/say-hello", max_tokens=2)
    for completion in (whole, heard.completion):
        assert (completion.text, completion.finish_reason) == ("Hello there", "length")


def test_an_endless_answer_ends_at_the_window(ollama_server: RealOllama) -> None:
    narrow = OllamaBackend("local", ollama_server.url, models={"say-cycle": Model(context_window=64)})
    with Router([narrow]) as router:
        reply = router.complete("hi", model="local/say-cycle")
    assert (reply.finish_reason, reply.usage.input, reply.usage.output) == ("length", 24, 41)


def test_stop_words_end_it_and_are_cut(router: Router) -> None:
    reply = router.complete(
        "hi", model="local/say-cycle", stop=["gamma", *"abcdefghijklmnopqrstuvwxyz".upper()]
    )
    assert (reply.text, reply.finish_reason) == (" alpha beta ", "stop")


def test_log_probabilities_come_whole_and_streamed(router: Router) -> None:
    asked = {"model": "local/say-hello", "max_tokens": 1, "logprobs": True, "top_logprobs": 2}
    whole = router.complete("hi", **asked)
    with router.stream("hi", **asked) as stream:
        list(stream)
    for completion in (whole, stream.completion):
        [entry] = completion.choices[0].logprobs["content"]
        assert (entry["token"], len(entry["top_logprobs"])) == ("Hello", 2)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "be brief"}],
        [{"role": "assistant", "content": "Hello"}],
        [
            {"role": "developer", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "user", "content": "c"},
        ],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    ],
)
def test_conversations_of_all_shapes_are_answered(router: Router, messages: list[dict[str, object]]) -> None:
    assert router.complete(messages=messages, model="local/say-hello").text == WORDS


def test_a_template_sees_one_system_message_and_it_comes_first(ollama_server: RealOllama) -> None:
    """The server shows the prompt it would have given to the model."""
    system, late = {"role": "system", "content": "A"}, {"role": "system", "content": "B"}
    request = {
        "messages": [system, {"role": "user", "content": "hi"}, late],
        "extra": {"_debug_render_only": True},
    }
    with Router([OllamaBackend("local", ollama_server.url)]) as router:
        with pytest.raises(errors.ProtocolError) as caught:  # a prompt is no answer
            router.complete(model="local/say-hello", **request)
    shown = (caught.value.body or "").replace("\\u003c", "<").replace("\\u003e", ">")
    assert "<s>system: A\\n\\nB</s><s>user: hi</s>assistant" in shown


def test_both_names_of_a_model_are_one(ollama_server: RealOllama, caller: Caller) -> None:
    backend = OllamaBackend("local", ollama_server.url, models={"say-hello:latest": WIDE})
    with Router([backend], prices={"say-hello": Price(1, 1)}) as router:
        replies = [caller.complete(router, "hi", model=f"local/say-hello{tag}") for tag in ("", ":latest")]
        [row] = router.report(by="model").to_dicts()
    assert (row["model"], row["requests"]) == ("say-hello", 2)
    assert replies[0].cost == replies[1].cost is not None
    assert replies[1].raw["load_duration"] < 100_000_000  # the same window, so nothing was loaded again


def test_keep_alive_says_how_long_a_model_stays(ollama_server: RealOllama) -> None:
    for keep_alive, stays in ((-1, True), ("30m", False)):
        with Router([OllamaBackend("local", ollama_server.url, keep_alive=keep_alive)]) as router:
            router.complete("hi", model="local/say-hello")
        ends = time.monotonic() + 5  # Ollama notes it after it has answered
        while (ollama_server.loaded()["say-hello:latest"]["expires_at"] > "2100") != stays:
            assert time.monotonic() < ends, keep_alive
    with Router([OllamaBackend("local", ollama_server.url, keep_alive=0)]) as router:
        router.complete("hi", model="local/say-hello")
    assert ollama_server.is_empty()
