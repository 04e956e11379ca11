"""The public names and signatures, and what importing them does not do."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import ccroute
from ccroute import Router

PACKAGES = ["ccroute", "ccroute.accounting", "ccroute.backends", "ccroute.observe", "ccroute.types"]
METHODS = ["complete", "acomplete", "stream", "astream", "explain"]


def test_all_is_sorted_and_every_name_in_it_exists() -> None:
    assert ccroute.__all__ == sorted(ccroute.__all__)
    assert all(hasattr(ccroute, name) for name in ccroute.__all__)


def test_a_public_name_is_loaded_at_its_first_use() -> None:
    code = """
import ccroute, sys
assert "pydantic" not in sys.modules
assert ccroute.Router is ccroute.Router and "httpcore" not in sys.modules
assert issubclass(ccroute.errors.ConfigError, Exception) and set(dir(ccroute)) == set(ccroute.__all__)
try: ccroute.Rooter
except AttributeError as error: assert "Rooter" in str(error)
else: raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_router_loads_only_what_it_uses() -> None:
    code = """
import ccroute, sys
ccroute.Router([ccroute.OpenAIBackend(base_url="http://localhost/v1")], {"fast": "openai/m"})
others = {"ccroute.backends.ollama", "ccroute.backends.registry", "ccroute.wire.anthropic"}
rare = {"ccroute.observe.events", "ccroute.wire.schemas", "httpx", "tenacity"}
rare |= {"ccroute.flow.explain", "ccroute.flow.listings", "ccroute.types.inspection"}
rare |= {"ccroute.accounting.stores.custom", "ccroute.routing.rate_limits.window"}
assert not sys.modules.keys() & (others | rare), sys.modules.keys() & (others | rare)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_threads_may_be_the_first_to_use_a_result_class() -> None:
    code = """
import sys, threading
from ccroute.types import Choice, Chunk, Completion, Usage
sys.setswitchinterval(1e-6)
failed, together = [], threading.Barrier(8)
def use(i):
    together.wait()
    try:
        Chunk(text="a", usage=Usage(input=1)).model_dump() if i % 2 else Completion(choices=(Choice(),))
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_its_names_and_no_others(package: str) -> None:
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Rooter'"):
        module.Rooter  # noqa: B018


def test_the_lazy_names_are_the_public_ones() -> None:
    assert sorted([*ccroute._HOME, "__version__"]) == ccroute.__all__


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_of_a_call_take_the_same_parameters(method: str) -> None:
    one, other = (inspect.signature(getattr(Router, name)).parameters for name in ("complete", method))
    assert list(one) == list(other)
    assert [(p.kind, p.default) for p in one.values()] == [(p.kind, p.default) for p in other.values()]


@pytest.mark.parametrize("method", ["complete_many", "acomplete_many"])
def test_a_batch_takes_the_keywords_of_a_call_for_all_its_requests(method: str) -> None:
    many, calling = (inspect.signature(getattr(Router, name)).parameters for name in (method, "complete"))
    assert list(many)[:4] == ["self", "requests", "concurrency", "on_progress"]
    assert many.keys() - {"requests", "concurrency", "on_progress"} == calling.keys() - {"prompt"}
    assert all(each.kind is each.KEYWORD_ONLY for each in list(many.values())[2:])


def test_counting_tokens_takes_the_keywords_of_a_call() -> None:
    counting, calling = (inspect.signature(getattr(Router, name)) for name in ("count_tokens", "complete"))
    assert counting.parameters.keys() == calling.parameters.keys()
    assert list(counting.parameters)[:2] == ["self", "prompt"]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(counting.parameters.values())[2:])
    assert counting.return_annotation == "int"


def test_the_signature_shows_every_option_as_a_keyword() -> None:
    parameters = inspect.signature(Router.complete).parameters
    assert list(parameters)[:2] == ["self", "prompt"]
    shown = {"messages", "system", "response_format", "agent", "model", "timeout", "fallback", "extra"}
    assert shown <= set(parameters)
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name not in {"self", "prompt"})


def test_an_import_opens_starts_logs_and_reads_nothing() -> None:
    code = """
import os, sys, threading, socket, logging
import httpx, pydantic, httpcore, anyio, tenacity  # theirs is theirs
allowed = threading.active_count(), list(logging.getLogger().handlers)
opened, looked_up = [], []
outward = ("socket.", "subprocess.")
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith(outward) else None)
def note(name):
    if sys._getframe(2).f_globals["__name__"].startswith("ccroute"): looked_up.append(name)
class Spy(dict):
    def __getitem__(self, name): note(name); return super().__getitem__(name)
    def get(self, name, default=None): note(name); return super().get(name, default)
os.environ = Spy(os.environ)
import ccroute
assert not opened, opened
assert not looked_up, looked_up
assert (threading.active_count(), list(logging.getLogger().handlers)) == allowed
assert not logging.getLogger("ccroute").handlers
assert not {"ccroute.config", "ccroute.serve"} & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
