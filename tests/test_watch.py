"""The watch over the whole run sees what it is there to see."""

from __future__ import annotations

import logging

import pytest
from tests.conftest import Caller
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer
from tests.support.watch import Watch

from ccroute import OpenAIBackend, Router, errors
from ccroute.observe import BreakerClosed

KEY = "canary-key-0123456789"
PROMPT = "the canary prompt that nobody may see"


@pytest.mark.parametrize("secret", [KEY, PROMPT])
def test_a_secret_in_an_error_an_event_or_a_log_line_is_found(
    caller: Caller, whole_run: Watch, secret: str
) -> None:
    with ScriptedServer([answer(json=chat("hi"))]) as server:
        backend = OpenAIBackend("main", base_url=server.url, api_key=KEY)
        with Router([backend], default_model="main/m") as router:
            caller.complete(router, PROMPT)
            assert not whole_run.found
            whole_run.look_at_error(errors.ServerError(f"it said {secret}"))
            router._state.emit(BreakerClosed(secret))
            logging.getLogger("ccroute").warning("%s", secret)
    where = " ".join(whole_run.found)
    assert "ServerError shows" in where
    assert "a pickled ServerError shows" in where
    assert "a traceback shows" in where
    assert "BreakerClosed shows" in where
    assert "a log line shows" in where
    whole_run.found.clear()
