"""One model behind one backend, and where its price comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ccroute.accounting import PriceBook
from ccroute.accounting.price_lists import PriceList, price_list
from ccroute.backends import Backend
from ccroute.backends.codec import HttpRequest
from ccroute.http.origin import is_private
from ccroute.types import FREE, Model, Price

if TYPE_CHECKING:
    from ccroute.routing.rate_limits import Limit


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """One model behind one backend.

    name:         `backend/model`.
    info:         the description of the model.
    fixed_price:  USD per million tokens that the configuration gives, or a local model's nothing; else None.
    price_source: "model" (the backend's `models`), "router" (its `prices=`), "free" (a local model),
                  "genai-prices" (the library); None if the price is unknown.
    price_list:   the library's prices, where there is no fixed one and the provider is known.
    why_unpriced: why the price is unknown; empty where it is known.
    identity:     what calls learn of it is kept under this: after a reload, its name may lead to another
                  server.
    limit:        what it may be sent in a minute; None: anything.
    """

    name: str
    backend: Backend
    model: str
    info: Model
    fixed_price: Price | None
    price_source: str | None = None
    price_list: PriceList | None = None
    why_unpriced: str = ""
    identity: str = field(init=False)
    limit: Limit | None = field(init=False)

    def __post_init__(self) -> None:
        put, info = object.__setattr__, self.info
        identity = f"{self.backend.identity} {self.model}"
        put(self, "identity", identity)
        put(self, "limit", limit_of("deployment", identity, self.name, info.rpm, info.tpm))

    @property
    def price(self) -> Price | None:
        """USD per million tokens now, which may change from hour to hour; None if unknown."""
        return self.fixed_price if self.price_list is None else self.price_list.now()

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on the user's own machines."""
        return self.backend.is_local(self.model)


def make_deployment(name: str, backend: Backend, model: str, prices: PriceBook) -> Deployment:
    """The deployment with its price: the model's own, else the router's, else nothing for a local model, else
    the library's at the backend's address."""
    info = backend.model(model)
    if info.price is not None:
        return Deployment(name, backend, model, info, FREE if info.price == "free" else info.price, "model")
    found = (prices.find(f"{backend.name}/{each}") for each in backend.names(model))
    if (price := next((price for price in found if price is not None), None)) is not None:
        return Deployment(name, backend, model, info, price, "router")
    if backend.is_free(model):
        return Deployment(name, backend, model, info, FREE, "free")
    host = backend.origin.host
    if is_private(host):  # no provider of the library, which is not imported then
        return Deployment(name, backend, model, info, None, why_unpriced="no price is given")
    listed = price_list(f"{backend.origin}{backend.target(HttpRequest(''))}", host, model)
    if isinstance(listed, str):
        return Deployment(name, backend, model, info, None, why_unpriced=listed)
    source = None if listed.why_unknown else "genai-prices"
    return Deployment(name, backend, model, info, None, source, listed, listed.why_unknown)


def limit_of(
    of: Literal["deployment", "agent"], identity: str, name: str, rpm: int | None, tpm: int | None
) -> Limit | None:
    """The rate limit of a deployment or an agent; None where it has none."""
    if rpm is None and tpm is None:
        return None
    from ccroute.routing.rate_limits import Limit  # most routers have none

    return Limit(of, identity, name, rpm, tpm)
