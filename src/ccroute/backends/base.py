"""What every backend is: one fixed origin, a credential bound to it, limits, and four sans-I/O methods.

A user's own backend subclasses `Backend` and implements `encode`, `decode`, `decoder` and
`classify`; nothing else in ccroute changes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypedDict

from pydantic import SecretStr
from pydantic_core import to_json

from ccroute._version import __version__
from ccroute.backends.known_models import NOTHING, Wire, known
from ccroute.backends.origin import PRINTABLE, at_home, check_authority, check_name, split_address
from ccroute.errors import AuthenticationError, BackendError, ConfigError, InvalidRequestError, RequestError
from ccroute.types import JSON, Completion, Model, Request, Timeout

if TYPE_CHECKING:
    from ccroute.wire.codec import StreamDecoder

ApiKey = str | SecretStr | Callable[[], str | SecretStr]
"""A key, or a callable that returns the current one (for rotation); it is called once per attempt."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENDPOINTS = ("/chat/completions", "/messages", "/api/chat")
_LONG_ENOUGH = 8
"""Characters from which on the value of a user's own header is taken for something secret."""
_KEYS_SEEN = 8
"""How many keys of a rotation are remembered, so that a server's words can be cleaned of them."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request as a codec writes it. `path` is relative to the backend's base URL."""

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Without body and header values: they hold the prompt, and may hold a key."""
        headers = "".join(f", {name}" for name in self.headers)
        return f"HttpRequest({self.method} {self.path}, {len(self.body)} bytes{headers})"


class BackendOptions(TypedDict, total=False):
    """The keywords that every backend takes; `Backend` says what they mean."""

    api_key: ApiKey | None
    local: bool | None
    timeout: float | Timeout | None
    headers: Mapping[str, str] | None
    drop_params: bool
    max_concurrency: int | None
    memory_gb: float | None
    models: Mapping[str, Model] | None
    ca_file: str | None


class Backend(ABC):
    """One server behind one base URL.

    name:            the part before the slash in `backend/model`.
    base_url:        where it is; cannot be changed by a call.
    api_key:         a str, a `pydantic.SecretStr`, or a callable returning one; never shown.
    local:           whether prompts sent there stay in the house. None: true only for servers that
                     run models themselves, at `localhost` or a literal loopback or private address.
    timeout:         limits of one attempt here, in seconds, within those of the call.
    headers:         sent with every request.
    drop_params:     drop parameters this backend cannot carry (listed in `route.reasons`)
                     instead of refusing the call.
    max_concurrency: how many requests the host serves at a time.
    memory_gb:       memory its models share, in GB.
    models:          what is known of its models (context window, price, …).
    ca_file:         a PEM file with the certificate authority to trust instead of the public ones.
    """

    speaks: ClassVar[Wire | None] = None
    """Which of ccroute's own wires it speaks; None for a user's own."""
    runs_models = False
    """Whether the server itself computes answers, so that its address tells whether it is local."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        api_key: ApiKey | None = None,
        local: bool | None = None,
        timeout: float | Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        drop_params: bool = False,
        max_concurrency: int | None = None,
        memory_gb: float | None = None,
        models: Mapping[str, Model] | None = None,
        ca_file: str | None = None,
    ) -> None:
        check_name(type(self).__name__, name)
        whole = isinstance(max_concurrency, int) and not isinstance(max_concurrency, bool)
        if max_concurrency is not None and not (whole and max_concurrency >= 1):
            raise ConfigError(f"backend {name}: max_concurrency must be a whole number, at least 1")
        if not isinstance(models, Mapping | None):
            raise ConfigError(
                f"backend {name}: models must be a dict such as {{'qwen': Model(context_window=8_192)}}, "
                f"not {type(models).__name__}"
            )
        for model, given in (models or {}).items():
            if not isinstance(given, Model):
                raise ConfigError(
                    f"backend {name}: models[{model!r}] must be a Model, not {type(given).__name__}"
                )
        if not isinstance(timeout, int | float | Timeout | None):
            raise ConfigError(f"backend {name}: timeout must be a number of seconds or a Timeout")
        if not (api_key is None or callable(api_key) or isinstance(api_key, str | SecretStr)):
            raise ConfigError(f"backend {name}: api_key must be a str, a SecretStr or a callable")
        if ca_file is not None:
            check_authority(name, ca_file)
        self.name = name
        self.origin, self._prefix = split_address(name, base_url)
        if self._prefix.endswith(_ENDPOINTS):
            raise ConfigError(
                f"backend {name}: base_url ends before the endpoint; leave out what follows the version"
            )
        self.local = self._is_local() if local is None else local
        self.timeout = Timeout(total=timeout) if isinstance(timeout, int | float) else timeout
        self.drop_params = drop_params
        self.max_concurrency = max_concurrency
        self.memory_gb = memory_gb
        self.models: Mapping[str, Model] = {
            self.names(model)[0]: each for model, each in (models or {}).items()
        }
        self._described = {model: each.over(self._known(model)) for model, each in self.models.items()}
        self.ca_file = ca_file
        self._api_key = api_key
        self._seen: deque[str] = deque(maxlen=_KEYS_SEEN)
        self.key_in_use = 0
        """A mark of the key that was sent last: equal for equal keys, and no more can be told from it."""
        if isinstance(api_key, str | SecretStr):
            self._checked_key(api_key)
        self._fixed = self._fixed_headers(headers or {})
        named = {header.lower() for header in headers or ()}
        if api_key is not None and (twice := named & {header.lower() for header in self.credential("")}):
            raise ConfigError(
                f"backend {name}: give the key as api_key= or in headers= ({twice.pop()}), not both"
            )
        self._private = tuple(value for value in (headers or {}).values() if len(value) >= _LONG_ENOUGH)

    # The four methods of a codec.

    @abstractmethod
    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        """Write `request` for `model`. Raises `InvalidRequestError` for what the wire cannot carry."""

    @abstractmethod
    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        """Read a whole answer; raises a `BackendError` where it is none."""

    @abstractmethod
    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        """A decoder for one streamed answer."""

    @abstractmethod
    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError | RequestError:
        """The typed error for an answer whose status is not 2xx. Header names are lower case."""

    # What a subclass may refine.

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        """Parameters of `request` that this wire cannot carry, each with the reason."""
        return {}

    def check(self, request: Request, answer: Completion) -> None:
        """Look at a whole answer to a `request` with `response_format`, which `decode` does not know.

        Raises a `BackendError` or `InvalidRequestError` where the server did not do what it was asked.
        """
        return

    def names(self, model: str) -> tuple[str, ...]:
        """All the names that the server takes for this model, the one that ccroute uses first."""
        return (model,)

    def holds_back(self, request: Request) -> bool:
        """Whether the server may be silent in the middle of a stream because it waits for a whole tool
        call. Then a stream may be as silent as an answer that is not streamed: `idle` does not count."""
        return False

    def slow_start(self, model: str) -> str:
        """What to know where an attempt timed out before any content came; empty if there is nothing."""
        return ""

    def listing(self) -> HttpRequest | None:
        """The request that lists its models without running one; None where there is none."""
        return None

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        """The models of a listing's answer, each with the context window that is served, in tokens, where
        it is told."""
        return {}

    def details(self, model: str) -> HttpRequest | None:
        """The request that tells a model's context window, where the listing does not."""
        return None

    def read_details(self, body: bytes, model: str) -> int | None:
        """The context window that calls to `model` get, in tokens, by an answer to `details`."""
        return None

    def loaded(self) -> HttpRequest | None:
        """The request that lists the models in memory, where that tells more than `details`."""
        return None

    def read_loaded(self, body: bytes) -> Mapping[str, int | None]:
        """The models in memory, each with the context window it was loaded with, in tokens."""
        return {}

    def keeps(self, model: str) -> bool:
        """Whether a prompt for `model` stays in the house."""
        return self.local

    def is_free(self, model: str) -> bool:
        """Whether the answers of `model` cost nothing unless a price says otherwise."""
        return self.local

    def credential(self, key: str) -> Mapping[str, str]:
        """The header that carries the key."""
        return {"authorization": f"Bearer {key}"}

    def missing_key(self) -> str | None:
        """What to do when there is no key; None where none is needed."""
        return None

    # What the floors above ask for.

    def model(self, name: str) -> Model:
        """What is known of a model: as it was described, else as `known_models` says."""
        described = self._described.get(name) or self._described.get(self.names(name)[0])
        return self._known(name) if described is None else described

    def secrets(self) -> tuple[str, ...]:
        """The values that may never be shown, for those who clean what a server said."""
        return (*self._seen, *self._private)

    def target(self, http: HttpRequest) -> str:
        """The request target: the base URL's path and the request's."""
        return self._prefix + http.path

    def rotated_key(self) -> int | None:
        """The mark of the key that a callable gives now; None where there is no callable, or no key."""
        if not callable(self._api_key):
            return None
        try:
            return hash(self._key())
        except AuthenticationError:
            return None

    def header_list(self, http: HttpRequest) -> list[tuple[bytes, bytes]]:
        """Every header of a request, the credential included. Raises `AuthenticationError` without a key."""
        return self.signed(http)[0]

    def signed(self, http: HttpRequest) -> tuple[list[tuple[bytes, bytes]], int]:
        """`header_list`, and the mark of its key."""
        headers = self._fixed.copy()
        key = self._key()
        if key:
            headers += [(name.encode(), value.encode()) for name, value in self.credential(key).items()]
        elif (advice := self.missing_key()) is not None:
            raise AuthenticationError(advice, backend=self.name)
        if http.headers:
            headers += [_header(self.name, name, value) for name, value in http.headers.items()]
        if http.body:
            headers.append((b"content-length", b"%d" % len(http.body)))
        self.key_in_use = mark = hash(key)
        return headers, mark

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {str(self.origin) + self._prefix!r})"

    def _known(self, model: str) -> Model:
        return NOTHING if self.speaks is None else known(self.speaks, model)

    def _key(self) -> str | None:
        key = self._api_key
        if key is None:
            return None
        if not callable(key):
            return self._checked_key(key)
        try:
            return self._checked_key(key())
        except ConfigError as error:
            raise AuthenticationError(str(error), backend=self.name) from None
        except Exception as error:  # a vault may be sealed: others may still answer
            kind = type(error).__name__
            raise AuthenticationError(f"api_key could not give a key ({kind})", backend=self.name) from None

    def _checked_key(self, key: str | SecretStr) -> str:
        value = key.get_secret_value() if isinstance(key, SecretStr) else key
        if value and not PRINTABLE.fullmatch(value):
            raise ConfigError(f"backend {self.name}: api_key holds characters other than printable ASCII")
        if value and value not in self._seen:
            self._seen.append(value)
        return value

    def _fixed_headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        merged = {
            "host": self.origin.authority,
            # Only identity: one layer less to bound, and streams arrive as they are written.
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": f"ccroute/{__version__}",
        } | {name.lower(): value for name, value in headers.items()}
        return [_header(self.name, name, value) for name, value in merged.items()]

    def _is_local(self) -> bool:
        return self.runs_models and at_home(self.origin.host)

    def __getstate__(self) -> object:
        raise TypeError("a backend holds a key and cannot be pickled")


def json_bytes(body: Mapping[str, JSON]) -> bytes:
    """A request body; raises `InvalidRequestError` for what JSON cannot hold."""
    try:
        return to_json(body)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequestError(
            "the request cannot be written as JSON: it holds no JSON value, or half a character "
            "(such as a file name from os.fsdecode)"
        ) from None


def _header(backend: str, name: str, value: str) -> tuple[bytes, bytes]:
    if not _HEADER_NAME.fullmatch(name):
        raise ConfigError(f"backend {backend}: a header name holds characters that HTTP does not allow")
    if not isinstance(value, str) or (value and not PRINTABLE.fullmatch(value)):
        raise ConfigError(f"backend {backend}: header {name} holds characters other than printable ASCII")
    return name.encode(), value.encode()
