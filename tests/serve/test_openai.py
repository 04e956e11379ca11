"""Answers as OpenAI's clients get them, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.serve.support import FakeAsyncStream, answer, call, dumped, frames

from ccroute.serve import openai
from ccroute.types import Chunk, ModelInfo, Usage

LAST = Chunk(finish_reason="stop", usage=Usage(input=11, output=7))
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def test_a_whole_answer_has_openais_shape() -> None:
    usage = Usage(input=5, cache_read=4, cache_write_5m=2, cache_write_1h=1, output=7, reasoning=3)
    assert openai.dump_completion(answer(usage=usage)) == {
        "id": "chatcmpl-x1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def test_a_whole_answer_carries_calls_thinking_and_signatures() -> None:
    blocks = ({"type": "thinking", "thinking": "hm", "signature": "s"},)
    completion = answer(
        None,
        finish="tool_calls",
        tool_calls=(call("f", '{"a":1}', id="call_abc"), call("g", "{}", id="call_1", index=1)),
        thinking="hm",
        thinking_blocks=blocks,
        id="chatcmpl-123",
        logprobs={"content": []},
    )
    body = openai.dump_completion(completion)
    choice = body["choices"][0]
    assert body["id"] == "chatcmpl-123"
    assert (choice["finish_reason"], choice["logprobs"]) == ("tool_calls", {"content": []})
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "hm",
        "thinking_blocks": list(blocks),
        "tool_calls": [
            {"id": "call_abc", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {
                "id": "call_chatcmpl123_1",  # numbered by ccroute: unique only with its answer's id
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
            },
        ],
    }


@pytest.mark.parametrize("reason", ["other", None])
def test_a_reason_that_openai_has_no_word_for_is_stop(reason: Any) -> None:
    assert openai.dump_completion(answer(finish=reason))["choices"][0]["finish_reason"] == "stop"


@MODES
def test_a_stream_is_role_deltas_finish_and_done(mode: str) -> None:
    stream = FakeAsyncStream(
        [Chunk(thinking="hm"), Chunk(signature="s"), Chunk(text="Hel"), Chunk(text="lo"), LAST]
    )
    pieces = dumped("openai", stream, mode, created=9)
    assert len(pieces) == 4
    *chunks, done = frames(pieces)
    assert done == "[DONE]"
    head = {"id": "chatcmpl-x1", "object": "chat.completion.chunk", "created": 9, "model": "m"}
    assert all(head.items() <= chunk.items() and "usage" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(choice["delta"], choice["finish_reason"]) for choice in choices] == [
        ({"role": "assistant", "content": ""}, None),
        ({"reasoning_content": "hm"}, None),
        ({"content": "Hel"}, None),
        ({"content": "lo"}, None),
        ({}, "stop"),
    ]
    assert stream.closed == 1


def test_usage_comes_last_if_it_was_asked_for() -> None:
    *chunks, last, _ = frames(dumped("openai", FakeAsyncStream([Chunk(text="a"), LAST]), include_usage=True))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 18)


def test_a_calls_id_and_name_come_once_then_its_arguments() -> None:
    completion = answer(None, finish="tool_calls")
    deltas = [
        Chunk(tool_calls=(call("f", "", id="call_0"),)),
        Chunk(tool_calls=(call("", '{"a":', index=0), call("", "{}", id="call_abc", index=1))),
        Chunk(tool_calls=(call("", "1}", index=0), call("late", "", index=1))),
    ]
    role, *chunks, last, _ = frames(dumped("openai", FakeAsyncStream(deltas, completion)))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [chunk["choices"][0]["delta"]["tool_calls"] for chunk in chunks] == [
        [{"index": 0, "id": "call_x1_0", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [
            {"index": 0, "function": {"arguments": '{"a":'}},
            {"index": 1, "id": "call_abc", "type": "function", "function": {"arguments": "{}"}},
        ],
        [
            {"index": 0, "function": {"arguments": "1}"}},
            {"index": 1, "function": {"name": "late", "arguments": ""}},
        ],
    ]
    assert last["choices"][0]["finish_reason"] == "tool_calls"


def test_signed_thinking_comes_with_the_end_of_a_stream() -> None:
    blocks = ({"type": "thinking", "thinking": "hm", "signature": "s"},)
    stream = FakeAsyncStream([Chunk(thinking="hm"), LAST], answer("", thinking="hm", thinking_blocks=blocks))
    *_, last, _ = frames(dumped("openai", stream))
    assert last["choices"][0]["delta"] == {"thinking_blocks": list(blocks)}


KEPT = {"openrouter.ai": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}}
SIGNED = {"googleapis.test": {"extra_content": {"google": {"thought_signature": "EjQ"}}}}


def test_provider_fields_come_whole_at_the_end_of_a_stream() -> None:
    calls = (call("f", '{"a":1}', id="c_a"), call("g", "{}", id="c_b", index=1))
    signed = (calls[0], calls[1].model_copy(update={"provider_fields": SIGNED}))
    completion = answer(None, finish="tool_calls", tool_calls=signed, provider_fields=KEPT)

    message = openai.dump_completion(completion)["choices"][0]["message"]
    assert message["provider_fields"] == KEPT
    assert ["provider_fields" in each for each in message["tool_calls"]] == [False, True]
    assert message["tool_calls"][1] == completion.tool_calls[1].to_dict()

    pieces = dumped("openai", FakeAsyncStream([Chunk(tool_calls=calls), LAST], completion))
    assert frames(pieces)[-2]["choices"][0]["delta"] == {
        "provider_fields": KEPT,
        "tool_calls": [{"index": 1, "function": {"arguments": ""}, "provider_fields": SIGNED}],
    }


def test_an_empty_answer_still_has_a_role_and_an_end() -> None:
    completion = answer("", logprobs={"content": [{"token": "a"}]})
    role, last, done = frames(dumped("openai", FakeAsyncStream([LAST], completion)))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0]["logprobs"] == {"content": [{"token": "a"}]}
    assert done == "[DONE]"


def test_no_character_of_an_answer_ends_a_line_of_the_stream() -> None:
    value = "a\u2028b\u2029c\x85d\r\n\x0be"
    pieces = dumped("openai", FakeAsyncStream([Chunk(text=value), LAST]))
    assert len(b"".join(pieces).decode().splitlines()) == 8
    assert frames(pieces)[1]["choices"][0]["delta"]["content"] == value


def test_models_are_listed_without_patterns() -> None:
    models = [
        ModelInfo(id="sonnet", kind="alias", owned_by="ccroute", context_window=200_000),
        ModelInfo(id="claude-*", kind="pattern"),
        ModelInfo(id="local/qwen", kind="deployment", owned_by="local"),
    ]
    body = openai.dump_models(models)
    assert json.loads(json.dumps(body)) == {
        "object": "list",
        "data": [
            {
                "id": "sonnet",
                "object": "model",
                "created": 0,
                "owned_by": "ccroute",
                "context_window": 200_000,
            },
            {"id": "local/qwen", "object": "model", "created": 0, "owned_by": "local"},
        ],
    }
