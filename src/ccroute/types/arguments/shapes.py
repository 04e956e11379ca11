"""Checks that tools, a response format and image parts have the shape that every server expects.

For a wrong one servers answer 500, or crash, which looks like their own fault. Refused here is only what
every server refuses; what one server lacks, that server says itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from ccroute.display import shortened
from ccroute.errors import InvalidRequestError

DEEPEST = 100
"""How deep schemas may be nested. A schema that contains itself is deeper."""
MOST = 1_000_000
"""How many schemas one may contain when it is serialized, each use of a shared one counted."""
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_ONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_VALUES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "required": (lambda value: value is None or _are_names(value), "a list of names"),
    "enum": (lambda value: isinstance(value, list | tuple), "a list"),
    "pattern": (lambda value: isinstance(value, str), "a str"),
    "$ref": (lambda value: isinstance(value, str | None), "a str"),
    **dict.fromkeys(
        _COUNTS,
        (lambda value: value is None or (type(value) is int and value >= 0), "a whole number, at least 0"),
    ),
}
"""What the values of keywords must be."""


def check_tool(tool: Mapping[str, Any], where: str) -> None:
    """Raises `InvalidRequestError` for a tool that no server can read. A tool that is no function is one of
    the provider, and is not checked."""
    kind = tool.get("type")
    if not isinstance(kind, str):
        hint = "; this one is in Anthropic's form" if "input_schema" in tool else ""
        raise InvalidRequestError(
            f"{where}.type is missing: write {{'type': 'function', 'function': {{'name': …}}}}{hint}"
        )
    if kind != "function":
        return
    function, where = tool.get("function"), f"{where}.function"
    if not isinstance(function, Mapping):
        raise _wrong(where, "a dict with a name and parameters", function)
    if not isinstance(name := function.get("name"), str) or not name:
        raise InvalidRequestError(f"{where}.name is missing")
    if not isinstance(description := function.get("description"), str | None):
        raise _wrong(f"{where}.description", "a str", description)
    if (parameters := function.get("parameters")) is not None:
        check_schema(parameters, f"{where}.parameters")


def check_response_format(response_format: Mapping[str, Any]) -> None:
    """Raises `InvalidRequestError` for a response format that no server can read."""
    kind = response_format.get("type")
    if not isinstance(kind, str) or kind in _TYPES:
        fault = " is a JSON schema: wrap it," if isinstance(kind, str) else ".type is missing: write"
        raise InvalidRequestError(
            f"response_format{fault} {{'type': 'json_schema', 'json_schema': {{'name': …, 'schema': …}}}}, "
            "or give a pydantic class"
        )
    if kind == "json_schema":
        given, where = response_format.get("json_schema"), "response_format.json_schema"
        if not isinstance(given, Mapping):
            raise _wrong(where, "a dict with a name and a schema", given)
        check_schema(given.get("schema"), f"{where}.schema")


def check_image(part: Mapping[str, Any], where: str) -> None:
    """Raises `InvalidRequestError` for an `image_url` part without a URL of an image."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(
            f'{where}.image_url must be a dict such as {{"url": "data:image/png;base64,…"}}'
        )
    if url.startswith("data:") and ";base64," not in url[:100]:
        raise InvalidRequestError(f"{where}.image_url.url is a data URL without ;base64, and its data")


def check_schema(schema: Any, where: str) -> None:
    """Raises `InvalidRequestError` for a wrong JSON schema, or a reference to nothing."""
    if not isinstance(schema, Mapping):
        raise _wrong(where, "a JSON schema as a dict", schema)
    _Walk(schema, where).check(schema, where, 0)


class _Walk:
    """Checks a schema and every schema in it, a shared one once."""

    def __init__(self, whole: Mapping[str, Any], where: str) -> None:
        self._whole, self._where = whole, where
        self._known: dict[
            int, tuple[object, int, int]
        ] = {}  # with the part itself, so that its id is not reused

    def check(self, part: Any, place: str, level: int) -> tuple[int, int]:
        """How many levels are below `part`, and how many schemas it contains when it is serialized."""
        _, below, size = self._known.get(id(part), (None, 0, 0))
        if level + below > DEEPEST:
            raise InvalidRequestError(
                f"{self._where} is nested deeper than {DEEPEST} levels, or contains itself"
            )
        if size:
            return below, size
        if isinstance(part, bool):
            return 0, 1
        if not isinstance(part, Mapping):
            raise _wrong(place, "a JSON schema", part)
        self._check_keywords(part, place)
        size = 1
        for inner_place, inner in _inner(part, place):
            its_below, its_size = self.check(inner, inner_place, level + 1)
            below, size = max(below, its_below + 1), size + its_size
        if size > MOST:
            raise InvalidRequestError(
                f"{self._where} contains more than {MOST} schemas: define repeated ones under $defs"
            )
        self._known[id(part)] = part, below, size
        return below, size

    def _check_keywords(self, part: Mapping[str, Any], place: str) -> None:
        types = part.get("type")
        named = types if isinstance(types, list | tuple) else [types]
        if types is not None and not (_are_names(named) and _TYPES.issuperset(named)):
            raise InvalidRequestError(
                f"{place}.type must be of {', '.join(sorted(_TYPES))}, or a list of them"
            )
        for name, (fits, what) in _VALUES.items():
            if name in part and not fits(part[name]):
                raise _wrong(f"{place}.{name}", what, part[name])
        target = part.get("$ref") or ""
        if target.startswith("#/") and not _resolves(self._whole, target):
            raise InvalidRequestError(f"{place}.$ref points to nothing in the schema: define it under $defs")


def _inner(part: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """The schemas directly within a schema, each with its place."""
    for name in _ONE:
        if name in part and not (name == "items" and isinstance(part[name], list | tuple)):
            yield f"{place}.{name}", part[name]
    for name in _SEVERAL:
        inner = part.get(name, ())
        if not isinstance(inner, list | tuple):
            raise _wrong(f"{place}.{name}", "a list of JSON schemas", inner)
        for i, each in enumerate(inner):
            yield f"{place}.{name}[{i}]", each
    for name in _NAMED:
        table = part.get(name, {})
        if not isinstance(table, Mapping):
            raise _wrong(f"{place}.{name}", "a dict of JSON schemas", table)
        for key, each in table.items():
            yield f"{place}.{name}.{shortened(key)}", each


def _resolves(schema: Any, pointer: str) -> bool:
    """Whether a JSON pointer such as `#/$defs/Address` points to something."""
    for step in pointer[2:].split("/"):
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping) and key in schema:
            schema = schema[key]
        elif isinstance(schema, list | tuple) and key.isascii() and key.isdigit() and int(key) < len(schema):
            schema = schema[int(key)]
        else:
            return False
    return True


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _wrong(where: str, what: str, value: object) -> InvalidRequestError:
    return InvalidRequestError(f"{where} must be {what}, not {type(value).__name__}")
