"""The native shape of a file: its keys and what each may hold. Faults use the file's own terms."""

# No `from __future__ import annotations`: pydantic reads these annotations at run time.
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PlainValidator,
    PositiveInt,
    SecretStr,
)

from ccroute.backends.registry import find_kind, kind_names
from ccroute.errors import ConfigError
from ccroute.failures import Trigger
from ccroute.routing.agents import drop_fault, params_faults, unknown_parameter
from ccroute.routing.aliases import Balanced, Strategy, Target, is_balanced
from ccroute.routing.names import did_you_mean
from ccroute.types import JSON
from ccroute.types.request import PARAMETERS

NOT_YET = ("budgets", "cache")
"""Keys that this version of the router does not support yet."""


def _keyed(key: str, accepts: object) -> BeforeValidator:
    """Lets a table be written as the value of its main key. `accepts` is for the JSON schema."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str | int | float | Decimal) else value,
        json_schema_input_type=accepts,
    )


def _off(value: object) -> object:
    return None if value is False or value == "off" else value  # YAML reads off as false


def is_limit(table: type[BaseModel], key: str) -> bool:
    """Whether a null of this key means no limit. TOML has no null: there it is "off"."""
    field = table.model_fields.get(key)
    return field is not None and any(getattr(each, "func", None) is _off for each in field.metadata)


def _priced(value: object) -> object:
    return {"input": 0, "output": 0} if value == "free" else value


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


def _fallback(value: object) -> object:
    if isinstance(value, str | Mapping):
        return {"model": value} if isinstance(value, str) else value
    raise ValueError("should be a model's name, or a table with model and triggers")


def _fallbacks(value: object) -> object:
    return [value] if isinstance(value, str | Mapping) else value


def _keep_alive(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('should be a duration such as "5m", or a whole number of seconds')
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


Positive = Annotated[FiniteFloat, Field(gt=0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
Usd = Annotated[Decimal, Field(ge=0, le=10**9, allow_inf_nan=False)]
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


class Table(BaseModel):
    """A table of a file. An unknown key is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True)

    def given(self, *, without: Sequence[str] = ()) -> dict[str, Any]:
        """The values that the file gives, by key, in the order of the fields."""
        fields = type(self).model_fields
        return {
            (fields[name].alias if name in fields else None) or name: getattr(self, name)
            for name in (*fields, *(self.model_extra or ()))
            if name in self.model_fields_set and name not in without
        }

    @classmethod
    def keys(cls) -> list[str]:
        """Return the table's keys as a file writes them."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class TierTable(Table):
    """USD per million tokens, exact."""

    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None


class PriceTable(TierTable):
    """`above`: number of tokens → the price of a request whose prompt has more."""

    above: dict[PositiveInt, TierTable] = {}


PriceEntry = Annotated[
    PriceTable, BeforeValidator(_priced, json_schema_input_type=PriceTable | Literal["free"])
]


Seconds = Annotated[
    Positive | None, BeforeValidator(_off, json_schema_input_type=Positive | Literal["off"] | None)
]


class TimeoutTable(Table):
    total: Seconds = None
    connect: Seconds = None
    first: Seconds = None
    idle: Seconds = None
    attempt: Seconds = None


TimeoutEntry = Annotated[TimeoutTable, _keyed("total", TimeoutTable | Positive | Literal["off"])]


class RetryTable(Table):
    attempts: PositiveInt = 1
    per_deployment: PositiveInt = 1
    base: NotNegative = 0
    max: NotNegative = 0


class FallbackTable(Table):
    """Written as the model's name alone, or with `triggers` of its own."""

    model: Name
    triggers: Triggers = []


FallbackEntry = Annotated[
    FallbackTable, BeforeValidator(_fallback, json_schema_input_type=FallbackTable | Name)
]
Fallbacks = Annotated[
    list[FallbackEntry],
    BeforeValidator(_fallbacks, json_schema_input_type=list[FallbackEntry] | FallbackEntry),
]


class ModelTable(Table):
    context_window: PositiveInt | None = None
    max_output: PositiveInt | None = None
    price: PriceEntry | None = None
    memory_gb: Positive | None = None
    weight: Positive = 1
    params: Params = {}
    drops: Annotated[
        list[Annotated[str, AfterValidator(_dropped)]],
        BeforeValidator(_listed, json_schema_input_type=list[str] | str),
    ] = []
    rpm: PositiveInt | None = None
    tpm: PositiveInt | None = None
    sampling: Literal["any", "one", "none", "not_thinking"] | None = None
    thinking: Literal["none", "budget", "adaptive", "effort", "switch", "template", "levels"] | None = None
    efforts: Words | None = None
    # A pydantic model has a method `schema`.
    schema_: Annotated[Literal["format", "tool", "none"] | None, Field(alias="schema")] = None
    refuses: Parameters | None = None
    prefill: bool | None = None


class BackendTable(Table):
    """`kind` may be left out if the name is a kind. A disabled backend counts as absent.

    Other keys are keywords of the kind's own constructor.
    """

    model_config = ConfigDict(extra="allow")

    kind: Annotated[str, AfterValidator(_kind)] | None = None
    enabled: bool = True
    base_url: Annotated[str, AfterValidator(_url)] | None = None
    api_key: SecretStr | None = None
    api_version: str | None = None
    finish_required: bool | None = None
    keep_alive: Annotated[str | int, PlainValidator(_keep_alive, json_schema_input_type=str | int)] | None = (
        None
    )
    local: bool | None = None
    timeout: TimeoutEntry | None = None
    headers: dict[str, str] = Field(default={}, repr=False)  # one may be a secret
    drop_params: bool = False
    max_concurrency: Annotated[
        PositiveInt | None,
        BeforeValidator(_off, json_schema_input_type=PositiveInt | Literal["off"] | None),
    ] = None
    memory_gb: Positive | None = None
    ca_file: str | None = None
    models: dict[str, ModelTable] = {}


class Defaults(Table):
    """The keys of both an agent and a group of agents."""

    model: Name | None = None
    fallback: Fallbacks = []
    triggers: Triggers = []
    local_only: bool = False
    params: Params = {}
    rpm: PositiveInt | None = None
    budget: object = None


class AgentTable(Defaults):
    group: str | None = None
    other_names: Names = []


class GroupTable(Defaults):
    """`agents` are its members."""

    agents: Words = []


class Settings(Table):
    """A whole file."""

    default_model: Name | None = None
    agent_override: bool = True
    unknown_agent: Literal["error", "default"] = "error"
    drop_params: bool = False
    trust_env: bool = False
    health: Annotated[Literal["on", "off"], BeforeValidator(_switched)] = "on"
    max_queue: NonNegativeInt = 1000
    baseline: Name | None = None
    strategy: Strategy = "weighted"
    backends: dict[str, BackendTable] = {}
    aliases: dict[str, Annotated[Any, PlainValidator(_target, json_schema_input_type=Target)]] = {}
    agents: dict[str, Annotated[AgentTable, _keyed("model", AgentTable | Name)]] = {}
    groups: dict[str, GroupTable] = {}
    fallbacks: dict[str, Fallbacks] = {}
    retry: RetryTable | None = None
    timeout: TimeoutEntry | None = None
    prices: dict[str, PriceEntry] = {}
    budgets: object = None
    cache: object = None
    ledger: Annotated[str, Field(min_length=1)] | None = None
