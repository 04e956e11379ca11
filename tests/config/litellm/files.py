"""What the tests of LiteLLM's files have in common."""

from ccroute.config import read


def entry(name, model, info=None, **params):
    made = {"model_name": name, "litellm_params": {"model": model, **params}}
    return made if info is None else made | {"model_info": info}


def loaded(*entries, env=None, **sections):
    """What a file with these entries and sections becomes."""
    return Read(read({"model_list": list(entries), **sections}, env or {}))


class Read:
    def __init__(self, found):
        self.options = found.options
        self.ignored = dict(found.ignored)
        self.backends = {backend.name: backend for backend in found.options["backends"]}

    def leads(self, name):
        return self.options["aliases"].resolve(name).deployments

    def weights(self, name):
        return self.options["aliases"].resolve(name).weights

    def model(self, deployment):
        backend, _, model = deployment.partition("/")
        return self.backends[backend].models[model]

    def fallbacks(self, name):
        return self.options["fallbacks"].get(name)
