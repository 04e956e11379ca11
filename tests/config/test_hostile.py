"""Files that are too large, too deep, or written to do harm: a fault at once, with nothing that acts on a
terminal."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ccroute import Router
from ccroute.config import load
from ccroute.errors import ConfigError
from ccroute.types import Price

ESCAPE = "\x1b[31m\u202eevil\n"
SHOWN = r"\x1b[31m\u202eevil\n"
BACKENDS = {"local": {"kind": "ollama"}}


def deep(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels):
        table = {"a": table}
    return table


def cyclic(kind: type[list[Any] | dict[Any, Any]]) -> Any:
    value: Any = kind()
    if kind is dict:
        value["a"], value["b"] = value, [value, value]
    else:
        value += [value, value]
    return value


@pytest.mark.parametrize("key", ["backends", "agents", "model_list", "x"])
@pytest.mark.parametrize(
    "value",
    [deep(3000), deep(100), cyclic(dict), cyclic(list)],
    ids=["very deep", "deep", "in itself", "list in itself"],
)
def test_a_mapping_that_is_too_deep_or_cyclic_is_a_fault(faults, key, value):
    assert faults({key: value}) == ("source: is nested too deeply",)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "[" * 500 + "]" * 500 + "}",
        "[" + ".".join("a" * 20_000) + "]",
        "a: " + "[" * 95 + "{a: [[[[[[1]]]]]]}" + "]" * 95,
    ],
    ids=["json", "toml", "yaml"],
)
def test_a_file_that_is_too_deep_is_a_fault(write, faults, text):
    (fault,) = faults(write("x.conf", text))
    assert "nested too deeply" in fault


def test_a_file_without_end_is_a_fault(faults):
    assert faults("/dev/zero") == ("zero: cannot be read: it is larger than 16 MB",)


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b"])
def test_what_can_be_no_path_is_a_fault(faults, path):
    (fault,) = faults(path)
    assert fault.endswith("is no path")
    assert fault.isprintable()


def test_a_name_cannot_control_the_terminal_that_shows_a_fault(faults, write):
    found = faults(
        {
            ESCAPE: 1,
            "backends": {**BACKENDS, ESCAPE: {"kind": ESCAPE}},
            "agents": {ESCAPE: {"model": "nowhere", ESCAPE: 2}},
        }
    )
    assert f"{SHOWN}: unknown key" in found
    assert all(fault.isprintable() for fault in found)
    (fault,) = faults(write("\x1b[2Jx.toml", "[x"))
    assert fault.startswith(r"\x1b[2Jx.toml: is not TOML")


def test_a_name_cannot_control_the_terminal_that_shows_the_log(caplog):
    caplog.set_level("INFO")
    source = {"backends": BACKENDS, "prices": {ESCAPE: {"input": 1e-7, "output": 1}}}
    with Router.from_config({**source, "aliases": {ESCAPE: "local/x"}}, env={}) as router:
        router.reload({**source, "agents": {ESCAPE: {"model": "local/x"}}})
    assert caplog.messages[0].startswith(f"config: prices.{SHOWN}")
    assert f"added agents.{SHOWN}; removed aliases.{SHOWN}" in caplog.messages[-1]
    assert all(message.isprintable() for message in caplog.messages)


def test_half_a_character_in_a_key_is_a_fault(write, faults):
    path = write(
        "x.json", r'{"backends": {"local": {"kind": "ollama"}}, "\ud800": 1, "agents": {"\udfff": {}}}'
    )
    assert faults(path) == (
        r"\ud800: a key should be a string",
        r"agents.\udfff: a key should be a string",
    )


@pytest.mark.parametrize("written", ["!sk-0123", "!0123abcd", "!abcdefghijklmnop", "!p%40ss"])
def test_a_tag_that_may_be_a_secret_is_not_shown(write, faults, written):
    (fault,) = faults(write("x.yaml", f"api_key: {written}\n"))
    assert fault == "x.yaml: is not YAML: a tag (!…) is not read (line 1, column 10)"


@pytest.mark.parametrize("written", ["${sk-ant-SECRET1", "${sk-SECRET1}", "env:sk-SECRET1"])
def test_a_key_in_the_place_of_a_variables_name_is_not_shown(faults, written):
    (fault,) = faults({"backends": {"x": {"kind": "openai", "api_key": written}}})
    assert fault.endswith("write ${NAME}")


@pytest.mark.parametrize("end", ["", "}"])
def test_references_that_never_end_are_read_in_linear_time(end):
    begun = time.monotonic()
    with pytest.raises(ConfigError):
        load({"backends": BACKENDS, "default_model": "${A:-" * 50_000 + end}, {})
    assert time.monotonic() - begun < 5


def test_aliases_with_very_many_paths_are_read_in_linear_time():
    aliases = {f"{x}{i}": [f"a{i + 1}", f"b{i + 1}"] for i in range(45) for x in "ab"}
    options = load({"backends": BACKENDS, "aliases": {**aliases, "a45": "local/x", "b45": "local/y"}}, {})
    assert options["aliases"].resolve("a0").weights == (2.0**44, 2.0**44)


def test_thousands_of_wrong_names_are_read_in_linear_time(faults):
    aliases = {f"a{i}": f"local/m{i}" for i in range(3000)}
    agents = {f"g{i}": {"model": f"b{i}"} for i in range(3000)}
    found = faults({"backends": BACKENDS, "aliases": aliases, "agents": agents})
    assert len(found) == 3000


@pytest.mark.parametrize("price", ["1e400000000", "1e999", 10**9 + 1])
def test_a_price_that_no_sum_can_hold_is_a_fault(faults, price):
    (fault,) = faults({"backends": BACKENDS, "prices": {"local/x": {"input": price, "output": 0}}})
    assert fault == "prices.local/x.input: should be less than or equal to 1000000000"
    with pytest.raises(ValueError, match="at most 1000000000 USD per million tokens"):
        Price(price, 0)
