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
from ccroute.routing.aliases import Balanced, Strategy, Target, is_balanced
from ccroute.routing.names import did_you_mean
from ccroute.types import JSON
from ccroute.types.request import PARAMETERS

NOT_YET = ("budgets", "cache")
"""Keys that this version of the router does not support yet."""


def _keyed(key: str) -> BeforeValidator:
    """Lets a table be written as the value of its main key."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str | int | float | Decimal) else value
    )


def _priced(value: object) -> object:
    return {"input": 0, "output": 0} if value == "free" else value


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
        raise ValueError(f'unknown parameter "{value}"{did_you_mean(value, PARAMETERS)}')
    return value


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
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    if isinstance(value, Mapping):
        try:
            return {name: float(weight) for name, weight in value.items()}
        except (TypeError, ValueError):
            raise ValueError("a weight should be a number") from None
    raise ValueError("should be a name, a list of names, or names with their weights")


Positive = Annotated[FiniteFloat, Field(gt=0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
Usd = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Names = Annotated[list[str], BeforeValidator(_listed)]
Parameter = Annotated[str, AfterValidator(_parameter)]
Params = dict[Parameter, Annotated[JSON, PlainValidator(plain)]]


class Table(BaseModel):
    """A table of a file. An unknown key is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True)

    def given(self, *, without: Sequence[str] = ()) -> dict[str, Any]:
        """The values that the file gives, by key."""
        fields = type(self).model_fields
        return {
            (fields[name].alias if name in fields else None) or name: getattr(self, name)
            for name in self.model_fields_set
            if name not in without
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


PriceEntry = Annotated[PriceTable, BeforeValidator(_priced)]


class TimeoutTable(Table):
    total: Positive | None = None
    connect: Positive | None = None
    first: Positive | None = None
    idle: Positive | None = None
    attempt: Positive | None = None


TimeoutEntry = Annotated[TimeoutTable, _keyed("total")]


class RetryTable(Table):
    attempts: PositiveInt = 1
    per_deployment: PositiveInt = 1
    base: NotNegative = 0
    max: NotNegative = 0


class ModelTable(Table):
    context_window: PositiveInt | None = None
    max_output: PositiveInt | None = None
    price: PriceEntry | None = None
    memory_gb: Positive | None = None
    weight: Positive = 1
    sampling: Literal["any", "one", "none", "not_thinking"] | None = None
    thinking: Literal["none", "budget", "adaptive", "effort", "switch", "template", "levels"] | None = None
    efforts: Names | None = None
    # A pydantic model has a method `schema`.
    schema_: Annotated[Literal["format", "tool", "none"] | None, Field(alias="schema")] = None
    refuses: Annotated[list[Parameter], BeforeValidator(_listed)] | None = None
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
    keep_alive: Annotated[str | int, PlainValidator(_keep_alive)] | None = None
    local: bool | None = None
    timeout: TimeoutEntry | None = None
    headers: dict[str, str] = {}
    drop_params: bool = False
    max_concurrency: PositiveInt | None = None
    memory_gb: Positive | None = None
    ca_file: str | None = None
    models: dict[str, ModelTable] = {}


class Defaults(Table):
    """The keys of both an agent and a group of agents."""

    model: str | None = None
    fallback: Names = []
    triggers: Annotated[list[Trigger], BeforeValidator(_listed)] = []
    local_only: bool = False
    params: Params = {}
    budget: object = None


class AgentTable(Defaults):
    group: str | None = None


class GroupTable(Defaults):
    """`agents` are its members."""

    agents: Names = []


class Settings(Table):
    """A whole file."""

    default_model: str | None = None
    agent_override: bool = True
    unknown_agent: Literal["error", "default"] = "error"
    drop_params: bool = False
    trust_env: bool = False
    health: Literal["on", "off"] = "on"
    max_queue: NonNegativeInt = 1000
    baseline: str | None = None
    strategy: Strategy = "weighted"
    backends: dict[str, BackendTable] = {}
    aliases: dict[str, Annotated[Any, PlainValidator(_target)]] = {}
    agents: dict[str, Annotated[AgentTable, _keyed("model")]] = {}
    groups: dict[str, GroupTable] = {}
    fallbacks: dict[str, Names] = {}
    retry: RetryTable | None = None
    timeout: TimeoutEntry | None = None
    prices: dict[str, PriceEntry] = {}
    budgets: object = None
    cache: object = None
    ledger: str | None = None
