"""A backend that speaks one of ccroute's own wires: reading answers is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from ccroute.backends.base import Backend
from ccroute.errors import BackendError, RequestError
from ccroute.types import Completion, Request
from ccroute.wire.codec import StreamDecoder
from ccroute.wire.fields import wants_schema
from ccroute.wire.reading import is_whole


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
    holds_schemas_of = ""
    """What the names of those models contain that are held to a JSON schema wherever this wire is spoken."""

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        return self.codec.decode(body)

    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        return self.codec.Decoder()

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError | RequestError:
        return self.codec.error(status, headers, body)

    def ignored_schema(self, request: Request, answer: Completion, model: str) -> bool:
        if self.holds_schemas_of in model.lower() or not wants_schema(request):
            return False
        return answer.finish_reason == "stop" and not is_whole(answer.text.encode("utf-8", "replace"))
