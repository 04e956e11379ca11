"""Functions and pydantic classes as tools: name, docstring and signature become OpenAI's dict.

Knows pydantic and signatures; must not know requests or wires. An error names the place, `tools[1] search`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import MethodType, SimpleNamespace
from typing import Annotated, Any, NotRequired, TypeAlias, get_type_hints
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json, to_jsonable_python
from typing_extensions import TypedDict

from ccroute.display import shortened
from ccroute.errors import InvalidOutputError, InvalidRequestError
from ccroute.types.arguments.shapes import check_tool
from ccroute.types.arguments.structured import CUT_OFF, KEPT, NO_SCHEMA, faults_of, object_schema

ToolLike: TypeAlias = Mapping[str, Any] | Callable[..., object]
"""OpenAI's dict, a function (plain or async), or a pydantic class."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EACH = "give a dict, a function or a pydantic class"
_OWN = object()
"""The value of an argument that was not given, where the function itself has a default."""
_ANYTHING = "takes any arguments, which no schema can describe: name each parameter"
_UNFIT: dict[object, str] = {
    inspect.Parameter.VAR_POSITIONAL: _ANYTHING,
    inspect.Parameter.VAR_KEYWORD: _ANYTHING,
    inspect.Parameter.POSITIONAL_ONLY: "is positional only, but a model gives arguments by name",
}


class Tool(dict[str, Any]):
    """A tool made of a function or a class: OpenAI's dict, and the parser of a call's arguments."""

    __slots__ = ("_adapter",)

    def __init__(self, source: Any) -> None:
        from ccroute.types.arguments.docstrings import LONGEST, read_docstring  # only where a tool is made

        is_class = isinstance(source, type)
        kind, defaults = (source, {}) if is_class else _arguments(source)
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        schema = object_schema(self._adapter)
        if schema is None:
            raise InvalidRequestError("its arguments are no object: give a class with fields, or a function")
        schema.pop("title", None)
        description = schema.pop("description", "")[:LONGEST]
        if not is_class:
            description, described = read_docstring(source.__doc__)
            properties = schema["properties"]
            for name in described.keys() & properties.keys():
                properties[name].setdefault("description", described[name])
            for name, default in defaults.items():
                with suppress(ValueError):  # a default that JSON cannot express is left out
                    properties[name]["default"] = to_jsonable_python(default)
        function = {"name": source.__name__, **({"description": description} if description else {})}
        super().__init__(type="function", function={**function, "parameters": schema})

    def read(self, arguments: str) -> Any:
        """The class's instance, or a function's keyword arguments. Raises pydantic's `ValidationError`."""
        read = self._adapter.validate_json(arguments or "{}")
        if not isinstance(read, dict):
            return read
        return {name: value for name, value in read.items() if value is not _OWN}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # another process gets a plain dict

    def __deepcopy__(self, memo: object) -> Tool:
        return self


class Tools(tuple[Mapping[str, Any], ...]):
    """The tools of a call, at least one of them made of a function or a class."""

    __slots__ = ()

    def named(self, name: str) -> Mapping[str, Any]:
        """The tool of that name. Raises `InvalidOutputError`: models often invent tools."""
        from difflib import get_close_matches  # only where something is wrong

        names = [_name_of(tool) for tool in self]
        if name in names:
            return self[names.index(name)]
        close = get_close_matches(name, [each for each in names if each], 1)
        known = ", ".join(shortened(each) for each in names if each)
        hint = f', did you mean "{shortened(close[0])}"?' if close else f": there are {known}"
        raise InvalidOutputError(f'there is no tool "{shortened(name)}"{hint}', text=name)


def checked_tools(given: object) -> Sequence[Mapping[str, Any]]:
    """The tools of a call as dicts. Raises `InvalidRequestError` naming the place."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidRequestError(
            f"tools must be a list, not {type(given).__name__}: {_EACH} for each of its tools"
        )
    if isinstance(given, Tools):
        return given
    tools: list[Mapping[str, Any]] = []
    for i, tool in enumerate(given):
        if isinstance(tool, Mapping):
            check_tool(tool, f"tools[{i}]")
        tools.append(tool if isinstance(tool, Mapping) else tool_of(tool, f"tools[{i}]"))
    seen: dict[str, int] = {}
    for i, tool in enumerate(tools):
        name = _name_of(tool)
        if name is not None and seen.setdefault(name, i) != i:
            raise InvalidRequestError(f'tools[{i}]: tools[{seen[name]}] is named "{shortened(name)}", too')
    return Tools(tools) if any(type(tool) is Tool for tool in tools) else tools


def read_arguments(name: str, arguments: str, *, cut: bool = False) -> dict[str, Any]:
    """A call's arguments as a dict. `cut`: the answer ended at its token limit. Raises `InvalidOutputError`,
    whose message is for the model."""
    try:
        read = from_json(arguments) if arguments.strip() else {}
    except ValueError as error:
        fault = f"not valid JSON: {CUT_OFF if cut else error}"
    else:
        if isinstance(read, dict):
            return read
        fault = "no JSON object"
    raise InvalidOutputError(f"the arguments of {shortened(name)} are {fault}", text=arguments)


def validated_arguments(name: str, arguments: str, tool: Mapping[str, Any], *, cut: bool = False) -> Any:
    """A call's arguments as `tool` parses them. `cut`: the answer ended at its token limit. Raises
    `InvalidOutputError`, whose message is for the model."""
    if not isinstance(tool, Tool):
        raise InvalidRequestError(
            f"cannot check the arguments of {shortened(name)}: its tool was given as a dict, or the call was"
            " stored, which keeps no function; use .arguments, or validated(…) with the function or class"
        )
    try:
        return tool.read(arguments)
    except ValidationError as error:
        faults = faults_of(error)
    # No cause: pydantic's error quotes the model's text, which must not get into logs.
    why = CUT_OFF if cut else "; ".join(faults)
    raise InvalidOutputError(
        f"the arguments of {shortened(name)} are not valid: {why}", text=arguments, faults=faults
    )


def tool_of(source: object, where: str) -> Tool:
    """The tool made of a function or class. Raises `InvalidRequestError` naming the place."""
    name = getattr(source, "__name__", "")
    is_class = isinstance(source, type)
    if isinstance(source, BaseModel):
        name = type(source).__name__
        raise InvalidRequestError(f"{where}: give the class {name}, not an instance of it")
    if not (is_class or inspect.isroutine(source)):
        fault = "has no name: write a function" if callable(source) else f"is of type {type(source).__name__}"
        raise InvalidRequestError(f"{where} {fault}; {_EACH}")
    if name == "<lambda>":
        raise InvalidRequestError(f"{where} is a lambda, which has no name: write a function with def")
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{where} {shortened(name)}: a tool's name has up to 64 of A-Z, a-z, 0-9, _ and -"
        )
    try:
        return _CLASSES(source) if is_class else _function_tool(source)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where} {name}: {error.detail}") from error.__cause__
    except NO_SCHEMA as error:
        reason, *_ = str(error).split("\n")
        raise InvalidRequestError(f"{where} {name}: {reason}") from error


_CLASSES = lru_cache(KEPT)(Tool)
# Weak keys: a function's closure may hold large objects. A tool holds no reference to its function.
_FUNCTIONS: WeakKeyDictionary[Any, Tool] = WeakKeyDictionary()
_METHODS: WeakKeyDictionary[Any, Tool] = WeakKeyDictionary()


def _function_tool(source: Any) -> Tool:
    """A function's tool, made once; a method's is cached by its function, so that no object is kept alive."""
    is_method = isinstance(source, MethodType) and inspect.isfunction(source.__func__)
    function, kept = (source.__func__, _METHODS) if is_method else (source, _FUNCTIONS)
    try:
        return kept.get(function) or kept.setdefault(function, Tool(source))
    except TypeError:  # some built-in functions cannot be referred to weakly
        return Tool(source)


def _name_of(tool: Mapping[str, Any]) -> str | None:
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else None


def _arguments(function: Any) -> tuple[Any, dict[str, Any]]:
    """A TypedDict of a function's parameters, and their plain defaults (those that are no `Field`)."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError as error:
        raise InvalidRequestError("it has no signature: write a function around it") from error
    for name, each in parameters.items():
        fault = _UNFIT.get(each.kind) or (each.annotation is each.empty and "has no annotation: say its type")
        if fault:
            raise InvalidRequestError(f'parameter "{name}" {fault}')
    annotations = SimpleNamespace(
        __annotations__={name: each.annotation for name, each in parameters.items()}
    )
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hints = get_type_hints(annotations, scope, include_extras=True)
    except NameError as error:
        raise InvalidRequestError(f"an annotation is not known in its module: {error}") from error
    defaults: dict[str, Any] = {}
    for name, each in parameters.items():
        if isinstance(each.default, FieldInfo):
            hints[name] = Annotated[hints[name], each.default]
        elif each.default is not each.empty:
            defaults[name] = each.default
            hints[name] = Annotated[hints[name], Field(default=_OWN)]
        if not FieldInfo.from_annotation(hints[name]).is_required():
            hints[name] = NotRequired[hints[name]]
    made_of: Any = TypedDict  # type checkers accept only literal names
    arguments = made_of(function.__name__, hints)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    return arguments, defaults
