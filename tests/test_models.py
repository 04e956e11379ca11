"""What may be asked for: from the tables, and live from the servers' own lists."""

from __future__ import annotations

import asyncio
import gzip
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.conftest import Caller
from tests.support.ollama import FakeOllama
from tests.support.ollama import Model as Installed
from tests.support.scripted import ScriptedServer, answer, refused_port

from ccroute import AnthropicBackend, Model, OllamaBackend, OpenAIBackend, Router, errors
from ccroute.types import LoadedModel, ModelInfo
from ccroute.wire.listing import read_model_list, read_served
from ccroute.wire.ollama.listing import read_ps, read_show, read_tags
from tiny_llama import TinyLlama


def discovered(caller: Caller, router: Router) -> dict[str, ModelInfo]:
    found = router.discover() if caller.mode == "sync" else asyncio.run(router.adiscover())
    return {model.id: model for model in found}


def test_every_alias_pattern_and_described_deployment_is_listed() -> None:
    windows = {"small": Model(context_window=4096), "large": Model(context_window=131_072)}
    router = Router(
        [OllamaBackend("mini", models=windows), AnthropicBackend(models={"claude-x": Model()})],
        {"coder": ["mini/small", "mini/large"], "claude-*": "anthropic/claude-*", "mini/small": "mini/small"},
    )
    listed = {model.id: model for model in router.models()}
    router.close()
    assert list(listed) == ["coder", "claude-*", "mini/small", "mini/large", "anthropic/claude-x"]
    assert [model.kind for model in listed.values()] == [
        "alias",
        "pattern",
        "alias",
        "deployment",
        "deployment",
    ]
    assert (listed["coder"].context_window, listed["coder"].owned_by) == (131_072, "mini")
    assert listed["coder"].deployments == ("mini/small", "mini/large")
    assert listed["anthropic/claude-x"].context_window is None


def test_ollamas_models_are_discovered_with_their_served_windows(caller: Caller) -> None:
    """Not the trained one: that of a call is described and sent, in the Modelfile, or the server's default,
    which is known only of a model in memory."""
    names = ("asked:7b", "beyond:7b", "modelfile:7b", "loaded", "unknown:7b")
    installed = [Installed(name, num_ctx=8192 if name == "modelfile:7b" else None) for name in names]
    windows = {"asked:7b": Model(context_window=16_384), "beyond:7b": Model(context_window=99_999)}
    with FakeOllama(installed) as ollama:
        ollama.loaded = {"modelfile:7b": 2048, "loaded:latest": 4096}  # 2048: for somebody else's num_ctx
        with Router([OllamaBackend("mini", ollama.url, models=windows)]) as router:
            found = discovered(caller, router)
    assert {name: model.context_window for name, model in found.items()} == {
        "mini/asked:7b": 16_384,
        "mini/beyond:7b": 32_768,
        "mini/modelfile:7b": 8192,
        "mini/loaded": 4096,
        "mini/unknown:7b": None,
    }
    assert ollama.chats == []


def test_what_a_compatible_server_lists_is_discovered(caller: Caller) -> None:
    models = {"data": [{"id": "a", "max_model_len": 8192}, {"id": "b"}, {"no": "id"}]}
    with ScriptedServer([answer(json=models)]) as server:
        backend = OpenAIBackend("vllm", base_url=server.url, models={"b": Model(context_window=77)})
        with Router([backend]) as router:
            found = discovered(caller, router)
    assert {name: model.context_window for name, model in found.items()} == {"vllm/a": 8192, "vllm/b": 77}
    assert (server.requests[0].method, server.requests[0].target) == ("GET", "/v1/models")


@pytest.mark.llama
def test_a_real_llama_cpp_server_is_discovered(llama_server: TinyLlama, caller: Caller) -> None:
    backend = OpenAIBackend(
        "llama", base_url=llama_server.url, api_key=llama_server.api_key, preset="llamacpp"
    )
    with Router([backend]) as router:
        [model] = discovered(caller, router).values()
    assert model.id == f"llama/{llama_server.model}"
    assert model.context_window == 32_768  # of one slot; it was trained for more


def test_a_backend_that_does_not_answer_is_named_and_left_out(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [answer(500), answer(body="no JSON"), answer(json={"object": "list"})]
    with ScriptedServer(broken) as server, caplog.at_level(logging.WARNING, logger="ccroute"):
        backends = [OpenAIBackend(name, base_url=server.url) for name in ("faulty", "odd", "empty")]
        dead = OllamaBackend("dead", f"http://127.0.0.1:{refused_port()}")
        with Router([*backends, dead]) as router:
            assert discovered(caller, router) == {}
    assert [record.args[0] for record in caplog.records if record.args] == ["faulty", "odd", "empty", "dead"]


def test_a_list_without_end_is_given_up(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccroute.flow.listings.MAX_LISTING", 1000)
    packed = gzip.compress(b'{"data": [' + b" " * 10_000 + b"]}")
    with ScriptedServer([answer(body=packed, headers={"content-encoding": "gzip"})]) as server:
        with Router([OpenAIBackend("far", base_url=server.url)]) as router:
            assert discovered(caller, router) == {}


def test_a_closed_router_discovers_nothing(caller: Caller) -> None:
    router = Router([OllamaBackend()])
    router.close()
    with pytest.raises(errors.RouterClosedError):
        discovered(caller, router)


@pytest.mark.parametrize(
    ("read", "body", "found"),
    [
        (read_model_list, b'{"data": [{"id": "m", "meta": {"n_ctx": 8, "n_ctx_train": 9}}]}', {"m": 8}),
        (read_model_list, b'{"data": [{"id": "m", "meta": {"n_ctx_train": 4096}}]}', {"m": None}),
        (read_model_list, b'{"data": [{"id": "m", "context_length": true}, 7]}', {"m": None}),
        (read_tags, b'{"models": [{"name": "m"}, {}, null]}', {"m": None}),
        (
            read_show,
            b'{"model_info": {"general.architecture": "q", "q.context_length": 9}}',
            (9, None, (), ()),
        ),
        (read_show, b'{"parameters": "stop \\"num_ctx 7\\"\\nnum_ctx   8\\ntop_k 9"}', (None, 8, (), ())),
        (read_show, b"{}", (None, None, (), ())),
        (
            read_ps,
            b'{"models": [{"name": "m", "context_length": 9, "size": 7}, {"name": "n"}, {}]}',
            [LoadedModel(name="m", size=7, context_window=9), LoadedModel(name="n")],
        ),
        (read_ps, b'{"models": [{"name": "m", "expires_at": "soon"}]}', [LoadedModel(name="m")]),
        (
            read_ps,
            b'{"models": [{"name": "m", "expires_at": "2026-11-21T10:42:28.52795541+01:00"}]}',
            [LoadedModel(name="m", expires=datetime(2026, 11, 21, 9, 42, 28, 527955, UTC))],
        ),
        (
            read_ps,
            b'{"models": [{"name": "m", "expires_at": "2026-11-21T10:42:28"}]}',
            [LoadedModel(name="m")],
        ),
        (read_ps, b'{"models": null}', []),
        (read_served, b'{"data": [{"id": "m", "meta": null}, {}]}', [LoadedModel(name="m")]),
    ],
)
def test_a_listing_is_read_with_care(read: Any, body: bytes, found: object) -> None:
    assert read(body) == found


def test_a_list_of_models_without_models_is_a_protocol_error() -> None:
    with pytest.raises(errors.ProtocolError):
        read_tags(b"{}")
