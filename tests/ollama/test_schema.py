"""Answers held to JSON by a real Ollama."""

from __future__ import annotations

import json

from tests.conftest import Caller
from tests.ollama.conftest import FORMAT, TOOL

from ccroute import Router


def test_an_answer_follows_its_schema(router: Router, caller: Caller) -> None:
    options = {"model": "local/tiny-a", "response_format": FORMAT, "max_tokens": 100, "seed": 1}
    whole = caller.complete(router, "hi", **options)
    heard = caller.stream(router, "hi", **options)
    for text in (whole.text, heard.text):
        found = json.loads(text)
        assert found["severity"] in ("low", "high")
        assert isinstance(found["n"], int)


def test_an_answer_is_json(router: Router) -> None:
    options = {"response_format": {"type": "json_object"}, "max_tokens": 60, "seed": 1}
    assert isinstance(json.loads(router.complete("hi", model="local/tiny-a", **options).text), dict)


def test_a_schema_holds_after_thoughts_and_with_unused_tools(router: Router) -> None:
    thought = router.complete("hi", model="local/say-think", response_format=FORMAT, reasoning_effort="high")
    assert thought.thinking == "I should greet."
    assert json.loads(thought.text)["severity"] in ("low", "high")
    unused = {"tools": [TOOL], "tool_choice": "none"}
    reply = router.complete("hi", model="local/tiny-a-tools", response_format=FORMAT, seed=1, **unused)
    assert json.loads(reply.text)["severity"] in ("low", "high")
