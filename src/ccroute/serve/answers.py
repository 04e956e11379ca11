"""What answers in OpenAI's and in Anthropic's form share: streaming, ids, errors.

Knows chunks, and which status an error has. Must not know HTTP or sockets.
"""

import math
import re
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Final, Protocol, TypeAlias

from pydantic_core import to_json

from ccroute import errors
from ccroute.errors import CcrouteError, InvalidRequestError, QuotaExhaustedError
from ccroute.runtime.streams import AsyncStream, Stream
from ccroute.types import JSON, Chunk, Completion, ToolCall

AnyStream: TypeAlias = Stream[Any] | AsyncStream[Any]


class Writer(Protocol):
    """Writes one answer as bytes. A chunk may give no bytes. `begun` is true after the first bytes."""

    @property
    def begun(self) -> bool: ...

    def chunk(self, chunk: Chunk) -> bytes: ...

    def end(self, completion: Completion) -> bytes: ...

    def error(self, error: Exception) -> bytes: ...


def write_stream(stream: Stream[Any], writer: Writer) -> Generator[bytes, None, None]:
    """The bytes of a stream. The stream is closed however this ends.

    An error before the first bytes is raised, so that the wrapper can answer with a status. A later error
    becomes the protocol's own error event, and is raised as well if it is not a `CcrouteError`.
    """
    try:
        for chunk in stream:
            if data := writer.chunk(chunk):
                yield data
        yield writer.end(stream.completion)
    except Exception as error:
        if not writer.begun:
            raise
        yield writer.error(error)
        if not isinstance(error, CcrouteError):
            raise
    finally:
        stream.close()


async def awrite_stream(stream: AsyncStream[Any], writer: Writer) -> AsyncGenerator[bytes, None]:
    """`write_stream` for an event loop."""
    try:
        async for chunk in stream:
            if data := writer.chunk(chunk):
                yield data
        yield writer.end(stream.completion)
    except Exception as error:
        if not writer.begun:
            raise
        yield writer.error(error)
        if not isinstance(error, CcrouteError):
            raise
    finally:
        await stream.aclose()


def sse(frame: JSON, event: str = "") -> bytes:
    """One server-sent event."""
    data = to_json(frame)
    for char, escape in _LINE_ENDS:  # valid in JSON, but many clients split lines at them
        if char in data:
            data = data.replace(char, escape)
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data) if event else b"data: %b\n\n" % data


_LINE_ENDS: Final = tuple((char.encode(), b"\\u%04x" % ord(char)) for char in "\x85\u2028\u2029")


def with_prefix(id: str, prefix: str) -> str:
    """An answer's id in the form that the protocol's clients know."""
    return id if id.startswith(prefix) else prefix + id


def unique_id(call: ToolCall, answer_id: str) -> str:
    """A tool call's id that is unique in the whole conversation: clients look results up by it.

    Where the server gave no id, ccroute numbers the calls of each answer from 0, so the answer's id is
    added. At most 40 characters: OpenAI accepts no more.
    """
    if call.id != f"call_{call.index}":
        return call.id
    return f"call_{re.sub('[^a-zA-Z0-9]', '', answer_id)[-24:]}_{call.index}"


# The first match counts. A backend that refuses *our* key is a bad gateway: the client's key was fine.
_STATUSES: Final[tuple[tuple[type[CcrouteError], int, str | None], ...]] = (
    (errors.ContextWindowExceededError, 400, "context_length_exceeded"),
    (errors.ContentPolicyError, 400, "content_policy_violation"),
    (errors.UnknownModelError, 404, "model_not_found"),
    (errors.UnknownAgentError, 404, "agent_not_found"),
    (errors.RequestError, 400, None),
    (errors.BudgetExceededError, 402, "budget_exceeded"),
    (errors.EgressDeniedError, 403, "egress_denied"),
    (errors.DeadlineExceededError, 504, None),
    (errors.QueueTimeoutError, 503, None),
    (errors.RouterClosedError, 503, None),
    (errors.ModelNotFoundError, 404, "model_not_found"),
    (errors.QuotaExhaustedError, 429, "insufficient_quota"),
    (errors.RateLimitError, 429, "rate_limit_exceeded"),
    (errors.OverloadedError, 503, None),
    (errors.BackendTimeoutError, 504, None),
    (errors.BackendError, 502, None),
    (errors.InvalidOutputError, 502, None),
)

ERROR_TYPES: Final[Mapping[int, str]] = {
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
"""An error's `type` by its status, in both protocols. Clients read the status first."""


def describe_error(error: Exception) -> tuple[int, str | None, str]:
    """An error's HTTP status, code (or None) and message. A bug's message gives no details."""
    if isinstance(error, InvalidRequestError) and error.disregarded:
        return 502, None, str(error)  # the client's request was valid
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return status, code, str(error)
    return 500, None, "internal error: the server's log says more"


def error_headers(error: Exception) -> dict[str, str]:
    """The headers of an error's answer: when to retry, and whether to."""
    headers: dict[str, str] = {}
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers |= {"retry-after": f"{math.ceil(wait)}", "retry-after-ms": f"{math.ceil(wait * 1000)}"}
    if isinstance(error, QuotaExhaustedError) or getattr(error, "disregarded", False):
        headers["x-should-retry"] = "false"  # both official SDKs would wait and try again
    return headers
