"""Servers that echo key and prompt in every way: no error shows either, wherever one looks."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import re
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.conftest import Caller
from tests.flow.support import PlainBackend
from tests.support.openai_like import chat, error, sse
from tests.support.scripted import (
    Close,
    Request,
    ScriptedServer,
    Send,
    Set,
    Wait,
    answer,
    head,
    refused_port,
    stream,
)
from tests.test_bad_input import everything_shown

import ccroute
from ccroute import OllamaBackend, OpenAIBackend, RetryPolicy, Router, errors
from ccroute.backends import Backend
from ccroute.types import Request as AskedFor

KEY = "0f3a9c77e1b2d4588ac6"  # nothing about it looks like a key
PROMPT = (
    'Tell my boss "Zoë" and everybody else that\nI am ill today, and not at all at the\n'
    "frankly unmistakable beach of <Ahaus>"
)
RUN = 24
Write = Callable[[str], str]


def each(pattern: str) -> Write:
    return lambda text: "".join(pattern.format(ord(char)) for char in text)


def wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 11))


KEY_WRITTEN: dict[str, Write] = {
    "plain": lambda text: text,
    "upper": str.upper,
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "url": quote,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "basic": lambda text: "Basic " + base64.b64encode(f"user:{text}".encode()).decode(),
    "bearer": lambda text: f"Bearer {text}",
}
WRITTEN: dict[str, Write] = {
    "plain": lambda text: text,
    "upper": str.upper,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "unicode escapes": each("\\u{:04x}"),
    "repr": repr,
    "wrapped": wrapped,
    "start": lambda text: text[:32] + "...",
    "middle": lambda text: "..." + text[3:35] + "...",
    "end": lambda text: "..." + text[-32:],
}


def compact(text: str) -> str:
    """Without case, whitespace and escapes."""
    text = re.sub(r"\\+u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
    return "".join(re.sub(r"\\+[nrt]?", "", text).casefold().split())


def assert_shows_no_key(shown: str) -> None:
    shown = shown.casefold()
    assert KEY not in shown
    for before in ("", "user:"):
        assert base64.b64encode(f"{before}{KEY}".encode()).decode().casefold().rstrip("=") not in shown


def assert_tells_nothing(shown: str) -> None:
    assert_shows_no_key(shown)
    prompt, shown = compact(PROMPT), compact(shown)
    assert not [i for i in range(len(prompt) - RUN + 1) if prompt[i : i + RUN] in shown]


def locals_of_ccroute(raised: BaseException, under: str = "") -> str:
    """The locals of every frame of ccroute's own, as an error tracker takes them."""
    shown, root = "", ccroute.__file__.removesuffix("__init__.py") + under
    report = traceback.TracebackException.from_exception(raised, capture_locals=True)
    while report is not None:
        for frame in report.stack:
            if frame.filename.startswith(root) and frame.locals:
                shown += "".join(frame.locals.values())
        report = report.__cause__ or report.__context__  # type: ignore[assignment]
    return shown


def fails(caller: Caller, router: Router, *, frames: bool = True, **options: Any) -> Any:
    """The whole and the streamed call fail and tell nothing; the whole one's error."""
    asked = {"prompt": PROMPT, "model": "main/m"} | options
    with pytest.raises(errors.CcrouteError) as caught:
        caller.complete(router, **asked)
    heard = caller.stream(router, **asked)
    for raised in (caught.value, heard.error):
        assert isinstance(raised, errors.CcrouteError)
        assert_tells_nothing(everything_shown(raised))
        unpickled = pickle.loads(pickle.dumps(raised))
        assert_tells_nothing(f"{vars(unpickled)} {raised.attempts}")
        assert getattr(unpickled, "body", None) is None
        assert_shows_no_key(f"{getattr(raised, 'body', None)}")
        assert not frames or KEY not in locals_of_ccroute(raised)
    return caught.value


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, logger="ccroute"):
        yield
    assert_tells_nothing(caplog.text)


def router_to(server: ScriptedServer) -> Router:
    backend = OpenAIBackend("main", base_url=server.url, api_key=KEY)
    return Router([backend], retry=RetryPolicy(attempts=1), timeout=10)


def echoing(caller: Caller, reply: Any, **options: Any) -> Any:
    with ScriptedServer([reply] if not callable(reply) else reply, repeat=True) as server:
        with router_to(server) as router:
            return fails(caller, router, **options)


@pytest.mark.parametrize("status", [401, 422, 500])
@pytest.mark.parametrize("written", KEY_WRITTEN)
def test_an_echoed_key_is_shown_nowhere(caller: Caller, status: int, written: str) -> None:
    echo = KEY_WRITTEN[written](KEY)
    for reply in (
        answer(status, json=error(f"wrong key {echo}")),
        answer(status, body=f"wrong key {echo}"),
        answer(status, json={"detail": [{"msg": echo, "input": {"headers": {"authorization": echo}}}]}),
    ):
        echoing(caller, reply)


@pytest.mark.parametrize("status", [400, 422, 503])
@pytest.mark.parametrize("written", WRITTEN)
def test_an_echoed_prompt_is_shown_nowhere(caller: Caller, status: int, written: str) -> None:
    for echo in map(WRITTEN[written], (PROMPT, *PROMPT.splitlines())):
        for reply in (
            answer(status, json=error(f"cannot parse {echo}")),
            answer(status, body=f"cannot parse {echo}"),
            answer(status, json={"detail": [{"msg": echo, "input": echo}]}),
        ):
            echoing(caller, reply)


@pytest.mark.parametrize("shown", [300, 2048])
@pytest.mark.parametrize("left", [5, 8, 11, 19])
def test_a_key_is_not_cut_in_two_by_a_limit(caller: Caller, shown: int, left: int) -> None:
    raised = echoing(caller, answer(401, body="." * (shown - left) + KEY + "." * 3000))
    assert f".{KEY[:left]}" not in f"{everything_shown(raised)}{raised.body}"


@pytest.mark.parametrize("echo", [KEY, KEY.upper(), quote(PROMPT), PROMPT.splitlines()[1]])
@pytest.mark.parametrize("header", ["x-request-id", "request-id"])
def test_an_echo_in_a_request_id_is_shown_nowhere(caller: Caller, header: str, echo: str) -> None:
    echoing(caller, answer(500, json=error("no"), headers={header: echo}), frames=False)
    echoing(caller, answer(500, json=error("no") | {"request_id": echo}))


def echo_of_everything(request: Request) -> Any:
    """As FastAPI answers: what it got, whole, and the headers besides."""
    return answer(422, json={"detail": [{"msg": "no", "input": request.json, "headers": request.headers}]})


@pytest.mark.parametrize(
    "options",
    [
        {"stop": [PROMPT]},
        {"user": PROMPT},
        {"extra": {"guided": {"choice": [PROMPT]}}},
        {"tools": [{"type": "function", "function": {"name": "f", "description": PROMPT, "parameters": {}}}]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"title": PROMPT}},
            }
        },
        {"prompt": None, "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]},
        {
            "prompt": None,
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": json.dumps(PROMPT)},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": PROMPT},
            ],
        },
    ],
    ids=["stop", "user", "extra", "tools", "response_format", "parts", "tool calls"],
)
def test_an_echo_of_the_whole_request_is_shown_nowhere(caller: Caller, options: dict[str, Any]) -> None:
    echoing(caller, echo_of_everything, **{"prompt": "hi"} | options if "prompt" not in options else options)


@pytest.mark.parametrize("echo", [KEY, f"{KEY} closed", "Tell my boss that I am ill, disconnected"])
def test_the_error_of_garbage_instead_of_http_quotes_nothing(caller: Caller, echo: str) -> None:
    for garbage in (
        echo.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + echo.encode() + b"\r\n\r\n",
        head(200, {"content-length": echo}),
        head(200, {"transfer-encoding": echo}),
        head(200, {"transfer-encoding": "chunked"}) + b"3\r\nabc" + echo.encode() + b"\r\n0\r\n\r\n",
        head(200, {"transfer-encoding": "chunked"}) + b"x" + echo.encode() + b"\r\n",
    ):
        failure = echoing(caller, [Send(garbage), Close()])
        assert "does not answer in HTTP (the answer breaks the protocol): check base_url" in str(failure)


@pytest.mark.parametrize("header", ["content-encoding", "location", "retry-after", "x-should-retry"])
def test_an_echo_in_any_other_header_is_shown_nowhere(caller: Caller, header: str) -> None:
    for status in (200, 302, 503):
        for echo in (KEY, quote(PROMPT)):
            echoing(caller, answer(status, body="{}", headers={header: echo}))


def test_an_error_frame_in_a_stream_shows_nothing(caller: Caller) -> None:
    frame = sse(error(f"no: {KEY} {PROMPT}"))
    echoing(caller, stream([frame]))


def test_a_server_that_is_not_there_shows_nothing(caller: Caller) -> None:
    backend = OpenAIBackend("main", base_url=f"http://127.0.0.1:{refused_port()}", api_key=KEY)
    with Router([backend], retry=RetryPolicy(attempts=1)) as router:
        assert isinstance(fails(caller, router), errors.ConnectionFailedError)


@pytest.mark.parametrize("kind", [PROMPT, PROMPT.splitlines()[1], "a" * 41])
def test_the_error_of_an_unsupported_part_hides_its_content(caller: Caller, kind: Any) -> None:
    messages = [{"role": "user", "content": [{"type": kind, "text": PROMPT}]}]
    with Router([OllamaBackend("main")]) as router:
        failure = fails(caller, router, prompt=None, messages=messages)
    assert "messages[0].content[0]: Ollama cannot carry a part without a proper type" in str(failure)


def test_the_error_of_an_unsupported_part_names_its_type(caller: Caller) -> None:
    messages = [{"role": "user", "content": [{"type": "container_upload"}]}]
    with Router([OllamaBackend("main")]) as router:
        failure = fails(caller, router, prompt=None, messages=messages)
    assert "a part of type 'container_upload'" in str(failure)


class BrokenTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError


def test_a_bug_while_sending_shows_no_key_in_the_frames_of_ccroute(caller: Caller) -> None:
    backend = OpenAIBackend("main", base_url="http://h.test", api_key=KEY)
    with Router([backend], transport=BrokenTransport()) as router, pytest.raises(ZeroDivisionError) as caught:
        caller.complete(router, PROMPT, model="main/m")
    shown = locals_of_ccroute(caught.value)
    assert KEY not in shown
    assert_tells_nothing(locals_of_ccroute(caught.value, "flow/"))
    assert "Send(request=PreparedRequest(POST http://h.test/v1/chat/completions, " in shown
    assert "AttemptContext(main/m, status=None)" in shown
    assert re.search(r"CallContext\([0-9a-f-]{36}, 'main/m', 1 attempts\)", shown)


def test_the_repr_of_an_effect_hides_what_it_holds() -> None:
    request = AskedFor(
        messages=({"role": "user", "content": PROMPT},), stop=PROMPT, temperature=0, extra={"x": PROMPT}
    )
    assert repr(request) == "Request(1 messages, temperature, stop, extra)"
    backend = OpenAIBackend("main", base_url="http://h.test", api_key=KEY)
    http = backend.encode(request, "m", False)
    assert repr(http) == f"HttpRequest(POST /chat/completions, {len(http.body)} bytes)"
    assert_tells_nothing(repr(http) + repr(request) + repr(backend))


def test_a_key_that_was_rotated_away_during_its_call_is_not_shown() -> None:
    """A backend remembers only so many keys; a slow call's own may not be among them any more."""
    keys = [f"{KEY}{number:02}" for number in range(12)]
    given = iter(keys)
    here, go = threading.Event(), threading.Event()

    def script(request: Request) -> Any:
        if not request.headers["authorization"].endswith(keys[0]):
            return answer(json=chat("fine"))
        return [
            Set(here),
            Wait(go),
            *answer(403, json=error(f"denied: {keys[0]}"), headers={"x-request-id": keys[0]}),
        ]

    with ScriptedServer(script) as server, ThreadPoolExecutor(1) as pool:
        backend = OpenAIBackend("main", base_url=server.url, api_key=lambda: next(given))
        with Router([backend], default_model="main/m") as router:
            slow = pool.submit(router.complete, "hi")
            assert here.wait(5)
            for _ in keys[1:]:
                router.complete("hi")
            go.set()
            raised = slow.exception(5)
    assert isinstance(raised, errors.PermissionDeniedError)
    assert keys[0] not in f"{everything_shown(raised)}{raised.body}"


def test_a_backend_with_a_wire_of_its_own_shows_no_prompt(caller: Caller) -> None:
    class Own(PlainBackend):
        def __init__(self, url: str) -> None:
            Backend.__init__(self, "own", url)

        def classify(self, status: int, headers: Any, body: bytes) -> errors.BackendError:
            return errors.ServerError(f"it said {body.decode()}")  # without a status

        def decode(self, status: int, headers: Any, body: bytes) -> Any:
            raise errors.ProtocolError(f"no answer: {body.decode()}")

    for status in (200, 500):
        with ScriptedServer(lambda request: answer(status, body=request.body)) as server:  # noqa: B023
            with Router([Own(server.url)], default_model="own/m", retry=RetryPolicy(attempts=1)) as router:
                with pytest.raises(errors.BackendError) as raised:
                    caller.complete(router, PROMPT)
        assert "unmistakable beach" not in everything_shown(raised.value)
