"""What a host knows of its models, as plain data. Never waits: it reads while others change the host."""

from __future__ import annotations

from collections import Counter

from ccroute.routing.scheduling.host import Host
from ccroute.types.inspection.stats import ModelStats


def model_stats(host: Host, now: float) -> dict[str, ModelStats]:
    """Each model that is loaded, that calls wait for, or whose load was measured. None at a host that loads
    no models on demand."""
    loaded, loads = host.loaded.copy(), host.measured_loads()
    waiting = Counter[str]()
    for queue, choices in host.queues.copy().items():
        for model in {choice.place.model for choice in choices}:
            waiting[model] += len(queue)
    return {
        model: ModelStats(
            loaded_for=now - loaded[model].since if model in loaded else None,
            usual_load=loads.get(model),
            waiting=waiting[model],
        )
        for model in [*loaded, *(loads.keys() | waiting.keys()) - loaded.keys()]
        if model  # it is "" for what the host need not load
    }
