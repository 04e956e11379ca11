"""What no caller, server or prompt may change: where requests go, whom they trust, what is kept."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import AnthropicBackend, OllamaBackend, OpenAIBackend, Router, errors
from ccroute.accounting import MemoryLedger
from ccroute.observe import Event

KEY = "canary-key-0123456789"
PROMPT = "the canary prompt that nobody may keep"
KINDS: list[Any] = [OpenAIBackend, AnthropicBackend, OllamaBackend]


@pytest.mark.parametrize("name", ["base_url", "api_base", "api_key", "headers", "verify", "ca_file"])
def test_a_call_can_change_neither_address_nor_key_nor_trust(caller: Caller, name: str) -> None:
    with ScriptedServer() as server:
        with Router([OpenAIBackend("main", base_url=server.url)], default_model="main/m") as router:
            with pytest.raises(TypeError, match=name):
                caller.complete(router, "hi", **{name: "http://elsewhere.example"})
    assert server.connections == 0


def test_extra_goes_into_the_body_and_nowhere_else(caller: Caller) -> None:
    extra = {"base_url": "http://elsewhere.example", "api_key": "another", "headers": {"host": "elsewhere"}}
    with ScriptedServer([answer(json=chat("here"))]) as server:
        backend = OpenAIBackend("main", base_url=server.url, api_key=KEY)
        with Router([backend], default_model="main/m") as router:
            assert caller.complete(router, "hi", extra=extra).text == "here"
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert {name: request.json[name] for name in extra} == extra


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["verify", "verify_ssl", "ssl_verify", "insecure"])
def test_no_keyword_switches_certificate_checks_off(kind: Any, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        kind("main", base_url="https://llm.example.com", api_key=KEY, **{name: False})


def test_what_a_prompt_or_a_server_says_is_never_expanded(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", KEY)
    said = "${CANARY} $CANARY env:CANARY os.environ/CANARY"
    with ScriptedServer([answer(json=chat(said))]) as server:
        config = {"backends": {"main": {"kind": "openai", "base_url": server.url, "api_key": "${CANARY}"}}}
        with Router.from_config(config, default_model="main/m") as router:
            reply = caller.complete(router, said)
    assert (reply.text, server.requests[0].json["messages"][0]["content"]) == (said, said)
    assert server.requests[0].headers["authorization"] == f"Bearer {os.environ['CANARY']}"


def test_a_prompt_is_in_no_event_and_no_ledger_row(caller: Caller) -> None:
    events: list[Event] = []
    ledger = MemoryLedger()
    replies = [answer(503, body=PROMPT.encode()), answer(json=chat(PROMPT))]
    with ScriptedServer(replies) as server:
        backend = OpenAIBackend("main", base_url=server.url, api_key=KEY)
        with Router([backend], {"m": ["main/a", "main/b"]}, ledger=ledger, on_event=events.append) as router:
            assert caller.complete(router, PROMPT, model="m", metadata={"ticket": 1}).text == PROMPT
    assert len(ledger.rows()) == 2
    assert len(events) > 1
    for kept in (*events, *ledger.rows()):
        assert PROMPT not in f"{kept} {kept!r}"
        assert KEY not in f"{kept} {kept!r}"


def test_a_listener_that_fails_breaks_no_call_and_is_named(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(event: Event) -> None:
        raise ZeroDivisionError(PROMPT)

    with ScriptedServer([answer(503), answer(json=chat("fine"))]) as server:
        backend = OpenAIBackend("main", base_url=server.url)
        with Router([backend], {"m": ["main/a", "main/b"]}, on_event=listener) as router:
            assert caller.complete(router, "hi", model="m").text == "fine"
    assert "on_event raised ZeroDivisionError in " in caplog.text
    assert "test_security.py" in caplog.text


def test_a_ledger_that_fails_is_an_event_and_the_answer_is_given(caller: Caller) -> None:
    class Full(MemoryLedger):
        def record(self, row: Any) -> None:
            raise OSError(28, "No space left on device")

    events: list[Event] = []
    with ScriptedServer([answer(json=chat("fine"))]) as server:
        backend = OpenAIBackend("main", base_url=server.url)
        with Router([backend], default_model="main/m", ledger=Full(), on_event=events.append) as router:
            assert caller.complete(router, "hi").text == "fine"
    assert [type(event).__name__ for event in events] == ["LedgerFailed"]
    assert "OSError" in str(events[0])


def test_all_wrong_keywords_of_a_router_are_one_error() -> None:
    with pytest.raises(errors.ConfigError, match=r"retry= takes .*(\n.*)+on_event= takes"):
        Router([OllamaBackend()], retry=3, on_event="print")  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="health="):
        Router([OllamaBackend()], health=False)  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="max_queue="):
        Router([OllamaBackend()], max_queue=-1)


def test_a_log_handler_that_fails_breaks_no_call(caller: Caller) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(28, "No space left on device")

    logger, full = logging.getLogger("ccroute"), Full()
    logger.addHandler(full)
    logger.setLevel(logging.DEBUG)
    try:
        with ScriptedServer([answer(503), answer(json=chat("fine"))]) as server:
            with Router([OpenAIBackend("main", base_url=server.url)], {"m": ["main/a", "main/b"]}) as router:
                assert caller.complete(router, "hi", model="m").text == "fine"
    finally:
        logger.removeHandler(full)
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", ["model", "agent", "session"])
def test_names_with_control_characters_are_refused(caller: Caller, name: str) -> None:
    with Router([OllamaBackend()], default_model="ollama/m", unknown_agent="default") as router:
        with pytest.raises(errors.InvalidRequestError, match="control characters") as caught:
            caller.complete(router, "hi", **{name: "evil\nCRITICAL: a line"})
    assert "evil" not in str(caught.value)
