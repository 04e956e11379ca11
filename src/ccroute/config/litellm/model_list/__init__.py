"""LiteLLM's `model_list`: each entry is a model behind a server, which becomes a deployment of a backend."""
