"""The server's side of a wire: what OpenAI's and Anthropic's forms of it share.

Knows bodies that anybody may have sent, streams of chunks, and which status an error answers with; must
not know HTTP, sockets or a router. A fault names its place in the body, never what stood there.
"""

import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn, Protocol, TypeVar, cast

from pydantic_core import from_json, to_json

from ccroute.errors import (
    BackendError,
    BackendTimeoutError,
    CcrouteError,
    ContentPolicyError,
    ContextWindowExceededError,
    DeadlineExceededError,
    EgressDeniedError,
    InvalidOutputError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    QueueTimeoutError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    RouterClosedError,
    UnknownAgentError,
    UnknownModelError,
)
from ccroute.types import JSON, CallOptions, Chunk, Completion, ToolCall
from ccroute.types.checked import build_request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A client's request: `Router.complete(**kwargs)` or `Router.stream(**kwargs)` answers it.

    include_usage: whether a stream ends with its usage; OpenAI's clients ask for it, Anthropic's get it.
    ignored:       fields of the body that have no meaning here and were left out.
    """

    kwargs: CallOptions
    stream: bool = False
    include_usage: bool = False
    ignored: tuple[str, ...] = ()


# -- reading a body ------------------------------------------------------------------------------------------


class Fields:
    """One JSON object of a body, its fields taken one by one; null counts as not given.

    `told` is the object as it came, `rest` what nobody took. A wrong type is an `InvalidRequestError`.
    """

    def __init__(self, told: object, place: str = "") -> None:
        if not isinstance(told, Mapping):
            bad(place or "the body", "must be an object")
        self.told: Mapping[str, JSON] = told
        self._left = {name: value for name, value in told.items() if value is not None}
        self._place = place

    @property
    def rest(self) -> dict[str, JSON]:
        return dict(self._left)

    def place(self, name: str) -> str:
        """Where a field stands, as `messages[0].content`."""
        return f"{self._place}.{name}" if self._place else name

    def text(self, name: str) -> str | None:
        return self._take(name, str, "a string")

    def needed(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            bad(self.place(name), "is missing")
        return value

    def flag(self, name: str) -> bool | None:
        return self._take(name, bool, "true or false")

    def integer(self, name: str) -> int | None:
        return self._take(name, int, "a whole number")

    def number(self, name: str) -> float | None:
        value = self._left.pop(name, None)
        if value is not None and not is_number(value):
            bad(self.place(name), "must be a number")
        return cast("float | None", value)

    def object(self, name: str) -> Mapping[str, JSON] | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, Mapping):
            bad(self.place(name), "must be an object")
        return value

    def fields(self, name: str) -> "Fields":
        """The fields of an object within, of none if it is not there."""
        return Fields(self.object(name) or {}, self.place(name))

    def items(self, name: str) -> Sequence[JSON] | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, list | tuple):
            bad(self.place(name), "must be a list")
        return value

    def objects(self, name: str) -> list["Fields"]:
        """The fields of each object in a list, none if it is not there."""
        return [Fields(item, f"{self.place(name)}[{i}]") for i, item in enumerate(self.items(name) or ())]

    def texts(self, name: str) -> list[str] | None:
        value = self.items(name)
        if value is not None and not all(isinstance(item, str) for item in value):
            bad(self.place(name), "must be a list of strings")
        return None if value is None else list(value)

    def _take(self, name: str, kind: type[T], what: str) -> T | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            bad(self.place(name), f"must be {what}")
        return value


def load(body: bytes | Mapping[str, JSON]) -> Fields:
    """The fields of a body, as bytes or decoded."""
    if isinstance(body, Mapping):
        return Fields(body)
    try:
        return Fields(from_json(body, allow_inf_nan=False))
    except ValueError as error:  # says what was expected where, and quotes nothing
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None


def options(kwargs: Mapping[str, JSON]) -> CallOptions:
    """Keywords for a call, those that were given; messages checked as the router will."""
    given = cast("CallOptions", {name: value for name, value in kwargs.items() if value is not None})
    if "messages" not in given:
        bad("messages", "is missing")
    build_request(None, given)
    return given


def bad(place: str, fault: str) -> NoReturn:
    """Raise for a place in the body."""
    raise InvalidRequestError(f"{place} {fault}")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# -- streaming an answer -------------------------------------------------------------------------------------


class Named(Protocol):
    """What is known of an answer from its first chunk on."""

    @property
    def id(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def completion(self) -> Completion: ...


class ChunkStream(Named, Protocol):
    """A stream as `Router.stream` gives it."""

    def __iter__(self) -> Iterator[Chunk]: ...

    def close(self) -> None: ...


class AsyncChunkStream(Named, Protocol):
    """A stream as `Router.astream` gives it."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def aclose(self) -> None: ...


class Frames(Protocol):
    """Writes one answer's chunks in a protocol's form. `chunk` may have nothing to write."""

    def chunk(self, chunk: Chunk) -> bytes: ...

    def end(self, completion: Completion) -> bytes: ...

    def failed(self, error: Exception) -> bytes: ...


def written(stream: ChunkStream, frames: Frames) -> Generator[bytes, None, None]:
    """A stream's bytes; it is closed however this ends.

    What goes wrong before the first byte is raised, so that it can be answered with a status. After it,
    it becomes the protocol's own error event, and is raised too if it is no error of ccroute's.
    """
    begun = False
    try:
        for chunk in stream:
            if data := frames.chunk(chunk):
                begun = True
                yield data
        yield frames.end(stream.completion)
    except Exception as error:
        if not begun:
            raise
        yield frames.failed(error)
        if not isinstance(error, CcrouteError):
            raise
    finally:
        stream.close()


async def awritten(stream: AsyncChunkStream, frames: Frames) -> AsyncGenerator[bytes, None]:
    """`written`, for an event loop."""
    begun = False
    try:
        async for chunk in stream:
            if data := frames.chunk(chunk):
                begun = True
                yield data
        yield frames.end(stream.completion)
    except Exception as error:
        if not begun:
            raise
        yield frames.failed(error)
        if not isinstance(error, CcrouteError):
            raise
    finally:
        await stream.aclose()


def sse(frame: JSON, kind: str = "") -> bytes:
    """One server-sent event."""
    data = to_json(frame)
    for char, escape in _LINE_ENDS:  # valid in JSON, but many clients cut lines at them
        if char in data:
            data = data.replace(char, escape)
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data) if kind else b"data: %b\n\n" % data


_LINE_ENDS: Final = tuple((char.encode(), b"\\u%04x" % ord(char)) for char in "\x85\u2028\u2029")


# -- ids -----------------------------------------------------------------------------------------------------


def prefixed(id: str, prefix: str) -> str:
    """An answer's id as the protocol's clients know them."""
    return id if id.startswith(prefix) else prefix + id


def unique_id(call: ToolCall, answer: str) -> str:
    """A tool call's id that no other answer's call has.

    Where the server gave none, ccroute numbers the calls of each answer from 0, and clients look results
    up by id in the whole conversation. At most 40 characters: OpenAI takes no more.
    """
    if call.id != f"call_{call.index}":
        return call.id
    return f"call_{re.sub('[^a-zA-Z0-9]', '', answer)[-24:]}_{call.index}"


# -- answering an error --------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """What a client is told of an error: an HTTP status, a word for programs (or none), a sentence."""

    status: int
    code: str | None
    message: str


# The first that fits counts. A backend's refusal of *our* key is a bad gateway: the client's was fine.
_ANSWERS: Final[tuple[tuple[type[CcrouteError], int, str | None], ...]] = (
    (ContextWindowExceededError, 400, "context_length_exceeded"),
    (ContentPolicyError, 400, "content_policy_violation"),
    (UnknownModelError, 404, "model_not_found"),
    (UnknownAgentError, 404, "agent_not_found"),
    (RequestError, 400, None),
    (EgressDeniedError, 403, "egress_denied"),
    (DeadlineExceededError, 504, None),
    (QueueTimeoutError, 503, None),
    (RouterClosedError, 503, None),
    (ModelNotFoundError, 404, "model_not_found"),
    (QuotaExhaustedError, 429, "insufficient_quota"),
    (RateLimitError, 429, "rate_limit_exceeded"),
    (OverloadedError, 503, None),
    (BackendTimeoutError, 504, None),
    (BackendError, 502, None),
    (InvalidOutputError, 502, None),
)

KINDS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""An error's `type` by its status, in both protocols; a client of either reads the status first."""


def fault(error: Exception) -> Fault:
    """What to tell a client of `error`; of what is no client's business, only that it happened."""
    if isinstance(error, InvalidRequestError) and error.disregarded:
        return Fault(502, None, str(error))  # the client asked for what it may ask for
    for kind, status, code in _ANSWERS:
        if isinstance(error, kind):
            return Fault(status, code, str(error))
    return Fault(500, None, "internal error: the server's log says more")


def error_headers(error: Exception) -> dict[str, str]:
    """The headers that go with an error's answer: when to come back, and whether at all."""
    headers: dict[str, str] = {}
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers |= {"retry-after": f"{math.ceil(wait)}", "retry-after-ms": f"{math.ceil(wait * 1000)}"}
    if isinstance(error, QuotaExhaustedError) or getattr(error, "disregarded", False):
        headers["x-should-retry"] = "false"  # both official SDKs would wait and try again
    return headers
