"""What a call works with besides its plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ccroute.accounting.tokens import TokenCounter, estimate
from ccroute.observe import Listener
from ccroute.routing import Deployment, Health, Load, RefusedParameters, RetryBudget
from ccroute.types import Price, RetryPolicy, Timeout
from ccroute.types.clock import Clock


@dataclass(frozen=True, slots=True)
class Desk:
    """The router's policies, what it knows of prices, and what it has learned of its deployments.

    `quote` gives the price of a deployment, `quote_name` that of any model name, where known. `tell`
    takes every event.
    """

    retry: RetryPolicy
    timeout: Timeout
    clock: Clock
    drop_params: bool
    quote: Callable[[Deployment], Price | None]
    quote_name: Callable[[str], Price | None]
    health: Health
    retries: RetryBudget
    load: Load
    tell: Listener
    count_tokens: TokenCounter = estimate
    learned: RefusedParameters = field(default_factory=RefusedParameters)
