"""The values that the keys of a native file take: what each may be, and how a file may write it.

Faults use the file's own terms.
"""

# No `from __future__ import annotations`: pydantic reads these annotations at run time.
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PlainValidator,
    PositiveInt,
)

from ccroute.backends.registry import find_kind, kind_names
from ccroute.errors import ConfigError
from ccroute.failures import Trigger
from ccroute.routing.names import did_you_mean
from ccroute.routing.tables.agents import drop_fault, params_faults, unknown_parameter
from ccroute.routing.tables.aliases import Balanced, Target, is_balanced
from ccroute.types import JSON, Budget
from ccroute.types.request import PARAMETERS


def _off(value: object) -> object:
    return None if value is False or value == "off" else value  # YAML reads off as false


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("should be a model's name, not blank")
    if not value.isprintable():
        raise ValueError("should be a model's name, without control characters")
    return value


def _switched(value: object) -> object:
    """YAML 1.1 reads `on` and `off` as booleans."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def plain(value: object) -> JSON:
    """JSON as a request carries it: Decimals become floats."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Decimal | float) and math.isfinite(value):
        return float(value)
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError("should be what JSON can hold")


def _kind(value: str) -> str:
    try:
        found = find_kind(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if found is None:
        kinds = kind_names()
        raise ValueError(
            f'unknown kind "{value}"{did_you_mean(value, kinds)}; the kinds are {", ".join(kinds)}'
        )
    return value


def _url(value: str) -> str:
    try:
        urlsplit(value)
    except ValueError:  # its text may repeat a password
        raise ValueError("must look like http://localhost:11434 or https://host/v1") from None
    return value


def _parameter(value: str) -> str:
    if value not in PARAMETERS:
        raise ValueError(unknown_parameter(value))
    return value


def _dropped(value: str) -> str:
    if fault := drop_fault(value):
        raise ValueError(fault)
    return value


def _params(value: dict[str, JSON]) -> dict[str, JSON]:
    if faults := params_faults(value):
        raise ValueError("; ".join(faults))
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):  # pydantic takes it for 0 or 1
        raise ValueError("should be a number")
    return value


def _keep_alive(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('should be a duration such as "5m", or a whole number of seconds')
    return value


def _zone(value: str) -> str:
    try:
        Budget(0, tz=value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("Budget: ")) from None
    return value


def _target(value: object) -> Target:
    if is_balanced(value):
        if "targets" not in value:
            raise ValueError("targets is missing beside strategy")
        return cast(Balanced, {**value, "targets": _target(value["targets"])})
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return [_name(name) for name in value]
    if isinstance(value, Mapping):
        names = [_name(name) for name in value]
        try:
            return dict(zip(names, map(float, value.values()), strict=True))
        except (TypeError, ValueError):
            raise ValueError("a weight should be a number") from None
    raise ValueError("should be a name, a list of names, or names with their weights")


Number = BeforeValidator(_number)
Positive = Annotated[FiniteFloat, Field(gt=0), Number]
NotNegative = Annotated[FiniteFloat, Field(ge=0), Number]
Count = Annotated[PositiveInt, Number]
ZeroOrMore = Annotated[NonNegativeInt, Number]
Usd = Annotated[Decimal, Field(ge=0, le=10**9, allow_inf_nan=False), Number]
Words = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=list[str] | str)]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": r"\S"})]
Names = Annotated[list[Name], BeforeValidator(_listed, json_schema_input_type=list[Name] | Name)]
Parameter = Annotated[
    str, AfterValidator(_parameter), Field(json_schema_extra={"enum": [*sorted(PARAMETERS)]})
]
Parameters = Annotated[
    list[Parameter], BeforeValidator(_listed, json_schema_input_type=list[Parameter] | Parameter)
]
Triggers = Annotated[list[Trigger], BeforeValidator(_listed, json_schema_input_type=list[Trigger] | Trigger)]
Params = Annotated[dict[Parameter, Annotated[JSON, PlainValidator(plain)]], AfterValidator(_params)]
Seconds = Annotated[
    Positive | None, BeforeValidator(_off, json_schema_input_type=Positive | Literal["off"] | None)
]
Slots = Annotated[
    Count | None, BeforeValidator(_off, json_schema_input_type=PositiveInt | Literal["off"] | None)
]
OnOff = Annotated[Literal["on", "off"], BeforeValidator(_switched)]
Kind = Annotated[str, AfterValidator(_kind)]
Url = Annotated[str, AfterValidator(_url)]
KeepAlive = Annotated[str | int, PlainValidator(_keep_alive, json_schema_input_type=str | int)]
Drops = Annotated[
    list[Annotated[str, AfterValidator(_dropped)]],
    BeforeValidator(_listed, json_schema_input_type=list[str] | str),
]
Zone = Annotated[str, AfterValidator(_zone)]
AliasTarget = Annotated[Any, PlainValidator(_target, json_schema_input_type=Target)]


def is_limit(table: type[BaseModel], key: str) -> bool:
    """Whether a null of this key means no limit. TOML has no null: there it is "off"."""
    field = table.model_fields.get(key)
    return field is not None and any(getattr(each, "func", None) is _off for each in field.metadata)
