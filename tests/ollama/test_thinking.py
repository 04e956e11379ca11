"""Thinking with a real Ollama: on, off, by levels, and where a model cannot."""

from __future__ import annotations

import pytest
from tests.conftest import Caller

from ccroute import Router, errors


@pytest.mark.parametrize("effort", [None, "minimal", "none"])
def test_thoughts_and_answer_are_separate_at_every_effort(
    router: Router, caller: Caller, effort: str | None
) -> None:
    """This model thinks also where `think` is false; the server then leaves its tags in the text."""
    whole = caller.complete(router, "hi", model="local/say-think", reasoning_effort=effort)
    heard = caller.stream(router, "hi", model="local/say-think", reasoning_effort=effort)
    for completion in (whole, heard.completion):
        assert (completion.thinking, completion.text) == ("I should greet.", "Hello there.")
    assert "".join(chunk.thinking for chunk in heard.chunks) == "I should greet."
    assert heard.text == "Hello there."


def test_thoughts_go_back_with_their_turn(router: Router) -> None:
    first = router.complete("hi", model="local/say-think", reasoning_effort="high")
    messages = [{"role": "user", "content": "hi"}, first.message, {"role": "user", "content": "and?"}]
    with_thoughts = router.complete(messages=messages, model="local/say-think")
    messages[1] = {"role": "assistant", "content": first.text}
    without = router.complete(messages=messages, model="local/say-think")
    assert with_thoughts.usage.input > without.usage.input


def test_effort_for_a_model_that_does_not_think_is_a_bad_request(router: Router, caller: Caller) -> None:
    with pytest.raises(errors.InvalidRequestError, match="does not support thinking"):
        caller.complete(router, "hi", model="local/say-hello", reasoning_effort="high")
    assert caller.complete(router, "hi", model="local/say-hello", reasoning_effort="none").text


def test_effort_is_dropped_where_the_model_is_known_not_to_think(router: Router) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"reasoning_effort .the model does not think"):
        router.complete("hi", model="local/llama3.2", reasoning_effort="high")
