"""A backend that speaks one of ccroute's own wires: reading answers is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from ccroute.backends.base import Backend
from ccroute.errors import BackendError, RequestError
from ccroute.types import Completion
from ccroute.wire.codec import StreamDecoder


class Codec(Protocol):
    """What `ccroute.wire.openai`, `.anthropic` and `.ollama` offer for reading."""

    @property
    def Decoder(self) -> Callable[[], StreamDecoder]: ...

    @property
    def decode(self) -> Callable[[bytes], Completion]: ...

    @property
    def error(self) -> Callable[[int, Mapping[str, str], bytes], BackendError | RequestError]: ...


class WireBackend(Backend):
    """Reads whole answers, streams and errors with `codec`; what is written is each wire's own."""

    codec: ClassVar[Codec]

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        return self.codec.decode(body)

    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        return self.codec.Decoder()

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError | RequestError:
        return self.codec.error(status, headers, body)
