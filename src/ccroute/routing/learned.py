"""Parameters that deployments have refused: what no list of models knew, learned from servers' answers."""

from __future__ import annotations

from ccroute.errors import CcrouteError
from ccroute.routing.tables import MAX_KNOWN, Deployment
from ccroute.types import Request


class RefusedParameters:
    """The parameters that each deployment of a router refused, by name. Forgotten with the router."""

    def __init__(self) -> None:
        self._refused: dict[str, frozenset[str]] = {}

    def learn(self, deployment: Deployment, request: Request, error: CcrouteError) -> str | None:
        """The parameter of `request` that `error` is about, if that is new; it is remembered."""
        name: str | None = getattr(error, "parameter", None)
        known = self.of(deployment)
        if name is None or name in known or getattr(request, name) is None:
            return None
        if len(self._refused) >= MAX_KNOWN:
            self._refused.clear()  # callers may name any deployment, and what is forgotten is learned anew
        self._refused[deployment.name] = known | {name}
        return name

    def of(self, deployment: Deployment) -> frozenset[str]:
        """What is known to be refused there."""
        return self._refused.get(deployment.name, _NONE)


_NONE: frozenset[str] = frozenset()
