"""What the three encoders share: which parameters were given, `extra`, images in data URLs.

Knows the canonical request; must not know any wire's names.
"""

from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON, Request

_LONGEST_NAME = 40
"""What is longer names no kind of part, but may be a prompt."""


class Image(NamedTuple):
    """An image of a message: either a URL, or base64 `data` with its media type."""

    url: str = ""
    media_type: str = ""
    data: str = ""


def given(value: object) -> bool:
    """Whether a parameter was given: 0 and False were, None and empty things were not."""
    return value is not None and value != "" and value != () and value != [] and value != {}


def merged(body: dict[str, JSON], request: Request, *containers: str) -> dict[str, JSON]:
    """`body` with `request.extra` on top; the objects named in `containers` are merged, not replaced."""
    for name, value in request.extra.items():
        if name in containers and isinstance(value, Mapping) and isinstance(body.get(name), dict):
            body[name] = {**body[name], **value}
        else:
            body[name] = value
    return body


def wants_schema(request: Request) -> bool:
    """Whether the answer is to follow a JSON schema."""
    return (request.response_format or {}).get("type") == "json_schema"


def json_schema(request: Request) -> Mapping[str, JSON] | None:
    """The schema the answer must follow, if one was given."""
    if not wants_schema(request):
        return None
    told = (request.response_format or {}).get("json_schema")
    schema = told.get("schema") if isinstance(told, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidRequestError("response_format.json_schema.schema is missing")
    return schema


def image(part: Mapping[str, JSON], where: str) -> Image:
    """The image of an `image_url` part. Raises `InvalidRequestError` naming the place."""
    told = part.get("image_url")
    url = told.get("url") if isinstance(told, Mapping) else told
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}.image_url.url is missing")
    if not url.startswith("data:"):
        return Image(url=url)
    head, _, data = url.partition(",")
    media_type, _, coding = head.removeprefix("data:").partition(";")
    if not media_type or not data or not coding.endswith("base64"):
        raise InvalidRequestError(f"{where}.image_url.url must be a URL or data:image/…;base64,…")
    return Image(media_type=media_type, data=data)


def unknown_part(part: Mapping[str, JSON], where: str, wire: str) -> NoReturn:
    """Raise for a part that a wire cannot carry, naming its place and type, not its content."""
    kind = part.get("type")
    named = isinstance(kind, str) and kind.isidentifier() and len(kind) <= _LONGEST_NAME
    what = f"a part of type {kind!r}" if named else "a part without a proper type"
    raise InvalidRequestError(f"{where}: {wire} cannot carry {what}")
