"""Rewrites a caller's JSON schema for a provider's strict decoding.

Knows JSON Schema and the keywords that each provider accepts; must not know requests. The caller's schema
is not changed. If strict decoding cannot express it (an object with free keys), the result is `None`.

Sources: https://platform.claude.com/docs/en/build-with-claude/structured-outputs and
https://platform.openai.com/docs/guides/structured-outputs, seen 2026-11-21.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from pydantic_core import to_json

from ccroute.types import JSON

Schema = Mapping[str, JSON]

_COMMON: Final = frozenset(
    {"type", "title", "description", "enum", "const", "pattern", "properties", "required", "items"}
)
_NUMBERS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"}
)
"""Keywords that constrain nothing. They are left out."""
_FREE: Final = frozenset({"patternProperties", "propertyNames", "unevaluatedProperties", "prefixItems"})
"""Keywords that a closed schema cannot express."""
_DEFS: Final = ("$defs", "definitions")
_SHAPE: Final = {"properties", "required", "items", "additionalProperties", "anyOf", "oneOf", "allOf", *_DEFS}
"""Keywords that have code of their own below. All others are constraints or notes."""


class _Rules(NamedTuple):
    """What one provider accepts. Other constraints go into the description, which the model reads."""

    keywords: frozenset[str]
    formats: frozenset[str] | None  # None: any
    few_items: bool = False  # `minItems` only as 0 or 1
    all_required: bool = False
    recursion: bool = True
    any_keyword: bool = False


_CLAUDE: Final = _Rules(
    _COMMON | {"default", "format", "minItems"}, _FORMATS | {"uri"}, few_items=True, recursion=False
)
_OPENAI: Final = _Rules(_COMMON | _NUMBERS | {"format", "minItems", "maxItems"}, _FORMATS, all_required=True)
_LIKE_OPENAI: Final = _Rules(frozenset(), None, all_required=True, any_keyword=True)


class _OpenError(Exception):
    """The schema allows values that a closed schema cannot."""


def for_claude(schema: Schema) -> dict[str, JSON] | None:
    """Return the schema for `output_config.format`, or None. Every object is closed."""
    return _written(schema, _CLAUDE)


def for_openai(schema: Schema, *, official: bool) -> dict[str, JSON] | None:
    """Return the schema for `strict: true`, or None. Objects are closed and require all properties.

    `official`: for OpenAI's own service, which refuses some constraints. Other servers enforce them.
    """
    return _written(schema, _OPENAI if official else _LIKE_OPENAI)


def put_strict(body: dict[str, JSON], *, official: bool) -> None:
    """Rewrite the schema in an OpenAI body's `response_format` for `strict: true`. A schema that cannot be
    closed is sent with `strict: false`, as OpenAI advises."""
    wanted = _mapping(body.get("response_format"))
    form = _mapping(wanted.get("json_schema"))
    if form.get("strict") is not True or not isinstance(form.get("schema"), Mapping):
        return
    closed = for_openai(form["schema"], official=official)
    made = {"strict": False} if closed is None else {"schema": closed}
    body["response_format"] = {**wanted, "json_schema": {**form, **made}}


def _written(schema: Schema, rules: _Rules) -> dict[str, JSON] | None:
    try:
        root = _resolved_root(schema)
        if not rules.recursion and _recurs(root):
            return None
        made = _node(root, rules)
    except (_OpenError, RecursionError, TypeError, AttributeError, ValueError):
        return None  # or it is not a schema: the server reports why
    # OpenAI takes only an object at the root.
    return None if rules.all_required and made.get("type") != "object" else made


def _resolved_root(schema: Schema) -> Schema:
    """Return the definition that the root refers to (pydantic writes recursive classes so), else the root."""
    ref = schema.get("$ref")
    if ref is None:
        return schema
    for place in _DEFS:
        found = _mapping(schema.get(place)).get(_name(ref))
        if isinstance(found, Mapping):
            return {**found, place: schema[place]}
    raise _OpenError


def _node(schema: object, rules: _Rules) -> dict[str, JSON]:
    if not isinstance(schema, Mapping) or _FREE & schema.keys():
        raise _OpenError
    schema = _merged(schema)
    made: dict[str, JSON] = {
        place: {name: _node(each, rules) for name, each in schema[place].items()}
        for place in _DEFS
        if isinstance(schema.get(place), Mapping)
    }
    if "$ref" in schema:
        _name(schema["$ref"])  # raises for a reference to outside
        alone = {"$ref": schema["$ref"]}
        text = schema.get("description")
        return made | (alone if text is None else {"anyOf": [alone], "description": text})
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches is not None:
        made["anyOf"] = [_node(each, rules) for each in branches]
    elif "allOf" in schema:
        if rules.all_required:
            raise _OpenError  # OpenAI does not accept it
        made["allOf"] = [_node(each, rules) for each in schema["allOf"]]
    elif not schema.keys() & {"type", "properties", "enum", "const"}:
        raise _OpenError  # any value
    _put_constraints(made, schema, rules)
    _put_object(made, schema, rules)
    if "items" in schema:
        made["items"] = _node(schema["items"], rules)
    elif _may_be(schema, "array"):
        raise _OpenError  # items of any type
    return made


def _merged(schema: Schema) -> Schema:
    """Return the schema in an `allOf` of one entry. pydantic 1 writes a reference with a description so."""
    parts = schema.get("allOf")
    if isinstance(parts, list | tuple) and len(parts) == 1 and isinstance(parts[0], Mapping):
        return {**parts[0], **{name: value for name, value in schema.items() if name != "allOf"}}
    return schema


def _put_constraints(made: dict[str, JSON], schema: Schema, rules: _Rules) -> None:
    described = []
    for keyword, value in schema.items():
        if keyword in _SHAPE:
            continue
        if _takes(rules, keyword, value):
            made[keyword] = value
        elif keyword not in _NOTES:
            described.append(f"{keyword}: {value if isinstance(value, str) else to_json(value).decode()}")
    if described:
        text = schema.get("description")
        made["description"] = f"{f'{text} ' if text else ''}({', '.join(described)})"


def _takes(rules: _Rules, keyword: str, value: JSON) -> bool:
    if rules.any_keyword:
        return True
    if keyword == "format":
        return rules.formats is None or value in rules.formats
    if keyword == "minItems" and rules.few_items:
        return value in (0, 1)
    if keyword == "enum" and any(isinstance(each, Mapping | list) for each in value):
        raise _OpenError
    return keyword in rules.keywords


def _put_object(made: dict[str, JSON], schema: Schema, rules: _Rules) -> None:
    if "properties" not in schema and not _may_be(schema, "object"):
        return
    properties = _mapping(schema.get("properties"))
    extras = schema.get("additionalProperties", None if properties else True)
    if extras not in (None, False):
        raise _OpenError
    made.setdefault("type", "object")
    made["properties"] = {name: _node(each, rules) for name, each in properties.items()}
    required = list(properties) if rules.all_required else schema.get("required")
    if required is not None:
        made["required"] = list(required)
    made["additionalProperties"] = False


def _may_be(schema: Schema, kind: str) -> bool:
    kinds = schema.get("type")
    return kind in kinds if isinstance(kinds, list) else kinds == kind


def _recurs(schema: Schema) -> bool:
    """Whether a definition leads back to itself."""
    from graphlib import CycleError, TopologicalSorter  # only where there is a schema

    inner = {name: set(_refs(each)) for place in _DEFS for name, each in _mapping(schema.get(place)).items()}
    try:
        TopologicalSorter(inner).prepare()
    except CycleError:
        return True
    return False


def _refs(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield _name(schema["$ref"])
        for each in schema.values():
            yield from _refs(each)
    elif isinstance(schema, list | tuple):
        for each in schema:
            yield from _refs(each)


def _name(ref: object) -> str:
    """Return the name of the definition that `ref` refers to. Raises `_OpenError` for any other reference."""
    head, _, name = ref.rpartition("/") if isinstance(ref, str) else ("", "", "")
    if head not in ("#/$defs", "#/definitions"):
        raise _OpenError
    return name


def _mapping(value: object) -> Schema:
    return value if isinstance(value, Mapping) else {}
