"""What the backends' own lists say of them: `router.health()`."""

from __future__ import annotations

from datetime import datetime

from ccroute.types.route import Frozen


class LoadedModel(Frozen):
    """A model in a server's memory.

    `size` is in bytes. `context_window` is the one it was loaded with, in tokens. At `expires` it is
    unloaded, if no call uses it before. None: the server does not say.
    """

    name: str
    size: int | None = None
    context_window: int | None = None
    expires: datetime | None = None


class BackendHealth(Frozen):
    """What a backend's lists say now.

    ok:      True: it listed its models. False: it did not, and `error` (the class of the error) and `detail`
             say why. None: it has no list.
    address: where it is.
    models:  the names that it lists.
    loaded:  the models in memory; None if the server does not say.
    missing: models that the router's tables use and the server does not list: calls to them would fail.
    latency: seconds until it had listed its models; None if it did not.
    """

    ok: bool | None = None
    address: str = ""
    models: tuple[str, ...] = ()
    loaded: tuple[LoadedModel, ...] | None = None
    missing: tuple[str, ...] = ()
    latency: float | None = None
    error: str | None = None
    detail: str = ""
