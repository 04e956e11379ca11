"""Which parameter of a call a server refused, in its own words."""

from __future__ import annotations

from typing import Any

import pytest

from ccroute.wire.errors.parameters import refused_parameter
from ccroute.wire.errors.typed import parse_error, typed_error

WORDS = [
    ("`temperature` is deprecated for this model", "temperature"),
    (
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        "temperature",
    ),
    ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
    ("Argument not supported on this model: stop", None),
    ('"say-hello" does not support thinking', "reasoning_effort"),
    ("Model does not support parameter reasoningEffort", "reasoning_effort"),
    ("This model does not support the effort parameter.", "reasoning_effort"),
    ("`stop_sequences` is not supported", "stop"),
    ("the model does not support tools", None),
    ("please stop doing that, it is not supported", None),
]


def refused(body: dict[str, Any]) -> str | None:
    payload = parse_error(body)
    payload.status = 400
    return getattr(typed_error(payload), "parameter", None)


@pytest.mark.parametrize(("words", "parameter"), WORDS)
def test_a_refused_parameter_is_read_from_the_words(words: str, parameter: str | None) -> None:
    assert refused_parameter("", words) == parameter


def test_the_field_that_names_it_counts_more_than_the_words() -> None:
    body = {"error": {"message": "Unsupported value: 'temperature' with top_p", "param": "top_p"}}
    assert refused(body) == "top_p"
    assert refused_parameter("user", "not supported") == "user"


def test_only_a_feature_that_is_lacking_names_a_parameter() -> None:
    body = {"error": {"message": "temperature must be at most 2", "param": "temperature"}}
    assert refused(body) is None
