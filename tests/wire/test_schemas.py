"""JSON schemas as each provider's strict decoding wants them; the caller's own stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import BaseModel, Field
from tests.wire.support import asked

from ccroute.wire import openai
from ccroute.wire.schemas import for_claude, for_openai


class Item(BaseModel):
    name: str = Field(min_length=1, description="what it is")
    count: int = Field(1, ge=1)


class Order(BaseModel):
    first: Item = Field(description="the first")
    more: list[Item] = Field(min_length=2)
    note: str | None = None


class Node(BaseModel):
    children: list[Node] = []


def test_claude_gets_closed_objects_and_reads_other_constraints() -> None:
    schema = Order.model_json_schema()
    before = copy.deepcopy(schema)
    made = for_claude(schema)
    assert made is not None
    assert schema == before
    item = made["$defs"]["Item"]
    assert (made["additionalProperties"], item["additionalProperties"]) == (False, False)
    assert made["required"] == ["first", "more"]
    assert item["properties"]["name"]["description"] == "what it is (minLength: 1)"
    assert item["properties"]["count"] == {
        "title": "Count",
        "type": "integer",
        "default": 1,
        "description": "(minimum: 1)",
    }
    assert made["properties"]["more"]["description"] == "(minItems: 2)"
    assert made["properties"]["first"] == {"anyOf": [{"$ref": "#/$defs/Item"}], "description": "the first"}


def test_openai_requires_every_property_and_keeps_min_items() -> None:
    made = for_openai(Order.model_json_schema(), official=True)
    assert made is not None
    assert made["required"] == ["first", "more", "note"]
    assert made["properties"]["more"]["minItems"] == 2
    assert made["$defs"]["Item"]["required"] == ["name", "count"]
    assert "minLength" not in made["$defs"]["Item"]["properties"]["name"]
    other = for_openai(Order.model_json_schema(), official=False)
    assert other is not None
    assert other["$defs"]["Item"]["properties"]["name"]["minLength"] == 1, "other servers hold to it"


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        {"type": "object", "patternProperties": {"^x": {"type": "string"}}},
        {"type": "array"},
        {},
        True,
        {"$ref": "https://x.test/schema"},
        {"$ref": "#"},
        {"anyOf": 7},
        {"enum": [{"a": 1}]},
    ],
)
def test_what_cannot_be_closed_is_none(inner: Any) -> None:
    schema = {"type": "object", "properties": {"inner": inner}}
    assert for_claude(schema) is None
    assert for_openai(schema, official=True) is None


def test_recursion_is_for_openai_only() -> None:
    schema = Node.model_json_schema()
    assert for_claude(schema) is None
    made = for_openai(schema, official=True)
    assert made is not None
    assert (made["type"], made["required"]) == ("object", ["children"])
    assert made["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}


def test_a_root_of_alternatives_is_for_claude_only() -> None:
    one = {"type": "object", "properties": {"a": {"type": "string", "format": "color"}}}
    schema = {"oneOf": [one, {"type": "null"}]}
    assert for_openai(schema, official=True) is None
    closed = {"type": "string", "description": "(format: color)"}
    assert for_claude(schema) == {
        "anyOf": [
            {"type": "object", "properties": {"a": closed}, "additionalProperties": False},
            {"type": "null"},
        ]
    }


def test_one_schema_within_all_of_is_that_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"allOf": [{"$ref": "#/definitions/A"}], "description": "an a"}},
        "definitions": {"A": {"enum": ["x"]}},
    }
    made = for_claude(schema)
    assert made is not None
    assert made["properties"]["a"] == {"anyOf": [{"$ref": "#/definitions/A"}], "description": "an a"}


def test_only_a_strict_schema_is_changed_for_openai() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}

    def sent(strict: bool | None, schema: Any) -> Any:
        schema_form = {"name": "a", "schema": schema} | ({} if strict is None else {"strict": strict})
        form = {"type": "json_schema", "json_schema": schema_form}
        return openai.encode(asked(response_format=form), "m", stream=False)["response_format"]["json_schema"]

    for strict in (None, False):
        assert sent(strict, schema)["schema"] == schema
    assert sent(True, schema) == {
        "name": "a",
        "strict": True,
        "schema": {**schema, "required": ["a"], "additionalProperties": False},
    }
    free = {"type": "object", "properties": {"a": {"type": "object"}}}
    assert sent(True, free) == {"name": "a", "strict": False, "schema": free}
