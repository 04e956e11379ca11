"""Amounts of USD: exact decimals, their sums and their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Any, Final

from ccroute.types import JSON

NOTHING: Final = Decimal(0)
EXACT: Final = Context(prec=100)
"""For sums of money, whatever precision a user's program has set."""


def total_usd(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
    total = NOTHING
    for amount in amounts:
        if amount:
            total = EXACT.add(total, amount)
    return total


def as_json(row: Mapping[str, Any]) -> dict[str, JSON]:
    """The row with amounts as str."""
    return {name: as_text(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def as_text(amount: Decimal) -> str:
    """The amount in figures, without an exponent and without zeros at its end: each ledger stores it in its
    own way."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
