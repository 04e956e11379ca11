"""Token buckets on every wire: disjoint, never negative, whatever a server says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.wire.support import WIRES, as_json, delta, lines, named, run, sse

from ccroute import Price
from ccroute.accounting import cost
from ccroute.types import Usage
from ccroute.types.route import billing_of

COUNTS = st.integers(0, 1_000_000)
USAGES = st.builds(
    lambda buckets, output, thought: Usage(**buckets, output=output, reasoning=min(thought, output)),
    st.fixed_dictionaries(
        {
            "input": st.integers(1, 1_000_000),
            "cache_read": COUNTS,
            "cache_write_5m": COUNTS,
            "cache_write_1h": COUNTS,
        }
    ),
    st.integers(1, 1_000_000),
    COUNTS,
)
NONSENSE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 200)
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
FIELDS = {
    "openai": (
        (
            "prompt_tokens completion_tokens total_tokens cached_tokens prompt_cache_hit_tokens cost "
            "cost_in_usd_ticks is_byok service_tier"
        ),
        {
            "prompt_tokens_details": "cached_tokens cache_write_tokens audio_tokens",
            "completion_tokens_details": "reasoning_tokens audio_tokens",
            "server_tool_use": "web_search_requests",
            "cost_details": "upstream_inference_cost",
        },
    ),
    "anthropic": (
        (
            "input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens service_tier "
            "speed inference_geo"
        ),
        {
            "cache_creation": "ephemeral_5m_input_tokens ephemeral_1h_input_tokens",
            "output_tokens_details": "thinking_tokens",
            "server_tool_use": "web_search_requests",
        },
    ),
    "ollama": ("prompt_eval_count prompt_eval_cached_count eval_count", {}),
}
"""The fields of each wire's usage, and those with fields of their own."""


@st.composite
def broken(draw: st.DrawFn, wire: str) -> dict[str, Any]:
    """A usage with these fields, each of which may hold anything."""
    plain, nested = FIELDS[wire]
    found = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(plain.split(), NONSENSE)))
    for name, inner in nested.items():
        fields = st.fixed_dictionaries({}, optional=dict.fromkeys(inner.split(), NONSENSE))
        found[name] = draw(NONSENSE | fields)
    return found


def answered(wire: str, usage: dict[str, Any], *, streamed: bool) -> Usage:
    """The usage of an answer "four" of this wire, as its decoder reads it."""
    module = WIRES[wire]
    if wire == "ollama":
        frame = {"model": "m", "message": {"content": "four"}, "done": True, "done_reason": "stop", **usage}
        pieces, whole = lines(frame), frame
    elif wire == "openai":
        choice = {"message": {"content": "four"}, "finish_reason": "stop"}
        whole = {"choices": [choice], "usage": usage}
        pieces = sse(delta("stop", content="four"), {"choices": [], "usage": usage}, "[DONE]")
    else:
        text, stop = {"type": "text", "text": "four"}, {"stop_reason": "end_turn"}
        whole = {"type": "message", "content": [text], **stop, "usage": usage}
        pieces = named(
            {"type": "message_start", "message": {"usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": text},
            {"type": "message_delta", "delta": stop, "usage": usage},
            {"type": "message_stop"},
        )
    made = run(module.Decoder(), pieces)[1] if streamed else module.decode(as_json(whole))
    found: Usage = made.usage
    return found


@given(USAGES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_openais_prompt_contains_what_was_cached(usage: Usage, streamed: bool) -> None:
    sent = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    written = {"cache_write_5m": usage.cache_write, "cache_write_1h": 0}  # it has one lifetime
    assert answered("openai", sent, streamed=streamed) == usage.model_copy(update=written)


@given(USAGES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_thinking_beside_the_completion_is_output_too(usage: Usage, streamed: bool) -> None:
    assume(0 < usage.reasoning < usage.output and usage.reasoning != usage.cache_read)
    sent = {
        "prompt_tokens": usage.input + usage.cache_read,
        "completion_tokens": usage.output - usage.reasoning,
        "total_tokens": usage.input + usage.cache_read + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    not_written = {"cache_write_5m": 0, "cache_write_1h": 0}
    assert answered("openai", sent, streamed=streamed) == usage.model_copy(update=not_written)


@given(USAGES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_anthropics_input_has_nothing_that_was_cached(usage: Usage, streamed: bool) -> None:
    sent = {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }
    assert answered("anthropic", sent, streamed=streamed) == usage


@given(USAGES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_ollamas_prompt_contains_what_was_cached(usage: Usage, streamed: bool) -> None:
    sent = {
        "prompt_eval_count": usage.input + usage.cache_read,
        "prompt_eval_cached_count": usage.cache_read,
        "eval_count": usage.output,
    }
    none = {"cache_write_5m": 0, "cache_write_1h": 0, "reasoning": 0}
    assert answered("ollama", sent, streamed=streamed) == usage.model_copy(update=none)


@pytest.mark.parametrize("wire", WIRES)
@given(data=st.data(), streamed=st.booleans())
@settings(max_examples=150, deadline=None)
def test_nonsense_makes_no_bucket_that_cannot_be(wire: str, data: st.DataObject, streamed: bool) -> None:
    sent = data.draw(broken(wire))
    usage = answered(wire, sent, streamed=streamed)
    buckets = usage.model_dump(exclude={"estimated"})
    assert all(type(count) is int and 0 <= count <= 4 * 10**9 for count in buckets.values())
    assert usage.reasoning <= usage.output
    told = sent.get({"openai": "prompt_tokens", "anthropic": "input_tokens"}.get(wire, "prompt_eval_count"))
    if type(told) is not int or not 0 <= told <= 10**9:
        assert (usage.prompt_tokens, usage.estimated) == (0, True)  # ccroute counts it itself
    elif wire != "anthropic":
        assert usage.prompt_tokens == told
    assert usage.output >= 1, "an answer was there"
    spent = cost(usage, Price(3, 15, cache_read="0.3", above={1000: Price(6, 30)}))
    assert spent is not None
    assert spent > 0
    billing = billing_of(usage)
    if billing is not None:
        assert billing.searches >= 0
        assert billing.cost is None or (billing.cost.is_finite() and billing.cost >= 0)
        assert all(isinstance(value, str) for _, value in billing.terms)
