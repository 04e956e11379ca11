"""Parameters that deployments have refused: what no list of models knew, learned from servers' answers."""

from __future__ import annotations

from ccroute.errors import CcrouteError
from ccroute.routing.tables import MAX_KNOWN, Deployment
from ccroute.types import Request

MANY = 3
"""Values of a parameter that were refused from which on every value of it is taken to be."""


class RefusedParameters:
    """The parameters that each deployment refused, with their values. Forgotten with the router."""

    def __init__(self) -> None:
        self._refused: dict[str, dict[str, frozenset[str]]] = {}

    def learn(self, deployment: Deployment, request: Request, error: CcrouteError) -> str | None:
        """Remember the parameter of `request` that `error` is about; None where it names none of those."""
        name: str | None = getattr(error, "parameter", None)
        if name is None or getattr(request, name) is None:
            return None
        if len(self._refused) >= MAX_KNOWN:
            self._refused.clear()  # callers may name any deployment, and what is forgotten is learned anew
        known = self._refused.get(deployment.name, {})
        values = known.get(name, frozenset())
        if len(values) < MANY:
            self._refused[deployment.name] = known | {name: values | {repr(getattr(request, name))}}
        return name

    def of(self, deployment: Deployment, request: Request) -> frozenset[str]:
        """The parameters of `request` that are known to be refused there."""
        known = self._refused.get(deployment.name)
        if known is None:
            return frozenset()
        given = ((name, getattr(request, name), values) for name, values in known.items())
        return frozenset(
            name
            for name, value, values in given
            if value is not None and (len(values) >= MANY or repr(value) in values)
        )
