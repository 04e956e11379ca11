"""Reads tool calls: whole or in pieces, with or without ids, with valid or broken arguments.

Knows the shape `{id, index, function: {name, arguments}}`, which OpenAI and Ollama share; must not know
more of a wire. Arguments stay the text that the model wrote. Missing arguments become `{}`.
"""

import re
from collections.abc import Mapping
from typing import Final

from pydantic_core import to_json

from ccroute.errors import InvalidRequestError, ProtocolError
from ccroute.types import JSON, Function, ToolCall
from ccroute.wire.reading import is_whole, load, mapping, text, wrong

NO_ARGUMENTS = "{}"
_CALL: Final = frozenset({"id", "index", "type", "function"})
_FUNCTION: Final = frozenset({"name", "arguments"})

_MARKS: Final = re.compile(r"\\.|[\\\"{}\[\]]", re.DOTALL)


class _Nesting:
    """Tracks whether JSON that comes in pieces has closed all its brackets. Each character is read once."""

    __slots__ = ("_depth", "_escape", "_opened", "_quoted")

    def __init__(self) -> None:
        self._depth, self._escape = 0, ""
        self._opened = self._quoted = False

    @property
    def is_closed(self) -> bool:
        return self._opened and self._depth <= 0

    def feed(self, piece: str) -> None:
        marks = _MARKS.findall(self._escape + piece)
        self._escape = "\\" if marks and marks[-1] == "\\" else ""  # for the next piece's first character
        for mark in marks:
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted and mark in ("{", "[", "}", "]"):
                self._depth += 1 if mark in "{[" else -1
                self._opened = True


class Call:
    """A tool call that is still growing."""

    __slots__ = ("_broken", "_nesting", "_read", "fields", "id", "index", "name", "pieces")

    def __init__(self, index: int, id: str = "") -> None:
        self.index = index
        self.id = id or f"call_{index}"
        self.name = ""
        self.pieces: list[str] = []
        self.fields: dict[str, JSON] = {}
        self._nesting = _Nesting()
        self._read = 0
        self._broken = False

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object. The cost of asking after each piece is linear."""
        for piece in self.pieces[self._read :]:
            self._nesting.feed(piece)
        self._read = len(self.pieces)
        if self._broken or not self._nesting.is_closed:
            return False
        self._broken = not is_whole("".join(self.pieces).encode())  # closed but invalid JSON stays invalid
        return not self._broken

    def whole(self, provider: str = "") -> ToolCall:
        """Return the call so far. Its further fields are kept under `provider`, or dropped without one."""
        return ToolCall(
            id=self.id,
            function=Function(name=self.name, arguments="".join(self.pieces) or NO_ARGUMENTS),
            index=self.index,
            provider_fields={provider: self.fields} if provider and self.fields else {},
        )

    def grown(self, arguments: str, name: str = "") -> ToolCall:
        """Add `arguments`, and return them as a delta. The first delta has the id; only one has the name."""
        id, late = "" if self.pieces else self.id, "" if self.name else name
        self.name = self.name or name
        self.pieces.append(arguments)
        return ToolCall(id=id, function=Function(name=late, arguments=arguments), index=self.index)


class CallDeltas:
    """Assembles OpenAI's tool deltas: by id, then by index, then by position.

    `index` cannot be trusted alone: some servers always send 0, others send none.
    """

    __slots__ = ("_by_id", "_by_index", "calls")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}

    def add(self, entries: object) -> tuple[ToolCall, ...]:
        """Add the `tool_calls` of one delta. Returns them numbered from 0 in order of appearance."""
        calls = _entries(entries)
        # Without an index, a single entry continues the latest call; one of several the call at its position.
        places = range(len(calls)) if len(calls) > 1 else [len(self.calls) - 1]
        return tuple(self._delta(entry, place) for place, entry in zip(places, calls, strict=True))

    def _delta(self, entry: dict[str, JSON], place: int) -> ToolCall:
        function = mapping(entry.get("function"))
        id, index, name = text(entry.get("id")), entry.get("index"), text(function.get("name"))
        call = self._by_id.get(id) or self._earlier(index, place)
        if call is None or self._is_another(call, id, name):
            call = Call(len(self.calls), id)
            self.calls.append(call)
            if id:
                self._by_id[id] = call
            if isinstance(index, int):
                self._by_index[index] = call
        if not entry.keys() <= _CALL or not function.keys() <= _FUNCTION:
            call.fields.update(_further(entry, function))
        return call.grown(as_text(function.get("arguments")), name)

    def _earlier(self, index: object, place: int) -> Call | None:
        if isinstance(index, int):
            return self._by_index.get(index)
        return self.calls[place] if 0 <= place < len(self.calls) else None

    def _is_another(self, call: Call, id: str, name: str) -> bool:
        """Whether a repeated name begins another call: its id is new or, without ids, `call` is whole."""
        if not name or not call.name:
            return False
        return id not in self._by_id if id else call.is_whole


def read_calls(entries: object, first: int = 0) -> list[Call]:
    """Return the `tool_calls` of a whole message, numbered from `first`. Missing or repeated ids are new."""
    seen: set[str] = set()
    calls = []
    for index, entry in enumerate(_entries(entries), first):
        function, id = mapping(entry.get("function")), text(entry.get("id"))
        call = Call(index, "" if id in seen else id)
        call.name = text(function.get("name"))
        call.pieces.append(as_text(function.get("arguments")) or NO_ARGUMENTS)
        call.fields = _further(entry, function)
        seen.add(call.id)
        calls.append(call)
    return calls


def whole_calls(entries: object, provider: str = "") -> tuple[ToolCall, ...]:
    """Return the `tool_calls` of a whole message as results, further fields under `provider`."""
    return tuple(call.whole(provider) for call in read_calls(entries))


def _further(entry: Mapping[str, JSON], function: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a call's non-empty fields that OpenAI does not have, such as Gemini's `extra_content`."""
    fields = {name: value for name, value in entry.items() if value and name not in _CALL}
    if inner := {name: value for name, value in function.items() if value and name not in _FUNCTION}:
        fields["function"] = inner
    return fields


def _entries(entries: object) -> list[dict[str, JSON]]:
    if isinstance(entries, dict):  # older TGI: the one call itself, not a list
        return [entries]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        wrong("tool_calls is not a list of objects")
    return entries


def named_function(call: JSON, where: str) -> Mapping[str, JSON]:
    """Return the function of a call or a tool. Raises `InvalidRequestError` if it has no name."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not function.get("name"):
        raise InvalidRequestError(f"{where}.function.name is missing")
    return function


def as_text(arguments: object) -> str:
    """Return arguments as JSON text. Some servers send an object instead."""
    if isinstance(arguments, str):
        return arguments
    return to_json(arguments).decode() if isinstance(arguments, dict | list) else ""


def as_object(arguments: object) -> dict[str, JSON]:
    """Return arguments as an object, to send them back. Missing arguments and null give an empty one.

    Any other value, also broken JSON, is put into an object: the conversation goes on, and the model can see
    its mistake.
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
