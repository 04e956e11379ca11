"""Reads only the text of a frame, because the frames of one stream usually differ in nothing else.

Knows bytes and JSON strings; must not know frames. It costs a quarter of parsing the frame and is as
strict: between the learnt head and tail there must be exactly one JSON string.
"""

from pydantic_core import from_json

_PATIENCE = 4  # useless learnt frames before giving up: some servers put a random field into every frame


class Template:
    """The bytes before and after the value of `key`, learnt from one frame."""

    __slots__ = ("_head", "_key", "_tail", "_tries")

    def __init__(self, key: bytes) -> None:
        self._key = b'"%b":' % key
        self._head = self._tail = b"\n"  # matches no frame
        self._tries = 0

    def text(self, frame: bytes) -> str | None:
        """Return the text of a frame if the rest is equal to the learnt one, else `None`."""
        if not (frame.startswith(self._head) and frame.endswith(self._tail)):
            return None
        try:
            text = from_json(frame[len(self._head) : -len(self._tail)])
        except ValueError:
            return None
        self._tries = 0
        return text if isinstance(text, str) else None

    def learn(self, frame: bytes, text: str) -> None:
        """Learn from a parsed frame. Its only value of `key` must be `text`, and its other fields must hold
        nothing that the decoder needs again."""
        if self._tries >= _PATIENCE:
            return
        self._tries += 1
        head, literal, tail = frame.partition(b'"%b"' % text.encode())
        if literal and head.rstrip().endswith(self._key) and frame.count(self._key) == 1:
            self._head, self._tail = head, tail
