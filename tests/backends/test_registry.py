"""Backends of others in configuration files: by registration, or by a package's entry point."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.flow.support import PlainBackend

from ccroute import OllamaBackend
from ccroute.backends import Backend, register, registry
from ccroute.config import load
from ccroute.errors import ConfigError

Publish = Callable[..., None]


@pytest.fixture(autouse=True)
def kinds_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a package on the path as if it were installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def published(package: str, points: str, code: str = "") -> None:
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[ccroute.backends]\n{points}\n")
        (tmp_path / f"{package}.py").write_text(code)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return published


CODE = """
from tests.flow.support import PlainBackend

class Own(PlainBackend):
    kind = "own"

    def __init__(self, name, *, base_url=None, region="eu", **options):
        super().__init__(name, **options)
        self.region = region
"""


def made(table: dict[str, Any], env: dict[str, str] | None = None) -> Any:
    [backend] = load({"backends": {"own": table}}, env or {})["backends"]
    return backend


def test_a_registered_class_is_a_kind_of_a_file() -> None:
    @register
    class Own(PlainBackend):
        kind = "own"
        default_url = "http://own.test"
        key_variable = "OWN_KEY"

    backend = made({"timeout": 5}, {"OWN_KEY": "made-up-key-1"})
    assert (type(backend), backend.name, backend.secrets()) == (Own, "own", ("made-up-key-1",))
    assert made({"api_key": "made-up-key-2"}).secrets() == ("made-up-key-2",)


def test_a_kind_with_a_prefix_needs_no_table() -> None:
    @register
    class Own(PlainBackend):
        kind = "own"
        model_prefixes = ("own/",)

    options = load({"default_model": "own/m"}, {})
    assert [type(backend) for backend in options["backends"]] == [Own]


def test_a_packages_kind_is_a_type_of_a_gateways_provider(publish: Publish) -> None:
    publish("one", "own = one:Own", CODE)
    provider = {"providerType": "Own", "baseUrl": "http://own.test"}
    [backend] = load({"llmGateway": {"providers": {"x": provider}}}, {})["backends"]
    assert (type(backend).__name__, backend.name) == ("Own", "x")


def test_a_class_is_registered_under_a_kind_of_its_own() -> None:
    class Nameless(PlainBackend):
        pass

    class Taken(OllamaBackend):
        pass

    with pytest.raises(ConfigError, match="Nameless has no kind: set the class attribute kind"):
        register(Nameless)
    with pytest.raises(ConfigError, match='the kind "ollama" is taken'):
        register(Taken)


def test_a_class_may_be_defined_again_as_notebooks_do() -> None:
    def cell() -> type[Backend]:
        @register
        class Own(PlainBackend):
            kind = "own"

        return Own

    first, second = cell(), cell()
    assert first is not second
    assert type(made({})) is second


def test_an_installed_package_is_loaded_when_a_file_names_it(publish: Publish) -> None:
    publish("ccroute_own", "own = ccroute_own:Own", CODE)
    load({"backends": {"x": {"kind": "ollama"}}}, {})
    assert "ccroute_own" not in sys.modules
    backend = made({"kind": "own", "region": "us"})
    assert (type(backend).__module__, backend.region) == ("ccroute_own", "us")


def test_a_kinds_own_keyword_is_a_key_of_its_tables_only(publish: Publish) -> None:
    publish("ccroute_own", "own = ccroute_own:Own", CODE)
    with pytest.raises(ConfigError) as caught:
        load({"backends": {"own": {"regin": "us"}, "x": {"kind": "vllm", "region": "us"}}}, {})
    assert caught.value.faults == (
        "backends.own.regin: unknown key",
        "backends.x.region: unknown key",
    )


def test_a_class_that_refuses_its_table_is_a_fault_with_its_place(publish: Publish) -> None:
    publish("ccroute_own", "own = ccroute_own:Own", CODE.replace('region="eu"', "region"))
    with pytest.raises(ConfigError, match=r"^backends\.own: .*missing 1 required .* 'region'"):
        made({})


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import not_installed_here", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("Own = 5", "TypeError: ccroute_own:Own is no subclass of ccroute.Backend"),
        (CODE.replace('"own"', '"other"'), 'TypeError: ccroute_own:Own has the kind "other"'),
    ],
)
@pytest.mark.parametrize("kind", [{"kind": "own"}, {}])
def test_a_broken_package_is_named(publish: Publish, code: str, why: str, kind: dict[str, str]) -> None:
    publish("ccroute_own", "own = ccroute_own:Own", code)
    with pytest.raises(ConfigError) as caught:
        made(kind)
    [fault] = caught.value.faults
    assert fault == (
        f'backends.own{".kind" if kind else ""}: "own" is a kind of the package ccroute_own 1.2, '
        f"which cannot be loaded ({why}): update or uninstall it"
    )


def test_two_packages_cannot_give_one_kind(publish: Publish) -> None:
    publish("ccroute_own", "own = ccroute_own:Own", CODE)
    publish("ccroute_too", "own = ccroute_too:Own", CODE)
    with pytest.raises(ConfigError, match=r"ccroute_own 1\.2 and the package ccroute_too 1\.2: uninstall"):
        made({})


def test_no_package_takes_the_place_of_a_kind_of_ccroute(publish: Publish) -> None:
    publish("ccroute_own", "ollama = ccroute_own:Own", CODE)
    [backend] = load({"backends": {"ollama": {}}}, {})["backends"]
    assert type(backend) is OllamaBackend


def test_the_error_of_an_unknown_kind_names_package_kinds(publish: Publish) -> None:
    publish("ccroute_own", "owned = ccroute_own:Own", "raise SystemExit('it is not loaded')")
    with pytest.raises(ConfigError) as caught:
        made({"kind": "ownd", "api_version": 5, "keep_aliv": "5m"})
    first, *others = caught.value.faults
    assert first.startswith(
        'backends.own.kind: unknown kind "ownd", did you mean "owned"?; the kinds are anthropic'
    )
    assert others == [
        "backends.own.api_version: should be a valid string",
        'backends.own.keep_aliv: unknown key, did you mean "keep_alive"?',
    ]


def test_importing_ccroute_looks_for_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(**_: object) -> None:
        raise AssertionError("it looked")

    monkeypatch.setattr(importlib.metadata, "entry_points", looked)
    load({"backends": {"x": {"kind": "vllm"}}, "default_model": "openai/m"}, {})
