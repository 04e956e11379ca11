"""Tools, response formats and images that no server can read are refused, by their place."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ccroute.errors import InvalidRequestError
from ccroute.types.arguments.checked import build_request
from ccroute.types.arguments.shapes import DEEPEST


def tool(parameters: Any = None, **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters, **function}}


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "Answer", "schema": schema}}


ENDLESS: dict[str, Any] = {"type": "object"}
ENDLESS["properties"] = {"self": ENDLESS}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": ["f"]}, "tools[0] is of type str; give a dict, a function or a pydantic class"),
    ({"tools": [tool(), {"function": {"name": "f"}}]}, "tools[1].type is missing"),
    (
        {"tools": [{"type": "function"}]},
        ("tools[0].function must be a dict with a name and parameters, not NoneType"),
    ),
    ({"tools": [tool(name="")]}, "tools[0].function.name is missing"),
    ({"tools": [tool(description=7)]}, "tools[0].function.description must be a str, not int"),
    ({"tools": [tool("x")]}, "tools[0].function.parameters must be a JSON schema as a dict, not str"),
    ({"response_format": {"schema": {}}}, "response_format.type is missing"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema must be a dict"),
    (
        {"response_format": form([1])},
        ("response_format.json_schema.schema must be a JSON schema as a dict, not list"),
    ),
    ({"response_format": form({"type": "strng"})}, "schema.type must be of array, boolean"),
    ({"response_format": form({"type": ["string", 5]})}, "schema.type must be of array, boolean"),
    ({"response_format": form({"properties": {"a": {"type": 5}}})}, "schema.properties.a.type must be of"),
    (
        {"response_format": form({"properties": {"a": "string"}})},
        ("schema.properties.a must be a JSON schema, not str"),
    ),
    (
        {"response_format": form({"properties": ["a"]})},
        ("schema.properties must be a dict of JSON schemas, not list"),
    ),
    ({"response_format": form({"required": "a"})}, "schema.required must be a list of names, not str"),
    ({"response_format": form({"enum": "a"})}, "schema.enum must be a list, not str"),
    ({"response_format": form({"pattern": 1})}, "schema.pattern must be a str, not int"),
    ({"response_format": form({"minLength": -1})}, "schema.minLength must be a whole number, at least 0"),
    (
        {"response_format": form({"items": {"anyOf": {}}})},
        ("schema.items.anyOf must be a list of JSON schemas, not dict"),
    ),
    (
        {"response_format": form({"anyOf": [{"$ref": "#/$defs/No"}]})},
        ("schema.anyOf[0].$ref points to nothing"),
    ),
    ({"response_format": form({"$ref": 7})}, "schema.$ref must be a str, not int"),
    ({"response_format": form(ENDLESS)}, f"is nested deeper than {DEEPEST} levels, or contains itself"),
]


@pytest.mark.parametrize(
    ("options", "says"), WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_no_server_can_read_is_refused_by_its_place(options: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        build_request("hello", options)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["string", "null"], "minLength": 3000},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "additionalProperties": False}}},
        {"$ref": "#/definitions/a~1b", "definitions": {"a/b": True}},
        {"$ref": "#/anyOf/0", "anyOf": [{"type": "string"}]},
        {"$ref": "#anchor"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"items": [{"type": "string"}], "prefixItems": [{"type": "integer"}], "contains": {}},
        {"type": "object", "properties": {"type": {"type": "string"}, "required": {"type": "boolean"}}},
    ],
)
def test_a_schema_that_some_server_can_read_is_left_as_it_is(schema: Any) -> None:
    request = build_request("hello", {"tools": [tool(schema)], "response_format": form(schema)})
    assert request.response_format == form(schema)
    assert request.tools == [tool(schema)]


def test_tools_of_a_providers_own_are_left_to_it() -> None:
    own = {"type": "web_search_20250305", "name": "web_search"}
    assert build_request("hello", {"tools": [own, tool(description=None)]}).tools == [
        own,
        tool(description=None),
    ]
    assert build_request("hello", {"response_format": {"type": "grammar", "value": "x"}})


@pytest.mark.parametrize("image", [None, {}, {"url": ""}, {"url": 7}, {"url": "data:image/png,xyz"}])
def test_an_image_part_without_an_image_is_refused_by_its_place(image: Any) -> None:
    part = {"type": "image_url", "image_url": image}
    messages = [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]
    with pytest.raises(InvalidRequestError, match=r"messages\[0\]\.content\[1\]\.image_url"):
        build_request(None, {"messages": messages})


@pytest.mark.parametrize("url", ["https://x.test/a.png", "data:image/png;base64,iVBORw0KGgo="])
def test_an_image_by_its_address_or_its_data_is_one(url: str) -> None:
    for image in ({"url": url}, url):
        part = {"type": "image_url", "image_url": image}
        assert build_request(None, {"messages": [{"role": "user", "content": [part]}]})


def shared(levels: int, innermost: dict[str, Any]) -> dict[str, Any]:
    """A schema that uses each of its parts twice: 2 ** levels paths lead to the innermost."""
    part = innermost
    for _ in range(levels):
        part = {"type": "object", "properties": {"a": part, "b": part}}
    return part


def test_a_shared_schema_is_checked_once() -> None:
    began = time.perf_counter()
    build_request("x", {"tools": [tool(shared(15, {"type": "string"}))]})
    assert time.perf_counter() - began < 0.5
    with pytest.raises(InvalidRequestError, match="type must be of array"):
        build_request("x", {"tools": [tool(shared(15, {"type": "strng"}))]})


def test_a_schema_too_large_to_serialize_is_refused_quickly() -> None:
    began = time.perf_counter()
    with pytest.raises(InvalidRequestError, match="contains more than 1000000 schemas: define repeated"):
        build_request("x", {"tools": [tool(shared(90, {"type": "string"}))]})
    with pytest.raises(InvalidRequestError, match=f"deeper than {DEEPEST} levels"):
        build_request("x", {"tools": [tool(shared(DEEPEST + 1, {"type": "string"}))]})
    assert time.perf_counter() - began < 0.5


def test_a_part_that_is_shared_counts_as_deep_as_it_is_used() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(DEEPEST - 1):
        deep = {"items": deep}
    build_request("x", {"tools": [tool({"properties": {"a": deep}})]})
    with pytest.raises(InvalidRequestError, match=f"deeper than {DEEPEST} levels"):
        build_request("x", {"tools": [tool({"properties": {"a": deep, "b": {"items": deep}}})]})


def test_a_long_name_is_cut_in_the_place() -> None:
    wrong = {"properties": {"p" * 10_000: {"type": 3}}}
    with pytest.raises(InvalidRequestError, match=r"properties\.p{100}…\.type must") as raised:
        build_request("x", {"tools": [tool(wrong)]})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("pointer", ["#/$defs/A%20B", "#/$defs/A B", "#/$defs/x~1y"])
def test_a_reference_may_be_escaped_as_in_a_url(pointer: str) -> None:
    schema = {"$defs": {"A B": {"type": "string"}, "x/y": {"type": "string"}}, "$ref": pointer}
    build_request("hi", {"response_format": form(schema)})


def test_a_reference_to_a_digit_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="points to nothing"):
        build_request("hi", {"response_format": form({"anyOf": [{}], "$ref": "#/anyOf/²"})})
