"""What all calls of one router share."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple

from ccroute.accounting import Ledger
from ccroute.accounting.tokens import TokenCounter, estimate
from ccroute.backends import Origin
from ccroute.routing import Health, Load, RateLimits, RefusedParameters, RetryBudget
from ccroute.types import RetryPolicy, Timeout
from ccroute.types.clock import Clock

if TYPE_CHECKING:
    from ccroute.observe import Listener


class RouterState(NamedTuple):
    """The router's policies, where it records and reports, and what it has learned of its deployments."""

    retry: RetryPolicy
    timeout: Timeout
    clock: Clock
    drop_params: bool
    health: Health
    retry_budget: RetryBudget
    rate_limits: RateLimits
    load: Load
    ledger: Ledger
    emit: Listener
    refused_parameters: RefusedParameters
    limited_hosts: Container[Origin] = ()
    """The hosts that serve only so many calls at a time."""
    count_tokens: TokenCounter = estimate
