"""Every error of ccroute, split by whose fault it was.

CcrouteError
├── ConfigError                   a file or a table is wrong: all faults at once, each with its place
├── RequestError                  the request's fault: never retried, never opens a breaker
│   ├── InvalidRequestError       400, 413, 422, malformed messages
│   │   ├── ContextWindowExceededError
│   │   └── ContentPolicyError
│   ├── UnknownAgentError
│   └── UnknownModelError
├── BudgetExceededError           a budget does not allow the call
├── EgressDeniedError             a local_only request had only non-local candidates
├── QueueTimeoutError             waited for a slot longer than allowed
├── DeadlineExceededError         the call's total timeout passed
├── RouterClosedError
├── InvalidOutputError            an answer or a tool call does not have the requested type
└── BackendError                  a backend failed
    ├── AuthenticationError 401
    ├── PermissionDeniedError 403
    ├── ModelNotFoundError 404
    ├── RateLimitError 429
    │   └── QuotaExhaustedError   billing: waiting does not help
    ├── OverloadedError 503, 529
    ├── ServerError               other 5xx, 424
    ├── ConnectionFailedError
    ├── BackendTimeoutError
    ├── ProtocolError             the response violates the protocol
    └── StreamInterruptedError    a stream broke after content had been returned

A message names backend, deployment, status and what to do; never a key, a header, a URL with
credentials, or the prompt.
"""

# Under private names: every public name is an error, for `import *` and for Tab after `errors.`.
import collections.abc as _abc
import typing as _typing

from ccroute import display as _display

if _typing.TYPE_CHECKING:
    from datetime import datetime as _datetime
    from decimal import Decimal as _Decimal

    from ccroute.types.results import Completion as _Completion
    from ccroute.types.route import Attempt as _Attempt


class CcrouteError(Exception):
    """The root. `attempts` are those of the call, oldest first; `reasons` say which deployments were skipped,
    and why. `retry_after` is in seconds, where it is known. `index` is the place of the request in its batch,
    from 0; None outside a batch."""

    attempts: "tuple[_Attempt, ...]" = ()
    reasons: tuple[str, ...] = ()
    retry_after: float | None = None
    index: int | None = None

    def __rich_repr__(self) -> _abc.Iterator[object]:
        yield str(self)
        for attempt in self.attempts:
            yield "attempt", f"{attempt.deployment}: {attempt.reason}"

    def _repr_html_(self) -> str:
        wait = None if self.retry_after is None else f"{self.retry_after:g} s"
        tried = [(attempt.deployment, attempt.outcome, attempt.reason) for attempt in self.attempts]
        return _display.card(
            type(self).__name__,
            [("try again in", wait)],
            text=str(self),
            table=_display.table(("deployment", "outcome", "reason"), tried),
        )


class ConfigError(CcrouteError):
    """A file or a table is wrong. `faults` holds every fault, each with its place."""

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults: tuple[str, ...] = faults

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0]
        return f"{len(self.faults)} faults:" + "".join(f"\n  - {fault}" for fault in self.faults)


class _Reported(CcrouteError):
    """An error with the facts that a server sent. `str()` builds the message, because the codec that raises
    the error does not know backend and deployment."""

    # Defaults: a user's own class may not call this constructor.
    detail: str = ""
    backend: str | None = None
    deployment: str | None = None
    status: int | None = None
    request_id: str | None = None
    body: str | None = None
    should_retry: bool | None = None
    payload: _typing.Any = None
    """The server's error, as `wire/errors.py` parsed it; None once secrets are removed."""

    def __init__(
        self,
        detail: str = "",
        *,
        backend: str | None = None,
        deployment: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        body: str | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail, self.backend, self.deployment, self.status = detail, backend, deployment, status
        self.retry_after, self.request_id = retry_after, request_id
        self.body, self.should_retry = body, should_retry

    def __reduce__(self) -> tuple[_typing.Any, ...]:
        """For pickle: all but `body`, which may hold the prompt."""
        return type(self), self.args, {k: v for k, v in vars(self).items() if k not in ("body", "payload")}

    def __str__(self) -> str:
        where = self.deployment or self.backend
        status = f" (HTTP {self.status})" if self.status is not None else ""
        return f"{_display.shortened(where)}: {self.detail}{status}" if where else f"{self.detail}{status}"


class RequestError(_Reported):
    """The request's fault: the same call would fail everywhere."""


class InvalidRequestError(RequestError):
    """The request is malformed, or has something that the backend does not support.

    `elsewhere`: this deployment lacks a feature or has a lower limit, so another one may serve the request.
    `parameter`: the parameter of the call that the server refused, if it named one. `disregarded`: the server
    answered, but ignored a part of the request.
    """

    elsewhere: bool = False
    parameter: str | None = None
    disregarded: bool = False


class ContextWindowExceededError(InvalidRequestError):
    """The prompt does not fit. `estimated` and `limit` are tokens, where known."""

    estimated: int | None = None
    limit: int | None = None


class ContentPolicyError(InvalidRequestError):
    """The provider's content policy refused the request."""


class _UnknownNameError(RequestError):
    kind = "name"

    def __init__(self, name: str = "", suggestions: _abc.Sequence[str] = (), *, hint: str = "") -> None:
        close = " or ".join(f'"{_display.shortened(s)}"' for s in suggestions)
        super().__init__(
            f'unknown {self.kind} "{_display.shortened(name)}"'
            + (f", did you mean {close}?" if close else hint and f": {hint}")
        )
        self.args = (name, tuple(suggestions))
        self.name = name
        self.suggestions: tuple[str, ...] = tuple(suggestions)


class UnknownAgentError(_UnknownNameError):
    """No agent of that name. `suggestions` holds close matches."""

    kind = "agent"


class UnknownModelError(_UnknownNameError):
    """No alias, deployment or pattern matches that name. `suggestions` holds close matches."""

    kind = "model"


class BudgetExceededError(CcrouteError):
    """A budget does not allow the call, which was not sent.

    `budget` is the name of the budget, such as "agent:coder". `spent` and `limit` are of its window: USD, or
    tokens if the limit in tokens blocks the call. `spent` is None if the ledger could not be read.
    `resets_at` (UTC) is the end of the window; None: it has no end. `retry_after` is the seconds until then,
    if the call may fit into the next window.
    """

    budget: str = ""
    spent: "_Decimal | int | None" = None
    limit: "_Decimal | int | None" = None
    resets_at: "_datetime | None" = None


class EgressDeniedError(CcrouteError):
    """A `local_only` agent's request had only candidates that are not local; nothing was sent."""


class QueueTimeoutError(_Reported):
    """The call got no slot on a busy host: the queue was full, the deadline passed, or the wait could never
    end."""


class DeadlineExceededError(CcrouteError):
    """The call's total timeout passed."""


class RouterClosedError(CcrouteError):
    """The router was closed; make a new one."""


class InvalidOutputError(CcrouteError):
    """An answer (`Completion.parsed`) or a tool call's arguments do not have the requested type. The message
    can be sent to the model as it is.

    `text` is what the model wrote; `faults` holds every fault, each with its place.
    """

    def __init__(self, message: str = "", *, text: str = "", faults: _abc.Sequence[str] = ()) -> None:
        super().__init__(message)
        self.text = text
        self.faults: tuple[str, ...] = tuple(faults)


class BackendError(_Reported):
    """A backend failed.

    `body` is the start of its answer (2 KB at most, without secrets). It may repeat the prompt, so it is not
    in `str()`, `repr()` or a pickle. `request_id` is the provider's own. `sent`: a byte of the request may
    have reached it; if not, the attempt cost nothing.
    """

    sent: bool = True


class AuthenticationError(BackendError):
    """401: the key is missing or wrong."""


class PermissionDeniedError(BackendError):
    """403: the key may not do this."""


class ModelNotFoundError(BackendError):
    """404: the backend does not have this model."""


class RateLimitError(BackendError):
    """429: too many requests or tokens; `retry_after` says when to try again, if the server did."""


class QuotaExhaustedError(RateLimitError):
    """A billing limit: waiting does not clear it."""


class OverloadedError(BackendError):
    """503 or 529: the backend has no room now.

    `loading`: it is loading a model, or its queue is full, which ends by itself.
    """

    loading: bool = False


class ServerError(BackendError):
    """Another 5xx, or 424."""


class ConnectionFailedError(BackendError):
    """The connection could not be made, or it broke."""


class BackendTimeoutError(BackendError):
    """The backend was silent for longer than allowed."""


class ProtocolError(BackendError):
    """The response violates the protocol."""


class StreamInterruptedError(BackendError):
    """A stream broke after content had been returned.

    `partial` is the answer so far, with its price. Its usage is estimated where the server had not yet said
    it.
    """

    partial: "_Completion | None" = None
