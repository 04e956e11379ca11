"""Parses server-sent events and NDJSON. The network may cut the bytes anywhere: the events are the same.

Knows line ends, fields and the size limit; must not know what an event means. The work is linear in the
bytes. A parser buffers at most `MAX_EVENT` bytes.
"""

from typing import Final, TypeAlias

from ccroute.wire.reading import is_whole, wrong

MAX_EVENT: Final = 16 * 1024 * 1024
"""The longest event or line that is read, in bytes."""

Event: TypeAlias = tuple[str, bytes]
"""A server-sent event: its kind (`message` unless the server named it) and its data."""

_BOM: Final = b"\xef\xbb\xbf"


class _Blocks:
    """Cuts bytes at a separator of LFs. CR and CRLF become LF first. A BOM at the start is removed."""

    __slots__ = ("_after_cr", "_pending", "_separator", "_started")

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._pending = bytearray()
        self._after_cr = False
        self._started = False

    def _cut(self, data: bytes) -> list[bytes]:
        """Return the complete blocks. Bytes after the last separator stay in the buffer."""
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        if not self._started:
            data = self._without_bom(data)
        pending, separator = self._pending, self._separator
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

    def _rest(self) -> bytes:
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _with_lf(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the second half of a CRLF whose CR already counted as a line's end
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, data: bytes) -> bytes:
        start = self._rest() + data
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._pending += start
            return b""
        self._started = True
        return start.removeprefix(_BOM)


class SSEParser(_Blocks):
    """Parses server-sent events as the HTML standard defines them. The field `error:` of older llama.cpp
    servers becomes an event of kind `error`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"\n\n")

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises `ProtocolError` beyond `MAX_EVENT`."""
        # The most common case, one plain event in one read, costs one slice.
        if (
            data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2 <= MAX_EVENT
            and data.endswith(b"\n")
            and b"\r" not in data
            and not (self._pending or self._after_cr)
        ):
            self._started = True
            return [("message", data[6:-2])]
        events: list[Event] = []
        for block in self._cut(data):
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(("message", block[6:]))
            elif event := _event(block):
                events.append(event)
        return events

    def end(self) -> list[Event]:
        """Return the last event, if only its blank line is missing: it must be `[DONE]` or whole JSON.

        A JSON object or a web page without any event has the kind `body`: the server did not stream.
        """
        rest = self._rest()
        event = _event(rest)
        if event:
            return [event] if event[1] == b"[DONE]" or is_whole(event[1]) else []
        body = rest.strip()
        never_a_stream = body.startswith(b"<") or (body.startswith(b"{") and is_whole(body))
        return [("body", body)] if never_a_stream else []


class NDJSONParser(_Blocks):
    """One JSON value a line; blank lines are skipped."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"\n")

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises `ProtocolError` beyond `MAX_EVENT`."""
        return [line for line in self._cut(data) if line and not line.isspace()]

    def end(self) -> list[bytes]:
        """Return the last line, if only its line end is missing: it must be whole JSON, or a web page."""
        rest = self._rest()
        return [rest] if rest.lstrip().startswith(b"<") or is_whole(rest) else []


def _event(block: bytes) -> Event | None:
    """Return the event of a block; `None` without data. Comments, ids and unknown fields are skipped."""
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
