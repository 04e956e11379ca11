"""docs/ccroute.schema.json describes the native shape, for editors: all of it, and nothing else."""

import json
import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from docs.schema import FILE, KINDS, text
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import ValidationError
from tests.config.test_mutations import NATIVE, mutated

from ccroute.config import load
from ccroute.config.native.checking import checked_settings
from ccroute.config.native.settings import NOT_YET, Settings
from ccroute.config.reading.source import Source

DOCS = FILE.parent
SCHEMA = json.loads(FILE.read_text("utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)
FENCE = re.compile(r"^```(toml|json)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What a schema cannot say, or says of all kinds: a user's own kind may be any word and take any key.
BEYOND = re.compile(r"control characters|not blank|unknown kind|must be|may not hold|cannot be|no time zone")


def strictly(document: dict[str, Any]) -> bool:
    """Whether settings accept the document without any conversion, such as of the text "5" to a number."""
    try:
        Settings.model_validate_json(json.dumps(document), strict=True)
    except ValidationError:
        return False
    return True


def faults(document: dict[str, Any]) -> list[tuple[str, str]]:
    source = Source("")
    checked_settings(deepcopy(document), source)
    return source.faults


def test_the_file_is_what_the_settings_and_the_docs_give():
    assert FILE.read_text("utf-8") == text(), "run: python docs/schema.py"


def test_it_is_a_schema():
    Draft7Validator.check_schema(SCHEMA)


def native_examples():
    for page in sorted(DOCS.glob("*.md")):
        for language, block in FENCE.findall(page.read_text("utf-8")):
            example = tomllib.loads(block) if language == "toml" else json.loads(block)
            if "project" not in example:  # a package's pyproject.toml
                yield page.name, example


@pytest.mark.parametrize(("page", "example"), list(native_examples()))
def test_every_native_example_of_the_docs_is_valid(page, example):
    assert [error.message for error in VALIDATOR.iter_errors(example)] == []


@given(mutated(NATIVE))
def test_it_accepts_what_settings_accept_and_nothing_else(document):
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        return
    errors = [error.message for error in VALIDATOR.iter_errors(document)]
    found = faults(document)
    if strictly(document) and not found:
        assert errors == []
    kinds = (
        [table.get("kind") for table in document.get("backends", {}).values() if isinstance(table, dict)]
        if isinstance(document.get("backends"), dict)
        else []
    )
    if (
        not errors
        and "UNSET_VARIABLE" not in json.dumps(document)
        and all(kind in {*KINDS, None} for kind in kinds)
    ):
        assert [fault for fault in found if not BEYOND.search(fault[1])] == []


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ((), "agnts"),
        (("backends", "local"), "base_ulr"),
        (("backends", "local"), "api_version"),
        (("backends", "anthropic"), "keep_alive"),
        (("backends", "local", "models", "qwen:7b"), "context"),
        (("backends", "local", "timeout"), "all"),
        (("agents", "architect"), "modle"),
        (("agents", "architect", "params"), "temprature"),
        (("groups", "leads"), "group"),
        (("aliases", "steady"), "weights"),
        (("retry",), "tries"),
        (("timeout",), "read"),
        (("prices", "gemini-2.5-pro"), "cached"),
    ],
)
def test_an_unknown_key_is_refused_at_every_place(place, key):
    document = deepcopy(NATIVE)
    holder: Any = document
    for step in place:
        holder = holder[step]
    assert VALIDATOR.is_valid(document)
    holder[key] = 1
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    "part",
    [
        {"agents": {"x": "m", "y": {"model": "m", "fallback": "n", "triggers": "budget"}}},
        {"agents": {"x": {"fallback": ["a", {"model": "b", "triggers": ["budget"]}]}}},
        {
            "prices": {
                "m": "free",
                "n": {"input": "0.075", "output": 1, "above": {"200000": {"input": 1, "output": 2}}},
            }
        },
        {
            "timeout": 30,
            "backends": {"ollama": {"timeout": {"total": "off", "idle": None}, "max_concurrency": "off"}},
        },
        {
            "aliases": {
                "a": "b/c",
                "b": ["b/c"],
                "c": {"b/c": 1},
                "d": {"targets": {"b/c": 2}, "strategy": "ordered"},
            }
        },
        {
            "retry": {"attempts": "${N:-3}"},
            "health": "env:HEALTH",
            "trust_env": "os.environ/TRUST",
            "timeout": "${T}",
        },
        {"backends": {"mine": {"kind": "my-own", "anything": [1]}}},
        {"$schema": "./ccroute.schema.json", "default_model": "ollama/x"},
        {
            "budgets": {"router": {"usd": "${LIMIT}"}, "x": {"tokens": 5, "per": "session"}},
            "agents": {"x": {"budget": {"usd": "0.5", "then": "queue", "tz": "Europe/Berlin"}}},
        },
    ],
)
def test_every_form_of_a_value_is_accepted(part):
    assert [error.message for error in VALIDATOR.iter_errors(part)] == []


@pytest.mark.parametrize(
    "part",
    [
        {"timeout": "soon"},
        {"timeout": 0},
        {"health": "perhaps"},
        {"prices": {"m": "cheap"}},
        {"prices": {"m": {"input": 1}}},
        {"prices": {"m": {"input": 1, "output": 1, "above": {"many": {"input": 1, "output": 1}}}}},
        {"aliases": {"a": 5}},
        {"agents": {"x": {"triggers": ["never"]}}},
        {"backends": {"anthropic": {"keep_alive": "5m"}}},
        {"backends": {"local": {"kidn": "ollama"}}},
        {"budgets": {"router": {"usd": -1}}},
        {"budgets": {"router": {"usd": 1, "per": "week"}}},
        {"groups": {"g": {"budget": 5}}},
        {"groups": {"g": {"budget": {"per": "day"}}}},
        {"groups": {"g": {"budget": {"usd": None}}}},
    ],
)
def test_a_wrong_value_is_refused(part):
    assert not VALIDATOR.is_valid(part)


def test_each_key_has_a_description_from_the_docs():
    described = {"Settings": SCHEMA, **SCHEMA["definitions"]}
    missing = {
        (name, key)
        for name in (
            "Settings",
            "BackendTable",
            "ModelTable",
            "AgentTable",
            "RetryTable",
            "TimeoutTable",
            "PriceTable",
            "BudgetTable",
        )
        for key, found in described[name]["properties"].items()
        if "description" not in found
    }
    assert missing == {("Settings", key) for key in ("$schema", *NOT_YET)}


def test_an_editors_key_in_a_json_file_is_ignored(write):
    path = write("ccroute.json", '{"$schema": "./ccroute.schema.json", "default_model": "ollama/x"}')
    assert load(Path(path), {})["default_model"] == "ollama/x"


def test_kinds_are_offered_by_name():
    assert SCHEMA["definitions"]["BackendTable"]["properties"]["kind"]["anyOf"][0] == {"enum": KINDS}


@given(st.sampled_from(KINDS))
def test_each_kind_may_stand_alone(kind):
    assert VALIDATOR.is_valid({"backends": {kind: {}}})
