"""The requests of a batch until they begin: reads them, makes their plans, and knows which is next.

Must not know threads, tasks or answers. The order is made by `routing.scheduling.batches`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ccroute.errors import CcrouteError
from ccroute.flow import CallContext
from ccroute.flow.candidates import equal_candidates
from ccroute.routing.scheduling import Place
from ccroute.routing.scheduling.batches import BatchOrder, Places
from ccroute.runtime.limiter.places import place_of
from ccroute.types.arguments.checked import check_names

if TYPE_CHECKING:
    from ccroute.routing import Candidate, Deployment
    from ccroute.runtime.base import RouterBase

Requests: TypeAlias = Iterable[str | Mapping[str, object]]

READ_AHEAD: Final = 1000
"""Requests that are read before they begin, where their number is unknown."""


class Planned(NamedTuple):
    """A request that begins: its place in the batch, where it may be served, and its plan."""

    number: int
    places: Places
    context: CallContext


class Unbegun:
    """A request that has not begun. `places`: where it may be served, as far as this is known."""

    __slots__ = ("index", "options", "places", "planned", "priority")

    def __init__(self, index: int, options: Mapping[str, object], places: Places, priority: object) -> None:
        self.index = index
        self.options = options
        self.places = places
        self.priority = priority if isinstance(priority, int) else 0
        self.planned: Planned | None = None  # it waits, because the host of its plan has enough to do


class BatchRequests:
    """The requests of a batch that have not begun.

    options:  the keywords of every request that does not give its own.
    total:    the number of requests; None: unknown.
    order:    those that were read.
    all_read: whether no request is left to be read.

    Raises `TypeError` for an unknown keyword, and for a request that is none. Of requests with a length, all
    are read at once.
    """

    def __init__(
        self, router: RouterBase, requests: Requests, options: Mapping[str, object], concurrency: int
    ) -> None:
        if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
            raise TypeError(f"requests must be a list of requests, not a {type(requests).__name__}")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError(f"concurrency must be an int, not {type(concurrency).__name__}")
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        check_names(options)
        self.total = len(requests) if isinstance(requests, Sized) else None
        self.all_read = False
        self._router = router
        self._options = options
        self._unread = enumerate(requests)
        self._hosts = router._limiter.hosts
        self.order = BatchOrder[Unbegun](self._hosts, concurrency)
        while self.total is not None and (request := self.read()) is not None:
            self.add(request)

    @property
    def has_room(self) -> bool:
        """Whether another request may be read before others have begun."""
        return not self.all_read and len(self.order) < READ_AHEAD

    def read(self) -> Unbegun | None:
        """Read one request, for `add`; None: there is no other. The caller's code runs: it may take long."""
        index, given = next(self._unread, (-1, ""))
        if index < 0:
            self.all_read = True
            return None
        where = f"requests[{index}]"
        options = {"prompt": given} if isinstance(given, str) else given
        if not isinstance(options, Mapping):
            raise TypeError(f"{where} must be a mapping of keywords or a str, not a {type(given).__name__}")
        check_names(options, f"{where}: ", also="prompt")
        agent, model, priority = (
            options.get(name, self._options.get(name)) for name in ("agent", "model", "priority")
        )
        return Unbegun(index, options, self._expected_places(agent, model), priority)

    def add(self, request: Unbegun) -> None:
        """Let a request wait until it begins."""
        self.order.add(request, request.index, request.places, request.priority)

    def take(self) -> Planned | CcrouteError | None:
        """The request that begins next, or the error that answers it. None: no other may begin now."""
        while (request := self.order.next()) is not None:
            try:
                planned = request.planned or self._plan(request)
            except CcrouteError as error:
                error.index = request.index
                return error.with_traceback(None)
            if self.order.has_room(planned.places):
                return planned
            request.planned, request.places = planned, planned.places
            self.add(request)
        return None

    def _plan(self, request: Unbegun) -> Planned:
        options = {**self._options, **request.options}
        prompt: Any = options.pop("prompt", None)
        context = self._router._begin(prompt, None, options)
        return Planned(request.index, self._places_of(context.plan.candidates), context)

    # Where a request is served.

    def _expected_places(self, agent: object, model: object) -> Places:
        """Where a request will probably be served; empty: unknown. Its plan is made only when it begins, by
        what is known then."""
        tables = self._router._state.tables
        if not (isinstance(agent, str | None) and isinstance(model, str | None)):
            return frozenset()
        try:
            chosen = tables.choose(agent, model)
            candidates = tables.chain((chosen.model,)).groups[0][1]
        except CcrouteError:
            return frozenset()
        if candidates[0].strategy == "ordered":
            candidates = candidates[:1]
        return frozenset(
            self._place(each.deployment)
            for each in candidates
            if not chosen.agent.local_only or each.deployment.is_local
        )

    def _places_of(self, candidates: Sequence[Candidate]) -> Places:
        """Where a call with these candidates is served first."""
        first, hosts = candidates[0], self._router._limiter
        has_limit = first.deployment.backend.origin in hosts
        others = equal_candidates(first, candidates, hosts) if has_limit else []
        return frozenset(self._place(each.deployment) for each in (first, *others))

    def _place(self, deployment: Deployment) -> Place:
        origin = deployment.backend.origin
        host = self._hosts.get(origin)
        return Place(origin, "") if host is None else place_of(deployment, host)
