"""Proxies from the environment: only when asked for, and then with the same limits, trust and secrecy."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import Caller
from tests.support.certificates import Authority
from tests.support.loops import on_all_loops
from tests.support.openai_like import chat, chat_sse, chunk
from tests.support.proxies import Proxy
from tests.support.scripted import (
    BlackHole,
    Close,
    Hang,
    ScriptedServer,
    Send,
    Set,
    Step,
    Trickle,
    answer,
    head,
    refused_port,
    stream,
)
from tests.support.steps import chunk as frame

from ccroute import OpenAIBackend, RetryPolicy, Router, Timeout, errors
from ccroute.backends import Origin
from ccroute.http.message import Endpoint
from ccroute.http.proxies import Proxies

KEY = "sk-canary-key-0123456789"
PASSWORD = "canary/pass word"
USER = "agent:canary%2Fpass%20word"
BASIC = "Basic YWdlbnQ6Y2FuYXJ5L3Bhc3Mgd29yZA=="  # agent:canary/pass word
NAME = "server.invalid"  # a name that nobody but the proxy can look up
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables; none is left from outside."""

    def variables(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    for kind in ("http", "https", "all", "no"):
        for name in (f"{kind}_proxy", f"{kind}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    return variables


def router_to(
    url: str, *, ca_file: Path | None = None, trust_env: bool = True, local: bool = False
) -> Router:
    ca = None if ca_file is None else str(ca_file)
    backend = OpenAIBackend("main", base_url=url, api_key=KEY, ca_file=ca, local=local)
    return Router([backend], default_model="main/m", retry=ONCE, trust_env=trust_env)


def twice(caller: Caller, router: Router) -> list[str]:
    """The texts of two calls, one after the other, on one loop."""

    async def on_one_loop() -> list[str]:
        return [(await router.acomplete("hi")).text for _ in range(2)]

    if caller.mode == "sync":
        return [router.complete("hi").text for _ in range(2)]
    texts: list[str] = caller.run(on_one_loop)
    return texts


def refused(caller: Caller, router: Router, match: str) -> errors.BackendError:
    """The error of a call of which nothing was sent."""
    with pytest.raises(errors.ConnectionFailedError, match=match) as caught:
        caller.complete(router, "hi")
    [attempt] = caught.value.attempts
    assert attempt.failure == "not_sent"
    assert attempt.cost == 0
    assert not caught.value.sent
    return caught.value


# -- whether there is one ------------------------------------------------------------------------------------


def test_variables_are_ignored_unless_asked_for(caller: Caller, proxied: Callable[..., None]) -> None:
    with ScriptedServer() as proxy:
        proxied(HTTP_PROXY=proxy.url, HTTPS_PROXY=proxy.url, ALL_PROXY=proxy.url)
        for scheme in ("http", "https"):
            with router_to(f"{scheme}://{NAME}", trust_env=False) as router:
                refused(caller, router, "cannot be resolved")
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("variables", "origin", "proxy"),
    [
        ({}, "http://far.test", None),
        ({"HTTP_PROXY": "http://p.test:3128"}, "http://far.test", "http://p.test:3128"),
        ({"http_proxy": "http://p.test"}, "http://far.test", "http://p.test"),
        (
            {"HTTP_PROXY": "http://upper.test", "http_proxy": "http://p.test"},
            "http://far.test",
            "http://p.test",
        ),
        ({"HTTP_PROXY": "http://p.test"}, "https://far.test", None),
        ({"HTTPS_PROXY": "http://p.test"}, "https://far.test", "http://p.test"),
        ({"all_proxy": "http://p.test"}, "https://far.test", "http://p.test"),
        (
            {"ALL_PROXY": "http://x.test", "HTTPS_PROXY": "p.test:8080"},
            "https://far.test",
            "http://p.test:8080",
        ),
        ({"ALL_PROXY": "http://[2001:db8::1]:3128/"}, "https://far.test", "http://[2001:db8::1]:3128"),
        ({"HTTP_PROXY": "http://p.test", "REQUEST_METHOD": "GET"}, "http://far.test", None),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": "*"}, "https://far.test", None),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": "a.test, far.test"}, "https://far.test", None),
        ({"ALL_PROXY": "http://p.test", "no_proxy": ".test"}, "https://api.far.test", None),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": "far.test:443"}, "https://far.test", None),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": "far.test:80"}, "https://far.test", "http://p.test"),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": "afar.test"}, "https://far.test", "http://p.test"),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": "2001:db8::2"}, "https://[2001:db8::2]", None),
        ({"ALL_PROXY": "http://p.test"}, "http://localhost:11434", None),
        ({"ALL_PROXY": "http://p.test"}, "http://127.1.2.3", None),
        ({"ALL_PROXY": "http://p.test"}, "http://[::1]:8000", None),
        ({"ALL_PROXY": "http://p.test"}, "http://[::ffff:127.0.0.1]", None),
        ({"ALL_PROXY": "http://p.test"}, "http://192.168.1.5", "http://p.test"),
    ],
)
def test_the_variables_name_the_proxy_of_each_origin(
    proxied: Callable[..., None], variables: dict[str, str], origin: str, proxy: str | None
) -> None:
    proxied(**variables)
    found = Proxies().find(Endpoint(OpenAIBackend("far", base_url=origin).origin))
    assert (None if found is None else str(found)) == proxy
    assert found is None or found.fault is None


def test_a_local_backend_is_never_reached_through_a_proxy(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    with ScriptedServer() as proxy, router_to(f"http://{NAME}", local=True) as router:
        proxied(ALL_PROXY=proxy.url)
        refused(caller, router, "cannot be resolved")
    assert proxy.connections == 0


def test_this_machine_is_never_reached_through_a_proxy(caller: Caller, proxied: Callable[..., None]) -> None:
    with ScriptedServer() as proxy, ScriptedServer([answer(json=chat("near"))]) as server:
        with router_to(server.url) as router:
            proxied(ALL_PROXY=proxy.url)
            assert caller.complete(router, "hi").text == "near"
    assert proxy.connections == 0


def test_variables_are_read_at_an_origins_first_connection(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    go_away = {"connection": "close"}
    with ScriptedServer([answer(json=chat("one"), headers=go_away)] * 2) as first, ScriptedServer() as second:
        with router_to(f"http://{NAME}") as router:
            proxied(HTTP_PROXY=first.url)
            caller.complete(router, "hi")
            proxied(HTTP_PROXY=second.url)
            caller.complete(router, "hi")
    assert first.connections == 2
    assert second.connections == 0


# -- through it ----------------------------------------------------------------------------------------------


def test_an_http_origin_is_reached_by_absolute_addresses(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    replies = [answer(json=chat("one")), answer(json=chat("two"))]
    with ScriptedServer(replies) as server, Proxy(server) as proxy:
        proxied(HTTP_PROXY=proxy.url.replace("//", f"//{USER}@"))
        with router_to(f"http://{NAME}:8000/v1") as router:
            assert twice(caller, router) == ["one", "two"]
        assert proxy.wait_idle()
    assert proxy.connections == 1
    for asked, got in zip(proxy.requests, server.requests, strict=True):
        assert asked.target == f"http://{NAME}:8000/v1/chat/completions"
        assert asked.headers["proxy-authorization"] == BASIC
        assert got.headers["host"] == f"{NAME}:8000"
        assert got.headers["authorization"] == f"Bearer {KEY}"


def test_an_https_origin_is_reached_through_a_tunnel_that_is_kept(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None]
) -> None:
    authority = Authority()
    replies = [answer(json=chat("one")), answer(json=chat("two"))]
    with ScriptedServer(replies, tls=authority.server(NAME)) as server, Proxy(server) as proxy:
        proxied(https_proxy=proxy.url.replace("//", f"//{USER}@"))
        with router_to(f"https://{NAME}", ca_file=authority.write(tmp_path)) as router:
            assert twice(caller, router) == ["one", "two"]
        assert proxy.wait_idle()
    [asked] = proxy.requests
    assert (asked.method, asked.target) == ("CONNECT", f"{NAME}:443")
    assert asked.headers == {"host": f"{NAME}:443", "proxy-authorization": BASIC}
    assert len(proxy.carried) > 500
    assert KEY.encode() not in proxy.carried
    for got in server.requests:
        assert got.headers["authorization"] == f"Bearer {KEY}"
        assert not any(name.startswith("proxy-") for name in got.headers)


@pytest.mark.parametrize("fault", ["expired", "wrong host", "unknown authority"])
def test_a_tunnels_far_end_must_be_who_it_should_be(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None], fault: str
) -> None:
    authority = Authority()
    trusted = Authority() if fault == "unknown authority" else authority
    name = "elsewhere.invalid" if fault == "wrong host" else NAME
    with ScriptedServer(tls=authority.server(name, expired=fault == "expired")) as server:
        with Proxy(server) as proxy:
            proxied(HTTPS_PROXY=proxy.url)
            with router_to(f"https://{NAME}", ca_file=trusted.write(tmp_path)) as router:
                refused(caller, router, "no trusted connection")
            assert proxy.wait_idle()
    assert server.requests == []
    assert KEY.encode() not in proxy.carried


def test_what_a_proxy_sends_before_tls_is_no_answer(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None]
) -> None:
    authority, [evil] = Authority(), answer(json=chat("evil"))
    assert isinstance(evil, Send)
    with ScriptedServer([answer(json=chat("true"))], tls=authority.server(NAME)) as server:
        with Proxy(server, before_tls=evil.data) as proxy:
            proxied(HTTPS_PROXY=proxy.url)
            with router_to(f"https://{NAME}", ca_file=authority.write(tmp_path)) as router:
                assert caller.complete(router, "hi").text == "true"


def test_a_tunnel_closed_while_idle_is_replaced_unseen(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None]
) -> None:
    authority = Authority()
    replies = [[*answer(json=chat("one")), Close()], answer(json=chat("two"))]
    with ScriptedServer(replies, tls=authority.server(NAME)) as server, Proxy(server) as proxy:
        proxied(HTTPS_PROXY=proxy.url)
        with router_to(f"https://{NAME}", ca_file=authority.write(tmp_path)) as router:
            assert twice(caller, router) == ["one", "two"]
    assert [asked.method for asked in proxy.requests] == ["CONNECT", "CONNECT"]


# -- a proxy that does not do its part -----------------------------------------------------------------------


@on_all_loops
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named(
    caller: Caller, proxied: Callable[..., None], scheme: str
) -> None:
    url = f"http://127.0.0.1:{refused_port()}"
    proxied(ALL_PROXY=url)
    with router_to(f"{scheme}://{NAME}") as router:
        refused(caller, router, f"the proxy {url} cannot be reached: connect")


@on_all_loops
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(407), "asks for a user and a password, HTTP 407: put them into the URL in HTTPS_PROXY"),
        (answer(502, body="no route"), "does not connect to it, HTTP 502"),
        (answer(302, headers={"location": "http://login.test"}), "does not connect to it, HTTP 302"),
        ([Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Close()], "disconnected, or is not an HTTP proxy"),
        ([Close()], "disconnected, or is not an HTTP proxy"),
    ],
)
def test_a_proxy_that_refuses_a_tunnel_is_named_and_nothing_was_sent(
    caller: Caller, proxied: Callable[..., None], reply: list[Step], words: str
) -> None:
    with ScriptedServer([reply]) as proxy, router_to(f"https://{NAME}") as router:
        proxied(HTTPS_PROXY=proxy.url)
        refused(caller, router, f"the proxy {proxy.url} {words}")
        assert proxy.wait_idle()
    assert len(proxy.requests) == 1


def test_a_proxy_that_wants_credentials_has_forwarded_nothing(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    with ScriptedServer([answer(407, body=KEY)]) as proxy, router_to(f"http://{NAME}") as router:
        proxied(HTTP_PROXY=proxy.url.replace("//", f"//{USER}@"))
        refused(caller, router, "asks for another user or password")
        assert proxy.wait_idle()


def test_a_kept_proxy_connection_that_wants_a_user_is_not_retried(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    with (
        ScriptedServer([answer(json=chat("one")), answer(407)]) as proxy,
        router_to(f"http://{NAME}") as router,
    ):
        proxied(HTTP_PROXY=proxy.url)
        with pytest.raises(errors.ConnectionFailedError) as caught:
            twice(caller, router)
    assert caught.value.attempts[0].failure == "not_sent"
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("kind", ["socks5h", "https"])
def test_a_proxy_of_another_kind_is_refused_with_what_to_do(
    caller: Caller, proxied: Callable[..., None], kind: str
) -> None:
    proxied(ALL_PROXY=f"{kind}://agent:canary@127.0.0.1:1080")
    with router_to(f"https://{NAME}") as router:
        error = refused(caller, router, f"ALL_PROXY names a proxy of the kind {kind}.*transport=")
    assert "canary" not in str(error)


@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "http://canary:99999",
        "http://agent:canary/word@p.test:3128",
        "http://agent:canary?x@p.test",
        "http://agent:canary#x@p.test",
        "http://[canary",
        "http://canary.test:x",
        "canary://agent:word@p.test",
        "http://can ary.test",
        "http://canaré.test",
    ],
)
def test_a_variable_that_makes_no_sense_is_named_and_not_repeated(
    proxied: Callable[..., None], value: str
) -> None:
    proxied(HTTPS_PROXY=value)
    found = Proxies().find(Endpoint(Origin("https", NAME, 443)))
    assert found is not None
    assert found.fault == "HTTPS_PROXY must look like http://proxy.example.com:3128"
    assert "canary" not in repr(found)


def test_when_the_proxy_is_down_agents_still_reach_the_local_model(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    proxied(ALL_PROXY=f"http://127.0.0.1:{refused_port()}")
    with ScriptedServer([answer(json=chat("local"))]) as server:
        far = OpenAIBackend("far", base_url=f"https://{NAME}", api_key=KEY)
        near = OpenAIBackend("near", base_url=server.url)
        with Router([far, near], trust_env=True) as router:
            assert caller.complete(router, "hi", model="far/m", fallback=["near/m"]).text == "local"


# -- limits --------------------------------------------------------------------------------------------------


def test_a_proxy_that_does_not_accept_ends_at_the_connect_timeout(
    caller: Caller, proxied: Callable[..., None]
) -> None:
    with BlackHole() as hole, router_to(f"http://{NAME}") as router:
        proxied(HTTP_PROXY=hole.url)
        late_by_the_proxy(caller, router, hole.url)


@on_all_loops
@pytest.mark.parametrize(
    "reply",
    [[Hang()], [Trickle(head(200), 0.03)], [Trickle(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, 0.02, 27)]],
)
def test_a_silent_proxy_ends_at_the_connect_timeout(
    caller: Caller, proxied: Callable[..., None], reply: list[Step]
) -> None:
    with ScriptedServer([reply]) as proxy, router_to(f"https://{NAME}") as router:
        proxied(HTTPS_PROXY=proxy.url)
        late_by_the_proxy(caller, router, proxy.url)
        assert proxy.wait_idle(1.0)


def late_by_the_proxy(caller: Caller, router: Router, url: str) -> None:
    began = time.monotonic()
    with pytest.raises(errors.BackendTimeoutError, match=f"through the proxy {url} within") as caught:
        caller.complete(router, "hi", timeout=Timeout(connect=0.2))
    assert 0.18 <= time.monotonic() - began < 0.4
    assert caught.value.attempts[0].failure == "not_sent"
    assert caught.value.attempts[0].cost == 0


@on_all_loops
def test_tls_through_a_tunnel_ends_at_the_connect_timeout_too(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None]
) -> None:
    with ScriptedServer([[Send(head(200)), Hang()]]) as proxy:
        proxied(HTTPS_PROXY=proxy.url)
        with router_to(f"https://{NAME}", ca_file=Authority().write(tmp_path)) as router:
            began = time.monotonic()
            with pytest.raises(errors.BackendTimeoutError) as caught:
                caller.complete(router, "hi", timeout=Timeout(connect=0.2))
    assert 0.18 <= time.monotonic() - began < 0.4
    assert caught.value.attempts[0].failure == "not_sent"


def test_the_total_timeout_holds_while_a_proxy_is_asked(caller: Caller, proxied: Callable[..., None]) -> None:
    with ScriptedServer([[Hang()]]) as proxy, router_to(f"https://{NAME}") as router:
        proxied(HTTPS_PROXY=proxy.url)
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError):
            caller.complete(router, "hi", timeout=0.2)
        assert 0.18 <= time.monotonic() - began < 0.4
        assert proxy.wait_idle(1.0)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("limit", ["first", "idle", "total"])
def test_an_answer_through_a_proxy_has_its_limits(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None], scheme: str, limit: str
) -> None:
    authority = Authority()
    begun: list[bytes | Step] = [] if limit == "first" else [chunk({"content": "one"})]
    pings = Trickle(frame(b": ping\n\n") * 1000, 0.02, size=13)
    tls = authority.server(NAME) if scheme == "https" else None
    # Of a longer time to connect nothing is left for the answer.
    timeout = Timeout(connect=5, **{limit: 0.4})
    with ScriptedServer([stream([*begun, pings])], tls=tls) as server, Proxy(server) as proxy:
        proxied(ALL_PROXY=proxy.url)
        with router_to(f"{scheme}://{NAME}", ca_file=authority.write(tmp_path)) as router:
            heard = caller.stream(router, "hi", timeout=timeout)
        assert server.wait_closed(1.0)
        assert proxy.wait_idle(1.0)
    cause = heard.error if limit == "first" else heard.error and heard.error.__cause__
    wanted = errors.DeadlineExceededError if limit == "total" else errors.BackendTimeoutError
    assert isinstance(cause, wanted)
    assert isinstance(heard.error, errors.CcrouteError)
    assert 0.38 <= heard.error.attempts[0].duration < 0.6


@on_all_loops
def test_a_stream_comes_through_a_tunnel_piece_by_piece(
    tmp_path: Path, caller: Caller, proxied: Callable[..., None]
) -> None:
    authority = Authority()
    with ScriptedServer([stream(chat_sse(["a", "b", "c"]))], tls=authority.server(NAME)) as server:
        with Proxy(server) as proxy:
            proxied(HTTPS_PROXY=proxy.url)
            with router_to(f"https://{NAME}", ca_file=authority.write(tmp_path)) as router:
                assert caller.stream(router, "hi").text == "abc"


def test_a_stream_closed_while_a_proxy_is_asked_ends_at_once(
    proxied: Callable[..., None],
) -> None:
    with ScriptedServer([[Hang()]]) as proxy, router_to(f"https://{NAME}") as router:
        proxied(HTTPS_PROXY=proxy.url)
        started = router.stream("hi")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(list, started)
            assert proxy.wait_requests()
            started.close()
            assert reading.result(1) == []
        assert proxy.wait_idle(1.0)


async def test_a_call_cancelled_while_a_proxy_is_asked_leaves_nothing_open(
    proxied: Callable[..., None],
) -> None:
    asked = threading.Event()
    with ScriptedServer([[Set(asked), Hang()]]) as proxy, router_to(f"https://{NAME}") as router:
        proxied(HTTPS_PROXY=proxy.url)
        task = asyncio.create_task(router.acomplete("hi"))
        assert await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(proxy.wait_idle, 1.0)


# -- secrets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxys_password_shows_nowhere(
    caller: Caller, proxied: Callable[..., None], caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    with caplog.at_level(logging.DEBUG), ScriptedServer([answer(407)]) as proxy:
        proxied(ALL_PROXY=proxy.url.replace("//", f"//{USER}@"))
        with router_to(f"{scheme}://{NAME}") as router:
            error = refused(caller, router, "the proxy")
            found = Proxies().find(Endpoint(Origin(scheme, NAME, 443)))
            shown = [
                *map(str, (error, repr(error), router, found, repr(found), error.attempts)),
                caplog.text,
                "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()),
            ]
    assert proxy.requests[0].headers["proxy-authorization"] == BASIC
    for text in shown:
        assert not any(secret in text for secret in (PASSWORD, USER, BASIC[6:], KEY)), text


@pytest.mark.parametrize(
    ("origin", "asked"),
    [
        ("https://[2001:db8::1]", "CONNECT [2001:db8::1]:443"),
        ("https://far.test:8443", "CONNECT far.test:8443"),
        ("http://[2001:db8::1]:8000", "POST http://[2001:db8::1]:8000/v1/chat/completions"),
        ("http://far.test", "POST http://far.test/v1/chat/completions"),
    ],
)
def test_a_proxy_is_asked_for_the_servers_address_as_http_writes_it(
    caller: Caller, proxied: Callable[..., None], origin: str, asked: str
) -> None:
    with ScriptedServer([answer(407)]) as proxy, router_to(origin) as router:
        proxied(ALL_PROXY=proxy.url)
        refused(caller, router, "HTTP 407")
    assert f"{proxy.requests[0].method} {proxy.requests[0].target}" == asked
