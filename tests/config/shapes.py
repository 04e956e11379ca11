"""What the tests of orchestra files have in common."""

ENV = {"ANTHROPIC_API_KEY": "sk-ant", "CCPROXY_TOKEN": "token"}
ANTHROPIC = {
    "enabled": True,
    "providerType": "anthropic",
    "baseUrl": "https://api.anthropic.com",
    "apiKeyRef": "env:ANTHROPIC_API_KEY",
    "apiVersion": "2023-06-01",
    "defaultModel": "sonnet",
    "modelAliases": {"opus": "claude-opus-4-1", "sonnet": "claude-sonnet-4-5"},
    "maxRetries": 3,
    "timeoutSecs": 60,
}
AGENT = {"model": "ollama/q"}


def endpoint(url, **names):
    return {"llm_routing": {"endpoints": {"e": {"url": url, **names}}}, "agents": {}}


def backends(options):
    return {
        backend.name: (type(backend), str(backend.origin), backend.secrets())
        for backend in options["backends"]
    }
