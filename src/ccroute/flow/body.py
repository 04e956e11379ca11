"""The bytes of an answer's body as they were meant: at most one gzip layer undone, bounded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from ccroute.errors import ProtocolError

MAX_BODY = 64 * 1024 * 1024
"""A body that is no stream, after unpacking, in bytes."""
PIECE = 64 * 1024
"""The most that is unpacked at a time, in bytes."""
_GZIP = 16 + zlib.MAX_WBITS


class Body:
    """Unpacks one answer's body piece by piece.

    ccroute asks for `identity`; a server that sends gzip all the same is read, with a bound on what
    it unpacks to and with its end required (httpx accepts a truncated one).
    """

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip"}:
            raise ProtocolError("answered in an encoding that was not asked for")
        self._gzip = zlib.decompressobj(_GZIP) if encoding.endswith("gzip") else None

    def feed(self, data: bytes) -> Iterable[bytes]:
        """What `data` stands for, in pieces that are never much larger than what came.

        The reader stops where it has enough, so a small answer that unpacks to a huge one costs neither
        memory nor time.
        """
        return (data,) if self._gzip is None else self._unpacked(self._gzip, data)

    def _unpacked(self, gzip: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            if gzip.eof:
                raise ProtocolError("the gzip answer goes on after its end")
            try:
                piece = gzip.decompress(data, PIECE)
            except zlib.error:
                raise ProtocolError("the answer is not valid gzip") from None
            if piece:
                yield piece
            data = gzip.unconsumed_tail or gzip.unused_data
            full = len(piece) == PIECE and not gzip.eof  # zlib may hold more of it

    def end(self) -> None:
        """Called at the end of the bytes; raises `ProtocolError` for a truncated gzip."""
        if self._gzip is not None and not self._gzip.eof:
            raise ProtocolError("the gzip answer was cut off")
