"""How long a prompt is taken to be before a server has counted it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from ccroute.accounting.tokens import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    count_safely,
    estimate,
    estimate_text,
    tiktoken_counter,
)
from ccroute.errors import ConfigError
from ccroute.types import Request

CORPUS = json.loads((Path(__file__).parent / "fixtures" / "corpus.json").read_text())
"""Documents and their number of cl100k tokens, counted once by tiktoken."""


@pytest.mark.parametrize("name", CORPUS)
def test_the_estimate_is_within_a_quarter_of_the_tokenizers_count(name: str) -> None:
    counted = CORPUS[name]["tokens"]
    assert abs(estimate_text(CORPUS[name]["text"]) - counted) <= 0.25 * counted


def test_everything_a_tokenizer_would_see_counts() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"city": "Oslo"}'}}
    image = {"type": "image_url", "image_url": {"url": "https://h.test/cat.png"}}
    plain = Request(messages=[{"role": "user", "content": "look!"}])
    richer = [
        Request(messages=[{"role": "user", "content": [{"type": "text", "text": "look!"}, image]}]),
        Request(messages=[*plain.messages, {"role": "assistant", "content": None, "tool_calls": [call]}]),
        Request(messages=[{**plain.messages[0], "thinking": "where?"}]),
        Request(messages=plain.messages, tools=[{"type": "function", "function": {"name": "look"}}]),
    ]
    assert estimate(plain) == 2 + MESSAGE_TOKENS
    assert estimate(richer[0]) == estimate(plain) + IMAGE_TOKENS
    assert all(estimate(request) > estimate(plain) for request in richer)


def test_without_tiktoken_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)  # its import fails
    with pytest.raises(
        ConfigError, match=r"^tiktoken_counter\(\) needs tiktoken .*pip install 'ccroute\[tiktoken\]'"
    ):
        tiktoken_counter()


def test_tiktoken_counts_instead_of_estimating(monkeypatch: pytest.MonkeyPatch) -> None:
    each_byte = tiktoken.Encoding(
        "bytes",
        pat_str=".",
        mergeable_ranks={bytes([i]): i for i in range(256)},
        special_tokens={"<|end|>": 256},
    )
    asked: list[str] = []
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: asked.append(name) or each_byte)
    count = tiktoken_counter("o200k_base")
    assert count(Request(messages=[{"role": "user", "content": "<|end|> é"}])) == 10 + MESSAGE_TOKENS
    assert asked == ["o200k_base"]


@pytest.mark.parametrize("said", [None, "7", 3.7, float("nan"), -1, ZeroDivisionError()])
def test_a_counter_that_fails_is_replaced_by_the_estimate(said: Any, caplog: Any) -> None:
    def count(request: Request) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    asked = Request(messages=[{"role": "user", "content": "look!"}])
    assert count_safely(count, asked) == estimate(asked)
    assert "count_tokens" in caplog.text
    assert count_safely(lambda request: 7, asked) == 7
