"""Every key of LiteLLM's files that is known, by section; those that are ignored with the reason.

From LiteLLM's own types and pages: https://docs.litellm.ai/docs/proxy/config_settings,
https://github.com/BerriAI/litellm/blob/main/litellm/types/router.py.
docs/litellm.md has the same keys; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from ccroute.config.foreign.builder import Builder, unknown_key
from ccroute.config.foreign.spelling import misspelt
from ccroute.config.reading.source import Place

Keys = Mapping[str, str | None]
"""The keys of a section; None for a key that is read, else why it is ignored."""

PROXY: Final = "belongs to LiteLLM's proxy server; ccroute runs in your process"
_LOGS: Final = 'ccroute has on_event= of Router, and the logger "ccroute"'
_REDIS: Final = "each ccroute process keeps its own state"
_CACHE: Final = "this version of ccroute has no cache"
_COOLDOWN: Final = "a breaker opens and closes by its own rules: docs/reliability.md"
_TAGS: Final = "ccroute does not choose by tags; give the model a name of its own for them"
_OTHER_UNITS: Final = "ccroute prices the tokens of prompts and answers; it is in no cost"
_USERS: Final = (
    "is for users, keys, teams and tags of LiteLLM's proxy; ccroute has budgets of agents and groups"
)
_CLOUD: Final = "is for a provider that ccroute cannot sign in to"
_STREAM: Final = "the call decides: complete() or stream()"
_OTHER_API: Final = "is for another API than chat"


def _read(names: str) -> dict[str, str | None]:
    return dict.fromkeys(names.split())


def _ignored(why: str, names: str) -> dict[str, str | None]:
    return dict.fromkeys(names.split(), why)


TOP: Final[Keys] = {
    **_read(
        "model_list litellm_settings router_settings general_settings environment_variables "
        "credential_list include"
    ),
    **_ignored(
        PROXY,
        "callback_settings guardrails mcp_servers mcp_tools search_tools vector_store_registry prompts "
        "finetune_settings files_settings assistant_settings default_team_settings worker_registry "
        "policies policy_attachments agent_list server logging",
    ),
}

ENTRY: Final[Keys] = _read("model_name litellm_params model_info rpm tpm")

PRICES: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
}
PRICE: Final = re.compile(rf"({'|'.join(PRICES)})(?:_above_(\d+)(k?)_tokens)?(?:_(flex|priority))?")
"""The key of a price, with the length of the prompt or the service tier, if it has one."""
REASONING: Final = "output_cost_per_reasoning_token"
RANGES: Final = "tiered_pricing"
SEARCHES: Final = "search_context_cost_per_query"
_SERVICES: Final = (
    "input_cost_per_token_flex output_cost_per_token_flex cache_read_input_token_cost_flex "
    "input_cost_per_token_priority output_cost_per_token_priority cache_read_input_token_cost_priority"
)
_OTHER_RULES: Final = f"{REASONING} {RANGES} {SEARCHES} off_peak_pricing"
_FACTS: Final = f"max_input_tokens max_output_tokens {' '.join(PRICES)} {_SERVICES} {_OTHER_RULES}"
_OTHER_PRICES: Final = (
    "input_cost_per_second output_cost_per_second input_cost_per_character output_cost_per_character "
    "input_cost_per_image output_cost_per_image input_cost_per_pixel output_cost_per_pixel "
    "input_cost_per_audio_token output_cost_per_audio_token cache_creation_input_audio_token_cost "
    "cache_read_input_audio_token_cost input_cost_per_audio_per_second output_cost_per_audio_per_second "
    "input_cost_per_video_per_second output_cost_per_video_per_second input_cost_per_image_token "
    "output_cost_per_image_token input_cost_per_video_token output_cost_per_video_token "
    "input_cost_per_query input_cost_per_token_batches output_cost_per_token_batches "
    "citation_cost_per_token ocr_cost_per_page annotation_cost_per_page "
    "provider_specific_entry regional_processing_uplift_multiplier_eu "
    "regional_processing_uplift_multiplier_us cost_per_ptu_per_hour"
)

PARAMETERS: Final = (
    "temperature top_p top_k seed stop frequency_penalty presence_penalty logit_bias logprobs top_logprobs "
    "response_format tools tool_choice parallel_tool_calls user reasoning_effort"
)
BODY: Final = (
    "min_p top_a repetition_penalty chat_template_kwargs enable_thinking thinking_budget service_tier store "
    "verbosity prediction modalities audio web_search_options prompt_cache_key prompt_cache_retention "
    "safety_identifier safety_settings provider transforms route plugins include_reasoning "
    "search_parameters guided_json guided_regex guided_choice guided_grammar"
)
OLLAMA_OPTIONS: Final = (
    "mirostat mirostat_eta mirostat_tau repeat_last_n repeat_penalty tfs_z num_gpu num_thread num_batch "
    "num_keep typical_p"
)

PARAMS: Final[Keys] = {
    **_read(
        "model custom_llm_provider api_key api_base base_url api_version organization timeout stream_timeout "
        "extra_headers headers drop_params additional_drop_params ssl_verify keep_alive num_ctx "
        "litellm_credential_name azure_ad_token max_parallel_requests rpm tpm weight order max_tokens "
        "max_completion_tokens num_predict thinking extra_body mock_response"
    ),
    **_read(PARAMETERS),
    **_read(BODY),
    **_read(OLLAMA_OPTIONS),
    **_read(_FACTS),
    **_ignored(_OTHER_UNITS, _OTHER_PRICES),
    **_ignored(
        "retries are counted for the whole router: router_settings.num_retries", "max_retries num_retries"
    ),
    **_ignored(_COOLDOWN, "cooldown_time allowed_fails"),
    **_ignored(_STREAM, "stream stream_options"),
    **_ignored("every call has one answer", "n"),
    **_ignored(_TAGS, "tags tag_regex"),
    **_ignored("the server's address says where it runs", "region_name"),
    **_read("max_budget budget_duration"),
    **_ignored("put cache_control into the messages' parts", "cache_control_injection_points"),
    **_ignored("thoughts are apart from the text: reply.thinking", "merge_reasoning_content_in_choices"),
    **_ignored("ccroute knows by its own lists what a model can", "model_info allowed_openai_params"),
    **_ignored(
        _CLOUD,
        "aws_access_key_id aws_secret_access_key aws_session_token aws_region_name aws_session_name "
        "aws_profile_name aws_role_name aws_web_identity_token aws_sts_endpoint aws_external_id "
        "aws_bedrock_runtime_endpoint aws_bedrock_project_id vertex_project vertex_location "
        "vertex_credentials vertex_ai_project vertex_ai_location vertex_ai_credentials watsonx_region_name "
        "project_id space_id tenant_id client_id client_secret azure_scope azure_username azure_password "
        "guardrailConfig",
    ),
    **_ignored(
        PROXY,
        "guardrails use_in_pass_through use_litellm_proxy use_chat_completions_api prompt_id "
        "prompt_variables configurable_clientside_auth_params litellm_trace_id litellm_session_id "
        "default_api_key_rpm_limit default_api_key_tpm_limit max_file_size_mb no-log metadata callbacks "
        "success_callback failure_callback hf_model_name initial_prompt_value roles "
        "final_prompt_value bos_token eos_token itpm otpm keepalive_seconds provider_affinity_header",
    ),
    **_ignored(
        _OTHER_API,
        "dimensions encoding_format input_type voice size quality language vector_store_id vector_store_ids "
        "embedding_model auto_router_config auto_router_config_path auto_router_default_model "
        "auto_router_embedding_model complexity_router_config complexity_router_default_model",
    ),
}

INFO: Final[Keys] = {
    **_read(f"id base_model mode max_tokens blocked {_FACTS}"),
    **_ignored(_OTHER_UNITS, _OTHER_PRICES),
    **_ignored("ccroute knows by its own lists what a model can", "supported_openai_params"),
    **_ignored(
        "describes the model", "description version metadata tier health_check_model litellm_provider"
    ),
    **_ignored(
        PROXY,
        "access_groups team_id team_public_model_name db_model created_at created_by updated_at updated_by "
        "health_check_timeout disable_background_health_check health_check_voice health_check_max_tokens",
    ),
}

ROUTER: Final[Keys] = {
    **_read(
        "routing_strategy num_retries retry_after timeout stream_timeout cooldown_time disable_cooldowns "
        "fallbacks default_fallbacks context_window_fallbacks max_fallbacks model_group_alias "
        "default_litellm_params default_max_parallel_requests provider_budget_config"
    ),
    **_ignored(_COOLDOWN, "allowed_fails allowed_fails_policy"),
    **_ignored(
        "the class of a failure decides what is tried again: docs/reliability.md",
        "retry_policy model_group_retry_policy",
    ),
    **_ignored(
        "a refusal for its content is the caller's: it is not sent to another model",
        "content_policy_fallbacks",
    ),
    **_ignored(
        "prompts are always checked against known context windows",
        "enable_pre_call_check enable_pre_call_checks",
    ),
    **_ignored(_REDIS, "redis_host redis_port redis_password redis_url redis_db redis_ssl redis_username"),
    **_ignored(_CACHE, "cache_responses cache_kwargs caching_groups client_ttl"),
    **_ignored(_TAGS, "enable_tag_filtering tag_filtering_match_any"),
    **_ignored(_LOGS, "set_verbose debug_level alerting_config"),
    **_ignored(
        "belongs to what LiteLLM's router does besides; ccroute does not have it",
        "routing_strategy_args routing_groups optional_pre_call_checks default_priority polling_interval "
        "deployment_affinity_ttl_seconds ignore_invalid_deployments "
        "router_general_settings assistants_config guardrail_list search_tools",
    ),
}

LITELLM: Final[Keys] = {
    **_read("drop_params request_timeout ssl_verify max_budget budget_duration timezone"),
    **_ignored(_CACHE, "cache cache_params enable_caching_on_provider_specific_optional_params"),
    **_ignored(
        _LOGS,
        "callbacks success_callback failure_callback service_callback service_callbacks input_callback "
        "set_verbose json_logs log_raw_request_response turn_off_message_logging "
        "redact_messages_in_exceptions redact_user_api_key_info langfuse_default_tags suppress_debug_info "
        "langfuse_host store_audit_logs s3_callback_params datadog_params prometheus_metrics_config "
        "prometheus_initialize_budget_metrics custom_prometheus_metadata_labels "
        "require_auth_for_metrics_endpoint log_level callback_settings",
    ),
    **_ignored(
        _USERS,
        "max_user_budget max_internal_user_budget internal_user_budget_duration max_end_user_budget "
        "max_end_user_budget_id default_max_internal_user_budget max_ui_session_budget tag_budget_config",
    ),
    **_ignored("counts under litellm_params only", "additional_drop_params default_params api_key api_base"),
    **_ignored("ccroute writes each request as the model's server wants it", "modify_params"),
    **_ignored("ccroute uses what the system's resolver gives", "force_ipv4"),
    **_ignored("prices stand in the file: model_info", "cost_discount_config cost_margin_config"),
    **_ignored(
        PROXY,
        "mcp_aliases guardrails default_team_settings default_internal_user_params "
        "upperbound_key_generate_params default_key_generate_params key_generation_settings "
        "allowed_fails_policy_by_model public_model_groups enable_preview_features telemetry "
        "disable_end_user_cost_tracking disable_end_user_cost_tracking_prometheus_only "
        "disable_add_transform_inline_image_block disable_hf_tokenizer_download "
        "enable_json_schema_validation enable_key_alias_format_validation "
        "disable_copilot_system_to_assistant priority_reservation default_team_params "
        "use_chat_completions_url_for_anthropic_messages forward_traceparent_to_llm_provider "
        "extra_spend_tag_headers custom_provider_map "
        "always_include_stream_usage disable_stop_sequence_limit num_workers default_user_params",
    ),
}

GENERAL: Final[Keys] = {
    **_read("completion_model max_parallel_requests litellm_settings router_settings"),
    **_ignored(
        "health() asks listing endpoints only when it is called",
        "health_check_interval background_health_checks health_check_details use_shared_health_check",
    ),
    **_ignored(_USERS, "max_internal_user_budget internal_user_budget_duration"),
    **_ignored("each host has a limit of its own: max_parallel_requests", "global_max_parallel_requests"),
    **_ignored(
        _LOGS,
        "alerting alerting_threshold alert_types alerting_args alert_to_webhook_url spend_report_frequency",
    ),
    **_ignored(
        PROXY,
        "master_key database_url database_type database_connection_pool_limit database_connection_timeout "
        "database_args database_extra_connection_params allow_requests_on_db_unavailable custom_auth "
        "custom_auth_settings custom_auth_run_common_checks custom_key_generate custom_key_update custom_sso "
        "custom_ui_sso_sign_in_handler infer_model_from_keys store_model_in_db supported_db_objects "
        "store_prompts_in_spend_logs disable_spend_logs disable_spend_updates disable_error_logs "
        "disable_master_key_return disable_retry_on_max_parallel_request_limit_error disable_reset_budget "
        "disable_adding_master_key_hash_to_db disable_responses_id_security disable_prisma_schema_update "
        "disable_key_check disable_auth disable_cache_on_db_queries enable_jwt_auth enable_oauth2_auth "
        "enable_oauth2_proxy_auth enforce_user_param enforce_rbac enforced_params "
        "reject_clientside_metadata_tags allowed_routes admin_only_routes public_routes allowed_ips "
        "key_management_system key_management_settings use_azure_key_vault use_google_kms "
        "maximum_spend_logs_retention_period maximum_spend_logs_retention_interval user_mcp_management_mode "
        "use_client_credentials_pass_through_routes use_x_forwarded_for service_account_settings "
        "image_generation_model embedding_model moderation_model max_request_size_mb max_response_size_mb "
        "proxy_budget_rescheduler_min_time proxy_budget_rescheduler_max_time proxy_batch_write_at "
        "proxy_batch_polling_interval default_team_disabled allow_user_auth user_api_key_cache_ttl "
        "litellm_key_header_name allow_client_side_credentials ui_access_mode litellm_jwtauth "
        "litellm_license oauth2_config_mappings pass_through_endpoints forward_openai_org_id "
        "forward_client_headers_to_llm_api forward_llm_provider_auth_headers user_header_name "
        "user_header_mappings custom_headers role_permissions role_mappings control_plane_url "
        "key_generation_settings default_internal_user_params "
        "upperbound_key_generate_params block_robots cors_allow_origins port "
        "host num_workers always_include_stream_usage pass_through_request_timeout otel coordination_redis "
        "default_user_params telemetry",
    ),
}

PROVIDER_BUDGET: Final[Keys] = _read("budget_limit time_period max_budget budget_duration")

SECTIONS: Final[Mapping[str, Keys]] = {
    "router_settings": ROUTER,
    "litellm_settings": LITELLM,
    "general_settings": GENERAL,
}
MEANT: Final = {"rpm_limit": "rpm", "tpm_limit": "tpm"}
"""Frequent mistakes that no comparison of letters finds."""
SUPPORTS: Final = "supports_"
"""`supports_vision` and many more, of `model_info` and of `litellm_params`: what the model can."""


def note_unread(builder: Builder, table: Mapping[str, Any], place: Place, known: Keys) -> None:
    """Note the keys of a table that are ignored, and warn of those that seem misspelled."""
    for key, value in table.items():
        why = known.get(key, "")
        if why is None or value is None or PRICE.fullmatch(key):
            continue
        here = (*place, key)
        if why or key.startswith(SUPPORTS):
            builder.ignore(here, why or "ccroute knows by its own lists what a model can")
        elif (meant := _meant(key, tuple(known))) and meant not in table and known.get(meant, "") is None:
            builder.warn(here, unknown_key(meant))
            builder.ignore(here, unknown_key(meant))
        elif other := _elsewhere(key, place):
            builder.warn(here, f"is read under {other} only, by LiteLLM too")
            builder.ignore(here, f"belongs under {other}")
        else:
            builder.ignore(here, "is not known; a field of the provider's own belongs under extra_body")


@lru_cache(256)
def _meant(key: str, known: tuple[str, ...]) -> str | None:
    """The known key that a wrong one may mean. Hundreds of entries have the same keys."""
    return MEANT.get(key) or misspelt(key, known)


def _elsewhere(key: str, place: Place) -> str | None:
    """The section that a key belongs to, for one that is in another section."""
    if place[-1:] and place[-1] in SECTIONS:
        others = (name for name, keys in SECTIONS.items() if name not in place and keys.get(key, "") is None)
        return next(others, None)
    return None
