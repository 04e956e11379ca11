"""The error type of each error code, and the message of each error type. Data only."""

from typing import Final

from ccroute.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    ContentPolicyError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from ccroute.failures import CallFailure

SUMMARIES: Final[dict[type[CallFailure], str]] = {
    InvalidRequestError: "the server refused the request as invalid",
    ContextWindowExceededError: "the prompt exceeds the context window: shorten it, or use a larger model",
    ContentPolicyError: "the provider's content policy refused the request: rephrase it",
    AuthenticationError: "the key is missing or wrong: check api_key",
    QuotaExhaustedError: "a billing limit is reached and waiting does not clear it: check plan and balance",
    PermissionDeniedError: "the key may not do this: check what it is allowed",
    ModelNotFoundError: "the server has no such model or path: check the model's name and base_url",
    RateLimitError: "too many requests or tokens: send fewer, or wait",
    OverloadedError: "the server has no room now: try again later",
    ServerError: "the server failed: try again, or look at its log",
    BackendTimeoutError: "the server gave up waiting: try again",
    BackendError: "the server refused: check base_url and what the server expects",
}

MISSING_FEATURE: Final = (
    "this deployment does not take what the request asks for: leave it out, or set drop_params=True. What a "
    'model never takes can be described to the backend, as Model(sampling="none")'
)

REDIRECT: Final = "the server redirects, and redirects are not followed: fix base_url"

# These codes are more exact than the status.
BY_CODE: Final[dict[str, type[CallFailure]]] = {
    **dict.fromkeys(("context_length_exceeded", "context_window_exceeded"), ContextWindowExceededError),
    **dict.fromkeys(
        ("exceed_context_size_error", "model_max_prompt_tokens_exceeded"), ContextWindowExceededError
    ),
    "1261": ContextWindowExceededError,
    **dict.fromkeys(("content_filter", "content_policy_violation"), ContentPolicyError),
    "responsibleaipolicyviolation": ContentPolicyError,
    **dict.fromkeys(
        ("billing_error", "billing_hard_limit_reached", "insufficient_quota"), QuotaExhaustedError
    ),
    **dict.fromkeys(("credit_balance_exhausted", "enforced_spend_limit_reached"), QuotaExhaustedError),
    **dict.fromkeys(
        ("organization_spend_limit_exceeded", "project_spend_limit_exceeded"), QuotaExhaustedError
    ),
    **dict.fromkeys(("organization_usage_limit_exceeded", "usage_limit_reached"), QuotaExhaustedError),
    **dict.fromkeys(("insufficient_balance", "insufficient_balance_error", "1113"), QuotaExhaustedError),
    **dict.fromkeys(("arrearage", "budget_exceeded", "insufficient_user_quota"), QuotaExhaustedError),
    "exceeded_current_quota_error": QuotaExhaustedError,
    **dict.fromkeys(("rate_limit_exceeded", "throttlingexception"), RateLimitError),
    "model_not_found": ModelNotFoundError,
}

# These codes only repeat the status. They count if there is none: in a stream, or under HTTP 200.
WITHOUT_STATUS: Final[dict[str, type[CallFailure]]] = {
    **dict.fromkeys(("authentication_error", "invalid_api_key"), AuthenticationError),
    **dict.fromkeys(
        ("invalid_request_error", "badrequesterror", "request_too_large", "validation"), InvalidRequestError
    ),
    **dict.fromkeys(("not_found_error", "notfounderror"), ModelNotFoundError),
    **dict.fromkeys(("overloaded_error", "overloaded", "unavailable_error"), OverloadedError),
    "permission_error": PermissionDeniedError,
    "rate_limit_error": RateLimitError,
    "timeout_error": BackendTimeoutError,
}
