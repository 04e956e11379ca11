"""Writes docs/ccroute.schema.json, the JSON Schema of the native shape, for editors: `python docs/schema.py`.

What a key may hold comes from `ccroute.config.native.settings`, what it means from the tables of
docs/configuration.md. Draft 7, because that is what editors know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccroute.backends import AnthropicBackend, OllamaBackend
from ccroute.backends.presets import PRESETS
from ccroute.backends.registry import registered
from ccroute.config.native.settings import BackendTable, Settings

DOCS = Path(__file__).parent
FILE = DOCS / "ccroute.schema.json"
KINDS = sorted({AnthropicBackend.kind, OllamaBackend.kind, *PRESETS})
VARIABLE = {"$ref": "#/definitions/Variable"}
DEFINITIONS = {
    "Variable": {
        "description": "A reference to an environment variable.",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}|^(env:|os\.environ/)[A-Za-z_][A-Za-z0-9_]*$",
    }
}
AMOUNT = {"type": "string", "pattern": r"^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"}

# The table of docs/configuration.md that describes the keys of a definition.
TABLES = {
    "Settings": "### All keys",
    "BackendTable": "\n`backends.<name>`",
    "ModelTable": "\n`backends.<name>.models.<model>`",
    "AgentTable": "\n`agents.<name>`",
    "GroupTable": "\n`agents.<name>`",
}
SHARED = {
    "RetryTable": "retry",
    "TimeoutTable": "timeout",
    "BudgetTable": "budgets",
    "PriceTable": "prices",
    "TierTable": "prices",
}


def schema() -> dict[str, Any]:
    made = Settings.model_json_schema(ref_template="#/definitions/{model}")
    definitions = made.pop("$defs")
    described = {"Settings": made, **definitions}
    for name, definition in described.items():
        definition["properties"] = {
            key: _with_variables(_plain(value)) for key, value in definition["properties"].items()
        }
        for key, text in _descriptions(name):
            if key in definition["properties"]:
                definition["properties"][key] = {"description": text, **definition["properties"][key]}
        definition.pop("title", None)
    _add_kinds(made, definitions["BackendTable"])
    above = definitions["PriceTable"]["properties"]["above"]
    above["propertyNames"] = {"pattern": "^[0_]*[1-9][0-9_]*$"}
    made["properties"] = {"$schema": {"type": "string"}, **made["properties"]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ccroute",
        **made,
        "definitions": DEFINITIONS | definitions,
    }


def _plain(node: Any) -> Any:
    """A part of a schema without pydantic's titles and defaults, which are not the router's."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: _plain(value) for key, value in node.items() if key not in {"title", "default"}}


def _with_variables(node: Any) -> Any:
    """A part of a schema in which a variable may stand for every number, switch and word."""
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        is_amount = any(each.get("type") == "number" for each in node["anyOf"])
        found: list[Any] = []
        for choice in node["anyOf"]:
            new = AMOUNT if is_amount and choice == {"type": "string"} else _with_variables(choice)
            found += [each for each in new.get("anyOf", [new]) if each not in found]
        return {**node, "anyOf": found}
    parts = {key: _with_variables(node[key]) for key in ("items", "additionalProperties") if key in node}
    is_scalar = node.get("type") in {"number", "integer", "boolean"} or "enum" in node or "const" in node
    return {"anyOf": [{**node, **parts}, VARIABLE]} if is_scalar else {**node, **parts}


def _add_kinds(made: dict[str, Any], backend: dict[str, Any]) -> None:
    """Which keys a backend takes depends on its kind. One of a user's own takes any, if `kind` names it."""
    always, known = {"kind", "enabled", "models"}, set(BackendTable.keys())
    own = {kind: sorted(always | registered()[kind].options & known) for kind in KINDS}
    kind = backend["properties"]["kind"]
    kind["anyOf"] = [{"enum": KINDS}, *kind["anyOf"]]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, keys in own.items():
        groups.setdefault(tuple(keys), []).append(name)
    backend["allOf"] = [
        _limited({"properties": {"kind": {"enum": kinds}}, "required": ["kind"]}, [*keys])
        for keys, kinds in groups.items()
    ]
    without_kind = {"not": {"required": ["kind"]}}
    backends = made["properties"]["backends"]
    table = backends["additionalProperties"]
    backends["properties"] = {
        name: {"allOf": [table, _limited(without_kind, keys)]} for name, keys in own.items()
    }
    backends["additionalProperties"] = {"allOf": [table, _limited(without_kind, sorted(known))]}


def _limited(condition: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    return {"if": condition, "then": {"propertyNames": {"enum": keys}}}


def _descriptions(name: str) -> Iterator[tuple[str, str]]:
    """The keys of a definition that the docs describe, with their descriptions."""
    if name in TABLES:
        rows = [(keys, *rest) for keys, *rest in _rows(TABLES[name])]
    else:
        shared = _rows("`groups.<name>` takes")
        rows = [(keys, *rest) for table, keys, *rest in shared if SHARED.get(name, "-") in table]
    for keys, meaning, default, unit in rows:
        text = f"{meaning[0].upper()}{meaning[1:]}."
        text += f" Default: {default}." if default else ""
        text += f" Unit: {unit}." if unit else ""
        text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text).replace("`", "")
        yield from ((key, text) for key in re.findall(r"`(\w+)`", keys))


def _rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a text."""
    page = (DOCS / "configuration.md").read_text("utf-8")
    table = page.partition(heading)[2].partition("| --- ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()[1:]]


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
