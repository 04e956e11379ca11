"""What the tests of orchestra files have in common."""

ENV = {"ANTHROPIC_API_KEY": "sk-ant", "CCPROXY_TOKEN": "token"}
AGENT = {"model": "ollama/q"}


def endpoint(url, **names):
    return {"llm_routing": {"endpoints": {"e": {"url": url, **names}}}, "agents": {}}


def backends(options):
    return {
        backend.name: (type(backend), str(backend.origin), backend.secrets())
        for backend in options["backends"]
    }
