"""What every backend is: a fixed origin, a key that is sent there and shown nowhere, limits."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from tests.conftest import Caller
from tests.flow.support import PlainBackend
from tests.support.openai_like import chat
from tests.support.scripted import Request as Received
from tests.support.scripted import ScriptedServer, answer

from ccroute import AnthropicBackend, Backend, OllamaBackend, OpenAIBackend, RetryPolicy, Router
from ccroute._version import __version__
from ccroute.backends import HttpRequest
from ccroute.backends.codec import json_bytes
from ccroute.errors import AuthenticationError, ConfigError, InvalidRequestError, RateLimitError
from ccroute.http.origin import is_private
from ccroute.types import Model, Request, Timeout

KEY = "sk-canary-0123456789"
EMPTY = HttpRequest("/x")
KINDS: dict[str, Callable[..., Backend]] = {
    "openai": OpenAIBackend,
    "anthropic": AnthropicBackend,
    "ollama": OllamaBackend,
}


def at(kind: str, base_url: str, **options: Any) -> Backend:
    return KINDS[kind]("b", base_url=base_url, **options)


def headers(backend: Backend, http: HttpRequest = EMPTY) -> dict[str, str]:
    found = [(name.decode(), value.decode()) for name, value in backend.auth_headers(http)[0]]
    assert len(dict(found)) == len(found), "a header is sent twice"
    return dict(found)


# -- Where it is


@pytest.mark.parametrize(
    ("kind", "base_url", "target"),
    [
        ("openai", "https://h.test", "/v1/x"),
        ("openai", "https://h.test/", "/v1/x"),
        ("openai", "https://h.test/v1", "/v1/x"),
        ("openai", "https://h.test/v1/", "/v1/x"),
        ("openai", "https://h.test/api/openai", "/api/openai/x"),
        ("anthropic", "https://h.test", "/x"),
        ("anthropic", "https://h.test/v1", "/x"),
        ("anthropic", "https://h.test/v1/", "/x"),
        ("anthropic", "https://h.test/proxy/v1", "/proxy/x"),
        ("anthropic", "https://h.test/proxy", "/proxy/x"),
        ("ollama", "http://h.test:11434/", "/x"),
        ("ollama", "http://h.test/ollama/", "/ollama/x"),
    ],
)
def test_the_path_of_a_base_url_goes_before_the_requests(kind: str, base_url: str, target: str) -> None:
    assert at(kind, base_url).target(EMPTY) == target


@pytest.mark.parametrize(
    ("base_url", "origin", "host"),
    [
        ("https://h.test", "https://h.test", "h.test"),
        ("https://h.test:443", "https://h.test", "h.test"),
        ("http://H.Test:8080", "http://h.test:8080", "h.test:8080"),
        ("http://h.test:443", "http://h.test:443", "h.test:443"),
        ("http://[::1]:11434", "http://[::1]:11434", "[::1]:11434"),
        ("http://[::1]", "http://[::1]", "[::1]"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_origin_is_scheme_host_and_port(kind: str, base_url: str, origin: str, host: str) -> None:
    backend = at(kind, base_url, api_key=KEY)
    assert str(backend.origin) == origin
    assert headers(backend)["host"] == host


@pytest.mark.parametrize(
    "base_url",
    [
        "h.test",
        "ftp://h.test",
        "http://",
        "https:///v1",
        "http://h.test:port",
        "http://h.test:99999",
        "http://[::1",
        "https://h.test/v1?key=canary",
        "https://h.test/#canary",
        "https://h.test/a b",
        "https://h.test/\n",
        "https://bücher.test",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_base_url_is_refused_and_not_repeated(kind: str, base_url: str) -> None:
    with pytest.raises(ConfigError, match="backend b: base_url must look like") as caught:
        at(kind, base_url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url", ["https://canary@h.test", "https://u:canary@h.test/v1", "https://:@h.test"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_credentials_in_a_base_url_are_refused_and_not_shown(kind: str, base_url: str) -> None:
    with pytest.raises(ConfigError, match="holds credentials") as caught:
        at(kind, base_url)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["", "a/b", "a\n", " a", "ä"])
def test_a_name_that_cannot_stand_before_a_slash_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="backend name"):
        PlainBackend(name)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="backend b: max_concurrency must be a whole number, at least 1"):
        OllamaBackend("b", max_concurrency=0)


# -- Whether it is local


@pytest.mark.parametrize(
    ("host", "home"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.7", True),
        ("172.16.0.1", True),
        ("192.168.1.20", True),
        ("fd00::1", True),
        ("::ffff:192.168.1.20", True),
        ("0.0.0.0", False),
        ("::", False),
        ("8.8.8.8", False),
        ("::ffff:8.8.8.8", False),
        ("100.64.0.1", False),
        ("172.32.0.1", False),
        ("2001:4860:4860::8888", False),
        ("localhost.example.com", False),
        ("mini1", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_only_localhost_and_private_addresses_are_local(host: str, home: bool) -> None:
    assert is_private(host) is home
    literal = f"[{host}]" if ":" in host else host
    assert OllamaBackend(base_url=f"http://{literal}:11434").local is home


def test_a_users_own_backend_is_not_local_by_default() -> None:
    assert not PlainBackend().local
    assert PlainBackend(local=True).local


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("local", [True, False])
def test_the_argument_local_wins_over_the_address(kind: str, local: bool) -> None:
    assert at(kind, "http://h.test", local=local).local is local
    assert at(kind, "http://localhost", local=local).local is local


def test_what_is_local_is_free_and_ollama_always() -> None:
    assert OllamaBackend(base_url="http://h.test").is_free("m")
    assert PlainBackend(local=True).is_free("m")
    assert not PlainBackend().is_free("m")


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "glm-4.6:cloud"])
def test_ollamas_cloud_models_are_neither_local_nor_free(model: str) -> None:
    assert not OllamaBackend().is_local(model)
    assert not OllamaBackend().is_free(model)
    assert OllamaBackend().is_local("cloudy:7b")


def test_a_key_is_given_once() -> None:
    with pytest.raises(ConfigError, match=r"as api_key= or in headers= \(authorization\)"):
        PlainBackend(api_key="sk-test", headers={"Authorization": "Bearer sk-other"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": "5"}, "timeout must be a number of seconds or a Timeout"),
        ({"models": {"q": {"context_window": 5}}}, r"models\['q'\] must be a Model, not dict"),
        ({"api_key": 3}, "api_key must be a str, a SecretStr or a callable"),
        ({"ca_file": "/nowhere/ca.pem"}, "there is no ca_file /nowhere/ca.pem"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PlainBackend(**options)


@pytest.mark.parametrize(
    ("kind", "path"),
    [("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages"), ("ollama", "/api/chat")],
)
def test_an_endpoint_is_no_base_url(kind: str, path: str) -> None:
    with pytest.raises(ConfigError, match="base_url ends before the endpoint"):
        at(kind, f"http://h.test{path}")


def test_the_v1_of_ollama_is_no_base_url() -> None:
    with pytest.raises(ConfigError, match="has no /v1"):
        OllamaBackend(base_url="http://localhost:11434/v1")


def test_what_json_cannot_hold_is_the_callers_fault() -> None:
    for content in ("half \udcff a character", object()):
        with pytest.raises(InvalidRequestError, match="cannot be written as JSON"):
            json_bytes({"content": content})


# -- Keys


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY), lambda: KEY, lambda: SecretStr(KEY)])
@pytest.mark.parametrize(
    ("kind", "name", "value"), [("openai", "authorization", f"Bearer {KEY}"), ("anthropic", "x-api-key", KEY)]
)
def test_a_key_of_any_type_is_sent_in_its_wires_header(key: Any, kind: str, name: str, value: str) -> None:
    assert headers(at(kind, "https://h.test", api_key=key))[name] == value


def test_each_key_of_a_rotation_is_read_once_and_secret() -> None:
    keys = iter(["first-key", "second-key"])
    backend = PlainBackend(api_key=lambda: next(keys))
    assert backend.secrets() == ()
    assert [headers(backend)["authorization"] for _ in "12"] == ["Bearer first-key", "Bearer second-key"]
    assert backend.secrets() == ("first-key", "second-key")


def test_a_fingerprint_is_of_the_key_that_was_sent() -> None:
    keys = iter(["first-key", "first-key", "second-key"])
    backend = PlainBackend(api_key=lambda: next(keys))
    (_, first), (_, again) = backend.auth_headers(EMPTY), backend.auth_headers(EMPTY)
    assert first == again == backend.last_fingerprint
    assert backend.current_fingerprint() != first
    assert next(keys, None) is None, "each look asks once"
    assert PlainBackend(api_key="first-key").current_fingerprint() is None, "it cannot be rotated"


class CountedKey:
    """An `api_key` callable that counts."""

    def __init__(self, key: str) -> None:
        self.key, self.asked = key, 0

    def __call__(self) -> str:
        self.asked += 1
        return self.key


def two_models(url: str, vault: CountedKey) -> Router:
    backend = OpenAIBackend("b", base_url=url, api_key=vault)
    return Router([backend], {"any": ["b/m", "b/n"]}, retry=RetryPolicy(attempts=3, per_deployment=2))


def test_an_api_key_callable_is_called_once_per_attempt(caller: Caller) -> None:
    def reply(request: Received) -> Any:
        return answer(json=chat("hi")) if request.headers["authorization"].endswith("2") else answer(401)

    vault = CountedKey("made-up-key-1")
    with ScriptedServer(reply) as server, two_models(server.url, vault) as router:
        with pytest.raises(AuthenticationError):
            caller.complete(router, "hi", model="any")
        assert (len(server.requests), vault.asked) == (1, 1)
        vault.key = "made-up-key-2"
        assert caller.complete(router, "hi", model="any").text == "hi", "a later call sees the new key"
        assert (len(server.requests), vault.asked) == (2, 3)


def test_a_later_call_looks_once_whether_a_refused_key_was_rotated(caller: Caller) -> None:
    vault = CountedKey("made-up-key-1")
    with ScriptedServer([answer(401)], repeat=True) as server, two_models(server.url, vault) as router:
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                caller.complete(router, "hi", model="any")
        assert (len(server.requests), vault.asked) == (2, 3)


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY)])
def test_a_fixed_key_is_secret_from_the_start(key: Any) -> None:
    assert PlainBackend(api_key=key).secrets() == (KEY,)


@pytest.mark.parametrize("key", [None, "", SecretStr(""), lambda: "", lambda: None])
def test_where_no_key_is_needed_none_is_sent(key: Any) -> None:
    backend = PlainBackend(api_key=key)
    assert "authorization" not in headers(backend)
    assert backend.secrets() == ()


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}é", f" {KEY}", f"{KEY}\x00", f"{KEY}\u200b"])
def test_a_key_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    for given in (key, SecretStr(key)):
        with pytest.raises(ConfigError, match="api_key holds characters") as caught:
            PlainBackend(api_key=given)
        assert "canary" not in str(caught.value)
    backend = PlainBackend(api_key=lambda: key)
    with pytest.raises(AuthenticationError, match="api_key holds characters") as refused:
        backend.auth_headers(EMPTY)[0]
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "official", "variable"),
    [
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_missing_key_is_advised_on_only_at_the_official_address(
    kind: str, official: str, variable: str
) -> None:
    with pytest.raises(AuthenticationError, match=f"b: no API key: set {variable} .*give api_key="):
        at(kind, official).auth_headers(EMPTY)[0]
    assert "authorization" not in headers(at(kind, "https://proxy.test"))


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY), lambda: KEY])
@pytest.mark.parametrize("kind", KINDS)
def test_neither_repr_nor_pickle_nor_copy_shows_a_key(kind: str, key: Any) -> None:
    backend = at(kind, "https://h.test", api_key=key, headers={"x-secret": KEY})
    assert repr(backend).startswith(f"{type(backend).__name__}('b', 'https://h.test")
    assert KEY not in repr(backend)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            leak(backend)


# -- Headers


def test_a_request_has_every_header_it_needs() -> None:
    backend = PlainBackend(api_key=KEY, headers={"X-Team": "one"})
    assert headers(backend, HttpRequest("/x", b"12345", headers={"x-once": "1"})) == {
        "host": "plain.test",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"ccroute/{__version__}",
        "x-team": "one",
        "authorization": f"Bearer {KEY}",
        "x-once": "1",
        "content-length": "5",
    }


def test_a_users_headers_replace_ours() -> None:
    backend = AnthropicBackend(api_key=KEY, headers={"Anthropic-Version": "2099-01-01", "User-Agent": "me"})
    sent = headers(backend)
    assert (sent["anthropic-version"], sent["user-agent"]) == ("2099-01-01", "me")
    assert headers(AnthropicBackend(api_key=KEY))["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    "wrong",
    [
        {"x-canary\r\n": "1"},
        {"x canary": "1"},
        {"": "1"},
        {"x": "canary\r\nx-evil: 1"},
        {"x": "canaryé"},
        {"x": "canary "},
        {"x": b"canary"},
    ],
)
def test_a_header_http_forbids_is_refused_and_not_shown(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"backend plain: (a )?header") as caught:
        PlainBackend(headers=wrong)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError):
        PlainBackend().auth_headers(HttpRequest("/x", headers=wrong))[0]


def test_a_header_may_be_empty() -> None:
    assert headers(PlainBackend(headers={"x-empty": ""}))["x-empty"] == ""


# -- What it knows


def test_nothing_is_known_of_a_model_that_was_not_described() -> None:
    backend = PlainBackend(models={"m": Model(context_window=8192)})
    assert backend.model("m").context_window == 8192
    assert backend.model("other") == Model()


def test_a_timeout_in_seconds_is_the_total() -> None:
    assert PlainBackend(timeout=30).timeout == Timeout(total=30)
    assert PlainBackend(timeout=Timeout(idle=5)).timeout == Timeout(idle=5)
    assert PlainBackend().timeout is None


def test_three_methods_are_enough_for_a_backend() -> None:
    class Three(PlainBackend):
        classify = Backend.classify

    wait = Three().classify(429, {"retry-after": "7"}, b'{"error": {"message": "slow down"}}')
    assert (type(wait), wait.retry_after, "slow down" in str(wait)) == (RateLimitError, 7, True)
    assert PlainBackend().refusals(Request(top_k=3), "m") == {}
    assert PlainBackend().missing_key() is None
    with pytest.raises(TypeError, match="abstract"):
        Backend("b", "http://h.test")  # type: ignore[abstract]
