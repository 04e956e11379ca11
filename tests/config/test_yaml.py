"""YAML is read as LiteLLM's own reader does, but exactly, and with the place of each fault."""

import datetime
import math
import subprocess
import sys
from decimal import Decimal
from textwrap import dedent

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ccroute.config import load
from ccroute.config.reading.source import Source
from ccroute.config.reading.yaml_text import YamlError, read_yaml


def read(text):
    return read_yaml(dedent(text), Source("x"))


def test_a_native_file_in_yaml_is_loaded(write):
    path = write(
        "ccroute.conf",
        dedent("""
            # health: off is false in YAML 1.1
            health: off
            backends:
              local: &ollama
                kind: ollama
                keep_alive: -1
              other:
                <<: *ollama
                base_url: http://localhost:11435
            aliases:
              4: local/qwen
              on: other/qwen
            prices:
              m: {input: 1, output: 2, above: {200_000: {input: 0.1, output: 1e-1}}}
            agents:
              python-expert: 4o
        """).replace("4o", "'4'"),
    )
    options = load(path, {})
    assert options["health"] == "off"
    assert options["aliases"].resolve("4").deployments == ("local/qwen",)
    assert options["aliases"].resolve("on").deployments == ("other/qwen",)
    assert [backend.keep_alive for backend in options["backends"]] == [-1, -1]
    assert options["prices"]["m"].tier(300_000).input == Decimal("0.1")
    assert options["prices"]["m"].tier(300_000).output == Decimal("0.1")


def test_an_orchestra_file_in_yaml_is_loaded(write):
    path = write(
        "x.yaml", "coders:\n  python-expert:\n    model: sonnet\n    baseUrl: http://localhost:11434\n"
    )
    assert load(path, {})["aliases"].resolve("sonnet").deployments == ("ollama/sonnet",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.000003", Decimal("0.000003")),
        ("1e-6", Decimal("0.000001")),
        ("1.5e-06", Decimal("0.0000015")),
        ("0.1", Decimal("0.1")),
        ("1_000.5", Decimal("1000.5")),
        ("1:30.5", Decimal("90.5")),
        (".inf", math.inf),
        ("'1e-6'", "1e-6"),
        ("123e4567", "123e4567"),
        ("010", 8),
        ("0x10", 16),
        ("1:30", 90),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("!!str 5", "5"),
        ("! 5", 5),
        ("!!float 5", Decimal(5)),
        ("=", "="),
        ("2024-06-01", datetime.date(2024, 6, 1)),
        ("2024-06-01-preview", "2024-06-01-preview"),
    ],
)
def test_a_value_is_what_yaml_1_1_says_and_exact(text, value):
    found = read(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


def test_merged_tables_are_read_as_yaml_does():
    text = """
        a: &a {x: 1, y: 1}
        b: &b {y: 2, z: 2}
        c: {<<: *a, x: 3}
        d: {x: 4, <<: [*a, *b]}
    """
    assert read(text) == yaml.safe_load(dedent(text))


def test_a_key_may_be_an_anchor():
    text = "&a x: 1\nb: {*a : 2}\n"
    assert read(text) == yaml.safe_load(text) == {"x": 1, "b": {"x": 2}}


def test_a_key_twice_is_a_fault_with_its_place(write, faults):
    path = write("x.yaml", "agents:\n  x: {model: a, model: b}\nretry: {}\nretry: {}\nz: [{1: 2, '1': 3}]\n")
    assert {fault for fault in faults(path) if "twice" in fault} == {
        "agents.x.model: is there twice",
        "retry: is there twice",
        "z[0].1: is there twice",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2\nb: 3", "did not find expected ',' or ']' (line 2, column 2)"),
        ("a: b: c", "mapping values are not allowed in this context (line 1, column 5)"),
        ("a: 1\n\tb: 2", "found a tab character that violates indentation (line 2, column 1)"),
        ("a: *secret", "there is no anchor of that name (line 1, column 4)"),
        ("a: &a [*a]", "an anchor refers to itself (line 1, column 8)"),
        ("a: &a {<<: *a}", "an anchor refers to itself (line 1, column 12)"),
        ("a: !!set {x}", "the tag !!set is not read (line 1, column 4)"),
        ("a: !!binary c2s=", "the tag !!binary is not read (line 1, column 4)"),
        ("a: !!python/name:os.system ''", "the tag !!python/name:os.system is not read (line 1, column 4)"),
        ("a: !Ref x", "the tag !Ref is not read (line 1, column 4)"),
        ("a: !!int sk-0123", "this is no int (line 1, column 4)"),
        ("a: 2024-13-01", "this is no timestamp (line 1, column 4)"),
        ("a: {<<: 5}", "<< takes a table, or a list of tables (line 1, column 5)"),
        ("a: {[1]: 2}", "a key should be a string (line 1, column 5)"),
        ("a: &a {}\nb: {*a : 1}", "a key should be a string (line 2, column 5)"),
        ("a: 1\n---\nb: 1", "there is a second document; a file is one (line 2, column 1)"),
        ("a: " + "[" * 50_000, "it is nested too deeply (line 1, column 104)"),
        ("a: x\x07", "the character U+0007 is not allowed"),
    ],
)
def test_what_is_not_read_is_a_fault_with_line_and_column(write, faults, text, says):
    assert faults(write("x.yaml", text)) == (f"x.yaml: is not YAML: {says}",)


def test_a_fault_never_repeats_a_value(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)  # its messages repeat less
    for text in ("a: !sk-0123!x b", "a: %sk-0123", "a: 'sk-0123", "a: @sk-0123", "*sk-0123", "a: {sk-0123"):
        with pytest.raises(YamlError) as caught:
            read(text)
        assert "sk-0123" not in str(caught.value)


def test_anchors_cannot_make_a_file_huge():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    with pytest.raises(YamlError, match="its anchors make it too large"):
        read(bomb)


def test_a_date_where_a_text_belongs_is_a_fault(write, faults):
    path = write(
        "x.yaml", "backends:\n  a:\n    kind: azure\n    base_url: http://x.test\n    api_version: 2024-06-01"
    )
    assert faults(path) == ("backends.a.api_version: is a date or a time in this format: put it in quotes",)


def test_without_pyyaml_the_fault_says_what_to_install(write, faults, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert faults(write("x.yaml", "model_list: []")) == (
        "x.yaml: is YAML, which needs PyYAML: pip install 'ccroute[yaml]'",
    )
    assert faults(write("y.conf", "some words"))[0].startswith("y.conf: is not TOML, and no JSON object: ")


def test_importing_ccroute_does_not_import_yaml():
    code = "import sys, ccroute; raise SystemExit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def plain(value):
    """What `yaml.safe_load` gives, of what `read_yaml` gives."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


def with_texts_as_keys(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    keys = value if isinstance(value, dict) else ()
    return all(isinstance(key, str) for key in keys) and all(map(with_texts_as_keys, inner))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(values, st.sampled_from([None, True, False]))
def test_every_document_reads_as_safe_load_reads_it(value, flow):
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert plain(read_yaml(text, Source("x"))) == yaml.safe_load(text)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "b: ",
                "- ",
                "\n",
                "  ",
                "&x ",
                "*x",
                "<<: ",
                "{",
                "}",
                "[",
                ",",
                "]",
                "!t ",
                "'",
                "1",
                "? ",
                "|",
                "---",
                "# ",
            ]
        ),
        max_size=14,
    ).map("".join)
)
@example("a: &x {b: 1}\nc: {<<: *x, b: 2}")
def test_any_text_reads_as_safe_load_reads_it_or_is_a_fault(text):
    source = Source("x")
    try:
        found = read_yaml(text, source)
    except YamlError:
        return
    try:
        expected = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        assert "<<" in text  # a key of that name counts only where it is plain
        return
    if not source.faults and with_texts_as_keys(expected):
        assert plain(found) == expected
