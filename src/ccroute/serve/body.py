"""Reads the JSON body of a client's request. The body may hold anything.

An error names the place in the body and never repeats its content, which may be a prompt.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar, cast

from pydantic_core import from_json

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON, CallOptions
from ccroute.types.arguments.checked import build_request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A client's request. `kwargs` are the keyword arguments for `Router.complete` or `Router.stream`.

    include_usage: whether a stream reports usage: OpenAI's clients ask for it, Anthropic's always get it.
    ignored:       fields of the body that have no meaning here and were left out.
    """

    kwargs: CallOptions
    stream: bool = False
    include_usage: bool = False
    ignored: tuple[str, ...] = ()


class Fields:
    """One JSON object of a body. Each method takes one field out; null counts as absent.

    `raw` is the object as it came, `rest` holds the fields not taken yet. A wrong type raises
    `InvalidRequestError`.
    """

    def __init__(self, raw: object, place: str = "") -> None:
        if not isinstance(raw, Mapping):
            bad(place or "the body", "must be an object")
        self.raw: Mapping[str, JSON] = raw
        self.rest: dict[str, JSON] = {name: value for name, value in raw.items() if value is not None}
        self._place = place

    def place(self, name: str) -> str:
        """The path of a field, such as `messages[0].content`."""
        return f"{self._place}.{name}" if self._place else name

    def text(self, name: str) -> str | None:
        return self._take(name, str, "a string")

    def required(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            bad(self.place(name), "is missing")
        return value

    def flag(self, name: str) -> bool | None:
        return self._take(name, bool, "true or false")

    def integer(self, name: str) -> int | None:
        return self._take(name, int, "a whole number")

    def number(self, name: str) -> float | None:
        value = self._take(name, (int, float), "a number")
        if value is not None and not math.isfinite(value):
            bad(self.place(name), "must be a number")
        return value

    def object(self, name: str) -> Mapping[str, JSON] | None:
        value = self.rest.pop(name, None)
        if value is not None and not isinstance(value, Mapping):
            bad(self.place(name), "must be an object")
        return value

    def fields(self, name: str) -> "Fields":
        """The fields of an inner object; no fields if it is absent."""
        return Fields(self.object(name) or {}, self.place(name))

    def items(self, name: str) -> Sequence[JSON] | None:
        return self._take(name, (list, tuple), "a list")

    def objects(self, name: str) -> list["Fields"]:
        """The fields of each object in a list; an empty list if it is absent."""
        return [Fields(item, f"{self.place(name)}[{i}]") for i, item in enumerate(self.items(name) or ())]

    def texts(self, name: str) -> list[str] | None:
        value = self.items(name)
        if value is not None and not all(isinstance(item, str) for item in value):
            bad(self.place(name), "must be a list of strings")
        return None if value is None else list(value)

    def _take(self, name: str, kind: type[T] | tuple[type[T], ...], what: str) -> T | None:
        value = self.rest.pop(name, None)
        if value is not None and (
            not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))
        ):
            bad(self.place(name), f"must be {what}")
        return value


def load_fields(body: bytes | Mapping[str, JSON]) -> Fields:
    """The fields of a body, which may be bytes or decoded JSON."""
    if isinstance(body, Mapping):
        return Fields(body)
    try:
        return Fields(from_json(body, allow_inf_nan=False))
    except ValueError as error:  # its text gives the position and repeats nothing
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None


def call_options(kwargs: Mapping[str, JSON]) -> CallOptions:
    """The keyword arguments that are not None. Messages are checked as the router will check them."""
    options = cast("CallOptions", {name: value for name, value in kwargs.items() if value is not None})
    if "messages" not in options:
        bad("messages", "is missing")
    build_request(None, options)
    return options


def bad(place: str, fault: str) -> NoReturn:
    """Raise `InvalidRequestError` for a place in the body."""
    raise InvalidRequestError(f"{place} {fault}")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
