"""Tools as Ollama gets them: said in the few words of JSON schema that it passes on to its models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.support import asked

from ccroute.errors import InvalidRequestError
from ccroute.wire.ollama import encode

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def parameters(schema: Any) -> Any:
    function = {"name": "f", "description": "d", "parameters": schema}
    [sent] = encode(asked(tools=[{"type": "function", "function": function}]), "m", stream=False)["tools"]
    assert {**sent["function"], "parameters": None} == {**function, "parameters": None}
    return sent["function"]["parameters"]


def property_(schema: Any, **more: Any) -> Any:
    return parameters({"type": "object", "properties": {"p": schema}, **more})["properties"]["p"]


def test_a_schema_that_ollama_knows_goes_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "description": "d", "minLength": 3},
            "b": {"type": "array", "items": {"anyOf": [{"type": "integer"}, CITY]}},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    assert parameters(schema) == schema


@pytest.mark.parametrize("place", ["$defs", "definitions"])
def test_references_are_replaced_by_what_they_stand_for(place: str) -> None:
    defined = {"City": CITY, "Trip": {"type": "object", "properties": {"to": {"$ref": f"#/{place}/City"}}}}
    reference = {"$ref": f"#/{place}/Trip", "description": "the trip"}
    trip = {"type": "object", "properties": {"to": CITY}, "description": "the trip"}
    schema = {"type": "object", "properties": {"p": reference}, place: defined}
    assert parameters(schema) == {"type": "object", "properties": {"p": trip}}
    assert (
        property_({"type": "array", "items": {"$ref": f"#/{place}/City"}}, **{place: defined})["items"]
        == CITY
    )
    assert property_({"anyOf": [{"$ref": f"#/{place}/City"}]}, **{place: defined})["anyOf"] == [CITY]


@pytest.mark.parametrize(
    ("schema", "known"),
    [
        (True, {}),
        (False, {}),
        ({"const": "x"}, {"enum": ["x"]}),
        ({"oneOf": [{"type": "string"}, True]}, {"anyOf": [{"type": "string"}, {}]}),
        ({"allOf": [CITY], "description": "d"}, {**CITY, "description": "d"}),
        (
            {"allOf": [CITY, {"properties": {"days": {"type": "integer"}}, "required": ["days"]}]},
            {
                "type": "object",
                "properties": {"name": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["name", "days"],
            },
        ),
        ({"$ref": "#/$defs/Nowhere"}, {"type": "object"}),
        ({"$ref": "https://example.com/x.json", "type": "string"}, {"type": "string"}),
        ({"$ref": 7}, {}),
    ],
)
def test_what_ollama_drops_or_refuses_is_said_in_its_words(schema: Any, known: Any) -> None:
    schema_in = property_(schema)
    if isinstance(known, dict) and "required" in known:
        assert sorted(schema_in.pop("required")) == sorted(known["required"])
        known = {name: value for name, value in known.items() if name != "required"}
    assert schema_in == known


def test_arguments_that_may_be_null_are_an_object() -> None:
    assert parameters({"type": ["object", "null"], "properties": {}}) == {"type": "object", "properties": {}}


def test_a_schema_that_holds_itself_ends() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/T"}, "right": {"$ref": "#/$defs/T"}}}
    once = {"type": "object", "properties": {"left": {"type": "object"}, "right": {"type": "object"}}}
    assert property_({"$ref": "#/$defs/T"}, **{"$defs": {"T": tree}}) == once


def test_references_that_multiply_end() -> None:
    levels = {
        f"L{i}": {"type": "object", "properties": {p: {"$ref": f"#/$defs/L{i + 1}"} for p in "abc"}}
        for i in range(30)
    }
    assert len(str(property_({"$ref": "#/$defs/L0"}, **{"$defs": levels}))) < 100_000


_SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "$ref",
                    "$defs",
                    "const",
                    "oneOf",
                    "allOf",
                    "anyOf",
                    "items",
                    "properties",
                    "required",
                    "type",
                    "a",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["$defs", "properties", "allOf", "type", "anyOf"]), _SCHEMAS))
def test_no_schema_is_too_odd(schema: Any) -> None:
    assert isinstance(parameters(schema), dict)


@pytest.mark.parametrize(
    ("tool", "fault"),
    [
        ({"type": "computer", "name": "x"}, r"tools\[0\]: Ollama knows only tools of type function"),
        ({"type": "function"}, r"tools\[0\]: Ollama knows only"),
        ({"type": "function", "function": {"parameters": {}}}, r"tools\[0\].function.name is missing"),
        ({"type": "function", "function": {"name": ""}}, r"tools\[0\].function.name is missing"),
    ],
)
def test_what_is_no_function_is_refused_with_its_place(tool: Any, fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        encode(asked(tools=[tool]), "m", stream=False)
