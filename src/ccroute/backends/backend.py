"""The base class of all backends: a fixed origin, a key that goes only there, limits and a codec.

A backend of your own subclasses `Backend` and implements the three methods of `Codec` that have no default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import ClassVar, Final, TypedDict

from ccroute._version import __version__
from ccroute.backends.codec import Codec, HttpRequest
from ccroute.backends.credentials import ApiKey, Credentials, Secrets, checked_header, fingerprint
from ccroute.backends.known_models import NOTHING, Wire, known
from ccroute.backends.origin import check_ca_file, check_name, parse_base_url
from ccroute.errors import AuthenticationError, CcrouteError, ConfigError
from ccroute.http.message import Endpoint, PreparedRequest
from ccroute.http.origin import is_private
from ccroute.types import Completion, Model, Timeout

_ENDPOINTS: Final = ("/chat/completions", "/messages", "/api/chat")
_TELL_COSTS: Final = ("openrouter.ai", "api.perplexity.ai", "api.x.ai")
"""Hosts whose answers say what they cost: https://openrouter.ai/docs/use-cases/usage-accounting,
https://docs.perplexity.ai/api-reference/sonar-post, https://docs.x.ai/developers/cost-tracking"""
_MOST_FACTS: Final = 1000
"""Models whose description one backend remembers. There is a limit, because names may come from clients."""
MOST_LOAD: Final = 86_400 * 10**9
"""Nanoseconds, a day. A server that says it loaded a model for longer is not believed."""

Headers = list[tuple[bytes, bytes]]


class BackendOptions(TypedDict, total=False):
    """The keywords of every backend. `Backend` explains them."""

    api_key: ApiKey | None
    local: bool | None
    timeout: float | Timeout | None
    headers: Mapping[str, str] | None
    drop_params: bool
    max_concurrency: int | None
    memory_gb: float | None
    models: Mapping[str, Model] | None
    ca_file: str | None


class Backend(Codec):
    """One server behind one base URL.

    name:            the part before the slash in `backend/model`.
    base_url:        its address, `default_url` if not given; cannot be changed by a call.
    api_key:         a str, a `pydantic.SecretStr`, or a callable returning one; never shown.
    local:           whether prompts sent there stay on machines of your own. None: true only for servers
                     that run models themselves, at `localhost` or a literal loopback or private address.
    timeout:         limits of one attempt here, in seconds, within those of the call.
    headers:         sent with every request.
    drop_params:     drop parameters this backend cannot carry (listed in `route.reasons`)
                     instead of refusing the call.
    max_concurrency: how many requests the host serves at a time.
    memory_gb:       memory its models share, in GB, at a server that loads them on demand.
    models:          descriptions of its models (context window, price, …).
    ca_file:         a PEM file with the certificate authority to trust instead of the public ones.
    """

    kind: ClassVar[str] = ""
    """The name of this class in a configuration file: `kind = "…"`. See `ccroute.backends.register`."""
    default_url: str | None = None
    """The address if none is given."""
    key_variable: str | None = None
    """The environment variable that usually holds the key for `default_url`."""
    model_prefixes: ClassVar[tuple[str, ...]] = ()
    """Prefixes that other tools write before a model's name, such as `openai/`. A kind with prefixes needs no
    table of its own in a configuration file."""
    wire_name: ClassVar[Wire | None] = None
    """The wire of ccroute that the server speaks; None for a wire of your own."""
    usual_output: ClassVar[int | None] = None
    """Tokens of an answer, for an API that wants a limit. Sent if neither the call nor the model has one."""
    load_field: ClassVar[str | None] = None
    """The field of `Completion.raw` that says how long the server loaded the model, in nanoseconds."""
    runs_models = False
    """Whether the server itself computes answers, so that its address shows whether it is local."""
    loads_models = False
    """Whether the server loads models on demand, so that a switch takes time. Where `memory_gb` is given, it
    does."""
    shares_host = False
    """Whether calls use several models at this host, perhaps through other backends. The router sets it."""

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
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
        if ca_file is not None:
            check_ca_file(name, ca_file)
        self.name = name
        if not (base_url := base_url or self.default_url):
            raise ConfigError(f"backend {name}: it has no default address; give base_url=")
        self.origin, self._path = parse_base_url(name, base_url)
        if self._path.endswith(_ENDPOINTS):
            raise ConfigError(
                f"backend {name}: base_url ends before the endpoint; leave out what follows the version"
            )
        official = None if self.default_url is None else parse_base_url(name, self.default_url)[0]
        self.is_official = self.origin == official
        self.local = self.runs_models and is_private(self.origin.host) if local is None else local
        self.timeout = Timeout(total=timeout) if isinstance(timeout, int | float) else timeout
        self.drop_params = drop_params
        self.max_concurrency = max_concurrency
        self.memory_gb = memory_gb
        self.loads_models = self.loads_models or memory_gb is not None
        self.models: Mapping[str, Model] = {
            self.names(model)[0]: each for model, each in (models or {}).items()
        }
        self._facts = {model: each.over(self._known(model)) for model, each in self.models.items()}
        self.ca_file = ca_file
        self.endpoint = Endpoint(self.origin, ca_file, direct=self.local)
        self._headers = self._own_headers(headers or {})
        self._credentials = Credentials(name, api_key, headers or {})
        self._fixed_auth: tuple[Headers, int] | None = None
        self.last_fingerprint = 0
        """The fingerprint of the key that was sent last."""
        named = {header.lower() for header in headers or ()}
        if api_key is not None and (twice := named & {header.lower() for header in self.key_headers("")}):
            raise ConfigError(
                f"backend {name}: give the key as api_key= or in headers= ({twice.pop()}), not both"
            )

    # What a subclass may refine.

    def names(self, model: str) -> tuple[str, ...]:
        """All names that the server accepts for this model; the first is the one ccroute uses."""
        return (model,)

    def runner(self, model: str) -> str:
        """What the server loads for `model`: two models with the same runner need no switch. Empty if it
        loads nothing. Quick, because each call may ask it."""
        return self.names(model)[0]

    def runner_details(self, model: str) -> HttpRequest | None:
        """The request whose answer, read by `read_details`, tells the runner of `model`. None if it is known,
        or the server does not tell."""
        return None

    def timeout_advice(self, model: str) -> str:
        """Return advice for an attempt that timed out before any content came, or an empty str."""
        return ""

    def serves(self, model: str, listed: Collection[str]) -> bool | None:
        """Whether the server has `model`, if it lists these names; None if the list does not tell."""
        named = {*self.names(model), f"{model}:latest"}  # Ollama lists it so, also behind other APIs
        return not named.isdisjoint(listed)

    def learn_from(self, before: Backend) -> None:
        """Take over what `before` has learned: the same server, in the configuration before a reload."""
        return

    def is_local(self, model: str) -> bool:
        """Whether a prompt for `model` stays on machines of the user's own."""
        return self.local

    def is_free(self, model: str) -> bool:
        """Whether the answers of `model` cost nothing unless a price says otherwise."""
        return self.local

    def charges(self, answer: Completion) -> bool:
        """Whether the provider charges for an answer that its content filter ended."""
        return True

    def charges_refusal(self, error: CcrouteError) -> bool:
        """Whether the provider may charge for the prompt of a request that it refused with `error`."""
        return False

    def tells_cost(self) -> bool:
        """Whether an answer's own figure of its cost is what the provider charges, in USD."""
        return self.origin.host in _TELL_COSTS

    def key_headers(self, key: str) -> Mapping[str, str]:
        """The header that carries the key."""
        return {"authorization": f"Bearer {key}"}

    def missing_key(self) -> str | None:
        """Return what to do if there is no key; None if no key is needed."""
        if self.key_variable is None or not self.is_official:
            return None
        return f"no API key: set {self.key_variable} (read by Router.from_config), or give api_key="

    # Methods that the router calls.

    @cached_property
    def identity(self) -> str:
        """Which server this is, and how it is asked: name, class, address and path.

        What calls learn of a server is kept under it. So a reload keeps that for a backend that stays the
        same, and another server of the same name starts anew.
        """
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"{self.name} {kind} {self.origin}{self._path}"

    @cached_property
    def credential_identity(self) -> str:
        """The same, with its fixed key and its headers, of which it shows nothing."""
        key = self._credentials.read() if self._credentials.is_fixed else None
        return f"{self.identity} {fingerprint(key)} {hash(tuple(self._headers))}"

    def model(self, name: str) -> Model:
        """Return what is known of a model, from `models` and from `known_models`."""
        facts = self._facts.get(name)
        if facts is None:
            facts = self._facts.get(self.names(name)[0]) or self._known(name)
            if len(self._facts) < _MOST_FACTS:
                self._facts[name] = facts
        return facts

    def secrets(self) -> Secrets:
        """The values that no message, log line or event may show."""
        return self._credentials.secrets

    def target(self, http: HttpRequest) -> str:
        """The request target: the base URL's path and the request's."""
        return (self._path.removesuffix("/v1") if http.root else self._path) + http.path

    def prepare(self, http: HttpRequest) -> tuple[PreparedRequest, int]:
        """The whole request for `http`, and the fingerprint of its key. Raises as `auth_headers`."""
        headers, key = self.auth_headers(http)
        target = self.target(http) if http.root else self._path + http.path
        return PreparedRequest(self.endpoint, http.method, target, headers, http.body), key

    def auth_headers(self, http: HttpRequest) -> tuple[Headers, int]:
        """Every header of `http`, with the key, and the fingerprint of that key.

        An `api_key` callable is called once. Raises `AuthenticationError` if a needed key is missing.
        """
        fixed, self.last_fingerprint = self._fixed_auth or self._auth(self._credentials.read())
        headers = fixed.copy()
        if http.headers:
            headers += [checked_header(self.name, name, value) for name, value in http.headers.items()]
        if http.body:
            headers.append((b"content-length", b"%d" % len(http.body)))
        return headers, self.last_fingerprint

    def lacks_key(self) -> str | None:
        """What to do, because there is no key; None if there is one, if none is needed, or if only an
        `api_key` callable knows: it is not asked."""
        if not self._credentials.is_fixed or self._credentials.read():
            return None
        return self.missing_key()

    def current_fingerprint(self) -> int | None:
        """The fingerprint of the key that an `api_key` callable gives now, to see whether it was rotated.

        None without a callable, or without a key.
        """
        if self._credentials.is_fixed:
            return None
        try:
            return fingerprint(self._credentials.read())
        except AuthenticationError:
            return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {str(self.origin) + self._path!r})"

    def __getstate__(self) -> object:
        raise TypeError("a backend holds a key and cannot be pickled")

    def _auth(self, key: str | None) -> tuple[Headers, int]:
        headers = self._headers
        if key:
            sent = self.key_headers(key).items()
            headers = [*headers, *((name.encode(), value.encode()) for name, value in sent)]
        elif (advice := self.missing_key()) is not None:
            raise AuthenticationError(advice, backend=self.name)
        found = headers, fingerprint(key)
        if self._credentials.is_fixed:
            self._fixed_auth = found
        return found

    def _own_headers(self, headers: Mapping[str, str]) -> Headers:
        merged = {
            "host": self.origin.authority,
            # Only identity: one layer less to bound, and streams arrive as they are written.
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": f"ccroute/{__version__}",
        } | {name.lower(): value for name, value in headers.items()}
        return [checked_header(self.name, name, value) for name, value in merged.items()]

    def _known(self, model: str) -> Model:
        return NOTHING if self.wire_name is None else known(self.wire_name, model)
