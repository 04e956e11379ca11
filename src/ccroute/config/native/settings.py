"""The native shape of a file: its tables and their keys."""

# No `from __future__ import annotations`: pydantic reads these annotations at run time.
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from ccroute.config.native.values import (
    AliasTarget,
    Count,
    Drops,
    KeepAlive,
    Kind,
    Name,
    Names,
    NotNegative,
    OnOff,
    Parameters,
    Params,
    Positive,
    Seconds,
    Slots,
    Triggers,
    Url,
    Usd,
    Words,
    ZeroOrMore,
    Zone,
)
from ccroute.routing.tables.aliases import Strategy

NOT_YET = ("cache",)
"""Keys that this version of the router does not support yet."""


def _keyed(key: str, accepts: object) -> BeforeValidator:
    """Lets a table be written as the value of its main key. `accepts` is for the JSON schema."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str | int | float | Decimal) else value,
        json_schema_input_type=accepts,
    )


def _priced(value: object) -> object:
    return {"input": 0, "output": 0} if value == "free" else value


def _fallback(value: object) -> object:
    if isinstance(value, str | Mapping):
        return {"model": value} if isinstance(value, str) else value
    raise ValueError("should be a model's name, or a table with model and triggers")


def _fallbacks(value: object) -> object:
    return [value] if isinstance(value, str | Mapping) else value


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
    """`above`: number of tokens → the price of a request whose prompt has more. `web_search`: USD for a
    thousand."""

    above: dict[Count, TierTable] = {}
    web_search: Usd | None = None


PriceEntry = Annotated[
    PriceTable, BeforeValidator(_priced, json_schema_input_type=PriceTable | Literal["free"])
]


class TimeoutTable(Table):
    total: Seconds = None
    connect: Seconds = None
    first: Seconds = None
    idle: Seconds = None
    attempt: Seconds = None


TimeoutEntry = Annotated[TimeoutTable, _keyed("total", TimeoutTable | Positive | Literal["off"])]


class RetryTable(Table):
    attempts: Count = 1
    per_deployment: Count = 1
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
    context_window: Count | None = None
    max_output: Count | None = None
    price: PriceEntry | None = None
    memory_gb: Positive | None = None
    weight: Positive = 1
    params: Params = {}
    drops: Drops = []
    rpm: Count | None = None
    tpm: Count | None = None
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

    kind: Kind | None = None
    enabled: bool = True
    base_url: Url | None = None
    api_key: SecretStr | None = None
    api_version: str | None = None
    finish_required: bool | None = None
    keep_alive: KeepAlive | None = None
    local: bool | None = None
    timeout: TimeoutEntry | None = None
    headers: dict[str, str] = Field(default={}, repr=False)  # one may be a secret
    drop_params: bool = False
    max_concurrency: Slots = None
    memory_gb: Positive | None = None
    ca_file: str | None = None
    models: dict[str, ModelTable] = {}


class BudgetTable(Table):
    """At least one of the limits is needed."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [key], "properties": {key: {"not": {"type": "null"}}}}
                for key in ("usd", "tokens")
            ]
        }
    )

    usd: Usd | None = None
    tokens: Count | None = None
    per: Literal["hour", "day", "month", "session", "total"] = "day"
    then: Literal["fallback", "queue", "refuse"] = "refuse"
    tz: Zone = "UTC"

    @model_validator(mode="after")
    def _has_limit(self) -> "BudgetTable":
        if self.usd is None and self.tokens is None:
            raise ValueError("has no limit: give usd, tokens or both")
        return self


class Defaults(Table):
    """The keys of both an agent and a group of agents."""

    model: Name | None = None
    fallback: Fallbacks = []
    triggers: Triggers = []
    local_only: bool = False
    params: Params = {}
    rpm: Count | None = None
    waiting_cost: Usd | None = None
    max_wait_free: NotNegative | None = None
    budget: BudgetTable | None = None


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
    health: OnOff = "on"
    max_queue: ZeroOrMore = 1000
    baseline: Name | None = None
    strategy: Strategy = "weighted"
    backends: dict[str, BackendTable] = {}
    aliases: dict[str, AliasTarget] = {}
    agents: dict[str, Annotated[AgentTable, _keyed("model", AgentTable | Name)]] = {}
    groups: dict[str, GroupTable] = {}
    fallbacks: dict[str, Fallbacks] = {}
    retry: RetryTable | None = None
    timeout: TimeoutEntry | None = None
    prices: dict[str, PriceEntry] = {}
    budgets: dict[str, BudgetTable] = {}
    cache: object = None
    ledger: str | None = None
