"""What users pass in and get back: plain values that every layer may use.

Knows nothing of codecs, sockets, tables or clocks. Requests and policies are frozen dataclasses; results
are frozen pydantic models, because users print, dump and store them.
"""

from typing import TYPE_CHECKING

from ccroute.lazy import loader
from ccroute.types.policy import FREE, Model, Price, RetryPolicy, Timeout
from ccroute.types.request import JSON, CallOptions, MessageLike, Request
from ccroute.types.results import (
    Choice,
    Chunk,
    Completion,
    FinishReason,
    Function,
    Message,
    ToolCall,
)
from ccroute.types.route import Attempt, FailureClass, ModelInfo, Outcome, Route, Usage

if TYPE_CHECKING:
    from ccroute.types.budget import Budget
    from ccroute.types.inspection.health import BackendHealth, LoadedModel
    from ccroute.types.inspection.route_plan import Candidate, RoutePlan
    from ccroute.types.inspection.stats import (
        AgentStats,
        BackendStats,
        BudgetStats,
        CallCounts,
        DeploymentStats,
        HealthStats,
        LimitStats,
        ModelStats,
        RouterStats,
    )
    from ccroute.types.progress import Progress

__all__ = [
    "FREE",
    "JSON",
    "AgentStats",
    "Attempt",
    "BackendHealth",
    "BackendStats",
    "Budget",
    "BudgetStats",
    "CallCounts",
    "CallOptions",
    "Candidate",
    "Choice",
    "Chunk",
    "Completion",
    "DeploymentStats",
    "FailureClass",
    "FinishReason",
    "Function",
    "HealthStats",
    "LimitStats",
    "LoadedModel",
    "Message",
    "MessageLike",
    "Model",
    "ModelInfo",
    "ModelStats",
    "Outcome",
    "Price",
    "Progress",
    "Request",
    "RetryPolicy",
    "Route",
    "RoutePlan",
    "RouterStats",
    "Timeout",
    "ToolCall",
    "Usage",
]

_RARE = {
    "ccroute.types.budget": ("Budget",),
    "ccroute.types.inspection.health": ("BackendHealth", "LoadedModel"),
    "ccroute.types.inspection.route_plan": ("Candidate", "RoutePlan"),
    "ccroute.types.inspection.stats": (
        "AgentStats",
        "BackendStats",
        "BudgetStats",
        "CallCounts",
        "DeploymentStats",
        "HealthStats",
        "LimitStats",
        "ModelStats",
        "RouterStats",
    ),
    "ccroute.types.progress": ("Progress",),
}
__getattr__ = loader(__name__, {name: home for home, names in _RARE.items() for name in names})
