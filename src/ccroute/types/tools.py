"""Functions and pydantic classes as tools: name, docstring and signature become OpenAI's dict.

Knows pydantic and signatures; must not know requests or wires. A fault names its place, `tools[1] search`.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MethodType, SimpleNamespace
from typing import Annotated, Any, NoReturn, TypeAlias, get_type_hints
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from ccroute.display import shortened
from ccroute.errors import InvalidOutputError, InvalidRequestError
from ccroute.types.shapes import check_tool
from ccroute.types.structured import CUT_OFF, KEPT, NO_SCHEMA, faults_of, no_schema, object_schema, once

ToolLike: TypeAlias = Mapping[str, Any] | Callable[..., object]
"""OpenAI's dict, a function (plain or async), or a pydantic class."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
_EACH = "give a dict, a function or a pydantic class"


class Tool(dict[str, Any]):
    """A tool made of a function or a class: OpenAI's dict, and what reads a call's arguments."""

    __slots__ = ("_adapter", "_filled", "_parameters")

    def __init__(self, source: Any) -> None:
        from ccroute.types.docstrings import LONGEST, read_docstring  # only where a tool is made

        self._parameters: dict[str, str] | None = None
        summary = ""
        if isinstance(source, type):
            self._adapter: TypeAdapter[Any] = TypeAdapter(source)
        else:
            summary, described = read_docstring(source.__doc__)
            arguments = _Arguments(source, described)
            self._adapter = TypeAdapter(arguments.model)
            self._parameters, self._filled = arguments.names, arguments.filled
        schema = object_schema(self._adapter)
        if schema is None:
            raise InvalidRequestError("its arguments are no object: give a class with fields, or a function")
        schema.pop("title", None)
        own = schema.pop("description", "")[:LONGEST]
        function = {"name": source.__name__, "description": own if self._parameters is None else summary}
        if not function["description"]:
            del function["description"]
        super().__init__(type="function", function={**function, "parameters": schema})

    def read(self, arguments: str) -> Any:
        """The class's instance, or a function's keyword arguments. Raises pydantic's `ValidationError`."""
        read = self._adapter.validate_json(arguments or "{}")
        if self._parameters is None:
            return read
        return {
            name: getattr(read, field)
            for field, name in self._parameters.items()
            if field in read.model_fields_set or name in self._filled
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # for another process it is as good as a dict

    def __deepcopy__(self, memo: object) -> Tool:
        return self


class Tools(tuple[Mapping[str, Any], ...]):
    """The tools of a call, some of them made of functions or classes."""

    __slots__ = ()

    def named(self, name: str) -> Mapping[str, Any]:
        """The tool of that name. Raises `InvalidOutputError`, for a model often invents one."""
        names = [_name_of(tool) for tool in self]
        if name in names:
            return self[names.index(name)]
        close = difflib.get_close_matches(name, [each for each in names if each], 1)
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
    tools = [_checked(tool, f"tools[{i}]") for i, tool in enumerate(given)]
    seen: dict[str, int] = {}
    for i, tool in enumerate(tools):
        name = _name_of(tool)
        if name is not None and seen.setdefault(name, i) != i:
            raise InvalidRequestError(f'tools[{i}]: tools[{seen[name]}] is named "{shortened(name)}", too')
    return Tools(tools) if any(type(tool) is Tool for tool in tools) else tools


def read_arguments(name: str, arguments: str, *, cut: bool = False) -> dict[str, Any]:
    """A call's arguments as a dict. `cut`: the answer ended at its token limit. Raises `InvalidOutputError`
    in words for the model."""
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
    """What `tool` makes of a call's arguments. `cut`: the answer ended at its token limit. Raises
    `InvalidOutputError` in words for the model."""
    if not isinstance(tool, Tool):
        raise InvalidRequestError(
            f"nothing here can check the arguments of {shortened(name)}: its tool was given as a dict, or the"
            " call was stored, which keeps no function; use .arguments, or validated(…) with the function or"
            " class"
        )
    try:
        return tool.read(arguments)
    except ValidationError as error:
        faults = faults_of(error)
    # No cause: pydantic's error quotes what the model wrote, which may go into no log.
    why = CUT_OFF if cut else "; ".join(faults)
    raise InvalidOutputError(
        f"the arguments of {shortened(name)} are not valid: {why}", text=arguments, faults=faults
    )


def tool_of(source: object, where: str) -> Tool:
    """The tool that a function or class describes. Raises `InvalidRequestError` naming the place."""
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
        return once(_CLASSES, Tool, source) if is_class else _function_tool(source)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where} {name}: {error.detail}") from error.__cause__
    except NO_SCHEMA as error:
        raise InvalidRequestError(f"{where} {name}: {no_schema(error)}") from error


class _Method:
    """A bound method's function, without its first parameter."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__


_CLASSES = lru_cache(KEPT)(Tool)
# A function's tool goes with the function, for that may hold anything in its closure. A tool holds none.
_FUNCTIONS: WeakKeyDictionary[Any, Tool] = WeakKeyDictionary()
_METHODS: WeakKeyDictionary[Any, Tool] = WeakKeyDictionary()


def _function_tool(source: Any) -> Tool:
    """A function's tool, made once; that of a method by its function, so that no object is kept alive."""
    is_method = isinstance(source, MethodType) and inspect.isfunction(source.__func__)
    function = source.__func__ if is_method else source
    kept = _METHODS if is_method else _FUNCTIONS
    try:
        tool = kept.get(function)
    except TypeError:  # some built-in functions cannot be referred to weakly
        return Tool(source)
    if tool is None:
        tool = kept[function] = Tool(_Method(function) if is_method else function)
    return tool


def _checked(tool: object, where: str) -> Mapping[str, Any]:
    if not isinstance(tool, Mapping):
        return tool_of(tool, where)
    check_tool(tool, where)
    return tool


def _name_of(tool: Mapping[str, Any]) -> str | None:
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else None


class _Arguments:
    """A model of a function's parameters.

    names:  which of its fields is which parameter. The fields have names of their own: a parameter may be
            called `schema` or `_id`, a field may not.
    filled: the parameters whose default is a `Field(…)`, which is no value to the function itself.
    """

    def __init__(self, source: Any, described: Mapping[str, str]) -> None:
        is_method = isinstance(source, _Method)
        function = source.function if is_method else source
        parameters = _parameters(function)[is_method:]
        hints = _hints(function, {each.name: each.annotation for each in parameters})
        self.names = {f"p{i}": each.name for i, each in enumerate(parameters)}
        self.filled = {each.name for each in parameters if isinstance(each.default, FieldInfo)}
        fields: dict[str, Any] = {
            field: _field(each, hints[each.name], described.get(each.name))
            for field, each in zip(self.names, parameters, strict=True)
        }
        self.model = create_model(function.__name__, __config__=_CONFIG, **fields)


def _field(parameter: inspect.Parameter, hint: Any, described: str | None) -> tuple[Any, Any]:
    """A parameter as a model's field; what its annotation or default says goes before the docstring."""
    default = parameter.default
    given: dict[str, Any] = {"alias": parameter.name}
    if isinstance(default, FieldInfo):
        hint = Annotated[hint, default]
    else:
        given["default"] = ... if default is parameter.empty else default
    own = [part.description for part in getattr(hint, "__metadata__", ()) if isinstance(part, FieldInfo)]
    if described is not None and not any(own):
        given["description"] = described
    return hint, Field(**given)


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except ValueError as error:
        raise InvalidRequestError("it has no signature: write a function around it") from error
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            _unfit(each, "takes anything, which no schema can say: name each parameter")
        if each.kind is each.POSITIONAL_ONLY:
            _unfit(each, "is positional only, and arguments come by name")
    return parameters


def _unfit(parameter: inspect.Parameter, why: str) -> NoReturn:
    raise InvalidRequestError(f'parameter "{parameter.name}" {why}')


def _hints(function: Any, annotations: Mapping[str, Any]) -> dict[str, Any]:
    for name, annotation in annotations.items():
        if annotation is inspect.Parameter.empty:
            raise InvalidRequestError(f'parameter "{name}" has no annotation: say its type')
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return get_type_hints(SimpleNamespace(__annotations__=annotations), scope, include_extras=True)
    except NameError as error:
        raise InvalidRequestError(f"an annotation is not known where it is defined: {error}") from error
