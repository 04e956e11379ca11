"""Which model answers: pure decisions over tables.

Knows agents, aliases and backends; must not know sockets, loops, clocks or chance of its own:
a random number is handed in.
"""

from ccroute.routing.agents import Agent, AgentTable
from ccroute.routing.aliases import AliasTable, Resolution
from ccroute.routing.plan import Plan, make_plan
from ccroute.routing.quotes import Quotes
from ccroute.routing.tables import Candidate, Deployment, Tables

__all__ = [
    "Agent",
    "AgentTable",
    "AliasTable",
    "Candidate",
    "Deployment",
    "Plan",
    "Quotes",
    "Resolution",
    "Tables",
    "make_plan",
]
