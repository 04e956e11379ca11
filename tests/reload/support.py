"""What tests of reloads share: servers of any name behind one httpx transport, and sources as mappings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
from tests.support.openai_like import chat

from ccroute import Router
from ccroute.observe import Event, Reloaded

ONE, TWO = "http://one.test/v1", "http://two.test/v1"


class Hosts:
    """Every host answers, unless `status` or `bodies` has something else for it. Keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status: dict[str, int] = {}
        self.bodies: dict[str, Any] = {}
        self.transport = httpx.MockTransport(self._answer)

    @property
    def asked(self) -> list[str]:
        """The hosts that were asked, and for which model."""
        return [f"{request.url.host} {json.loads(request.content)['model']}" for request in self.requests]

    @property
    def bodies_sent(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        host = request.url.host
        status = self.status.get(host, 200)
        return httpx.Response(status, json=self.bodies.get(host) if status != 200 else chat("fine"))


def backend(base_url: str = ONE, **options: Any) -> dict[str, Any]:
    return {"kind": "openai", "base_url": base_url, **options}


def source(main: Mapping[str, Any] | str = ONE, **further: Any) -> dict[str, Any]:
    """A configuration with the backend `main` and the default model `main/m`."""
    table = backend(main) if isinstance(main, str) else main
    more = further.pop("backends", {})
    return {"backends": {"main": dict(table), **more}, "default_model": "main/m", **further}


class Reloads:
    """The `Reloaded` events of a router."""

    def __init__(self) -> None:
        self.events: list[Reloaded] = []

    def listen(self, event: Event) -> None:
        if isinstance(event, Reloaded):
            self.events.append(event)


def router(given: Any, hosts: Hosts, **options: Any) -> Router:
    return Router.from_config(given, env={}, transport=hosts.transport, **options)
