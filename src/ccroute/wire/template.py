"""Reads only the text of an event, because the events of one stream usually differ in nothing else.

Knows bytes and JSON strings; must not know frames. It costs a quarter of parsing the event and is as
strict: between the learnt bytes there must be exactly one JSON string each.
"""

from collections.abc import Sequence
from typing import Final

from pydantic_core import from_json

_PATIENCE: Final = 4  # useless learnt events before giving up: some servers put a random field into every one


class Template:
    """The bytes around the text of `key`, learnt from one event.

    `varying` are keys without meaning whose texts differ in every event: one of them may stand before or
    after the text. All events match in the bytes before the first text, between both, and after the last.
    """

    __slots__ = ("_around", "_between", "_head", "_is_second", "_key", "_tail", "_tries", "_varying")

    def __init__(self, key: bytes, varying: Sequence[bytes] = ()) -> None:
        self._key = b'"%b":' % key
        self._varying = [b'"%b":"' % each for each in varying]
        self._tries = 0
        self.forget()

    def forget(self) -> None:
        """Match no event, until another is learnt."""
        self._head, self._between, self._tail = b"", b"", b""
        self._around = 0  # bytes of head and tail
        self._is_second = False  # whether the text comes after the varying one

    def text(self, event: bytes, end: bytes = b"") -> str | None:
        """Return the text of an event, which `end` follows, if all but its text is as learnt; else `None`."""
        if not self._head:
            return None
        inner = event.removeprefix(self._head).removesuffix(self._tail + end)
        if len(event) - len(inner) != self._around + len(end):
            return None
        try:
            if not self._between:
                text: str = from_json(b'"%b"' % inner)
            else:
                # No JSON string goes on over a line's end: neither of them can swallow the other.
                first, between, second = inner.partition(self._between)
                texts: list[str] = from_json(b'["%b"\n,\n"%b"]' % (first, second))
                if not between or len(texts) != 2:
                    return None
                text = texts[self._is_second]
        except ValueError:
            return None
        self._tries = 0
        return text

    def learn(self, event: bytes, text: str) -> None:
        """Learn from a parsed event. Its only value of `key` must be `text`, and its other fields must hold
        nothing that the decoder needs again."""
        if self._tries >= _PATIENCE:
            return
        self._tries += 1
        head, literal, tail = event.partition(b'"%b"' % text.encode())
        if not literal or not head.rstrip().endswith(self._key) or event.count(self._key) != 1:
            return
        self._head, self._between, self._tail = head + b'"', b"", b'"' + tail
        self._is_second = False
        for key in self._varying:
            if key in tail:
                before, _, after = self._tail.partition(key)
                self._between, self._tail = before + key, after[after.find(b'"') :]
                break
            if key in head:
                before, _, after = self._head.partition(key)
                self._head, self._between = before + key, after[after.find(b'"') :]
                self._is_second = True
                break
        self._around = len(self._head) + len(self._tail)
