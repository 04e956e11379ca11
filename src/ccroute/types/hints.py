"""Advice for unknown keywords: what to write instead of the names that other libraries use.

Knows names; must not know which backend a call will reach. `extra=` is advised only together with the
servers that carry the field, because every other one refuses or ignores it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Final

from ccroute.types.signatures import Made


def _by_name(advice: Mapping[str, str]) -> dict[str, str]:
    """The advice for each name. Each row is an advice and its names; `{0}` in it becomes the name."""
    return {name: text.replace("{0}", name) for text, names in advice.items() for name in names.split()}


_BACKEND = "it belongs to the backend: OpenAIBackend(…, {0}=…), and so for the others"
_TRIES = "the router tries again: Router(…, retry=RetryPolicy(attempts=…))"
_LIMITS = "it is timeout= here: seconds for the whole call, or a Timeout(first=…, idle=…)"
_SERVERS = 'only %s carry it, so use extra={"{0}": …} only where every model of the call is on one of them'
_OF_A_CALL = "it belongs to a call: router.complete(…, {0}=…)"
_A_BUDGET = "a budget is the router's: Router(…, budgets={%s: Budget(5)}), in USD a day"
_OF_A_MODEL = "it is the model's: models={…: Model({0}=…)}"

_HINTS: Final = _by_name(
    {
        # How an answer is returned.
        "call stream() or astream()": "stream",
        "a stream's usage is in stream.completion.usage without asking": "stream_options",
        "every call has one answer: call again for another": "n best_of",
        "it belongs to the router: Router(…, on_event=…)": "callbacks",
        # The input and the parameters.
        "it is system= here": "instructions system_prompt system_instruction",
        "it is prompt= or messages= here": "input contents content",
        "it is messages= here": "history",
        "it is max_tokens here": "max_completion_tokens max_output_tokens max_new_tokens num_predict",
        "it is stop= here": "stop_sequences",
        'it is reasoning_effort= here: "none", "minimal", "low", "medium", "high" or "max"': (
            "thinking reasoning think thinking_budget effort"
        ),
        'it is tools= here: functions themselves, or [{"type": "function", "function": {…}}]': "functions",
        'it is tool_choice= here: "auto", "required", "none" or a named function': "function_call",
        "it is response_format= here, which takes the class": (
            "response_model output_type output_format text_format"
        ),
        "it is response_format= here, which takes a pydantic class": "schema format",
        'it is response_format={"type": "json_object"} here': "json_mode",
        "it is extra= here; every candidate of the call must accept its fields": "extra_body",
        "a query belongs to the backend; Azure's is OpenAIBackend(…, api_version=…)": "extra_query",
        # Routing, retries and backends.
        'it is part of model= here: "backend/model"': "provider custom_llm_provider",
        "it is model= here, and fallback= for more of them": "models",
        "it is fallback= here, for one call; an agent's own: Agent(…, fallback=[…])": "fallbacks",
        _TRIES: "max_retries num_retries retries retry",
        _LIMITS: "request_timeout timeout_s deadline",
        "headers belong to the backend: OpenAIBackend(…, headers={…}), and so for the others": (
            "extra_headers default_headers headers"
        ),
        _BACKEND: "api_key base_url preset max_concurrency",
        _BACKEND.replace("{0}", "base_url"): "api_base",
        "it belongs to the backend: OpenAIBackend(…, api_version=…)": "api_version",
        'it is a header of the backend: headers={"OpenAI-Organization": …}': "organization",
        "it belongs to the backend: OllamaBackend(…, keep_alive=…)": "keep_alive",
        "it is the model's: OllamaBackend(…, models={…: Model(context_window=…)})": "num_ctx",
        "it belongs to the router: Router(…, {0}=…)": (
            "prices drop_params on_event count_tokens default_model ledger baseline"
        ),
        _A_BUDGET % '"router"': "budget budgets max_budget max_cost",
        "it is session= here": "session_id",
        "it is user= here": "user_id",
        "it is metadata= here": "tags",
        # Fields of some servers only.
        _SERVERS % "OpenAI's own models": (
            "store verbosity prediction modalities audio web_search_options service_tier"
            " prompt_cache_key safety_identifier"
        ),
        _SERVERS % "OpenRouter, vLLM and their like": "top_a min_p repetition_penalty",
        _SERVERS % "Anthropic's own models": "betas container mcp_servers context_management",
        'only Ollama carries it: extra={"options": {"{0}": …}} where every model of the call is on one': (
            "mirostat num_gpu num_thread repeat_penalty repeat_last_n"
        ),
        'it goes into a message\'s parts: {"type": "text", "text": …, "cache_control": {…}}': "cache_control",
    }
)
_CONSTRUCTORS: Final[dict[Made, dict[str, str]]] = {
    "Router": _by_name(
        {
            "it is retry=RetryPolicy(attempts=…) here": "max_retries num_retries retries",
            _LIMITS: "request_timeout timeout_s deadline",
            "it is backends=[…] and aliases={…} here": "model_list models deployments",
            "it is default_model= here": "model default",
            'it is fallbacks={…: [Fallback(…, triggers=["token_limit"])]}': "context_window_fallbacks",
            'it is fallbacks={"*": […]}': "default_fallbacks",
            "it is the aliases': AliasTable({…}, strategy=…)": "strategy routing_strategy",
            _BACKEND: "api_key base_url preset headers max_concurrency local",
            "it is on_event= here": "callbacks callback on_error hooks",
            'it is budgets={"router": Budget(5)} here, in USD a day': "budget max_budget max_cost",
            'it is ledger= here, such as ledger="usage.db"': "db database database_url usage_db",
            "it is transport= here, an httpx transport; trust_env=True uses the environment's proxies": (
                "proxy proxies http_client client verify"
            ),
            'failing deployments are skipped automatically; health="off" switches that off': (
                "allowed_fails cooldown_time cooldown"
            ),
            "it is an agent's: Agent(…, {0}=…)": "local_only triggers params waiting_cost max_wait_free",
            "it is from_config's: Router.from_config(…, {0}=…)": "watch env",
        }
    ),
    "Backend": _by_name(
        {
            'it is base_url= here, such as "http://localhost:11434"': (
                "host port url api_base endpoint address azure_endpoint server"
            ),
            "it is api_key= here": "key token auth_token apikey",
            "it is api_key= here: api_key=os.environ[…]": "api_key_env key_env",
            _OF_A_MODEL.replace("{0}", "context_window"): "num_ctx",
            _OF_A_MODEL: "context_window max_output price weight params drops rpm tpm",
            _OF_A_MODEL.replace("{0}", "drops"): "additional_drop_params",
            _OF_A_MODEL.replace("{0}", "price"): "prices",
            'a call names it: model="backend/model"; models={…: Model(…)} describes it': "model",
            _TRIES: "max_retries num_retries retries retry",
            "it is timeout= here: seconds, or a Timeout(…)": "request_timeout timeout_s",
            "it is ca_file= here": "verify ssl ssl_verify ca_bundle",
            "it is headers= here": "default_headers extra_headers",
            'it is a header: headers={"OpenAI-Organization": …}': "organization",
            "it is max_concurrency= here": "num_parallel concurrency max_parallel_requests",
            "it is the router's: Router(…, transport=…, trust_env=…)": "proxy proxies http_client client",
            "only an OllamaBackend has it": "keep_alive",
            "only an OpenAIBackend has it": "preset api_version finish_required",
        }
    ),
    "Agent": _by_name(
        {
            "its name is its key in agents={…}": "name",
            _OF_A_CALL.replace("{0}", "system"): "system_prompt instructions prompt",
            "it is model= here, and fallback= for more of them": "models",
            _TRIES: "max_retries num_retries retries retry",
            _BACKEND: "api_key base_url max_concurrency",
            _A_BUDGET % '"agent:…"': "budget budgets max_budget max_cost daily_budget",
        }
    ),
}


def constructor_hint(made: Made, name: str, known: Collection[str]) -> str:
    """Advice for the unknown keyword `name` of a constructor, which takes the keywords `known`."""
    from ccroute.types.request import PARAMETERS, CallOptions

    if found := _CONSTRUCTORS[made].get(name):
        return found
    if name in PARAMETERS and made == "Agent":
        return f'it is one of params= here: params={{"{name}": …}}'
    if name in CallOptions.__annotations__:
        of_an_agent = f', or an agent\'s: Agent(…, params={{"{name}": …}})' if name in PARAMETERS else ""
        return _OF_A_CALL.replace("{0}", name) + of_an_agent
    return _closest(name, known) or f"it takes {', '.join(sorted(known))}"


def hint(name: str, known: Collection[str]) -> str:
    """Advice for the unknown keyword `name` of a call, which takes the keywords `known`."""
    return _HINTS.get(name) or _closest(name, known) or "help(Router.complete) lists all arguments"


def _closest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else ""
