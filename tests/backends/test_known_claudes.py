"""What is known of Claude's models by their names, and that a user's own `Model` wins over it."""

from __future__ import annotations

import datetime

import pytest

from ccroute import AnthropicBackend, Model
from ccroute.backends.known_models import KNOWN, known

OLD, BUDGET, ASKED, ON, ALWAYS = "no thinking", "budget", "when asked", "by default", "always"


def kind(model: str) -> str:
    facts = known("anthropic", model)
    if facts.thinking == "adaptive_on":
        return ON if "none" in (facts.efforts or ()) else ALWAYS
    return {"none": OLD, "budget": BUDGET, "adaptive": ASKED}.get(facts.thinking or "", "nothing is known")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-2.1", OLD),
        ("claude-instant-1.2", OLD),
        ("claude-3-opus-20240229", OLD),
        ("claude-3.5-haiku:beta", OLD),
        ("claude-3-7-sonnet-latest", BUDGET),
        ("claude-opus-4", BUDGET),
        ("claude-sonnet-4@20250514", BUDGET),
        ("claude-4-sonnet", BUDGET),
        ("claude-opus-4-1-20250805", BUDGET),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", BUDGET),
        ("databricks-claude-haiku-4-5", BUDGET),
        ("claude-opus-4-5-thinking", BUDGET),
        ("anthropic.claude-opus-4-6-v1", ASKED),
        ("anthropic/claude-opus-4.7", ASKED),
        ("claude-opus-4-8", ASKED),
        ("claude-sonnet-5", ON),
        ("claude-opus-5-20260701", ON),
        ("claude-haiku-5-5", ON),
        ("claude-haiku-latest", ON),
        ("claude-fable-5", ALWAYS),
        ("claude-opus-5-5", ALWAYS),
        ("claude-opus-5.6", ALWAYS),
        ("claude-sonnet", ALWAYS),
        ("claude-opus-4-10", ALWAYS),
        ("claude", ALWAYS),
        ("claudette", "nothing is known"),
        ("kimi-k2", "nothing is known"),
    ],
)
def test_a_model_is_known_by_whatever_name_it_is_called(model: str, expected: str) -> None:
    assert kind(model) == expected


def test_a_users_own_model_wins_field_by_field() -> None:
    backend = AnthropicBackend(api_key="a-test-key", models={"claude-opus-5-5": Model(max_output=1000)})
    described = backend.model("claude-opus-5-5")
    assert (described.max_output, described.thinking, described.prefill) == (1000, "adaptive_on", False)


def test_every_fact_has_a_source_and_a_day() -> None:
    for entry in KNOWN:
        assert entry.source.startswith("https://"), entry.names
        assert datetime.date.fromisoformat(entry.seen) <= datetime.date.today(), entry.names
