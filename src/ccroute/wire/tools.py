"""Tool calls as servers send them: whole or in pieces, with and without ids, arguments in any state.

Knows the shape `{id, index, function: {name, arguments}}`, which OpenAI and Ollama share; must not know
more of a wire. Arguments stay the text the model wrote, valid JSON or not; none at all are `{}`.
"""

import re
from collections.abc import Mapping
from typing import Final

from pydantic_core import to_json

from ccroute.errors import ProtocolError
from ccroute.types import JSON, Function, ToolCall
from ccroute.wire.reading import is_whole, load, mapping, text, wrong

NO_ARGUMENTS = "{}"
_CALL: Final = frozenset({"id", "index", "type", "function"})
_FUNCTION: Final = frozenset({"name", "arguments"})

_MARKS: Final = re.compile(r"\\.|[\\\"{}\[\]]", re.DOTALL)


class _Nesting:
    """Whether JSON that comes in pieces has closed all that it opened. Each character is looked at once."""

    __slots__ = ("_depth", "_held", "_opened", "_quoted")

    def __init__(self) -> None:
        self._depth, self._held = 0, ""
        self._opened = self._quoted = False

    @property
    def is_closed(self) -> bool:
        return self._opened and self._depth <= 0

    def feed(self, piece: str) -> None:
        marks = _MARKS.findall(self._held + piece)
        self._held = "\\" if marks and marks[-1] == "\\" else ""  # what it escapes is in the next piece
        for mark in marks:
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted and mark in ("{", "[", "}", "]"):
                self._depth += 1 if mark in "{[" else -1
                self._opened = True


class Call:
    """A tool call that is still growing."""

    __slots__ = ("_broken", "_nesting", "_read", "fields", "id", "index", "name", "pieces")

    def __init__(self, index: int, id: str = "", name: str = "") -> None:
        self.index = index
        self.id = id or f"call_{index}"
        self.name = name
        self.pieces: list[str] = []
        self.fields: dict[str, JSON] = {}
        self._nesting = _Nesting()
        self._read = 0
        self._broken = False

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are a complete JSON object; asked after each piece, all of it is linear."""
        for piece in self.pieces[self._read :]:
            self._nesting.feed(piece)
        self._read = len(self.pieces)
        if self._broken or not self._nesting.is_closed:
            return False
        self._broken = not is_whole(self.arguments.encode())  # what is closed and no JSON never will be
        return not self._broken

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def whole(self, provider: str = "") -> ToolCall:
        """The call as it stands. `provider` is who wrote its further fields."""
        function = Function(name=self.name, arguments=self.arguments or NO_ARGUMENTS)
        return _call(self.id, function, self.index, self.fields, provider)

    def begun(self) -> ToolCall:
        """The first delta: id and name."""
        return ToolCall(id=self.id, function=Function(name=self.name), index=self.index)

    def grown(self, arguments: str, name: str = "") -> ToolCall:
        """The next delta, which adds `arguments`, and the name if that comes late."""
        late = "" if self.name else name
        self.name = self.name or name
        self.pieces.append(arguments)
        return ToolCall(function=Function(name=late, arguments=arguments), index=self.index)


class CallDeltas:
    """Assembles OpenAI's tool deltas: by id, then by index, then by position.

    `index` cannot be trusted alone: some servers always send 0 and some none.
    """

    __slots__ = ("_by_id", "_by_index", "calls")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}

    def add(self, told: object) -> tuple[ToolCall, ...]:
        """Take the `tool_calls` of one delta and return ours, numbered from 0 in order of appearance."""
        entries = _entries(told)
        # A lone entry without index goes on with the latest call; one of several with the call at its place.
        places = range(len(entries)) if len(entries) > 1 else [len(self.calls) - 1]
        return tuple(self._delta(entry, place) for place, entry in zip(places, entries, strict=True))

    def _delta(self, entry: dict[str, JSON], place: int) -> ToolCall:
        function = mapping(entry.get("function"))
        id, index, name = text(entry.get("id")), entry.get("index"), text(function.get("name"))
        arguments = as_text(function.get("arguments"))
        call = self._by_id.get(id) or self._earlier(index, place)
        if call is None or self._is_another(call, id, name):
            delta = self._begin(id, index, name, arguments)
            call = self.calls[-1]
        else:
            delta = call.grown(arguments, name)
        if not entry.keys() <= _CALL or not function.keys() <= _FUNCTION:
            call.fields.update(_further(entry, function))
        return delta

    def _earlier(self, index: object, place: int) -> Call | None:
        if isinstance(index, int):
            return self._by_index.get(index)
        return self.calls[place] if 0 <= place < len(self.calls) else None

    def _is_another(self, call: Call, id: str, name: str) -> bool:
        """A second name means a second call if its id is new or, without ids, if the first call is whole."""
        if not name or not call.name:
            return False
        return id not in self._by_id if id else call.is_whole

    def _begin(self, id: str, index: object, name: str, arguments: str) -> ToolCall:
        call = Call(len(self.calls), id, name)
        self.calls.append(call)
        if id:
            self._by_id[id] = call
        if isinstance(index, int):
            self._by_index[index] = call
        call.pieces.append(arguments)
        return ToolCall(id=call.id, function=Function(name=name, arguments=arguments), index=call.index)


def whole_calls(entries: object, first: int = 0, provider: str = "") -> tuple[ToolCall, ...]:
    """The `tool_calls` of a whole message, numbered from `first`; ids missing or double are given.
    `provider` is who wrote their further fields, which are not kept without one."""
    seen: set[str] = set()
    calls = []
    for index, entry in enumerate(_entries(entries), first):
        function = mapping(entry.get("function"))
        id = text(entry.get("id"))
        if not id or id in seen:
            id = f"call_{index}"
        seen.add(id)
        arguments = as_text(function.get("arguments")) or NO_ARGUMENTS
        made = Function(name=text(function.get("name")), arguments=arguments)
        calls.append(_call(id, made, index, _further(entry, function) if provider else {}, provider))
    return tuple(calls)


def _call(id: str, function: Function, index: int, fields: Mapping[str, JSON], provider: str) -> ToolCall:
    kept = {provider: fields} if fields and provider else {}
    return ToolCall(id=id, function=function, index=index, provider_fields=kept)


def _further(entry: Mapping[str, JSON], function: Mapping[str, JSON]) -> dict[str, JSON]:
    """What a call says besides the usual, such as Gemini's `extra_content`; empty values say nothing."""
    fields = {name: value for name, value in entry.items() if value and name not in _CALL}
    if inner := {name: value for name, value in function.items() if value and name not in _FUNCTION}:
        fields["function"] = inner
    return fields


def _entries(told: object) -> list[dict[str, JSON]]:
    if isinstance(told, dict):  # older TGI: the one call itself, not a list
        return [told]
    if not isinstance(told, list) or not all(isinstance(entry, dict) for entry in told):
        wrong("tool_calls is not a list of objects")
    return told


def as_text(arguments: object) -> str:
    """Arguments as JSON text: some servers send the object itself."""
    if isinstance(arguments, str):
        return arguments
    return to_json(arguments).decode() if isinstance(arguments, dict | list) else ""


def as_object(arguments: object) -> dict[str, JSON]:
    """Arguments as an object, as every wire sends them back; none, or null, is an empty one.

    What the model wrote may be no object at all; it is then passed on inside one, so that the
    conversation can go on and the model can see its own mistake.
    """
    if isinstance(arguments, dict):
        return arguments
    written = text(arguments)
    if not written.strip():
        return {}
    try:
        value = load(written.encode("utf-8", "replace"))
    except ProtocolError:
        value = written
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"arguments": value}
