"""Ollama's native API; its `/v1` imitation ignores the context window and hides errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Unpack, cast

from ccroute.backends.backend import MOST_LOAD, Backend, BackendOptions
from ccroute.backends.codec import HttpRequest, json_bytes
from ccroute.errors import BackendError, ConfigError, RequestError
from ccroute.types import Completion, Request
from ccroute.types.signatures import explains
from ccroute.wire import ollama as wire
from ccroute.wire.decoding import StreamDecoder
from ccroute.wire.ollama.listing import Shown, read_forwarded, read_ps, read_show, read_tags

if TYPE_CHECKING:
    from ccroute.types import LoadedModel

_log = logging.getLogger("ccroute")

_WARM: Final = 20_000_000
_MOST_WARNINGS: Final = 1000
_MOST_SHOWN: Final = 1000
"""Models whose files one backend remembers. There is a limit, because names may come from clients."""
_LATEST: Final = ":latest"
_DURATION: Final = re.compile(r"[-+]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_NUMBER: Final = re.compile(r"[-+]?[0-9]+")
_LONGEST: Final = 2**63 / 1e9
"""Seconds: Go keeps a duration as nanoseconds in 63 bits."""
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class OllamaBackend(Backend):
    """A server with `POST {base_url}/api/chat`.

    `keep_alive` is how long a model stays loaded after a call, in Ollama's own form (`"5m"`,
    seconds, -1 for ever). Only 0 is sent where calls use several models of one host, because Ollama can
    hang there: set `OLLAMA_KEEP_ALIVE` on that server. A model with a `context_window` always gets it as
    `num_ctx`: a changed value would reload the model. The other keywords are those of `Backend`.
    """

    kind = "ollama"
    default_url = "http://localhost:11434"
    model_prefixes = ("ollama/", "ollama_chat/")
    wire_name = "ollama"
    runs_models = True
    loads_models = True
    load_field = "load_duration"

    @explains("Backend", BackendOptions.__annotations__)
    def __init__(
        self,
        name: str = "ollama",
        base_url: str = default_url,
        *,
        keep_alive: str | int | None = None,
        **common: Unpack[BackendOptions],
    ) -> None:
        common.setdefault("max_concurrency", 1)  # OLLAMA_NUM_PARALLEL's own default
        super().__init__(name, base_url, **common)
        if fault := _keep_alive_fault(keep_alive):
            raise ConfigError(f"backend {name}: keep_alive {fault}")
        self.keep_alive = keep_alive
        self._prolongs = re.search("[1-9]", str(keep_alive)) is not None  # it is neither None nor 0
        self._loads: dict[str, float] = {}  # seconds that a model last took to load
        self._warned: set[str] = set()
        self._forwarded: set[str] = set()  # models that the server was heard to send elsewhere
        self._shown: dict[str, Shown] = {}  # what the server said of models
        self._runners: dict[str, str] = {}  # of `runner`, until something new is known of a model
        self._has_warned = False  # that `keep_alive` is not sent
        if self.origin.host == "ollama.com":
            self.loads_models = False
        if self._path.endswith("/v1"):
            raise ConfigError(f"backend {name}: Ollama's native API has no /v1; leave it out of base_url")

    def names(self, model: str) -> tuple[str, ...]:
        if model.endswith(_LATEST):
            return (model[: -len(_LATEST)], model)
        return (model,) if ":" in model.rpartition("/")[2] else (model, model + _LATEST)

    def learn_from(self, before: Backend) -> None:
        same = cast("OllamaBackend", before)
        self._loads, self._forwarded = same._loads, same._forwarded
        self._has_warned = same._has_warned
        self._shown = same._shown
        self._find_runners()

    def runner(self, model: str) -> str:
        """The name of the model, or of another one that Ollama serves by the same runner: of the same files,
        with the same window."""
        if self._forwarded and self._is_hosted(model):
            return ""
        runners = self._runners  # another thread may replace it
        if (found := runners.get(model)) is None:
            found = "" if self._is_hosted(model) else self.names(model)[0]
            if len(runners) < _MOST_SHOWN:
                runners[model] = found
        return found

    def runner_details(self, model: str) -> HttpRequest | None:
        known = self._is_hosted(model) or self.names(model)[0] in self._shown
        return None if known or len(self._shown) >= _MOST_SHOWN else self.details(model)

    def is_local(self, model: str) -> bool:
        return self.local and not self._is_hosted(model)

    def is_free(self, model: str) -> bool:
        return not self._is_hosted(model)

    def encode(self, request: Request, model: str, stream: bool) -> HttpRequest:
        facts = self._facts.get(model) or self.model(model)
        keep_alive = self.keep_alive
        if self._prolongs and self.shares_host:
            keep_alive = None
            self._warn_of_keep_alive()
        body = wire.encode(request, model, stream=stream, known=facts, keep_alive=keep_alive)
        return HttpRequest("/api/chat", json_bytes(body))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        completion = wire.decode(body)
        if completion.raw.get("remote_host"):
            self._forwards(completion.model)
        self._measured(completion.model, completion.raw.get("load_duration"))
        return completion

    def decoder(self, status: int, headers: Mapping[str, str]) -> StreamDecoder:
        return wire.Decoder(loaded=self._measured, forwarded=self._forwards)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError | RequestError:
        return wire.error(status, headers, body)

    def timeout_advice(self, model: str) -> str:
        load = self._loads.get(model)
        took = "not measured yet" if load is None else f"{load:.1f} s when last measured"
        advice = (
            "Ollama gives up loading a model when its caller leaves, so a limit shorter than the load "
            f"({took}) never succeeds: allow more, or have the model loaded (keep_alive=-1)"
        )
        if model not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(model)
            _log.warning("%s/%s did not answer in time. %s", self.name, model, advice)
        return advice

    def _measured(self, model: str, load: object) -> None:
        """Remember a model's load time, in ns. It is very short if the model was already in memory."""
        if isinstance(load, int) and _WARM < load <= MOST_LOAD:
            self._loads[model] = load / 1e9

    def buffers_tool_calls(self, request: Request) -> bool:
        return wire.offers_tools(request)

    def listing(self) -> HttpRequest | None:
        return HttpRequest("/api/tags", method="GET")

    def read_listing(self, body: bytes) -> Mapping[str, int | None]:
        models = read_tags(body)
        for model in read_forwarded(body):
            self._forwards(model)
        return models

    def details(self, model: str) -> HttpRequest | None:
        return HttpRequest("/api/show", json_bytes({"model": model}))

    def read_details(self, body: bytes, model: str) -> int | None:
        """A window that is sent with calls wins over the Modelfile's. Ollama serves at most the trained
        window. Without both, the server's default counts, which only `loaded` shows."""
        shown = read_show(body)
        self._note_shown(self.names(model)[0], shown)
        asked = self.model(model).context_window or shown.num_ctx
        return min(asked, shown.trained or asked) if asked else None

    def loaded(self) -> HttpRequest | None:
        return HttpRequest("/api/ps", method="GET")

    def read_loaded(self, body: bytes) -> Sequence[LoadedModel]:
        return read_ps(body)

    def unload(self, model: str) -> HttpRequest | None:
        if self._is_hosted(model):
            return None
        return HttpRequest("/api/chat", json_bytes({"model": model, "messages": [], "keep_alive": 0}))

    def serves(self, model: str, listed: Collection[str]) -> bool | None:
        found = super().serves(model, listed)
        return None if not found and self._is_hosted(model) else found  # hosted models need no installing

    def refusals(self, request: Request, model: str) -> Mapping[str, str]:
        facts = self._facts.get(model) or self.model(model)
        return wire.refusals(request, facts, hosted=self._is_hosted(model))

    def _is_hosted(self, model: str) -> bool:
        """Whether a model runs at another host: Ollama forwards the tags `cloud` and `…-cloud` to ollama.com,
        and models of other names where they were made so."""
        tag = model.rpartition(":")[2].strip().lower()
        known = self._forwarded and self.names(model)[0] in self._forwarded
        return tag == "cloud" or tag.endswith("-cloud") or bool(known) or self.origin.host == "ollama.com"

    def _note_shown(self, name: str, shown: Shown) -> None:
        known = self._shown.get(name)
        if shown != known and (known is not None or len(self._shown) < _MOST_SHOWN):
            self._shown = {**self._shown, name: shown}
            self._find_runners()

    def _find_runners(self) -> None:
        """Find the models that share a runner. Ollama has one for each file, and loads it again when its
        options change: https://github.com/ollama/ollama/blob/main/server/sched.go"""
        first: dict[object, str] = {}
        runners: dict[str, str] = {}
        for name in sorted(self._shown, key=lambda name: (len(name), name)):
            shown = self._shown[name]
            if shown.files:
                window = self.model(name).context_window or shown.num_ctx
                runner = first.setdefault((shown.files, shown.options, window), name)
                if runner != name:
                    runners |= dict.fromkeys(self.names(name), runner)
        self._runners = runners

    def _warn_of_keep_alive(self) -> None:
        """Say once that `keep_alive` is not sent. A call that prolongs a model's stay while Ollama waits to
        unload it blocks every later load: https://github.com/ollama/ollama/issues/17408"""
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s: keep_alive is not sent, because several models are used at %s, and Ollama can hang for "
                "ever when it has to switch between them: set OLLAMA_KEEP_ALIVE on that server instead",
                self.name,
                self.origin,
            )

    def _forwards(self, model: str) -> None:
        """Remember that the server sends this model's prompts to another host."""
        name = self.names(model)[0]
        if name not in self._forwarded:
            if self.is_local(model):
                _log.warning(
                    "%s/%s is not local: Ollama sends its prompts to another host, so local_only agents no "
                    "longer use it",
                    self.name,
                    model,
                )
            self._forwarded.add(name)


def _keep_alive_fault(value: object) -> str | None:
    """Return what is wrong with a `keep_alive`, or None. Ollama would refuse every call."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value) and int(value):
        return f"{value!r} has no unit: write the number {int(value)} for seconds, or a duration such as '5m'"
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        return (
            f"must be a duration such as '5m' or '1h30m', a number of seconds, or -1 for ever, not {value!r}"
        )
    parts = re.findall(r"([\d.]+)([^\d.]+)", value.lstrip("+-"))
    longest = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return None if longest < _LONGEST else f"{value!r} is longer than Ollama can count: write -1 for ever"
