"""What an attempt that failed gives back to the call."""

from __future__ import annotations

from typing import NamedTuple

from ccroute.errors import CcrouteError
from ccroute.failures import NO_MODEL, Rule


class Fault(NamedTuple):
    """A failed attempt: the typed error and its rule."""

    error: CcrouteError
    rule: Rule
    retry: bool | None = None
    """Whether the same deployment may be tried again. False: no (a TLS failure, `x-should-retry: false`).
    True: yes, also where it does not have the model (`x-should-retry: true`). None: as the rule says."""
    drops: str | None = None
    """The parameter that the server refused, without which it is asked again."""

    @property
    def detail(self) -> str:
        """What happened, in a line."""
        return str(getattr(self.error, "detail", self.error))

    @property
    def may_retry(self) -> bool:
        """Whether the same deployment may be tried again."""
        if self.retry is False:
            return False
        return self.rule.retry or (self.rule is NO_MODEL and self.retry is True)
