"""What a backend says of the models in its server's memory: which share a runner, which are loaded, how one
is freed, and when `keep_alive` may be sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import Caller
from tests.flow.support import PlainBackend
from tests.support.ollama import FakeOllama
from tests.support.ollama import Model as Installed
from tests.wire.support import as_json

from ccroute import Agent, AnthropicBackend, Backend, Model, OllamaBackend, OpenAIBackend, Router
from ccroute.types import LoadedModel, Request

HI = Request(messages=[{"role": "user", "content": "hi"}])
WEIGHTS, OTHER, ADAPTER = "a" * 64, "b" * 64, "c" * 64


def shown(*lines: str, parameters: str = "", trained: int = 32_768) -> bytes:
    """What /api/show says of a model with these lines in its Modelfile."""
    info = {"general.architecture": "qwen2", "qwen2.context_length": trained}
    modelfile = "\n".join(["# FROM it:latest", "", *lines, 'TEMPLATE "{{ .Prompt }}"', ""])
    return as_json({"modelfile": modelfile, "parameters": parameters, "model_info": info})


def weights(digest: str) -> str:
    return f"FROM /models/blobs/sha256-{digest}"


def preset(name: Any, **options: Any) -> OpenAIBackend:
    return OpenAIBackend("it", preset=name, **options)


# -- Which models share a runner


@pytest.mark.parametrize(
    "backend",
    [OllamaBackend(), OpenAIBackend(), AnthropicBackend(), PlainBackend()],
    ids=lambda each: each.name,
)
def test_a_model_has_a_runner_of_its_own_until_more_is_known(backend: Backend) -> None:
    assert backend.runner("a") == "a" != backend.runner("b")


def test_both_names_of_an_ollama_model_have_one_runner() -> None:
    assert OllamaBackend().runner("coder:latest") == OllamaBackend().runner("coder") == "coder"


def test_ollama_models_of_one_file_share_a_runner_once_they_were_shown() -> None:
    backend = OllamaBackend()
    for model in ("coder-tools:7b", "coder:latest", "other"):
        request = backend.runner_details(model)
        assert request is not None
        assert (request.path, json.loads(request.body)) == ("/api/show", {"model": model})
        backend.read_details(shown(weights(OTHER if model == "other" else WEIGHTS)), model)
        assert backend.runner_details(model) is None
    assert (
        backend.runner("coder-tools:7b")
        == backend.runner("coder")
        == backend.runner("coder:latest")
        == "coder"
    )
    assert backend.runner("other:latest") == "other"


@pytest.mark.parametrize(
    ("lines", "parameters", "window"),
    [
        ((weights(OTHER),), "", None),
        ((weights(WEIGHTS), f"ADAPTER C:\\models\\blobs\\sha256-{ADAPTER}"), "", None),
        ((weights(WEIGHTS), weights(OTHER)), "", None),  # a projector
        ((weights(WEIGHTS),), "num_ctx                        512", None),
        ((weights(WEIGHTS),), "num_gpu                        0", None),
        ((weights(WEIGHTS),), "", 512),
        (("FROM gpt-oss:120b",), "", None),
    ],
)
def test_another_file_or_option_or_window_needs_another_runner(
    lines: tuple[str, ...], parameters: str, window: int | None
) -> None:
    backend = OllamaBackend(models={} if window is None else {"like-it": Model(context_window=window)})
    backend.read_details(shown(weights(WEIGHTS)), "it")
    backend.read_details(shown(*lines, parameters=parameters), "like-it")
    assert backend.runner("like-it") == "like-it" != backend.runner("it")


def test_what_a_call_may_set_needs_no_other_runner() -> None:
    backend = OllamaBackend(models={"like-it": Model(context_window=512)})
    backend.read_details(shown(weights(WEIGHTS), parameters="num_ctx       512\ntemperature   0.5"), "it")
    backend.read_details(shown(weights(WEIGHTS), parameters='stop          "<|im_end|>"'), "like-it")
    assert backend.runner("like-it") == backend.runner("it")


def test_a_model_that_was_made_anew_may_leave_its_runner() -> None:
    backend = OllamaBackend()
    for model in ("it", "like-it"):
        backend.read_details(shown(weights(WEIGHTS)), model)
    assert backend.runner("like-it") == "it"
    backend.read_details(shown(weights(OTHER)), "it")
    assert (backend.runner("it"), backend.runner("like-it")) == ("it", "like-it")


def test_only_so_many_files_are_remembered() -> None:
    backend = OllamaBackend()
    for i in range(1001):
        backend.read_details(shown(weights(f"{i:064x}")), f"m{i}")
    assert backend.runner_details("m1000") is None
    backend.read_details(shown(weights(f"{0:064x}")), "m1000")
    assert backend.runner("m1000") == "m1000"
    backend.read_details(shown(weights(f"{0:064x}")), "m999")
    assert backend.runner("m999") == "m0"


def test_a_model_that_ollama_does_not_run_has_no_runner_and_is_never_unloaded() -> None:
    backend = OllamaBackend()
    assert backend.runner("gpt-oss:120b-cloud") == ""
    assert backend.runner_details("gpt-oss:120b-cloud") is None
    assert backend.unload("gpt-oss:120b-cloud") is None
    assert not OllamaBackend(base_url="https://ollama.com").loads_models


def test_a_reload_keeps_what_is_known_of_runners_and_takes_the_new_windows(caller: Caller) -> None:
    models = [Installed("it", file="weights"), Installed("like-it", file="weights")]
    with FakeOllama(models) as ollama, Router([OllamaBackend("local", ollama.url)]) as router:
        caller.run(router.adiscover) if caller.mode == "async" else router.discover()
        before = router._state.tables.backends["local"]
        assert before.runner("like-it") == "it"
        same, narrow = OllamaBackend("local", ollama.url), {"it": Model(context_window=512)}
        same.learn_from(before)
        other = OllamaBackend("local", ollama.url, models=narrow)
        other.learn_from(before)
    assert same.runner("like-it") == "it"
    assert other.runner("like-it") == "like-it"


# -- Which servers load models


@pytest.mark.parametrize(
    ("backend", "loads"),
    [
        (OllamaBackend(), True),
        (preset("llamaswap"), True),
        (preset("llamacpp", memory_gb=24), True),
        (preset("localai", memory_gb=24), True),
        (preset("llamacpp"), False),
        (preset("vllm", max_concurrency=8), False),
        (OpenAIBackend(max_concurrency=8), False),
        (AnthropicBackend(max_concurrency=8), False),
    ],
    ids=str,
)
def test_a_switch_takes_time_only_where_the_server_loads_models(backend: Backend, loads: bool) -> None:
    assert backend.loads_models is loads


# -- Which models are loaded


@pytest.mark.parametrize(
    ("name", "target", "answer", "loaded"),
    [
        (  # https://github.com/mostlygeek/llama-swap/issues/471
            "llamaswap",
            "/running",
            {"running": [{"model": "a", "state": "ready"}, {"model": "b", "state": "starting"}]},
            ["a"],
        ),
        (
            "llamaswap",
            "/running",
            {},
            [],
        ),  # before its first call: https://github.com/mostlygeek/llama-swap/pull/65
        ("localai", "/system", {"backends": ["llama-cpp"], "loaded_models": [{"id": "a"}]}, ["a"]),
        ("localai", "/system", {"backends": [], "loaded_models": None}, []),
        (  # what is only listed is served, too: https://github.com/letta-ai/letta-code/issues/3493
            "llamacpp",
            "/v1/models",
            {
                "data": [
                    {
                        "id": "a",
                        "path": "/models/a.gguf",
                        "status": {"value": "loaded", "args": ["-c", "4096"]},
                    },
                    {"id": "b", "status": {"value": "unloaded", "failed": True, "exit_code": 1}},
                    {"id": "c", "status": {"value": "sleeping"}},
                ]
            },
            ["a"],
        ),
        ("vllm", "/v1/models", {"data": [{"id": "a", "max_model_len": 4096}]}, ["a"]),
    ],
)
def test_a_server_that_tells_which_models_are_loaded_is_understood(
    name: str, target: str, answer: Any, loaded: list[str]
) -> None:
    backend = preset(name)
    request = backend.loaded()
    assert request is not None
    assert (request.method, backend.target(request), backend.prepare(request)[0].target) == (
        "GET",
        target,
        target,
    )
    assert [model.name for model in backend.read_loaded(as_json(answer))] == loaded


def test_a_paid_api_is_not_asked_what_it_has_loaded() -> None:
    assert OpenAIBackend().loaded() is AnthropicBackend().loaded() is None


def test_a_listed_name_leads_to_its_runner() -> None:
    """Ollama lists a runner under the name that loaded it, whatever names have used it since."""
    backend = OllamaBackend()
    for model in ("coder", "coder-tools"):
        backend.read_details(shown(weights(WEIGHTS)), model)
    [loaded] = backend.read_loaded(as_json({"models": [{"name": "coder-tools:latest", "size": 7}]}))
    assert loaded == LoadedModel(name="coder-tools:latest", size=7)
    assert backend.runner(loaded.name) == backend.runner("coder")


# -- How one is freed


@pytest.mark.parametrize(
    ("backend", "model", "target", "body"),
    [
        (OllamaBackend(), "coder", "/api/chat", {"model": "coder", "messages": [], "keep_alive": 0}),
        (preset("llamacpp", memory_gb=24), "org/a:Q4", "/models/unload", {"model": "org/a:Q4"}),
        (
            preset("llamacpp", memory_gb=24, base_url="https://box.test/llama/v1"),
            "a",
            "/llama/models/unload",
            {"model": "a"},
        ),
        (preset("localai", memory_gb=24), "a", "/backend/shutdown", {"model": "a"}),
        (preset("llamaswap"), "org/a:Q4", "/api/models/unload/org%2Fa%3AQ4", None),
    ],
    ids=str,
)
def test_a_model_is_freed_without_generating(backend: Backend, model: str, target: str, body: Any) -> None:
    request = backend.unload(model)
    assert request is not None
    assert (request.method, backend.target(request)) == ("POST", target)
    assert (json.loads(request.body) if request.body else None) == body


@pytest.mark.parametrize(
    "backend",
    [preset("llamacpp"), preset("vllm", memory_gb=24), OpenAIBackend(), AnthropicBackend()],
    ids=str,
)
def test_where_nothing_can_be_freed_nothing_is_asked(backend: Backend) -> None:
    assert backend.unload("a") is None


# -- When keep_alive is sent


def sent(backend: OllamaBackend, model: str = "a") -> object:
    return json.loads(backend.encode(HI, model, False).body).get("keep_alive", "nothing")


@pytest.mark.parametrize("keep_alive", ["5m", -1, "1h30m", 300])
def test_keep_alive_is_left_out_where_several_models_share_a_host(
    keep_alive: str | int, caplog: pytest.LogCaptureFixture
) -> None:
    backend = OllamaBackend("mini", keep_alive=keep_alive)
    aliases = {"small": "mini/a", "big": "mini/b"}
    with Router([backend], {"small": "mini/a", "also": "mini/a:latest"}):
        assert sent(backend) == keep_alive
    with Router([backend], aliases):
        assert [sent(backend), sent(backend), sent(backend, "b")] == ["nothing"] * 3
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith(
        "mini: keep_alive is not sent, because several models are used at http://localhost"
    )
    assert "OLLAMA_KEEP_ALIVE" in warning


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", None])
def test_a_keep_alive_of_nothing_prolongs_nothing_and_is_sent(
    keep_alive: str | int | None, caplog: pytest.LogCaptureFixture
) -> None:
    backend = OllamaBackend("mini", keep_alive=keep_alive)
    with Router([backend], {"small": "mini/a", "big": "mini/b"}):
        assert sent(backend) == ("nothing" if keep_alive is None else keep_alive)
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "is_sent"),
    [
        ({"default_model": "mini/a"}, True),
        ({"default_model": "mini/a", "agents": {"x": Agent(model="mini/b")}}, False),
        ({"default_model": "mini/a", "agents": {"x": Agent(model="mini/a", fallback=["same/b"])}}, False),
        ({"default_model": "mini/a", "agents": {"x": Agent(model="else/b")}}, True),
        ({"default_model": "mini/a", "agents": {"x": Agent(model="mini/gpt-oss:120b-cloud")}}, True),
    ],
)
def test_a_host_is_shared_by_the_models_that_the_router_may_use_there(options: Any, is_sent: bool) -> None:
    mini = OllamaBackend("mini", keep_alive="5m")
    others = OllamaBackend("same", keep_alive="5m"), OllamaBackend("else", "http://10.0.0.7:11434")
    with Router([mini, *others], **options):
        assert sent(mini) == sent(others[0]) == ("5m" if is_sent else "nothing")
        assert not others[1].shares_host


def test_a_second_model_that_only_a_call_names_counts_too(caller: Caller) -> None:
    with FakeOllama(["a", "b"]) as ollama:
        with Router([OllamaBackend("mini", ollama.url, keep_alive="5m")]) as router:
            for model in ("a", "a:latest", "b", "a"):
                caller.complete(router, "hi", model=f"mini/{model}")
    assert [chat.get("keep_alive") for chat in ollama.chats] == ["5m", "5m", None, None]


def test_the_warning_is_not_repeated_after_a_reload(caplog: pytest.LogCaptureFixture) -> None:
    before, after = (OllamaBackend("mini", keep_alive="5m") for _ in range(2))
    for backend in (before, after):
        if backend is after:
            after.learn_from(before)
        backend.shares_host = True
        assert sent(backend) == "nothing"
    assert len(caplog.records) == 1
