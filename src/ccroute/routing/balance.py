"""In which order the deployments of one alias are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ccroute.routing.aliases import Strategy

T = TypeVar("T")


def order(
    deployments: Sequence[T], weights: Sequence[float], strategy: Strategy, random: Callable[[], float]
) -> Sequence[T]:
    """`ordered`: as the table has them. `weighted`: drawn without replacement, by weight.

    The draw gives each deployment the key `u ** (1 / weight)` and sorts by it, which is the same as
    drawing one after the other (Efraimidis and Spirakis, 2006).
    """
    if len(deployments) == 1 or strategy == "ordered":
        return deployments
    keys = [random() ** (1 / weight) for weight in weights]
    return [deployments[i] for i in sorted(range(len(keys)), key=keys.__getitem__, reverse=True)]
