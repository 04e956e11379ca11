"""Reads only the text of an event, because the events of one stream usually differ in nothing else.

Knows bytes and JSON strings; must not know frames. It costs a quarter of parsing the event and is as
strict: between the learnt head and tail there must be exactly one JSON string.
"""

from pydantic_core import from_json

_PATIENCE = 4  # useless learnt events before giving up: some servers put a random field into every one


class Template:
    """The bytes before and after the text of `key`, each with a quote, learnt from one event."""

    __slots__ = ("_around", "_head", "_key", "_tail", "_tries")

    def __init__(self, key: bytes) -> None:
        self._key = b'"%b":' % key
        self._tries = 0
        self.forget()

    def forget(self) -> None:
        """Match no event, until another is learnt."""
        self._head, self._tail, self._around = b"", b"", -1

    def text(self, event: bytes) -> str | None:
        """Return the text of an event if the rest is equal to the learnt one, else `None`."""
        inner = event.removeprefix(self._head).removesuffix(self._tail)
        if len(event) - len(inner) != self._around:
            return None
        try:
            text: str = from_json(b'"%b"' % inner)
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
        if literal and head.rstrip().endswith(self._key) and event.count(self._key) == 1:
            self._head, self._tail = head + b'"', b'"' + tail
            self._around = len(self._head) + len(self._tail)
