"""Ollama's backend: one model has several names, and what is wrong is said before the first call."""

from __future__ import annotations

import pytest
from tests.conftest import Caller
from tests.support.ollama import FakeOllama, line
from tests.support.scripted import Hang, ScriptedServer, Wait, answer, stream

from ccroute import AliasTable, Model, OllamaBackend, Price, RetryPolicy, Router, Timeout, errors
from ccroute.routing import AgentTable, Tables
from ccroute.types import Request


@pytest.mark.parametrize("described", ["coder", "coder:latest"])
@pytest.mark.parametrize("asked", ["local/coder", "local/coder:latest"])
def test_a_model_is_described_and_priced_by_either_of_its_names(described: str, asked: str) -> None:
    with FakeOllama(["coder"]) as ollama:
        backend = OllamaBackend("local", ollama.url, models={described: Model(context_window=2048)})
        with Router([backend], prices={described: Price(1000, 1000)}) as router:
            reply = router.complete("hi", model=asked)
            [row] = router.report(by="model").to_dicts()
    assert backend.model(asked.partition("/")[2]).context_window == 2048
    assert ollama.chats[0]["options"]["num_ctx"] == 2048
    assert reply.cost
    assert (reply.route.deployment, row["model"]) == ("local/coder", "coder")


def test_a_price_of_the_deployment_counts_for_its_other_name_too() -> None:
    with FakeOllama(["coder"]) as ollama:
        with Router(
            [OllamaBackend("local", ollama.url)], prices={"local/coder:latest": Price(1, 1)}
        ) as router:
            assert router.complete("hi", model="local/coder").cost


def test_both_names_stand_before_the_same_health() -> None:
    with FakeOllama(["coder"], on_chat=lambda request: answer(503, body="busy")) as ollama:
        aliases = {"a": "local/coder", "b": "local/coder:latest"}
        with Router([OllamaBackend("local", ollama.url)], aliases) as router:
            for model in ("a", "b") * 4:
                with pytest.raises(errors.OverloadedError):
                    router.complete("hi", model=model, timeout=0.2)
            deployments = router.stats().deployments
    assert deployments.keys() == {"local/coder"}
    assert deployments["local/coder"].health.state == "off"


def test_two_names_of_one_model_in_an_alias_add_their_weights() -> None:
    targets = {"local/coder:latest": 1, "local/other": 4, "local/coder": 2}
    aliases = {"x": targets, "y": ["local/coder", "local/coder:latest"]}
    resolution, _ = Tables([OllamaBackend("local")], AliasTable(aliases), AgentTable({})).resolve("x")
    with Router([OllamaBackend("local")], aliases) as router:
        listed = {model.id: model.deployments for model in router.models()}
    assert dict(zip(resolution.deployments, resolution.weights, strict=True)) == {
        "local/coder:latest": 3,
        "local/other": 4,
    }
    assert listed == {
        "x": ("local/coder:latest", "local/other"),
        "y": ("local/coder:latest",),
        "local/coder:latest": ("local/coder:latest",),
        "local/other": ("local/other",),
    }


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("coder", ("coder", "coder:latest")),
        ("coder:latest", ("coder", "coder:latest")),
        ("coder:7b", ("coder:7b",)),
        ("hf.co/someone/coder", ("hf.co/someone/coder", "hf.co/someone/coder:latest")),
        (
            "registry:5000/someone/coder",
            ("registry:5000/someone/coder", "registry:5000/someone/coder:latest"),
        ),
        ("gpt-oss:120b-cloud", ("gpt-oss:120b-cloud",)),
    ],
)
def test_the_name_without_a_tag_is_the_usual_one(model: str, names: tuple[str, ...]) -> None:
    assert OllamaBackend().names(model) == names


@pytest.mark.parametrize("keep_alive", [None, 0, 300, -1, "0", "5m", "1h30m", "-1s", "+.5h", "1.5h", "300µs"])
def test_a_keep_alive_that_ollama_understands_is_taken(keep_alive: str | int | None) -> None:
    assert OllamaBackend(keep_alive=keep_alive).keep_alive == keep_alive


@pytest.mark.parametrize(
    ("keep_alive", "advice"),
    [
        ("soon", "such as '5m'"),
        ("", "such as '5m'"),
        (" 5m", "such as '5m'"),
        ("5 m", "such as '5m'"),
        ("1d", "such as '5m'"),
        ("٣s", "such as '5m'"),
        ("-1", "write the number -1"),
        ("300", "write the number 300"),
        ("9999999h", "-1 for ever"),
        (True, "such as '5m'"),
        (1.5, "such as '5m'"),
    ],
)
def test_a_keep_alive_that_ollama_refuses_is_refused_at_once(keep_alive: object, advice: str) -> None:
    with pytest.raises(errors.ConfigError, match=f"backend ollama: keep_alive .*{advice}"):
        OllamaBackend(keep_alive=keep_alive)  # type: ignore[arg-type]


def test_a_bad_keep_alive_of_a_file_is_a_fault_with_its_place() -> None:
    backends = {"mini": {"kind": "ollama", "keep_alive": "soon"}}
    with pytest.raises(errors.ConfigError, match=r"mini.*keep_alive"):
        Router.from_config({"backends": backends})


def test_only_a_stream_that_may_call_a_tool_may_be_silent() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    backend = OllamaBackend()
    assert backend.buffers_tool_calls(Request(tools=[tool]))
    assert not backend.buffers_tool_calls(Request())
    assert not backend.buffers_tool_calls(Request(tools=[tool], tool_choice="none"))


def test_a_stream_with_tools_may_be_silent_for_longer_than_idle(caller: Caller) -> None:
    """The server waits for a whole call before it sends it; without tools silence is a fault."""
    call = {"function": {"name": "f", "arguments": {"text": "a long file"}}}
    lines = [
        {"message": {"role": "assistant", "content": "I write it."}, "done": False},
        {"message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
    ]
    steps = stream([line(lines[0]), Wait(0.2), *map(line, lines[1:])], content_type="application/x-ndjson")
    tool = {"type": "function", "function": {"name": "f"}}
    with ScriptedServer([steps, steps]) as server, Router([OllamaBackend("local", server.url)]) as router:
        limits = Timeout(idle=0.1)
        heard = caller.stream(router, "hi", model="local/m", tools=[tool], timeout=limits)
        cut = caller.stream(router, "hi", model="local/m", timeout=limits)
    assert heard.error is None
    assert [call.function.name for call in heard.completion.tool_calls] == ["f"]
    assert isinstance(cut.error, errors.StreamInterruptedError)


def test_a_limit_shorter_than_a_load_is_warned_of_once(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    swapped = {"message": {"content": "x"}, "model": "coder", "done": True, "load_duration": 12_340_000_000}
    hangs = [Hang()]
    with ScriptedServer([answer(json=swapped), hangs, hangs]) as server:
        with Router([OllamaBackend("local", server.url)], retry=RetryPolicy(attempts=1)) as router:
            caller.complete(router, "hi", model="local/coder")
            for _ in range(2):
                with pytest.raises(errors.BackendTimeoutError, match=r"shorter than the load \(12.3 s when"):
                    caller.complete(router, "hi", model="local/coder:latest", timeout=Timeout(first=0.05))
    [warning] = [
        record.getMessage() for record in caplog.records if "did not answer in time" in record.getMessage()
    ]
    assert warning.startswith("local/coder did not answer in time. Ollama gives up loading a model")


def test_streams_show_the_time_of_a_load_but_not_when_warm() -> None:
    backend = OllamaBackend("local")
    assert "not measured yet" in backend.timeout_advice("m")
    last = {"model": "m", "message": {"content": ""}, "done": True}
    for load, known in ((2_000_000, "not measured yet"), (3_000_000_000, "3.0 s"), (None, "3.0 s")):
        backend.decoder(200, {}).feed(line(last | {"load_duration": load}))
        assert known in backend.timeout_advice("m")
