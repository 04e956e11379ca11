"""Python types as `response_format`: their JSON schema, made once, and the parsing of the answer's text.

Knows pydantic and JSON; must not know requests, tools or how a codec sends a schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import from_json, to_json

from ccroute.display import shortened
from ccroute.errors import InvalidOutputError, InvalidRequestError
from ccroute.types.arguments.shapes import check_response_format

KEPT = 256
"""How many types' schemas are cached: a program that makes classes as it runs must not leak memory."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64
"""OpenAI's limit for the name of a schema or a tool."""
_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
CUT_OFF = "it was cut off at its token limit: raise max_tokens"
_ENDINGS = {
    "length": CUT_OFF,
    "content_filter": "the model refused to answer",
    "tool_calls": "the model called tools instead: run them and ask again",
    None: "the answer broke off",
}
"""Why an answer may not fit, by its finish reason."""


class PlainSchema(GenerateJsonSchema):
    """pydantic's JSON schema without titles that only repeat the names of the fields."""

    def emit_warning(self, kind: object, detail: str) -> None:
        """No warning: a default that JSON cannot express is left out of the schema."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


class AnswerFormat(dict[str, Any]):
    """A `response_format` made of a type: OpenAI's dict, and the parser of the answer."""

    __slots__ = ("_adapter", "_is_wrapped", "kind", "name")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._adapter: TypeAdapter[Any] = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        schema = object_schema(self._adapter)
        self._is_wrapped = schema is None
        if schema is None:  # servers take only objects: anything else becomes a field of one
            schema = _wrapped(self._adapter.json_schema(schema_generator=PlainSchema))
        self.name = _UNFIT.sub("_", getattr(kind, "__name__", "answer")).strip("_")[:_LONGEST_NAME]
        form = {"name": self.name, "schema": schema, "strict": True}
        super().__init__(type="json_schema", json_schema=form)

    def parse(self, text: str, finish_reason: str | None, deployment: str = "") -> object:
        """The instance that `text` contains, also within a code fence or a sentence.

        Raises `InvalidOutputError`, which names the `deployment` if it seems to ignore the schema.
        """
        faults: tuple[str, ...] = ()
        for reading in _readings(text):
            try:
                return self._validated(reading)
            except ValidationError as error:
                is_json = all(each["type"] != "json_invalid" for each in error.errors(include_url=False))
                if is_json or not faults:
                    faults = faults_of(error)
                if is_json:
                    break
        why = _ENDINGS.get(finish_reason) or "; ".join(faults)
        if deployment and text.strip() and not set("{[") & set(text) and finish_reason == "stop":
            why += f"; it is no JSON at all: {deployment} seems to ignore response_format"
        # No cause: pydantic's error quotes the answer, which must not get into logs.
        raise InvalidOutputError(f"the answer is no valid {self.name}: {why}", text=text, faults=faults)

    def _validated(self, text: str) -> object:
        if self._is_wrapped:
            with suppress(ValueError):  # if it is no JSON, the adapter says so
                value = from_json(text)
                if isinstance(value, dict) and value.keys() == {"value"}:
                    text = to_json(value["value"]).decode()
        return self._adapter.validate_json(text)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without its type where that cannot be pickled, such as a class defined in a function."""
        import pickle  # loaded already: pickle calls this

        try:
            pickle.dumps(self.kind)
        except Exception:
            return dict, (dict(self),)
        return answer_format, (self.kind,)

    def __deepcopy__(self, memo: object) -> AnswerFormat:
        return self


def answer_format(kind: Any) -> Mapping[str, Any]:
    """The `response_format` for a pydantic model, dataclass, TypedDict, `list[…]`, `TypeAdapter` …; a dict
    is returned as it is.

    Raises `InvalidRequestError` for what has no JSON schema.
    """
    if isinstance(kind, Mapping):
        check_response_format(kind)
        return kind
    if isinstance(kind, BaseModel):
        name = type(kind).__name__
        raise InvalidRequestError(f"response_format: give the class {name}, not an instance of it")
    if not (isinstance(kind, type | TypeAdapter) or get_origin(kind) is not None):
        raise InvalidRequestError(f"response_format must be a class or a dict, not {type(kind).__name__}")
    try:
        return _form(kind)
    except NO_SCHEMA as error:
        reason, *_ = str(error).split("\n")
        raise InvalidRequestError(f"response_format: {reason}") from error


NO_SCHEMA = (PydanticUserError, PydanticUndefinedAnnotation, TypeError)
"""What pydantic and typing raise for a type that has no schema; the first line says why."""
_KEPT_FORMS = lru_cache(KEPT)(AnswerFormat)


def _form(kind: Any) -> AnswerFormat:
    try:
        hash(kind)
    except TypeError:  # it cannot be a key
        return AnswerFormat(kind)
    return _KEPT_FORMS(kind)


def object_schema(adapter: TypeAdapter[Any]) -> dict[str, Any] | None:
    """A type's JSON schema with an object as its root; None if it is no object."""
    schema = adapter.json_schema(schema_generator=PlainSchema)
    if "$ref" in schema:  # a recursive type
        definitions = schema["$defs"]
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], "$defs": definitions}
    return schema if schema.get("type") == "object" else None


def faults_of(error: ValidationError) -> tuple[str, ...]:
    """Each fault with its place, in words that a model understands."""
    return tuple(
        ": ".join(part for part in (".".join(map(shortened, fault["loc"])), fault["msg"]) if part)
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _wrapped(value: dict[str, Any]) -> dict[str, Any]:
    definitions = {"$defs": value.pop("$defs")} if "$defs" in value else {}
    return {
        "type": "object",
        "properties": {"value": value},
        "required": ["value"],
        "additionalProperties": False,
        **definitions,
    }


def _readings(text: str) -> Iterator[str]:
    """The text, its first code block, and the part between its outermost braces."""
    yield text.strip()
    if fenced := _FENCED.search(text):
        yield fenced[1]
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        yield text[start : end + 1]
