"""The row of an attempt in a ledger, and the key by which reports group rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from ccroute._version import __version__
from ccroute.accounting.money import as_json
from ccroute.types import JSON, FailureClass, Outcome, Usage


class Key(NamedTuple):
    """The parts by which reports can group attempts. `day` is an ISO date in UTC, `model` the model that
    served."""

    agent: str | None
    group: str | None
    alias: str
    model: str
    backend: str
    day: str
    session: str | None


def keys_of(by: Sequence[str]) -> Callable[[Iterable[Any]], Key]:
    """A function that makes a key from the values of the parts in `by`. The other parts are empty."""
    empty = {"agent": None, "group": None, "session": None}
    known = {name: number for number, name in enumerate(by)}
    # Two empty values follow the given ones: None and "".
    places = [known.get(name, len(by) + (name not in empty)) for name in Key._fields]
    chosen = itemgetter(*places)
    return lambda parts: Key._make(chosen((*parts, None, "")))


class LedgerRow(NamedTuple):
    """One attempt: its agent and deployment, what it used and cost. It has no prompt and no answer.

    `started` is UTC, durations are seconds, money is USD. `cost` is `None` when the deployment has
    no known price. `final` marks the attempt that decided the call. Only that one has `latency` (of
    the whole call) and `override_saved` (the requested model's price minus the served one's, where
    both are known).

    first_content: until the first content of a stream; `duration` is the whole attempt, without `queue`.
    queue:         the time that it waited for a slot at the host, its turn under a rate limit, or a budget.
    load:          the time that the server took to load the model, if it reports that (Ollama).
    price_source:  the source of the price, as `Deployment.price_source`; "provider" if the answer says what
                   it costs; None if the price is unknown.
    version:       the version of ccroute; None in rows of older versions.
    """

    id: str
    call: str
    started: datetime
    agent: str | None
    group: str | None
    session: str | None
    requested_model: str | None
    alias: str
    backend: str
    deployment: str
    model: str
    outcome: Outcome
    failure: FailureClass | None
    status: int | None
    usage: Usage
    cost: Decimal | None
    overridden: bool
    fallback: bool
    duration: float
    first_content: float | None
    final: bool
    cached: bool = False
    latency: float | None = None
    override_saved: Decimal | None = None
    metadata: Mapping[str, JSON] = MappingProxyType({})
    price_source: str | None = None
    queue: float = 0.0
    load: float | None = None
    version: str | None = __version__

    def to_dict(self) -> dict[str, JSON]:
        """The row as flat JSON: `usage` as its token counts, money as str, `started` as ISO 8601."""
        row = self._asdict()
        tokens = row.pop("usage").model_dump()
        return as_json(
            {**row, "started": self.started.isoformat(), "metadata": dict(self.metadata), **tokens}
        )

    @property
    def day(self) -> str:
        """The day on which it started, in UTC."""
        return self.started.date().isoformat()

    def key(self) -> Key:
        """The key of this row."""
        return Key(self.agent, self.group, self.alias, self.model, self.backend, self.day, self.session)
