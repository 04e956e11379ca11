"""Which model answers: pure decisions over tables.

Knows agents, aliases and backends; must not know sockets, loops, clocks or chance of its own:
a random number is handed in.
"""

from ccroute.routing.health.health import Health
from ccroute.routing.load import Load
from ccroute.routing.plan import Plan, make_plan, with_agent
from ccroute.routing.rate_limits import RateLimits
from ccroute.routing.refused_parameters import RefusedParameters
from ccroute.routing.retry_budget import RetryBudget
from ccroute.routing.tables.agents import Agent, AgentTable, Fallback
from ccroute.routing.tables.aliases import AliasTable, Resolution
from ccroute.routing.tables.deployments import Deployment
from ccroute.routing.tables.tables import Candidate, Tables

__all__ = [
    "Agent",
    "AgentTable",
    "AliasTable",
    "Candidate",
    "Deployment",
    "Fallback",
    "Health",
    "Load",
    "Plan",
    "RateLimits",
    "RefusedParameters",
    "Resolution",
    "RetryBudget",
    "Tables",
    "make_plan",
    "with_agent",
]
