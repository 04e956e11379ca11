"""Results of a call: OpenAI's shape, frozen, with token buckets that never overlap."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PrivateAttr, ValidationError

from ccroute.types import (
    Attempt,
    Choice,
    Chunk,
    Completion,
    Function,
    Message,
    ModelInfo,
    Route,
    ToolCall,
    Usage,
)
from ccroute.types.arguments.checked import build_request
from ccroute.types.results import new_choice, new_completion, new_message, text_chunk
from ccroute.types.route import new_attempt, new_route, new_usage, with_facts

BUCKETS = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning"]
counts = st.integers(0, 10**9)
usages = st.builds(Usage, estimated=st.booleans(), **dict.fromkeys(BUCKETS, counts))
ATTEMPT = Attempt(deployment="a/m", outcome="ok", started=datetime(2026, 1, 1, tzinfo=UTC), duration=1.0)


@given(usages, usages)
def test_adding_usages_adds_every_bucket_and_keeps_estimated(one: Usage, other: Usage) -> None:
    total = one + other
    assert all(getattr(total, name) == getattr(one, name) + getattr(other, name) for name in BUCKETS)
    assert total.estimated is (one.estimated or other.estimated)
    assert total.total_tokens == one.total_tokens + other.total_tokens


@given(usages)
def test_openais_counts_are_sums_of_the_buckets(usage: Usage) -> None:
    assert usage.cache_write == usage.cache_write_5m + usage.cache_write_1h
    assert usage.prompt_tokens == usage.input + usage.cache_read + usage.cache_write
    assert usage.completion_tokens == usage.output
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_bucket_is_never_negative(bucket: str) -> None:
    with pytest.raises(ValidationError):
        Usage(**{bucket: -1})


def test_a_completion_reads_like_openais() -> None:
    calls = (ToolCall(id="1", function=Function(name="f", arguments="{}")),)
    message = Message(content="yes", tool_calls=calls, thinking="hm")
    answer = Completion(id="c", choices=(Choice(message=message, finish_reason="tool_calls"),))
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == answer.text == "yes"
    assert answer.choices[0].message is answer.message
    assert (answer.thinking, answer.tool_calls, answer.finish_reason) == ("hm", calls, "tool_calls")


def test_an_answer_without_content_has_empty_text_and_no_calls() -> None:
    answer = Completion()
    assert (answer.text, answer.tool_calls, answer.thinking, answer.finish_reason) == ("", (), None, None)


def test_what_a_provider_sent_is_kept_but_not_shown() -> None:
    answer = Completion(raw={"canary": 1})
    assert answer.raw == {"canary": 1}
    assert "canary" not in repr(answer)


@pytest.mark.parametrize(
    "result",
    [
        Usage(),
        Function(),
        ToolCall(),
        Message(),
        Choice(),
        Completion(),
        Chunk(),
        Route(),
        ATTEMPT,
        ModelInfo(id="a", kind="alias"),
    ],
    ids=lambda result: type(result).__name__,
)
def test_results_are_frozen_and_know_no_other_fields(result: BaseModel) -> None:
    field: Any = next(iter(type(result).model_fields))
    with pytest.raises(ValidationError):
        setattr(result, field, getattr(result, field))
    with pytest.raises(ValidationError):
        type(result).model_validate({**result.model_dump(), "canary": 1})


def test_a_completion_comes_back_from_json() -> None:
    answer = Completion(id="c", usage=Usage(input=3), route=Route(agent="a", attempts=(ATTEMPT,)))
    assert Completion.model_validate_json(answer.model_dump_json()) == answer


def test_a_completion_becomes_json_and_its_message_is_reusable() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "s"}
    calls = (ToolCall(id="1", function=Function(name="f", arguments="{}")),)
    message = Message(content="yes", tool_calls=calls, thinking="hm", thinking_blocks=(block,))
    answer = Completion(
        id="c",
        choices=(Choice(message=message, finish_reason="tool_calls"),),
        cost=Decimal("0.00010"),
        route=Route(agent="a", attempts=(ATTEMPT,)),
        raw={"canary": object()},
    )
    dumped = json.loads(json.dumps(answer.to_dict()))
    assert dumped["choices"][0]["message"] == json.loads(json.dumps(message.to_dict()))
    assert dumped["cost"] == "0.00010"
    assert dumped["route"]["attempts"][0]["started"] == "2026-01-01T00:00:00Z"
    assert "raw" not in dumped
    messages = [{"role": "user", "content": "hi"}, dumped["choices"][0]["message"]]
    assert build_request(None, {"messages": messages}).messages[1] == message.to_dict()
    assert Completion().to_dict()["cost"] is None


def test_a_conversation_is_json_by_its_messages_own_dicts() -> None:
    messages = [{"role": "user", "content": "hi"}, Message(content="yes")]
    dumped = json.loads(json.dumps(messages, default=Message.to_dict))
    assert dumped == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


def test_a_route_prints_the_way_it_went() -> None:
    route = Route(
        agent="py", requested_model="opus", model="fast", deployment="a/m", overridden=True, fallback=True
    )
    assert str(route) == "py → opus → fast → a/m (overridden, fallback)"


def test_a_route_names_nothing_twice() -> None:
    assert str(Route(model="a/m", deployment="a/m")) == "- → a/m"


def test_a_route_says_how_long_the_call_waited_and_its_model_loaded() -> None:
    hosted = ATTEMPT.model_copy(update={"queued": 3.04, "load": 45.0})
    route = Route(
        model="a/m", deployment="a/m", attempts=(hosted, ATTEMPT.model_copy(update={"queued": 2.0}), hosted)
    )
    assert (round(route.queued, 2), route.load) == (8.08, 90.0)
    assert str(route) == "- → a/m (waited 8.1 s, model loaded in 90.0 s)"
    assert list(route.__rich_repr__())[1] == ("attempt", "a/m: ok, waited 3.0 s, model loaded in 45.0 s")
    assert "1.00 s, waited 3.0 s, model loaded in 45.0 s" in route._repr_html_()


def test_a_route_without_waits_says_nothing_of_them() -> None:
    loaded = ATTEMPT.model_copy(update={"queued": 0.01, "load": 0.03})
    for attempts, load in (((), None), ((ATTEMPT,), None), ((ATTEMPT, loaded), 0.03)):
        route = Route(model="a/m", deployment="a/m", attempts=attempts)
        assert (str(route), route.load) == ("- → a/m", load)
    assert Route().queued == 0.0


@given(st.text())
def test_a_text_chunk_is_a_chunk_like_any_other(text: str) -> None:
    made, usual = text_chunk(text), Chunk(text=text)
    assert made == usual
    assert (repr(made), made.model_dump()) == (repr(usual), usual.model_dump())
    assert made.model_dump(exclude_unset=True) == {"text": text}
    for same in (copy.copy(made), copy.deepcopy(made), made.model_copy(), pickle.loads(pickle.dumps(made))):
        assert (same, same.model_fields_set) == (usual, {"text"})
    with pytest.raises(ValidationError):
        made.text = "other"  # type: ignore[misc]
    assert text_chunk("") == Chunk(text="")


# -- Results that ccroute makes without checks


@pytest.mark.parametrize(
    ("unchecked", "checked"),
    [
        (new_usage(input=3, output=4), Usage(input=3, output=4)),
        (new_attempt(**dict(ATTEMPT)), ATTEMPT),
        (new_route(model="m", attempts=(ATTEMPT,)), Route(model="m", attempts=(ATTEMPT,))),
        (new_message(content="hi"), Message(content="hi")),
        (new_choice(message=Message(content="hi")), Choice(message=Message(content="hi"))),
        (new_completion(id="x", raw={"a": 1}), Completion(id="x", raw={"a": 1})),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_unchecked_result_is_the_checked_one(unchecked: BaseModel, checked: BaseModel) -> None:
    assert (unchecked, repr(unchecked)) == (checked, repr(checked))
    assert unchecked.model_dump_json() == checked.model_dump_json()
    assert list(unchecked.model_dump()) == list(type(checked).model_fields)
    assert unchecked.model_copy() == pickle.loads(pickle.dumps(unchecked)) == checked
    with pytest.raises(ValidationError, match="frozen"):
        unchecked.id = "other"  # type: ignore[attr-defined]


def test_two_unchecked_messages_share_no_fields() -> None:
    one, other = new_message(), new_message()
    assert one.provider_fields == other.provider_fields == {}
    assert one.provider_fields is not other.provider_fields


class OwnCompletion(Completion[Any]):
    """What a backend of a user's own may return."""

    note: str = ""
    _secret: str = PrivateAttr("kept")


def test_a_copy_with_facts_keeps_everything_else() -> None:
    given = OwnCompletion(id="x", note="mine")
    copied = with_facts(given, id="y", model="m")
    assert copied == OwnCompletion(id="y", model="m", note="mine")
    assert (copied._secret, copied.model_fields_set) == ("kept", {"id", "model", "note"})
    assert given.id == "x"
