"""A `local_only` agent's request never leaves: connections are counted at real sockets of a paid provider."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Caller
from tests.support.openai_like import chat, chat_sse, error
from tests.support.scripted import Close, Request, ScriptedServer, Step, answer, stream

from ccroute import (
    Agent,
    AliasTable,
    AnthropicBackend,
    Fallback,
    OllamaBackend,
    OpenAIBackend,
    RetryPolicy,
    Router,
    errors,
)
from ccroute.backends import Backend

QUICK = RetryPolicy(attempts=4, per_deployment=2, base=0, max=0)
SECRET = "the salaries of all employees"


@pytest.fixture(scope="module")
def paid() -> Iterator[ScriptedServer]:
    """A paid provider, which would answer whatever it is asked."""
    with ScriptedServer([answer(json=chat("from afar"))], repeat=True) as server:
        yield server
        assert server.connections == 0, "a prompt left"


def backends(home: str, paid: str) -> list[Backend]:
    """One server at home, and the paid one as every kind of backend that is not local."""
    return [
        OpenAIBackend("home", base_url=home, preset="vllm"),
        OpenAIBackend("openai", base_url=paid, api_key="key"),
        OpenAIBackend("gateway", base_url=paid, preset="litellm"),
        OpenAIBackend("vllm", base_url=paid, preset="vllm", local=False),
        AnthropicBackend("claude", base_url=paid, api_key="key"),
        OllamaBackend("far", paid, local=False),
    ]


FAR = ["openai", "gateway", "vllm", "claude", "far"]
ALIASES: dict[Any, Any] = {
    "big": "openai/m",
    "own": "home/m",
    "again": "big",
    "both": ["home/m", "openai/m"],
    "paid": ["openai/m", "claude/m"],
    "heavy": {"claude/m": 99, "home/m": 1},
    "ordered": {"targets": ["gateway/m", "home/m", "far/m"], "strategy": "ordered"},
    "busy": {"targets": ["vllm/m", "home/m"], "strategy": "least-busy"},
    "fast": {"targets": ["vllm/m", "home/m"], "strategy": "latency"},
    "cheap": {"targets": ["openai/m", "home/m"], "strategy": "cost"},
    "claude-*": "claude/claude-*",
    "local-*": "home/*",
    re.compile(r"gpt-(?P<v>\d)"): r"openai/gpt-\g<v>",
    re.compile(r"(?P<where>\w+)/any"): r"\g<where>/m",
}
AT_HOME = {"own", "both", "heavy", "ordered", "busy", "fast", "cheap", "local-x", "home/any", "home/other"}
"""The names that lead to the server at home, or to it too."""
NAMES = [
    *AT_HOME,
    "big",
    "again",
    "paid",
    "claude-x",
    "gpt-4",
    "far/any",
    *(f"{name}/direct" for name in FAR),
]
MODELS = st.sampled_from(NAMES)
FALLBACKS = st.lists(
    MODELS | st.builds(Fallback, MODELS, triggers=st.just(["availability", "rate_limit"])), max_size=3
)
FAULTS: dict[str, Sequence[Step]] = {
    "none": [],
    "503": answer(503),
    "429": answer(429, headers={"retry-after": "0"}),
    "500": answer(500),
    "401": answer(401),
    "404": answer(404),
    "too long": answer(400, json=error("too long", code="context_length_exceeded")),
    "closed": [Close()],
    "cut": stream([chat_sse()[1], Close()]),
    "moved": answer(302, headers={"location": "http://127.0.0.1/"}),
}


class Home:
    """The server at home: its next replies, and then answers."""

    def __init__(self) -> None:
        self.replies: list[Sequence[Step]] = []
        self.server = ScriptedServer(self.reply)

    def reply(self, request: Request) -> Sequence[Step]:
        if self.replies and (steps := self.replies.pop()):
            return steps
        return stream(chat_sse()) if request.json.get("stream") else answer(json=chat())


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    made = Home()
    with made.server:
        yield made


@settings(max_examples=60)
@given(
    model=MODELS,
    agent_model=st.none() | MODELS,
    agent_fallback=FALLBACKS,
    model_fallbacks=FALLBACKS,
    call_fallback=st.none() | st.just(False) | st.lists(MODELS, min_size=1, max_size=3),
    by_group=st.booleans(),
    override=st.booleans(),
    faults=st.lists(st.sampled_from([*FAULTS]), max_size=3),
    streamed=st.booleans(),
)
def test_no_route_leads_a_local_only_agent_away(
    paid: ScriptedServer,
    home: Home,
    model: str,
    agent_model: str | None,
    agent_fallback: list[Any],
    model_fallbacks: list[Any],
    call_fallback: Any,
    by_group: bool,
    override: bool,
    faults: list[str],
    streamed: bool,
) -> None:
    bound = {} if by_group else {"local_only": True}
    home.replies = [FAULTS[name] for name in faults]
    with Router(
        backends(home.server.url, paid.url),
        AliasTable(ALIASES),
        {"hr": Agent(agent_model, fallback=agent_fallback, group="private", **bound)},
        groups={"private": Agent(local_only=True)},
        fallbacks={"*": model_fallbacks} if model_fallbacks else {},
        agent_override=override,
        retry=QUICK,
    ) as router:
        asked = agent_model if agent_model is not None and override else model
        further = [*agent_fallback, *model_fallbacks] if call_fallback is None else call_fallback or []
        names = {each if isinstance(each, str) else each.model for each in (asked, *further)}
        options: dict[str, Any] = {"agent": "hr", "model": model, "fallback": call_fallback}
        plan = router.explain(SECRET, **options)
        allowed = {each.backend for each in plan.candidates if each.allowed}
        try:
            if streamed:
                list(router.stream(SECRET, **options))
            else:
                router.complete(SECRET, **options)
            outcome: Exception | None = None
        except errors.CcrouteError as problem:
            outcome = problem
        rows = router.rows()
    assert (allowed == {"home"}) == bool(names & AT_HOME)
    assert isinstance(outcome, errors.EgressDeniedError) == (not names & AT_HOME)
    assert {row.backend for row in rows} <= {"home"}
    assert paid.connections == 0


def test_one_remote_deployment_under_two_triggers_is_denied() -> None:
    fallback = [Fallback("openai/b", triggers=[trigger]) for trigger in ("rate_limit", "token_limit")]
    agent = Agent("claude/a", fallback=fallback, local_only=True)
    nowhere = "http://127.0.0.1:9"
    with Router(backends(nowhere, nowhere), agents={"hr": agent}) as router:
        with pytest.raises(errors.EgressDeniedError, match="may not use claude/a, openai/b"):
            router.complete(SECRET, agent="hr")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("transport", [None, "httpx"])
def test_a_redirect_to_a_paid_host_is_not_followed(
    caller: Caller, paid: ScriptedServer, transport: Any, status: int
) -> None:
    moved = answer(status, headers={"location": f"{paid.url}/v1/chat/completions"})
    with ScriptedServer([moved], repeat=True) as home:
        agents = {"hr": Agent("both", local_only=True)}
        with Router(
            backends(home.url, paid.url), ALIASES, agents, retry=QUICK, transport=transport
        ) as router:
            with pytest.raises(errors.BackendError):
                caller.complete(router, SECRET, agent="hr")
    assert paid.connections == 0


@pytest.mark.parametrize("transport", [None, "httpx"])
@pytest.mark.parametrize("host", ["127.0.0.1", "home.example.com"])
def test_no_proxy_of_the_environment_hears_a_local_prompt(
    caller: Caller, paid: ScriptedServer, monkeypatch: pytest.MonkeyPatch, host: str, transport: Any
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, paid.url)
        monkeypatch.setenv(name.upper(), paid.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    look_up = socket.getaddrinfo

    def at_home(name: Any, *args: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if name in (host, host.encode()) else name, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", at_home)
    with ScriptedServer([answer(json=chat("at home"))], repeat=True) as home:
        near = OpenAIBackend("home", base_url=f"http://{host}:{home.port}", preset="vllm", local=True)
        agents = {"hr": Agent("home/m", local_only=True)}
        with Router([near], agents=agents, trust_env=True, transport=transport) as router:
            assert caller.complete(router, SECRET, agent="hr").text == "at home"
    assert paid.connections == 0


def test_a_transport_of_the_users_own_gets_local_requests_only() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(503)

    agents = {"hr": Agent("both", fallback=["paid", "heavy"], local_only=True)}
    made = backends("http://127.0.0.1:9", "http://paid.example.com")
    with Router(made, ALIASES, agents, retry=QUICK, transport=httpx.MockTransport(handle)) as router:
        for fallback in (None, ["big"], False):
            with pytest.raises(errors.OverloadedError):
                router.complete(SECRET, agent="hr", fallback=fallback)
        agents["hr"] = Agent("paid", local_only=True)
    with Router(made, ALIASES, agents, transport=httpx.MockTransport(handle)) as router:
        with pytest.raises(errors.EgressDeniedError):
            router.complete(SECRET, agent="hr")
    assert set(asked) == {"127.0.0.1"}


def test_a_reload_in_the_middle_lets_no_prompt_out(caller: Caller, paid: ScriptedServer) -> None:
    def source(*, local: bool) -> dict[str, Any]:
        far = {"kind": "openai", "base_url": paid.url}
        here = {"kind": "vllm", "base_url": home.url, "local": local}
        return {
            "backends": {"home": here, "far": far},
            "agents": {"hr": {"model": "home/m", "fallback": ["far/m"], "local_only": True}},
            "retry": {"base": 0, "max": 0},
        }

    def reply(request: Request) -> Sequence[Step]:
        if len(home.requests) == 1:
            router.reload(source(local=False))
            return answer(503)
        return answer(json=chat("at home"))

    with ScriptedServer(reply) as home, Router.from_config(source(local=True), env={}) as router:
        begun = caller.complete(router, SECRET, agent="hr")
        with pytest.raises(errors.EgressDeniedError, match="may not use home/m, far/m"):
            caller.complete(router, SECRET, agent="hr")
        router.reload(source(local=True))
        again = caller.complete(router, SECRET, agent="hr")
    assert (begun.text, again.text) == ("at home", "at home"), "a call ends as it began"
    assert len(home.requests) == 3
    assert paid.connections == 0


# -- Ollama's own cloud

BOUND = {"hr": Agent(local_only=True)}


class Forwarding:
    """An Ollama on this machine that sends the prompts of cloud models to a paid provider."""

    def __init__(self, paid: ScriptedServer, *cloud: str) -> None:
        self.paid, self.cloud = paid, cloud
        self.server = ScriptedServer(self.reply)

    def is_remote(self, model: str) -> bool:
        tag = model.rpartition(":")[2].lower()
        return tag == "cloud" or tag.endswith("-cloud") or model.removesuffix(":latest") in self.cloud

    def reply(self, request: Request) -> Sequence[Step]:
        if request.method == "GET":
            there = {"remote_host": "https://ollama.com:443", "remote_model": "m"}
            models = [{"name": f"{name}:latest", **there} for name in self.cloud]
            return answer(json={"models": [*models, {"name": "qwen:7b"}]})
        asked = request.json
        line: dict[str, Any] = {"model": asked["model"], "done": True, "done_reason": "stop"}
        line |= {"message": {"role": "assistant", "content": "hi"}, "prompt_eval_count": 3, "eval_count": 1}
        if self.is_remote(asked["model"]):
            line |= {"remote_host": "https://ollama.com:443", "remote_model": "m"}
            with socket.create_connection(("127.0.0.1", self.paid.port)) as link:
                link.sendall(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
                assert link.recv(1)
        if not asked["stream"]:
            return answer(json=line)
        return stream([json.dumps(line).encode() + b"\n"], content_type="application/x-ndjson")


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "glm-4.6:cloud", "GLM-4.6:Cloud", "x/y:1b-CLOUD "])
def test_a_cloud_model_of_a_local_ollama_is_denied(caller: Caller, paid: ScriptedServer, model: str) -> None:
    ollama = Forwarding(paid)
    with ollama.server, Router([OllamaBackend("home", ollama.server.url)], agents=BOUND) as router:
        with pytest.raises(errors.EgressDeniedError, match="local_only"):
            caller.complete(router, SECRET, agent="hr", model=f"home/{model}")
        assert caller.complete(router, SECRET, agent="hr", model="home/qwen:7b").text == "hi"
    assert paid.connections == 0


@pytest.mark.parametrize("heard", ["health", "answer", "stream"])
def test_a_model_that_ollama_was_heard_to_forward_is_denied(
    caller: Caller, caplog: pytest.LogCaptureFixture, heard: str
) -> None:
    """Its name shows nothing: https://github.com/saurabhav88/EnviousWispr/issues/1914."""
    with ScriptedServer([answer(json=chat())], repeat=True) as far:
        ollama = Forwarding(far, "deepseek-v4-flash")
        source = {
            "backends": {"home": {"kind": "ollama", "base_url": ollama.server.url}},
            "agents": {"hr": {"local_only": True}},
        }
        with ollama.server, Router.from_config(source, env={}) as router:
            if heard == "health":
                router.health()
            elif heard == "answer":
                caller.complete(router, "public", model="home/deepseek-v4-flash")
            else:
                caller.stream(router, "public", model="home/deepseek-v4-flash:latest")
            before = far.connections
            for model in ("deepseek-v4-flash", "deepseek-v4-flash:latest"):
                with pytest.raises(errors.EgressDeniedError):
                    caller.complete(router, SECRET, agent="hr", model=f"home/{model}")
            router.reload(source)
            with pytest.raises(errors.EgressDeniedError):
                caller.complete(router, SECRET, agent="hr", model="home/deepseek-v4-flash")
            assert caller.complete(router, SECRET, agent="hr", model="home/qwen:7b").text == "hi"
        assert far.connections == before == (heard != "health")
    told = [record.getMessage() for record in caplog.records if "is not local" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("home/deepseek-v4-flash")
