"""Code that the three encoders share: given parameters, `extra`, images in data URLs.

Knows the canonical request, and which of its fields and tools only one provider's API has.
"""

import base64
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, NoReturn, Self

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON, Request
from ccroute.types.request import PARAMETERS

NOT_GIVEN: Final[tuple[object, ...]] = (None, "", (), [], {})
"""Values that count as not given. 0 and False count as given."""
_LONGEST_NAME = 40
"""Characters of a type that an error shows. A longer text may be a prompt."""
_MARKS: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


class Image(NamedTuple):
    """An image of a message: either a URL, or base64 `data` with its media type."""

    url: str = ""
    media_type: str = ""
    data: str = ""


class OfWire(dict[str, JSON]):
    """`extra` from a client of `ccroute.serve`: fields that only servers of the same `wire` may know.

    Any other `extra` is from the caller, who chose the server. ccroute does not check it.
    """

    def __init__(self, wire: str, fields: Mapping[str, JSON]) -> None:
        super().__init__(fields)
        self.wire = wire


class OwnEffort(str):
    """A `reasoning_effort` that a client gave in Anthropic's form. `thinking` and `effort` are the client's
    values, for Anthropic's wire. All other wires read the canonical effort, the str itself."""

    thinking: Mapping[str, JSON]
    effort: str | None

    def __new__(
        cls, word: str, thinking: Mapping[str, JSON] | None = None, effort: str | None = None
    ) -> Self:
        self = super().__new__(cls, word)
        self.thinking, self.effort = thinking or {}, effort
        return self


class LeftOut(str):
    """The reason why ccroute leaves out a parameter even without `drop_params`: the answer is worth more than
    the parameter. `route.reasons` lists it."""

    __slots__ = ()


_NAMES: Final = {"openai": "OpenAI", "anthropic": "Anthropic"}
_ANTHROPICS_OWN: Final = re.compile(r"\w+_20\d{6}|mcp_toolset")
"""Types of tools that Anthropic runs or defines itself, such as `web_search_20250305`."""
TOOL_MARKS: Final = ("allowed_callers", "defer_loading", "eager_input_streaming", "input_examples")
"""Fields beside a tool's function that only Anthropic reads. Servers that imitate it refuse some of them."""
_UNREAD: Final = LeftOut("only Anthropic reads it")
_IN_TOOLS: Final = re.compile(r"tools\[(\d+)\](?:\.(\w+))?")


def foreign(request: Request, wire: str) -> dict[str, str]:
    """Return the parts of a request that servers of `wire` do not know, each with the reason: fields of an
    `OfWire`, Anthropic's own tools, and its fields of other tools. A key is a name, or a place in `tools`."""
    why: dict[str, str] = {}
    extra = request.extra
    if isinstance(extra, OfWire) and extra.wire != wire:
        why = dict.fromkeys(extra, f"a field of {_NAMES[extra.wire]}'s API, this server speaks another")
    if wire != "anthropic":
        for i, tool in enumerate(request.tools or ()):
            kind = tool.get("type")
            if isinstance(kind, str) and "function" not in tool and _ANTHROPICS_OWN.fullmatch(kind):
                why[f"tools[{i}]"] = f"{kind} is a tool that only Anthropic runs"
        why |= tool_marks(request)
    return why


def tool_marks(request: Request) -> dict[str, str]:
    """Return the fields of tools that only Anthropic reads, by their place, each with the reason."""
    return {
        f"tools[{i}].{name}": _UNREAD
        for i, tool in enumerate(request.tools or ())
        for name in TOOL_MARKS
        if name in tool
    }


def without(request: Request, refused: Mapping[str, str]) -> Request:
    """Return the request without the `refused` parts: parameters, tools, fields of tools, fields of
    `extra`."""
    changes: dict[str, JSON] = {name: None for name in refused if name in PARAMETERS and name != "extra"}
    gone = {(int(found[1]), found[2]) for name in refused if (found := _IN_TOOLS.fullmatch(name))}
    if gone and "tools" not in changes:
        changes["tools"] = [
            {name: value for name, value in tool.items() if (i, name) not in gone}
            for i, tool in enumerate(request.tools or ())
            if (i, None) not in gone
        ] or None
        left = [(tool.get("function") or {}).get("name") for tool in changes["tools"] or ()]
        choice = request.tool_choice
        if isinstance(choice, Mapping) and (choice.get("function") or {}).get("name") not in left:
            changes["tool_choice"] = None
    if changes.get("tools", ()) is None:  # every server refuses a choice without tools
        changes |= {"tool_choice": None, "parallel_tool_calls": None}
    if refused.keys() & request.extra.keys():
        changes["extra"] = {name: each for name, each in request.extra.items() if name not in refused}
    return dataclasses.replace(request, **changes)


def given(request: Request, names: Iterable[str]) -> dict[str, JSON]:
    """Return the given parameters among `names`, with their values. Other names are skipped."""
    return {name: value for name in names if (value := getattr(request, name, None)) not in NOT_GIVEN}


def merged(body: dict[str, JSON], request: Request, *containers: str) -> dict[str, JSON]:
    """Put `request.extra` into `body` and return it. Objects in `containers` are merged, not replaced."""
    for name, value in request.extra.items():
        if name in containers and isinstance(value, Mapping) and isinstance(body.get(name), dict):
            body[name] = {**body[name], **value}
        else:
            body[name] = value
    return body


def thinks(request: Request) -> bool:
    """Whether the model is asked to think."""
    return request.reasoning_effort not in (None, "none")


def wants_schema(request: Request) -> bool:
    """Whether the answer must follow a JSON schema."""
    return (request.response_format or {}).get("type") == "json_schema"


def json_schema(request: Request) -> Mapping[str, JSON] | None:
    """Return the answer's schema, None if none is wanted. A missing one raises `InvalidRequestError`."""
    if not wants_schema(request):
        return None
    form = (request.response_format or {}).get("json_schema")
    schema: JSON = form.get("schema") if isinstance(form, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidRequestError("response_format.json_schema.schema is missing")
    return schema


def image(part: Mapping[str, JSON], where: str) -> Image:
    """The image of an `image_url` part. Raises `InvalidRequestError` naming the place."""
    source = part.get("image_url")
    url = source.get("url") if isinstance(source, Mapping) else source
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}.image_url.url is missing")
    if not url.startswith("data:"):
        return Image(url=url)
    head, _, data = url.partition(",")
    media_type, _, coding = head.removeprefix("data:").partition(";")
    if not media_type or not data or not coding.endswith("base64"):
        raise InvalidRequestError(f"{where}.image_url.url must be a URL or data:image/…;base64,…")
    return Image(media_type=_true_type(data) or media_type.lower(), data=data)


def _true_type(data: str) -> str | None:
    """Return the media type by the first bytes. Declared types are often wrong, and Anthropic checks them."""
    try:
        start = base64.b64decode(data[:16])
    except ValueError:
        return None
    return next((kind for mark, kind in _MARKS if start.startswith(mark)), None)


def unknown_part(part: Mapping[str, JSON], where: str, wire: str) -> NoReturn:
    """Raise for a part that a wire cannot carry, naming its place and type, not its content."""
    raise InvalidRequestError(f"{where}: {wire} cannot carry {part_type(part, 'part')}")


def part_type(part: Mapping[str, JSON], what: str) -> str:
    """Describe a part by its type. `what` is the noun, such as "part"."""
    kind = part.get("type")
    known = isinstance(kind, str) and kind.isidentifier() and len(kind) <= _LONGEST_NAME
    return f"a {what} of type {kind!r}" if known else f"a {what} without a proper type"
