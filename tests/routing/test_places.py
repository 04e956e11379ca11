"""What a host has to load for a call."""

from __future__ import annotations

from ccroute import OllamaBackend
from ccroute.routing.scheduling import HostLimits, Place
from ccroute.routing.scheduling.host import Host


def test_a_call_for_which_the_host_loads_nothing_evicts_nothing() -> None:
    """Such as one to a cloud model of an Ollama that also runs models itself."""
    backend = OllamaBackend()
    host = Host(backend.origin, HostLimits(1, loads_models=True))
    here = Place(backend.origin, backend.runner("coder"))
    cloud = Place(backend.origin, backend.runner("gpt-oss:120b-cloud"))
    host.start("first", here, 0.0, 0.0)
    host.end("first", 1.0)
    assert host.has(cloud)
    assert host.evicted_by(cloud, 1.0) == ()
    assert not host.start("second", cloud, 1.0, 1.0).loads
    assert list(host.loaded) == ["coder"]
