"""Writes tools for Ollama.

Ollama knows only a few keywords of JSON schema. It silently hides others from the model (`$ref`, `const`,
`oneOf`, `allOf`; seen on 0.24), or refuses the call (`true` as a schema). This module replaces them where
Ollama has a keyword of the same meaning.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from ccroute.errors import InvalidRequestError
from ccroute.types import JSON

_DEFINITIONS: Final = ("$defs", "definitions")
_DEEPEST: Final = 50
"""Levels of a schema that are rewritten."""
_MOST: Final = 500
"""References that are replaced in one tool: nested references multiply."""

Schema: TypeAlias = Mapping[str, JSON]


def tool(given: Schema, where: str) -> Schema:
    """Return a function for Ollama. Raises `InvalidRequestError` with the place for another kind of tool,
    which would make Ollama's model call a function without a name."""
    function = given.get("function")
    if given.get("type", "function") != "function" or not isinstance(function, Mapping):
        raise InvalidRequestError(f"{where}: Ollama knows only tools of type function")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidRequestError(f"{where}.function.name is missing")
    if isinstance(function.get("parameters"), Mapping):
        function = {**function, "parameters": _Plain(function["parameters"]).parameters()}
    return {"type": "function", "function": function}


class _Plain:
    """Rewrites one tool's parameters in Ollama's keywords."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._left = _MOST
        self._defined = {
            f"#/{place}/{name}": definition
            for place in _DEFINITIONS
            if isinstance(schema.get(place), Mapping)
            for name, definition in schema[place].items()
        }

    def parameters(self) -> dict[str, JSON]:
        own = self._plain(self._schema, ())
        if isinstance(own.get("type"), list):
            own["type"] = "object"  # the arguments of a call are always an object
        return {name: value for name, value in own.items() if name not in _DEFINITIONS}

    def _plain(self, schema: JSON, inside: tuple[str, ...], depth: int = 0) -> dict[str, JSON]:
        """Return a schema in Ollama's keywords. `inside` are the references around it, to detect a cycle."""
        if not isinstance(schema, Mapping):  # true: anything
            return {}
        own = dict(schema)
        if depth > _DEEPEST:
            return own
        if isinstance(reference := own.pop("$ref", None), str):
            inner = self._defined.get(reference) if reference not in inside and self._left > 0 else None
            self._left -= 1
            known = (
                {"type": "object"} if inner is None else self._plain(inner, (*inside, reference), depth + 1)
            )
            own = {**known, **own}
        if "const" in own:
            own["enum"] = [own.pop("const")]
        if isinstance(own.get("oneOf"), list):
            own["anyOf"] = own.get("anyOf") or own["oneOf"]
            del own["oneOf"]
        if isinstance(own.get("allOf"), list):
            for part in own.pop("allOf"):
                own = _both(self._plain(part, inside, depth + 1), own)
        if isinstance(own.get("anyOf"), list):
            own["anyOf"] = [self._plain(choice, inside, depth + 1) for choice in own["anyOf"]]
        if "properties" in own:  # PHP writes an empty object as []
            named = own["properties"] if isinstance(own["properties"], Mapping) else {}
            own["properties"] = {name: self._plain(each, inside, depth + 1) for name, each in named.items()}
        if not isinstance(own.get("required", []), list):
            del own["required"]
        if isinstance(own.get("items"), Mapping | bool):
            own["items"] = self._plain(own["items"], inside, depth + 1)
        return own


def _both(first: Schema, second: Schema) -> dict[str, JSON]:
    """Join two schemas that both apply into one."""
    both = {**first, **second}
    if isinstance(first.get("properties"), Mapping) and isinstance(second.get("properties"), Mapping):
        both["properties"] = {**first["properties"], **second["properties"]}
    if isinstance(first.get("required"), Sequence) and isinstance(second.get("required"), Sequence):
        both["required"] = [*first["required"], *second["required"]]
    return both
