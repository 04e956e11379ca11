"""Parses server-sent events and NDJSON. The network may cut the bytes anywhere: the events are the same.

Knows line ends, fields and the size limit; must not know what an event means. The work is linear in the
bytes. A parser buffers at most `MAX_EVENT` bytes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final, TypeAlias

from ccroute.wire.reading import is_whole, wrong

MAX_EVENT: Final = 16 * 1024 * 1024
"""The longest event or line that is read, in bytes."""

Event: TypeAlias = tuple[str, bytes]
"""A server-sent event: its kind (`message` unless the server named it) and its data."""

_BOM: Final = b"\xef\xbb\xbf"


class Blocks(ABC):
    """Cuts bytes at a separator of LFs. CR and CRLF become LF first. A BOM at the start is removed.

    pending:  the bytes after the last separator.
    after_cr: whether the last byte was a CR, whose LF may follow.
    """

    separator: ClassVar[bytes]

    __slots__ = ("_started", "after_cr", "pending")

    def __init__(self) -> None:
        self.pending = bytearray()
        self.after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the blocks that `data` completes. Raises `ProtocolError` beyond `MAX_EVENT`."""
        if self.after_cr or b"\r" in data:
            data = self._with_lf(data)
        if not self._started:
            data = self._without_bom(data)
        pending, separator = self.pending, self.separator
        if not pending and len(data) <= MAX_EVENT and data.endswith(separator):
            return data[: -len(separator)].split(separator)  # the common case: whole events in one read
        # Only the new bytes can hold a new separator, or complete one that was split.
        start = max(0, len(pending) + 1 - len(separator))
        pending += data
        end = pending.rfind(separator, start)
        if end < 0:
            whole = []
        else:
            whole = bytes(pending[:end]).split(separator)
            del pending[: end + len(separator)]
        if len(pending) > MAX_EVENT + 1 or (end > MAX_EVENT and max(map(len, whole)) > MAX_EVENT):
            pending.clear()
            wrong(f"the server sent an event of more than {MAX_EVENT // 1024**2} MB")
        return whole

    @abstractmethod
    def end(self) -> list[bytes]:
        """Return the last block, if only its separator is missing."""

    def _rest(self) -> bytes:
        rest = bytes(self.pending)
        self.pending.clear()
        return rest

    def _with_lf(self, data: bytes) -> bytes:
        if self.after_cr and data.startswith(b"\n"):
            data = data[1:]  # the second half of a CRLF whose CR already counted as a line's end
            self.after_cr = False
        if data:
            self.after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, data: bytes) -> bytes:
        start = self._rest() + data
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self.pending += start
            return b""
        self._started = True
        return start.removeprefix(_BOM)


class SSEParser(Blocks):
    """Cuts server-sent events. `read_event` reads each of them."""

    separator = b"\n\n"
    __slots__ = ()

    def end(self) -> list[bytes]:
        """Return the last event, if only its blank line is missing: it must be `[DONE]` or whole JSON.

        A JSON object or a web page without any event has the kind `body`: the server did not stream.
        """
        rest = self._rest()
        event = read_event(rest)
        if event:
            return [rest] if event[1] == b"[DONE]" or is_whole(event[1]) else []
        body = rest.strip()
        never_a_stream = body.startswith(b"<") or (body.startswith(b"{") and is_whole(body))
        return [b"event: body\ndata: " + body.replace(b"\n", b"\ndata: ")] if never_a_stream else []


class NDJSONParser(Blocks):
    """Cuts lines, one JSON value each. Some may be blank."""

    separator = b"\n"
    __slots__ = ()

    def end(self) -> list[bytes]:
        """Return the last line, if only its line end is missing: it must be whole JSON, or a web page."""
        rest = self._rest()
        return [rest] if rest.lstrip().startswith(b"<") or is_whole(rest) else []


def read_event(block: bytes) -> Event | None:
    """Return the event of a block, as the HTML standard defines it; `None` without data. Comments, ids and
    unknown fields are skipped. The field `error:` of older llama.cpp servers makes an event of that kind."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return "message", block[len(b"data: ") :]
    kind, data = "", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            kind = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field == b"error":
            kind = "error"
            data.append(value.removeprefix(b" "))
    return (kind or "message", b"\n".join(data)) if data else None
