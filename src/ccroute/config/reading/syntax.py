"""Reads a file's text as JSON, TOML or YAML, whichever it is.

Knows syntax, must not know what a key means.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ccroute.config.reading.other_tools import looks_like_text
from ccroute.config.reading.yaml_text import YamlError, read_yaml

if TYPE_CHECKING:
    from ccroute.config.reading.source import Place, Source

# A line that only YAML has at a file's beginning: `key:`, `- item`, `---`.
_YAML = re.compile(r"""(?:["']?[\w$./ -]+["']?:(?:\s|$)|- |---|%YAML)""")
_TABLE = 'a file is one table, such as {"backends": {…}}'


def parse(text: str, source: Source) -> Mapping[str, Any]:
    """The table that a text holds. What is wrong with it goes to `source`; then the table is empty.

    The text is JSON if it starts with a brace, which no TOML does; else TOML; else YAML.
    """
    try:
        # Decimal keeps the amount as it is written: 0.1 is a tenth.
        if text.lstrip().startswith("{"):
            return _json(text, source)
        return tomllib.loads(text, parse_float=Decimal)
    except RecursionError:
        source.fault_file("is nested too deeply")
        return {}
    except ValueError as error:
        if text.lstrip().startswith("{"):
            source.fault_file(f"is not JSON: {error}")
            return {}
        no_toml = str(error)
    if (looks := looks_like_text(text)) is not None:
        source.fault_file(looks)
        return {}
    return _yaml(text, source, no_toml)


def _yaml(text: str, source: Source, no_toml: str) -> Mapping[str, Any]:
    """The table of a text that is no TOML, for the reason `no_toml`."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    is_meant = _YAML.match(next(lines, "")) is not None
    neither = f"is not TOML, and no JSON object: {no_toml}"
    try:
        content = read_yaml(text, source)
    except ImportError:
        advice = "is YAML, which needs PyYAML: pip install 'ccroute[yaml]'"
        source.fault_file(advice if is_meant else neither)
    except YamlError as error:
        source.fault_file(f"is not YAML: {error}" if is_meant else neither)
    else:
        if isinstance(content, dict):
            return content
        what = "a list" if isinstance(content, list) else "one value"
        source.fault_file(f"holds {what}; {_TABLE}" if is_meant or isinstance(content, list) else neither)
    return {}


def _json(text: str, source: Source) -> dict[str, Any]:
    """The content. A key that is twice in an object is a fault, because one of its values is lost."""
    twice: list[tuple[dict[str, Any], str]] = []

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice.extend((made, key) for key, count in counts.items() if count > 1)
        return made

    content: dict[str, Any] = json.loads(text, parse_float=Decimal, object_pairs_hook=table)
    pending: list[tuple[Place, Any]] = [((), content)] if twice else []
    while pending:
        place, inner = pending.pop()
        for found, key in twice:
            if found is inner:
                source.fault((*place, key), "is there twice")
        if isinstance(inner, dict):
            pending += [((*place, key), value) for key, value in inner.items()]
        elif isinstance(inner, list):
            pending += [((*place, i), value) for i, value in enumerate(inner)]
    return content
