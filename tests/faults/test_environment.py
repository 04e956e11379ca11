"""Row 67: what the environment says of proxies."""

from __future__ import annotations

import pytest
from tests.conftest import Caller
from tests.faults.harness import row
from tests.support.openai_like import chat
from tests.support.proxies import Proxy
from tests.support.scripted import ScriptedServer, answer, refused_port

from ccroute import OpenAIBackend, RetryPolicy, Router, errors

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
NOWHERE = "http://llm.invalid:8000/v1"
KEY = "canary-key-0123456789"


@row(67, "proxy variables in the environment")
@pytest.mark.parametrize("variable", VARIABLES)
def test_proxy_variables_are_ignored(caller: Caller, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with ScriptedServer([answer(json=chat("direct"))]) as server:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{refused_port()}")
        with Router([OpenAIBackend("main", base_url=server.url)], default_model="main/m") as router:
            assert caller.complete(router, "hi").text == "direct"
        assert server.wait_idle()


@row(67, "proxy variables in the environment")
@pytest.mark.parametrize("trusted", [False, True])
def test_a_proxy_is_on_the_way_only_where_it_is_asked_for(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    for variable in (*VARIABLES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with ScriptedServer([answer(json=chat("by proxy"))]) as server, Proxy(server) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        backend = OpenAIBackend("main", base_url=NOWHERE, api_key=KEY)
        retry = RetryPolicy(attempts=1, per_deployment=1)
        with Router([backend], default_model="main/m", retry=retry, trust_env=trusted) as router:
            if trusted:
                assert caller.complete(router, "hi").text == "by proxy"
            else:
                with pytest.raises(errors.ConnectionFailedError):
                    caller.complete(router, "hi", timeout=5)
        assert proxy.wait_idle()
    assert proxy.connections == trusted
