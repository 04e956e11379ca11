"""What a wire has to do: write requests as HTTP, and read the answers. Without I/O.

Knows requests, bodies and headers; must not know addresses or keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from pydantic_core import to_json

from ccroute.errors import BackendError, InvalidRequestError, RequestError
from ccroute.types import JSON, Completion, Request
from ccroute.wire.errors import typed
from ccroute.wire.listing import read_model_list

if TYPE_CHECKING:
    from ccroute.types import LoadedModel
    from ccroute.wire.decoding import StreamDecoder


class HttpRequest(NamedTuple):
    """One request as a codec writes it.

    path: relative to the backend's base URL; with `root`, to the base URL without its `/v1`.
    """

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = MappingProxyType({})
    root: bool = False

    def __repr__(self) -> str:
        """Without body and header values: they hold the prompt, and may hold a key."""
        headers = "".join(f", {name}" for name in self.headers)
        return f"HttpRequest({self.method} {self.path}, {len(self.body)} bytes{headers})"


class Codec(ABC):
    """The three methods that every backend implements, and those that it overrides where its server differs:
    `classify` if its errors have a form of their own, `refusals` if it lacks parameters, and so on."""

    @abstractmethod
    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        """Write `request` for `model`. Raises `InvalidRequestError` if the wire cannot carry it."""

    @abstractmethod
    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        """Read a whole answer. Raises a `BackendError` if `body` is not an answer."""

    @abstractmethod
    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        """Return a decoder for one streamed answer."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError | RequestError:
        """Return the typed error for an answer whose status is not 2xx. Header names are lower case.

        The default reads the statuses and error bodies of most providers.
        """
        return typed.error(status, headers, body)

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        """Return the parameters of `request` that this wire cannot carry, each with the reason."""
        return {}

    def check(self, request: Request, answer: Completion) -> None:
        """Check a whole answer to a `request` with `response_format`, which `decode` does not see.

        Raises a `BackendError` or `InvalidRequestError` if the server ignored it.
        """
        return

    def buffers_tool_calls(self, request: Request) -> bool:
        """Whether the server sends a streamed tool call only when it is whole. The stream may then be silent
        for as long as the whole answer takes, so the limit `idle` does not count."""
        return False

    def listing(self) -> HttpRequest | None:
        """Return the request that lists the server's models without running one; None if there is none."""
        return None

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        """The models of a listing's answer, each with its context window in tokens, or None.

        The default reads the list of OpenAI, Anthropic and most others.
        """
        return read_model_list(body)

    def details(self, model: str) -> HttpRequest | None:
        """The request for a model's context window, where the listing lacks it."""
        return None

    def read_details(self, body: bytes, model: str) -> int | None:
        """The context window that calls to `model` get, in tokens, from an answer to `details`."""
        return None

    def loaded(self) -> HttpRequest | None:
        """The request that lists the models in memory; None if there is none. It may be `listing`."""
        return None

    def read_loaded(self, body: bytes) -> Sequence[LoadedModel]:
        """The models in memory, from an answer to `loaded`."""
        return ()

    def unload(self, model: str) -> HttpRequest | None:
        """The request that frees a model's memory without generating; None if there is none. Calls to the
        model that run are not cut off, and a later call loads it again."""
        return None


def json_bytes(body: Mapping[str, JSON]) -> bytes:
    """Return a request body. Raises `InvalidRequestError` for a value that JSON cannot hold."""
    try:
        return to_json(body)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequestError(
            "the request cannot be written as JSON: it holds a value that is not JSON, or half a character "
            "(such as a file name from os.fsdecode)"
        ) from None
