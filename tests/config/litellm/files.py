"""What the tests of LiteLLM's files have in common."""

from ccroute.config import read
from ccroute.types import Model


def entry(name, model, info=None, **params):
    made = {"model_name": name, "litellm_params": {"model": model, **params}}
    return made if info is None else made | {"model_info": info}


def loaded(*entries, env=None, **sections):
    """What a file with these entries and sections becomes."""
    return Read(read({"model_list": list(entries), **sections}, env or {}))


def model(*, env=None, kind="ollama", info=None, **params):
    """The one model of a file, and the file."""
    found = loaded(entry("a", f"{kind}/x", info, api_key="k", **params), env=env)
    return found.model(found.leads("a")[0]), found


class Read:
    def __init__(self, found):
        self.options = found.options
        self.ignored = dict(found.ignored)
        self.backends = {backend.name: backend for backend in found.options["backends"]}

    def leads(self, name):
        return self.options["aliases"].resolve(name, self.backends.keys()).deployments

    def weights(self, name):
        return self.options["aliases"].resolve(name).weights

    def model(self, deployment):
        backend, _, model = deployment.partition("/")
        return self.backends[backend].models.get(model, Model())

    def fallbacks(self, name):
        return self.options["fallbacks"].get(name)
