"""The shape every stream decoder has, ours and a user's own."""

from __future__ import annotations

from typing import Protocol

from ccroute.types import Chunk, Completion


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed answer into chunks.

    `feed` returns the chunks that hold content (text, thinking, tool calls), in order, and raises
    the typed error of an error frame. `finish` is called at the end of the bytes: it returns the
    whole answer, or raises `ProtocolError` when the protocol's terminal signal never came.

    ccroute's own decoders also have `done` (nothing that follows can matter) and `partial()` (the answer so
    far, its usage estimated).
    """

    def feed(self, data: bytes) -> list[Chunk]: ...

    def finish(self) -> Completion: ...
