"""The requests that the simulation and the real server both get: 14 agents, three models, in mixed order."""

from __future__ import annotations

from typing import NamedTuple

MIXED = "abaabaacabaaba"
"""The models of 14 agents, in the order in which they begin: nine, four and one, as mixed as can be."""


class Request(NamedTuple):
    """One request: who asks which model, for how many words."""

    agent: str
    model: str
    words: int


def requests(rounds: int = 5, words: int = 20) -> list[Request]:
    """70 requests of 14 agents, in the order in which they are made if nobody has to wait."""
    return [
        Request(f"agent-{number}", model, words) for _ in range(rounds) for number, model in enumerate(MIXED)
    ]
