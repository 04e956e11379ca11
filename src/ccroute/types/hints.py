"""What to write here instead of a keyword that other libraries or providers have.

Knows names; must not know which backend a call will reach. `extra=` is advised only together with the
servers that carry the field, because every other one refuses or ignores it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

from ccroute.types.signatures import Made

_BACKEND = "it belongs to the backend: OpenAIBackend(…, {0}=…), and so for the others"
_TRIES = "the router tries again: Router(…, retry=RetryPolicy(attempts=…))"
_HEADERS = "headers belong to the backend: OpenAIBackend(…, headers={…}), and so for the others"
_LIMITS = "it is timeout= here: seconds for the whole call, or a Timeout(first=…, idle=…)"
_SERVERS = 'only {1} carry it, so use extra={"{0}": …} only where every model of the call is on one of them'
_ONLY_OPENAI = _SERVERS.replace("{1}", "OpenAI's own models")
_ONLY_OPENROUTER = _SERVERS.replace("{1}", "OpenRouter, vLLM and their like")
_ONLY_ANTHROPIC = _SERVERS.replace("{1}", "Anthropic's own models")
_OLLAMA = 'only Ollama carries it: extra={"options": {"{0}": …}} where every model of the call is on one'
_EFFORT = 'it is reasoning_effort= here: "none", "minimal", "low", "medium", "high" or "max"'
_PRICES = "it belongs to the router: Router(…, {0}=…)"

_HINTS: Final[dict[str, str]] = {
    # How an answer comes.
    "stream": "call stream() or astream()",
    "stream_options": "a stream's usage is in stream.completion.usage without asking",
    "n": "every call has one answer: call again for another",
    "best_of": "every call has one answer: call again for another",
    "callbacks": "it belongs to the router: Router(…, on_event=…)",
    # What is asked.
    "instructions": "it is system= here",
    "system_prompt": "it is system= here",
    "system_instruction": "it is system= here",
    "input": "it is prompt= or messages= here",
    "contents": "it is prompt= or messages= here",
    "content": "it is prompt= or messages= here",
    "history": "it is messages= here",
    "max_completion_tokens": "it is max_tokens here",
    "max_output_tokens": "it is max_tokens here",
    "max_new_tokens": "it is max_tokens here",
    "num_predict": "it is max_tokens here",
    "stop_sequences": "it is stop= here",
    "thinking": _EFFORT,
    "reasoning": _EFFORT,
    "think": _EFFORT,
    "thinking_budget": _EFFORT,
    "effort": _EFFORT,
    "functions": 'it is tools= here: functions themselves, or [{"type": "function", "function": {…}}]',
    "function_call": 'it is tool_choice= here: "auto", "required", "none" or a named function',
    "response_model": "it is response_format= here, which takes the class",
    "output_type": "it is response_format= here, which takes the class",
    "output_format": "it is response_format= here, which takes the class",
    "text_format": "it is response_format= here, which takes the class",
    "schema": "it is response_format= here, which takes a pydantic class",
    "format": "it is response_format= here, which takes a pydantic class",
    "json_mode": 'it is response_format={"type": "json_object"} here',
    "extra_body": "it is extra= here; every candidate of the call must know what it holds",
    "extra_query": "a query belongs to the backend; Azure's is OpenAIBackend(…, api_version=…)",
    # Who answers, and how it is tried.
    "provider": 'it is part of model= here: "backend/model"',
    "custom_llm_provider": 'it is part of model= here: "backend/model"',
    "models": "it is model= here, and fallback= for more of them",
    "fallbacks": "it is fallback= here, for one call; an agent's own: Agent(…, fallback=[…])",
    "max_retries": _TRIES,
    "num_retries": _TRIES,
    "retries": _TRIES,
    "retry": _TRIES,
    "request_timeout": _LIMITS,
    "timeout_s": _LIMITS,
    "deadline": _LIMITS,
    **dict.fromkeys(("extra_headers", "default_headers", "headers"), _HEADERS),
    **dict.fromkeys(("api_key", "base_url", "preset", "max_concurrency"), _BACKEND),
    "api_base": _BACKEND.replace("{0}", "base_url"),
    "api_version": "it belongs to the backend: OpenAIBackend(…, api_version=…)",
    "organization": 'it is a header of the backend: headers={"OpenAI-Organization": …}',
    "keep_alive": "it belongs to the backend: OllamaBackend(…, keep_alive=…)",
    "num_ctx": "it is the model's: OllamaBackend(…, models={…: Model(context_window=…)})",
    **dict.fromkeys(("prices", "drop_params", "on_event", "count_tokens", "default_model"), _PRICES),
    "session_id": "it is session= here",
    "user_id": "it is user= here",
    "tags": "it is metadata= here",
    # What only some servers know.
    **dict.fromkeys(
        ("store", "verbosity", "prediction", "modalities", "audio", "web_search_options", "service_tier"),
        _ONLY_OPENAI,
    ),
    **dict.fromkeys(("prompt_cache_key", "safety_identifier"), _ONLY_OPENAI),
    **dict.fromkeys(("top_a", "min_p", "repetition_penalty"), _ONLY_OPENROUTER),
    **dict.fromkeys(("betas", "container", "mcp_servers", "context_management"), _ONLY_ANTHROPIC),
    **dict.fromkeys(("mirostat", "num_gpu", "num_thread", "repeat_penalty", "repeat_last_n"), _OLLAMA),
    "cache_control": 'it goes into a message\'s parts: {"type": "text", "text": …, "cache_control": {…}}',
}


_OF_A_CALL = "it belongs to a call: router.complete(…, {0}=…)"
_ROUTERS_TIMEOUT = "it is timeout= here: seconds for a whole call, or a Timeout(first=…, idle=…)"
_BASE_URL = 'it is base_url= here, such as "http://localhost:11434"'
_OF_A_MODEL = "it is the model's: models={…: Model({0}=…)}"
_KEY = "it is api_key= here"
_FOR_ROUTER: Final[dict[str, str]] = {
    **dict.fromkeys(("max_retries", "num_retries", "retries"), "it is retry=RetryPolicy(attempts=…) here"),
    **dict.fromkeys(("request_timeout", "timeout_s", "deadline"), _ROUTERS_TIMEOUT),
    **dict.fromkeys(("model_list", "models", "deployments"), "it is backends=[…] and aliases={…} here"),
    **dict.fromkeys(("model", "default"), "it is default_model= here"),
    **dict.fromkeys(("strategy", "routing_strategy"), "it is the aliases': AliasTable({…}, strategy=…)"),
    **dict.fromkeys(("api_key", "base_url", "preset", "headers", "max_concurrency", "local"), _BACKEND),
    **dict.fromkeys(("callbacks", "callback", "on_error", "hooks"), "it is on_event= here"),
    **dict.fromkeys(
        ("proxy", "proxies", "http_client", "client", "verify"),
        "it is transport= here, an httpx transport; trust_env=True uses the environment's proxies",
    ),
    **dict.fromkeys(
        ("allowed_fails", "cooldown_time", "cooldown"),
        'deployments that fail are left alone by themselves; health="off" asks them every time',
    ),
    **dict.fromkeys(("local_only", "triggers", "params"), "it is an agent's: Agent(…, {0}=…)"),
}
_FOR_BACKEND: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("host", "url", "api_base", "endpoint", "address", "azure_endpoint", "server"), _BASE_URL
    ),
    "port": _BASE_URL,
    **dict.fromkeys(("key", "token", "auth_token", "apikey"), _KEY),
    **dict.fromkeys(("api_key_env", "key_env"), "it is api_key= here: api_key=os.environ[…]"),
    "num_ctx": _OF_A_MODEL.replace("{0}", "context_window"),
    **dict.fromkeys(("context_window", "max_output", "price", "weight"), _OF_A_MODEL),
    "prices": _OF_A_MODEL.replace("{0}", "price"),
    "model": 'a call names it: model="backend/model"; models={…: Model(…)} says what is known of it',
    **dict.fromkeys(("max_retries", "num_retries", "retries", "retry"), _TRIES),
    **dict.fromkeys(("request_timeout", "timeout_s"), "it is timeout= here: seconds, or a Timeout(…)"),
    **dict.fromkeys(("verify", "ssl", "ssl_verify", "ca_bundle"), "it is ca_file= here"),
    **dict.fromkeys(("default_headers", "extra_headers"), "it is headers= here"),
    "organization": 'it is a header: headers={"OpenAI-Organization": …}',
    **dict.fromkeys(("num_parallel", "concurrency", "max_parallel_requests"), "it is max_concurrency= here"),
    **dict.fromkeys(
        ("proxy", "proxies", "http_client", "client"),
        "it is the router's: Router(…, transport=…, trust_env=…)",
    ),
    "keep_alive": "only an OllamaBackend has it",
    **dict.fromkeys(("preset", "api_version", "finish_required"), "only an OpenAIBackend has it"),
}
_FOR_AGENT: Final[dict[str, str]] = {
    "name": "its name is its key in agents={…}",
    **dict.fromkeys(("system_prompt", "instructions", "prompt"), _OF_A_CALL.replace("{0}", "system")),
    "models": "it is model= here, and fallback= for more of them",
    **dict.fromkeys(("max_retries", "num_retries", "retries", "retry"), _TRIES),
    **dict.fromkeys(("api_key", "base_url", "max_concurrency"), _BACKEND),
}
_CONSTRUCTORS: Final = {"Router": _FOR_ROUTER, "Backend": _FOR_BACKEND, "Agent": _FOR_AGENT}


def constructor_hint(made: Made, name: str, known: Collection[str]) -> str:
    """What to do about the keyword `name` of a constructor, where `known` are those that it takes."""
    from ccroute.types.request import PARAMETERS, CallOptions

    if found := _CONSTRUCTORS[made].get(name):
        return found.replace("{0}", name)
    if name in PARAMETERS and made == "Agent":
        return f'it is one of params= here: params={{"{name}": …}}'
    if name in CallOptions.__annotations__:
        of_an_agent = f', or an agent\'s: Agent(…, params={{"{name}": …}})' if name in PARAMETERS else ""
        return _OF_A_CALL.replace("{0}", name) + of_an_agent
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(known))}"


def hint(name: str, known: Collection[str]) -> str:
    """What to do about the keyword `name`, where `known` are those that a call takes."""
    if found := _HINTS.get(name):
        return found.replace("{0}", name)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else "help(Router.complete) lists those that there are"
