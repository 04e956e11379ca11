"""How far a batch of requests is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is: what `on_progress=` of `Router.complete_many` is called with.

    done:    the answers so far, errors included.
    total:   all requests of the batch; None: unknown, because they came without a length.
    failed:  the errors among the answers.
    cost:    USD of the answers so far, failed attempts included; None: that of one of them is unknown.
    seconds: since the first answer was asked for.
    """

    done: int
    total: int | None
    failed: int
    cost: Decimal | None
    seconds: float
