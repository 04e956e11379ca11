"""Remembers the parameters that deployments refused in their answers."""

from __future__ import annotations

from ccroute.errors import CcrouteError
from ccroute.routing.tables.deployments import Deployment
from ccroute.routing.tables.tables import MAX_KNOWN
from ccroute.types import Request

MANY = 3
"""After so many refused values of a parameter, all its values count as refused."""


class RefusedParameters:
    """The parameters that each deployment refused, with the refused values."""

    def __init__(self) -> None:
        self._refused: dict[str, dict[str, frozenset[str]]] = {}  # by the deployment's identity

    def learn(self, deployment: Deployment, request: Request, error: CcrouteError) -> str | None:
        """Remember and return the parameter of `request` that `error` names; None if it names none."""
        name: str | None = getattr(error, "parameter", None)
        if name is None or getattr(request, name) is None:
            return None
        if len(self._refused) >= MAX_KNOWN:
            self._refused.clear()  # bounds memory: callers may name any deployment
        known = self._refused.get(deployment.identity, {})
        values = known.get(name, frozenset())
        if len(values) < MANY:
            self._refused[deployment.identity] = known | {name: values | {repr(getattr(request, name))}}
        return name

    def of(self, deployment: Deployment, request: Request) -> frozenset[str]:
        """The parameters of `request` that `deployment` is known to refuse."""
        known = self._refused.get(deployment.identity)
        if known is None:
            return frozenset()
        given = ((name, getattr(request, name), values) for name, values in known.items())
        return frozenset(
            name
            for name, value, values in given
            if value is not None and (len(values) >= MANY or repr(value) in values)
        )
