"""What servers say of a failure, as users reported it: read for what it means, with its numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import Agent, OpenAIBackend, RetryPolicy, Router, errors
from ccroute.errors import CcrouteError
from ccroute.types import Model
from ccroute.wire import anthropic, ollama, openai

complaint = pytest.mark.complaint
WIRES: Any = {"openai": openai, "anthropic": anthropic, "ollama": ollama}


def error_of(status: int, body: Any, wire: str = "openai", **headers: str) -> Any:
    """The typed error of an answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WIRES[wire].error(status, headers, raw)


def streamed(*frames: Any, wire: str = "openai") -> Any:
    """The typed error of a stream under HTTP 200."""
    decoder = WIRES[wire].Decoder()
    with pytest.raises(CcrouteError) as raised:
        for frame in frames:
            decoder.feed(frame if isinstance(frame, bytes) else f"data: {json.dumps(frame)}\n\n".encode())
        decoder.finish()
    return raised.value


def overflows(failure: Any, limit: int | None = None, prompt: int | None = None) -> None:
    assert type(failure) is errors.ContextWindowExceededError
    assert (failure.limit, failure.estimated) == (limit, prompt)


def said(message: str, **more: Any) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    }


# -- The prompt does not fit


@complaint(
    "https://github.com/harbor-framework/harbor/issues/996", "vLLM ≥ 0.16 says an overflow in new words"
)
def test_vllm_says_how_many_tokens_were_passed() -> None:
    words = (
        "You passed 98305 input tokens and requested 32768 output tokens. However, the model's "
        "context length is "
        "only 131072 tokens, resulting in a maximum input length of 98304 tokens. Please reduce the "
        "length of the "
        "input prompt. (parameter=input_tokens, value=98305)"
    )
    overflows(error_of(400, said(words, type="BadRequestError", code=400)), 131_072, 98_305)


@complaint("https://github.com/BerriAI/litellm/issues/10793", "Together says an overflow as SGLang does")
def test_together_says_it_as_sglang_does() -> None:
    words = "The input (32900 tokens) is longer than the model's context length (32768 tokens)."
    overflows(error_of(422, said(words)), 32_768, 32_900)


@complaint(
    "https://github.com/earendil-works/pi/issues/5930", "each server says an overflow in its own words"
)
@pytest.mark.parametrize(
    ("words", "limit", "prompt"),
    [
        (
            (
                "Prompt contains 40046 tokens and 0 draft tokens, too large for model with 32768 maximum "
                "context length"
            ),
            32768,
            40046,
        ),
        ("Prompt 262280 > 262144 maximum context length", 262144, 262280),
        (
            (
                "too many tokens: size limit exceeded by 105000 tokens. Try using shorter or fewer inputs. "
                "The limit for this model is 8992 tokens."
            ),
            8992,
            None,
        ),
        ("Input length 264373 exceeds the maximum allowed input length of 262112 tokens.", 262112, 264373),
        ("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).", 59862, 160062),
    ],
)
def test_each_server_has_words_of_its_own(words: str, limit: int, prompt: int | None) -> None:
    overflows(
        error_of(400, {"object": "error", "message": words, "type": "invalid_request_error"}), limit, prompt
    )


@complaint(
    "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/2322",
    "LM Studio says an overflow as an event under 200",
)
def test_lm_studio_says_it_within_a_stream() -> None:
    words = (
        "The number of tokens to keep from the initial prompt is greater than the context length. "
        "Try to load the "
        "model with a larger context length, or provide a shorter input"
    )
    overflows(streamed({"error": {"message": words}}))


@complaint(
    "https://github.com/Gitlawb/openclaude/issues/353", "LM Studio's error is a plain string with n_ctx in it"
)
def test_lm_studio_says_it_as_a_string() -> None:
    words = (
        "The number of tokens to keep from the initial prompt is greater than the context length "
        "(n_keep: 13055>= "
        "n_ctx: 4096). Try to load the model with a larger context length, or provide a shorter input."
    )
    overflows(error_of(400, {"error": words}), 4096, 13_055)


@complaint(
    "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/546",
    "older LM Studio: trying to keep the first tokens",
)
def test_an_older_lm_studio_tries_to_keep_the_first_tokens() -> None:
    words = (
        "Trying to keep the first 111490 tokens when context the overflows. However, the model is "
        "loaded with "
        "context length of only 32768 tokens, which is not enough."
    )
    overflows(error_of(400, {"error": words}), 32_768, 111_490)


@complaint(
    "https://github.com/NousResearch/hermes-agent/issues/348", "LM Studio MLX: context size has been exceeded"
)
def test_lm_studio_mlx_says_context_size_has_been_exceeded() -> None:
    overflows(error_of(400, {"error": "Context size has been exceeded."}))


@complaint(
    "https://github.com/ggml-org/llama.cpp/pull/15780",
    "llama.cpp says an overflow with 500 and a type of its own",
)
def test_llama_cpps_type_counts_whatever_the_status() -> None:
    words = (
        "the request exceeds the available context size. try increasing the context size or "
        "enable context shift"
    )
    body = said(words, code=500, type="exceed_context_size_error", n_prompt_tokens=1407, n_ctx=256)
    overflows(error_of(500, body), 256, 1407)


@complaint(
    "https://github.com/oobabooga/textgen/issues/7257", "an overflow with code 400 in a stream under 200"
)
def test_an_overflow_under_200_is_one() -> None:
    body = said(
        "the request exceeds", code=400, type="exceed_context_size_error", n_prompt_tokens=14429, n_ctx=8192
    )
    overflows(streamed(body), 8192, 14_429)


@complaint(
    "https://github.com/rllm-team/rllm/issues/55", "llama-cpp-python: requested tokens exceed context window"
)
def test_llama_cpp_python_says_requested_tokens() -> None:
    overflows(error_of(500, said("Requested tokens (516) exceed context window of 512")), 512, 516)


@complaint(
    "https://github.com/strands-agents/harness-sdk/pull/1663", "Bedrock changed its words for an overflow"
)
def test_bedrock_says_it_in_two_ways() -> None:
    overflows(error_of(400, {"message": "Input is too long for requested model."}))
    words = "The model returned the following errors: prompt is too long: 903884 tokens > 200000 maximum"
    overflows(error_of(400, {"message": words}), 200_000, 903_884)


@complaint(
    "https://github.com/stdapi-ai/stdapi.ai/issues/293",
    "an overflow in a stream whose type is a retryable server_error",
)
def test_words_win_over_the_type_server_error() -> None:
    words = "Mantle streaming error for requestId abc: prompt is too long: 250000 tokens > 200000 maximum"
    overflows(streamed({"error": {"message": words, "type": "server_error"}}), 200_000, 250_000)


@complaint(
    "https://github.com/google-gemini/gemini-cli/issues/4231",
    "Gemini's error is a list, or JSON within a string",
)
def test_geminis_list_and_its_json_in_json_are_read() -> None:
    words = "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."
    inner = {"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}
    overflows(error_of(400, [inner]), 1_048_576, 1_200_293)
    overflows(error_of(400, said(json.dumps(inner, indent=2), code=400)), 1_048_576, 1_200_293)


@complaint(
    "https://github.com/thepersonalaicompany/amurex-backend/issues/51",
    "Groq says an overflow by its code alone",
)
def test_groq_says_it_by_its_code() -> None:
    words = "Please reduce the length of the messages or completion."
    overflows(error_of(400, said(words, param="messages", code="context_length_exceeded")))


@complaint("https://github.com/cline/cline/issues/5140", "Cerebras: current length is N while limit is M")
def test_cerebras_says_the_current_length() -> None:
    words = (
        "Please reduce the length of the messages or completion. Current length is 42328 while limit is 40000"
    )
    overflows(error_of(400, {"message": words, "type": "invalid_request_error"}), 40_000, 42_328)


@complaint(
    "https://github.com/mangowhoiscloud/geode/pull/668",
    "GLM says an overflow by code 1261 and no word of tokens",
)
def test_glms_code_1261_is_an_overflow() -> None:
    overflows(error_of(400, {"code": "1261", "message": "Prompt exceeds max length"}))
    overflows(error_of(400, {"error": {"code": "1261", "message": "Prompt 超长"}}))


@complaint(
    "https://github.com/foreveryh/claude-code-switch/issues/12",
    "GLM's Anthropic address: code 1210, Chinese words, no type",
)
def test_glms_anthropic_address_says_it_in_two_languages() -> None:
    words = (
        "API 调用参数有误，请检查文档。"
        "Request 182387 input tokens exceeds the model's maximum context length 202750"
    )
    body = {"type": "error", "error": {"message": words, "code": "1210"}}
    overflows(error_of(400, body, "anthropic"), 202_750, 182_387)


@complaint("https://github.com/fuergaosi233/claude-code-proxy/issues/60", "SGLang's error body is flat")
def test_sglangs_flat_body_is_read() -> None:
    words = "The input (233781 tokens) is longer than the model's context length (202752 tokens)."
    body = {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
    overflows(error_of(400, body), 202_752, 233_781)
    overflows(streamed(body), 202_752, 233_781)


@complaint(
    "https://github.com/NousResearch/hermes-agent/pull/14743", "MiniMax: (2013) is a code, not the window"
)
def test_minimaxs_code_is_not_taken_for_the_window() -> None:
    body = {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": ("invalid params, context window exceeds limit (2013)"),
        },
    }
    overflows(error_of(400, body, "anthropic"))


@complaint(
    "https://github.com/bytedance/UI-TARS-desktop/issues/626", "TGI answers 422 to a prompt that is too long"
)
def test_tgis_422_is_an_overflow() -> None:
    words = (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 65537. Given: 79993 "
        "`inputs` tokens "
        "and 1024 `max_new_tokens`"
    )
    overflows(error_of(422, {"error": words, "error_type": "validation"}), 65_537, 79_993)


@complaint(
    "https://github.com/agentscope-ai/QwenPaw/issues/6255",
    "DashScope: range of input length should be [1, N]",
)
def test_dashscope_says_the_range_of_the_input() -> None:
    words = "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 983616]"
    overflows(error_of(400, said(words, code="invalid_parameter_error")), 983_616)
    sibling = error_of(400, said("Range of max_tokens should be [1, 8192]", code="invalid_parameter_error"))
    assert type(sibling) is errors.InvalidRequestError


@complaint(
    "https://github.com/microsoft/vscode/issues/289219",
    "Copilot: prompt token count of N exceeds the limit of M",
)
def test_copilot_says_the_count_of_tokens() -> None:
    words = "prompt token count of 65446 exceeds the limit of 64000"
    overflows(error_of(400, said(words, param="", code="", type="")), 64_000, 65_446)
    overflows(
        error_of(400, {"error": {"message": words, "code": "model_max_prompt_tokens_exceeded"}}),
        64_000,
        65_446,
    )


@complaint(
    "https://github.com/docker/docker-agent/issues/569",
    "Anthropic: prompt and max_tokens together exceed the window",
)
def test_anthropic_adds_prompt_and_max_tokens() -> None:
    words = (
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease "
        "input length or `max_tokens` and try again"
    )
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": words}}
    overflows(error_of(400, body, "anthropic"), 200_000, 178_959)


@complaint(
    "https://github.com/refly-ai/refly/issues/1177", "OpenRouter: this endpoint's maximum context length"
)
def test_openrouter_says_how_many_were_requested() -> None:
    words = (
        "This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 "
        "tokens (42832 "
        'of text input). Please reduce the length of either one, or use the "middle-out" transform.'
    )
    overflows(error_of(400, said(words, code=400)), 32_768, 42_832)


@complaint(
    "https://github.com/chenyme/grok2api/issues/693",
    "xAI: maximum prompt length is N but the request contains M",
)
def test_xai_says_the_maximum_prompt_length() -> None:
    words = "This model's maximum prompt length is 500000 but the request contains 907154 tokens."
    overflows(
        error_of(400, {"code": "Client specified an invalid argument", "error": words}), 500_000, 907_154
    )


@complaint(
    "https://github.com/MoonshotAI/kimi-cli/issues/2011", "Kimi: your request exceeded model token limit"
)
def test_kimi_says_the_model_token_limit() -> None:
    overflows(
        error_of(
            400,
            said("Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)"),
        ),
        262_144,
        269_030,
    )
    overflows(error_of(400, said("Invalid request: Your request exceeded model token limit: 8192")), 8192)


@complaint(
    "https://github.com/dyad-sh/dyad/issues/3498", "Ollama's cloud says by how much the prompt is too long"
)
def test_ollamas_cloud_says_the_excess_which_is_no_window() -> None:
    words = "prompt too long; exceeded max context length by 540451 tokens (ref: 00ad71bb)"
    overflows(error_of(400, {"error": words}, "ollama"))


@complaint("https://github.com/lfnovo/open-notebook/issues/470", "LocalAI passes an overflow on as 500")
def test_localais_500_is_an_overflow() -> None:
    words = (
        "rpc error: code = Internal desc = request (20652 tokens) exceeds the available context size (8192 "
        "tokens), try increasing it"
    )
    overflows(error_of(500, {"error": {"code": 500, "message": words, "type": ""}}), 8192, 20_652)


@complaint("https://github.com/cline/cline/issues/5474", "gpt-5: input tokens exceed the configured limit")
@complaint("https://github.com/BerriAI/litellm/issues/15968", "Azure's gpt-5 says the same behind LiteLLM")
@pytest.mark.parametrize("before", ["", "litellm.BadRequestError: AzureException BadRequestError - "])
def test_gpt_5_says_the_configured_limit(before: str) -> None:
    words = (
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 289650 tokens. "
        "Please reduce the length of the messages."
    )
    overflows(error_of(400, said(before + words, code="400")), 272_000, 289_650)


@complaint(
    "https://github.com/anomalyco/opencode/issues/8089", "OpenAI says an overflow as an event of a stream"
)
def test_an_overflow_event_is_one() -> None:
    words = "Your input exceeds the context window of this model. Please adjust your input and try again."
    body = {
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
        "message": words,
        "param": "input",
    }
    overflows(streamed({"type": "error", "sequence_number": 2, "error": body}))


@complaint(
    "https://github.com/vllm-project/vllm/issues/42474",
    "vLLM 0.20: output and prompt together exceed the window",
)
def test_vllm_counts_prompt_and_output() -> None:
    words = (
        "This model's maximum context length is 128000 tokens. However, you requested 65535 output "
        "tokens and your "
        "prompt contains at least 62466 input tokens, for a total of at least 128001 tokens."
    )
    overflows(error_of(400, said(words)), 128_000, 62_466)


@complaint(
    "https://github.com/ogx-ai/ogx/issues/4534", "old vLLM's flat body, where most of it is max_tokens"
)
def test_an_older_vllm_names_what_is_in_the_messages() -> None:
    words = (
        "This model's maximum context length is 6048 tokens. However, you requested 6616 tokens (568 in the "
        "messages, 6048 in the completion). Please reduce the length of the messages or completion."
    )
    body = {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
    overflows(error_of(400, body), 6048, 568)


@complaint(
    "https://github.com/warpdotdev/warp/issues/15402", "Fireworks: the prompt is too long: N, model maximum M"
)
def test_fireworks_says_both_numbers() -> None:
    words = "The prompt is too long: 264613, model maximum context length: 262141"
    body = {
        "object": "error",
        "type": "invalid_request_error",
        "code": "invalid_request_error",
        "message": words,
    }
    overflows(error_of(400, body), 262_141, 264_613)


@complaint(
    "https://github.com/esengine/DeepSeek-Reasonix/issues/8004",
    "DeepSeek's code for an overflow is invalid_request_error",
)
def test_deepseeks_code_does_not_hide_an_overflow() -> None:
    words = (
        "This model's maximum context length is 1048576 tokens. However, you requested 1174018 "
        "tokens (1042946 in "
        "the messages, 131072 in the completion). Please reduce the length of the messages or completion."
    )
    overflows(error_of(400, said(words, code="invalid_request_error")), 1_048_576, 1_042_946)


@complaint(
    "https://github.com/chatboxai/chatbox/issues/2060", "SiliconFlow's body has no error: code, message, data"
)
def test_siliconflows_body_is_read() -> None:
    words = "length of prompt_tokens (68957) must be less than max_seq_len (65536)."
    overflows(error_of(400, {"code": 20015, "message": words, "data": None}), 65_536, 68_957)
    words = "max_total_tokens (33802) must be less than or equal to max_seq_len (32768)"
    overflows(error_of(400, {"code": 20015, "message": words, "data": None}), 32_768)


@complaint(
    "https://github.com/getkimchi/kimchi/issues/794",
    "a gateway hides an overflow in detail, as LiteLLM says it",
)
def test_a_detail_with_litellms_class_is_read() -> None:
    inner = {
        "object": "error",
        "message": ("The input (1492905 tokens) is longer than the model's context length (1048576 tokens)."),
        "code": 400,
    }
    body = {"detail": f"ContextWindowExceededError: Hosted_vllmException - {json.dumps(inner)}"}
    overflows(error_of(400, body), 1_048_576, 1_492_905)


@complaint(
    "https://github.com/ddalcu/mlx-serve/issues/66", "mlx-serve: prompt exceeds maximum context length"
)
def test_mlx_serve_says_it_without_numbers() -> None:
    body = {
        "type": "error",
        "error": {"type": "api_error", "message": "Prompt exceeds maximum context length"},
    }
    overflows(error_of(400, body, "anthropic"))


@complaint(
    "https://github.com/chatchat-space/Langchain-Chatchat/issues/2600", "FastChat's code 40303 is no status"
)
def test_fastchats_code_is_not_taken_for_a_status() -> None:
    words = (
        "This model's maximum context length is 2048 tokens. However, your messages resulted in 3503 tokens."
    )
    overflows(error_of(400, {"object": "error", "message": words, "code": 40303}), 2048, 3503)


@complaint(
    "https://github.com/triton-inference-server/tensorrtllm_backend/issues/565",
    "TensorRT-LLM: prompt length exceeds maximum input length",
)
def test_tensorrt_llm_says_prompt_length() -> None:
    overflows(
        error_of(500, said("Prompt length (200) exceeds maximum input length (1). Set log level to info")),
        1,
        200,
    )
    words = "Cannot process new request: Prompt length (5056) exceeds maximum sequence length (2048)"
    overflows(error_of(400, said(words)), 2048, 5056)


@complaint("https://github.com/zed-industries/zed/issues/62362", "a gateway says an overflow with 403")
def test_an_overflow_as_403_is_not_about_the_key() -> None:
    words = "Context window exceeded: 306234 tokens exceeds the limit of 272000 tokens"
    overflows(error_of(403, {"code": "http_403", "message": words}), 272_000, 306_234)


def test_an_overflow_without_numbers_has_window_and_estimate() -> None:
    words = answer(400, json={"error": "the input length exceeds the context length"})
    with ScriptedServer([words], repeat=True) as server:
        backend = OpenAIBackend("home", base_url=server.url, models={"m": Model(context_window=8192)})
        with Router([backend]) as router, pytest.raises(errors.ContextWindowExceededError) as raised:
            router.complete("hello " * 100, model="home/m")
    assert raised.value.limit == 8192
    assert 50 < (raised.value.estimated or 0) < 1000


# -- What only looks like it


@complaint(
    "https://github.com/continuedev/continue/issues/10218", "Groq's 413 is a rate limit, and no wait helps"
)
def test_groqs_413_is_a_rate_limit_that_is_not_waited_for() -> None:
    words = (
        "Request too large for model `llama-3.3-70b-versatile` in organization `org_x` service tier "
        "`on_demand` on "
        "tokens per minute (TPM): Limit 6000, Requested 14810, please reduce your message size and try again."
    )
    body = {"error": {"message": words, "type": "tokens", "code": "rate_limit_exceeded"}}
    failure = error_of(413, body)
    assert (type(failure), failure.should_retry) == (errors.RateLimitError, False)
    with ScriptedServer([answer(413, json=body)], repeat=True) as full:
        with ScriptedServer([answer(json=chat("other"))]) as other:
            backends = [OpenAIBackend("groq", base_url=full.url), OpenAIBackend("other", base_url=other.url)]
            with Router(backends, agents={"py": Agent("groq/m", fallback=["other/m"])}) as router:
                assert router.complete("hello", agent="py").text == "other"
        assert len(full.requests) == 1


@complaint("https://github.com/anomalyco/opencode/issues/13015", "Bedrock's throttling says too many tokens")
def test_too_many_tokens_please_wait_is_a_rate_limit() -> None:
    for status in (400, 429):
        failure = error_of(status, {"message": "Too many tokens, please wait before trying again."})
        assert type(failure) is errors.RateLimitError


@complaint(
    "https://github.com/TokenRhythm/opensquilla/issues/782",
    "GLM's limit of max_tokens looks like an overflow",
)
@complaint(
    "https://github.com/OpenHands/software-agent-sdk/issues/596",
    "Anthropic's limit of max_tokens is no overflow",
)
@complaint(
    "https://github.com/musistudio/claude-code-router/issues/1249",
    "DeepSeek's range of max_tokens is no overflow",
)
@complaint(
    "https://github.com/xuanyustudio/LocalMiniDrama/issues/39", "Volcengine's limit of max_completion_tokens"
)
@pytest.mark.parametrize(
    "body",
    [
        {
            "code": 70000,
            "msg": ("Exceeding the limiting length: [max_tokens should be less or equal to 131072]"),
        },
        said(
            "max_tokens: 204096 > 64000, which is the maximum allowed number of output tokens for "
            "claude-sonnet-4-5"
        ),
        said("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        said(
            "The parameter `max_completion_tokens` specified in the request are not valid: integer "
            "above maximum value, expected a value <= 12288, but got 16384 instead."
        ),
        said(
            "max_tokens is too large: 20480. This model supports at most 16384 completion tokens, "
            "whereas you provided 20480."
        ),
    ],
)
def test_more_output_than_a_model_gives_is_no_overflow(body: Any) -> None:
    failure = error_of(400, body)
    assert (type(failure), failure.elsewhere) == (errors.InvalidRequestError, True)


@complaint(
    "https://github.com/frontman-ai/frontman/issues/1094", "an image that exceeds its size is no overflow"
)
def test_an_image_that_is_too_large_is_no_overflow() -> None:
    words = (
        "messages.14.content.1.image.source.base64.data: At least one of the image dimensions "
        "exceed max allowed "
        "size for many-image requests: 2000 pixels"
    )
    assert type(error_of(400, said(words), "anthropic")) is errors.InvalidRequestError


def test_a_refusal_with_several_possible_causes_is_none_of_them() -> None:
    raw = (
        "The request was rejected. Possible causes: input exceeds the model's maximum context "
        "length, or the request contains invalid parameters."
    )
    body = said("Provider returned error", code=400, metadata={"raw": raw, "provider_name": "Sail Research"})
    assert type(error_of(400, body)) is errors.InvalidRequestError


# -- Money


@complaint("https://github.com/MiniMax-AI/MiniMax-M2/issues/62", "MiniMax says an empty account with 500")
def test_minimaxs_empty_account_is_a_quota() -> None:
    body = {"type": "error", "error": {"type": "api_error", "message": "insufficient balance (1008)"}}
    assert type(error_of(500, body, "anthropic")) is errors.QuotaExhaustedError
    fields = {
        "http_code": "429",
        "message": "insufficient balance (1008)",
        "type": "insufficient_balance_error",
    }
    body = {"error": fields}
    assert type(error_of(429, body)) is errors.QuotaExhaustedError


@complaint("https://github.com/Wei-Shaw/sub2api/issues/890", "a gateway says an empty account with 403")
@complaint("https://github.com/popjane/free_chatgpt_api/issues/78", "a relay says an empty account with 403")
@complaint("https://github.com/openclaw/openclaw/pull/142656", "Kimi says a spent weekly quota with 403")
@pytest.mark.parametrize(
    "body",
    [
        {"code": "INSUFFICIENT_BALANCE", "message": "Insufficient account balance"},
        {
            "error": {
                "message": "user quota is not enough (request id: x)",
                "type": "v_api_error",
                "code": "insufficient_user_quota",
            }
        },
        {
            "error": {
                "message": ("You've reached your weekly (7-day) usage limit. Your quota will reset"),
                "type": "access_terminated_error",
            }
        },
    ],
)
def test_an_empty_account_as_403_is_not_about_the_key(body: Any) -> None:
    assert type(error_of(403, body)) is errors.QuotaExhaustedError


@complaint("https://github.com/anthropics/claude-code/issues/66314", "an empty Anthropic account is a 400")
def test_anthropics_empty_account_moves_the_call_on() -> None:
    words = (
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
    )
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": words}}
    assert type(error_of(400, body, "anthropic")) is errors.QuotaExhaustedError


@complaint(
    "https://github.com/zai-org/feedback/issues/789", "Z.ai says an empty account as a rate limit, code 1113"
)
def test_zais_1113_is_a_quota() -> None:
    words = "[1113][Insufficient balance or no resource package. Please recharge.][2026]"
    body = {"type": "error", "error": {"type": "rate_limit_error", "code": "1113", "message": words}}
    assert type(error_of(429, body, "anthropic")) is errors.QuotaExhaustedError
    assert (
        type(error_of(429, {"error": {"message": "余额不足或无可用资源包,请充值。"}}))
        is errors.QuotaExhaustedError
    )


@complaint(
    "https://github.com/hsliuping/TradingAgents-CN/issues/170",
    "DashScope: an unpaid account is a 400 Arrearage",
)
def test_dashscopes_arrearage_is_a_quota() -> None:
    words = "Access denied, please make sure your account is in good standing."
    body = {"error": {"code": "Arrearage", "param": None, "message": words, "type": "Arrearage"}, "id": "x"}
    assert type(error_of(400, body)) is errors.QuotaExhaustedError


@complaint(
    "https://github.com/Gitlawb/openclaude/pull/1263", "OpenRouter's 402 names max_tokens and is no overflow"
)
def test_openrouters_402_is_a_quota() -> None:
    words = (
        "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, "
        "but can only "
        "afford 3395."
    )
    assert type(error_of(402, {"error": {"message": words, "code": 402}})) is errors.QuotaExhaustedError
    assert type(streamed({"error": {"message": words, "code": 402}})) is errors.QuotaExhaustedError


@complaint("https://github.com/BerriAI/litellm/issues/14144", "LiteLLM says a spent budget with 400")
def test_litellms_budget_is_a_quota() -> None:
    words = "Budget has been exceeded! Current cost: 14.1, Max budget: 10"
    assert type(error_of(400, said(words, type="auth_error", code="400"))) is errors.QuotaExhaustedError


@complaint(
    "https://github.com/earendil-works/pi/issues/4172", "a plan's usage limit says when it resets, hours away"
)
def test_a_plans_usage_limit_is_a_quota_until_its_reset() -> None:
    body = {
        "type": "error",
        "error": {
            "type": "usage_limit_reached",
            "message": ("The usage limit has been reached"),
            "resets_in_seconds": 13872,
        },
    }
    failure = error_of(429, body)
    assert (type(failure), failure.retry_after) == (errors.QuotaExhaustedError, 13_872)


@complaint(
    "https://github.com/langchain-ai/langchainjs/issues/1929",
    "insufficient_quota is retried; Google's sentence is a rate limit",
)
def test_openais_sentence_is_a_rate_limit_where_google_says_it() -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    assert type(error_of(429, said(words, code="insufficient_quota"))) is errors.QuotaExhaustedError
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}
    google = {
        "error": {
            "code": 429,
            "message": words,
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "x"}, retry],
        }
    }
    failure = error_of(429, [google])
    assert (type(failure), failure.retry_after) == (errors.RateLimitError, 26.0)


# -- Rate limits, keys, models and rooms under odd statuses


@complaint("https://github.com/anomalyco/opencode/pull/40239", "a rate limit comes as 400 with detail")
def test_a_rate_limit_as_400_is_one() -> None:
    assert type(error_of(400, {"detail": "rate limit exceeded for organization"})) is errors.RateLimitError


@complaint("https://github.com/cequence-io/openai-scala-client/issues/109", "Gemini refuses a key with 400")
def test_geminis_refused_key_is_one() -> None:
    words = "API key not valid. Please pass a valid API key."
    body = {"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}
    assert type(error_of(400, [body])) is errors.AuthenticationError


@complaint("https://github.com/BerriAI/litellm/issues/9663", "LiteLLM does not know a model: 400")
def test_litellms_unknown_model_is_one() -> None:
    body = {
        "error": {
            "message": ("/chat/completions: Invalid model name passed in model=m. Call `/v1/models`"),
            "type": "None",
            "code": "400",
        }
    }
    assert type(error_of(400, body)) is errors.ModelNotFoundError


@complaint("https://github.com/QuantumNous/new-api/pull/6310", "a relay does not know a model: 503")
def test_a_relays_unknown_model_is_not_waited_for() -> None:
    words = "No available channel for model gpt-5.5 under group codex (distributor)"
    for body in (
        said(words),
        said("当前分组 default 下对于模型 m 无可用渠道"),
        said("x", code="model_not_found"),
    ):
        assert type(error_of(503, body)) is errors.ModelNotFoundError


@complaint(
    "https://github.com/BerriAI/litellm/issues/1242", "Hugging Face says how long a model takes to load"
)
def test_hugging_faces_estimate_is_the_wait() -> None:
    body = {"error": "Model echarlaix/tiny-random-mistral is currently loading", "estimated_time": 20.0}
    for shape in (body, [body]):
        failure = error_of(503, shape)
        assert (type(failure), failure.loading, failure.retry_after) == (errors.OverloadedError, True, 20.0)


@complaint(
    "https://github.com/WEIFENG2333/VideoCaptioner/issues/1120", "a relay whose upstream is full says 429"
)
@complaint(
    "https://github.com/vava-nessa/free-coding-models/issues/148", "529 from an OpenAI-compatible host"
)
@complaint(
    "https://github.com/earendil-works/pi/issues/9627", "Cloudflare's 520 without a body is not tried again"
)
@pytest.mark.parametrize("status", [429, 529, 520])
def test_what_is_only_busy_or_failing_moves_the_call_on(status: int) -> None:
    with (
        ScriptedServer([answer(status)], repeat=True) as faulty,
        ScriptedServer([answer(json=chat("other"))]) as other,
    ):
        backends = [OpenAIBackend("main", base_url=faulty.url), OpenAIBackend("other", base_url=other.url)]
        with Router(backends, agents={"py": Agent("main/m", fallback=["other/m"])}) as router:
            assert router.complete("hello", agent="py").text == "other"


# -- Callers' mistakes that servers answer with 500


def is_a_mistake(failure: Any) -> None:
    assert type(failure) is errors.InvalidRequestError


@complaint(
    "https://github.com/VirtusLab/llm-tools-mcp/issues/51", "llama.cpp answers 500 to a tool it cannot read"
)
def test_a_tool_that_llama_cpp_cannot_read_is_a_mistake() -> None:
    words = (
        "Failed to parse tools: [json.exception.type_error.302] type must be string, but is "
        "null; tools = [\n  {}]"
    )
    is_a_mistake(error_of(500, said(words, code=500, type="server_error")))


@complaint(
    "https://github.com/am17an/llama.cpp/issues/43",
    "llama.cpp answers 500 to broken arguments in the history",
)
def test_broken_arguments_in_the_history_are_a_mistake() -> None:
    is_a_mistake(
        error_of(500, said("Failed to parse tool call arguments as JSON: [json.exception.parse_error.101]"))
    )


@complaint("https://github.com/sipeed/picoclaw/issues/207", "llama.cpp answers 500 where a template raises")
@complaint(
    "https://github.com/anomalyco/opencode/issues/5034", "roles that must alternate are a 500 at llama.cpp"
)
@complaint(
    "https://github.com/ggml-org/llama.cpp/issues/13178", "a template that fails at a row and column is a 500"
)
@complaint("https://github.com/vllm-project/vllm/issues/17119", "vLLM answers 500 where a template raises")
@complaint("https://github.com/QwenLM/Qwen3/issues/1894", "a template that wants arguments as a mapping")
@pytest.mark.parametrize(
    "words",
    [
        (
            "\n------------\nWhile executing CallExpression at line 47, column 32 in "
            "source:\n...\nError: Jinja Exception: After the optional system message, conversation "
            "roles must alternate"
        ),
        "Only user, assistant and tool roles are supported, got system.",
        "Cannot subscript null at row 23, column 40:...message.content[:tool_start_length]...",
        (
            "jinja2.exceptions.TemplateError: Conversation roles must alternate "
            "user/assistant/user/assistant/..."
        ),
        "TypeError: Can only get item pairs from a mapping.",
    ],
)
def test_a_template_that_fails_is_about_this_model(words: str) -> None:
    failure = error_of(500, said(words, code=500, type="server_error"))
    is_a_mistake(failure)
    assert failure.elsewhere


@complaint(
    "https://github.com/ollama/ollama/issues/8185",
    "Ollama answers 500 to a schema it cannot turn into a grammar",
)
def test_ollamas_schemas_and_options_are_mistakes() -> None:
    failure = error_of(500, {"error": "invalid JSON schema in format"}, "ollama")
    is_a_mistake(failure)
    assert failure.elsewhere
    for words in (
        'option "num_predict" must be of type integer',
        'invalid format: "yaml"; expected "json" or a schema',
    ):
        is_a_mistake(error_of(500, {"error": words}, "ollama"))


@complaint(
    "https://github.com/aliasrobotics/cai/issues/76", "Ollama cannot unmarshal what it does not expect"
)
def test_what_ollama_cannot_unmarshal_is_a_mistake() -> None:
    words = (
        "json: cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls of "
        "type api.Arguments"
    )
    is_a_mistake(error_of(500, {"error": words}, "ollama"))


# -- What another deployment may accept


def moves_on(status: int, body: Any, *, to: str = "other") -> None:
    """Another deployment of the alias is asked, and so is a fallback model."""
    refuses, serves = [answer(status, json=body)], [answer(json=chat("other"))]
    with ScriptedServer(refuses, repeat=True) as main, ScriptedServer(serves, repeat=True) as other:
        backends = [OpenAIBackend("main", base_url=main.url), OpenAIBackend("other", base_url=other.url)]
        agents = {"py": Agent("main/m", fallback=["other/m"])}
        with Router(backends, {"any": {"main/m": 1000, "other/m": 0.001}}, agents) as router:
            for who in ({"model": "any"}, {"agent": "py"}):
                reply = router.complete("hello", **who)
                assert reply.text == to
                first, second = reply.route.attempts
                assert (first.failure, first.status, second.outcome) == ("invalid_request", status, "ok")
            with pytest.raises(errors.InvalidRequestError):
                router.complete("hello", model="main/m")
        assert len(main.requests) == 3, "each call asks it once"


@complaint(
    "https://github.com/Gitlawb/openclaude/issues/1371",
    "a 400 for a feature ends the call although a fallback would serve it",
)
def test_a_model_that_does_not_think_moves_the_call_on() -> None:
    moves_on(400, said('"qwen3-coder:30b" does not support thinking'))


@complaint(
    "https://github.com/BerriAI/litellm/issues/12503",
    "a 400 for an unknown field ends the call although a fallback would serve it",
)
def test_a_field_that_one_deployment_does_not_know_moves_the_call_on() -> None:
    moves_on(400, said("Unrecognized request argument supplied: reasoning_effort", param="reasoning_effort"))


@complaint(
    "https://github.com/kenlasko/monize/pull/405",
    "a model without tools at Ollama is a 400 about one deployment",
)
def test_a_model_without_tools_moves_the_call_on() -> None:
    moves_on(400, said("registry.ollama.ai/library/gemma3:4b does not support tools", type="api_error"))


@complaint(
    "https://github.com/ggml-org/llama.cpp/issues/15377",
    "an image without a projector is a 500 about one deployment",
)
def test_a_server_without_a_projector_moves_the_call_on() -> None:
    words = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    moves_on(500, said(words, code=500, type="server_error"))


@complaint(
    "https://github.com/lidge-jun/opencodex/issues/2135",
    "llama.cpp cannot turn a valid schema into a grammar",
)
@complaint("https://github.com/ggml-org/llama.cpp/issues/26930", "llama.cpp wants patterns to be anchored")
@pytest.mark.parametrize(
    "words",
    [
        "Failed to initialize samplers: failed to parse grammar",
        (
            "Unable to generate parser for this template. Automatic parser generation failed: JSON "
            "schema conversion failed: Pattern must start with '^' and end with '$'"
        ),
    ],
)
def test_a_grammar_that_one_server_cannot_make_moves_the_call_on(words: str) -> None:
    moves_on(400, said(words, code=400))


@complaint(
    "https://github.com/openai/openai-agents-python/issues/442",
    "Mistral's message is an object that names the field",
)
@complaint(
    "https://github.com/partITech/php-mistral/issues/76", "Mistral's message is a list that names the field"
)
@pytest.mark.parametrize("shape", ["object", "list"])
def test_mistrals_forbidden_fields_are_named_and_move_the_call_on(shape: str) -> None:
    faults = [
        {
            "type": "extra_forbidden",
            "loc": ["body", "stream_options", "include_usage"],
            "msg": ("Extra inputs are not permitted"),
            "input": True,
        }
    ]
    message: Any = {"detail": faults} if shape == "object" else faults
    body = {
        "object": "error",
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": 3001,
    }
    failure = error_of(422, body)
    assert "stream_options.include_usage: Extra inputs are not permitted" in failure.detail
    moves_on(422, body)


@complaint("https://github.com/Vali-98/ChatterUI/issues/227", "Gemini refuses unknown names in a list")
@complaint(
    "https://github.com/matsonj/eval-connections/issues/12",
    "OpenRouter: reasoning is mandatory for this endpoint",
)
@complaint(
    "https://github.com/llm-exe/llm-exe/issues/662", "DeepSeek: this response_format type is unavailable now"
)
@complaint(
    "https://github.com/infiniflow/ragflow/issues/5912", "DashScope: this model only supports stream mode"
)
@complaint(
    "https://github.com/NousResearch/hermes-agent/pull/12668",
    "Kimi: only one temperature is allowed for this model",
)
@complaint("https://github.com/langchain4j/langchain4j/issues/3475", "vLLM without a tool parser")
@complaint(
    "https://github.com/Wei-Shaw/sub2api/issues/1877",
    "a model that is not supported with this account, said in detail",
)
@pytest.mark.parametrize(
    "body",
    [
        [said('Invalid JSON payload received. Unknown name "seed": Cannot find field.', code=400)],
        said("Reasoning is mandatory for this endpoint and cannot be disabled."),
        said("This response_format type is unavailable now", code="invalid_request_error"),
        said("This model only support stream mode, please enable the stream parameter to access the model. "),
        said("invalid temperature: only 1 is allowed for this model"),
        {
            "object": "error",
            "message": (
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            ),
            "code": 400,
        },
        {"detail": "The 'gpt-5.5' model is not supported when using Codex with a ChatGPT account."},
    ],
)
def test_what_one_deployment_refuses_another_may_take(body: Any) -> None:
    failure = error_of(400, body)
    assert (type(failure), failure.elsewhere) == (errors.InvalidRequestError, True)


def test_a_400_about_the_request_ends_the_call() -> None:
    refuses = [answer(400, json=said("messages.1.content: must not be empty"))]
    with ScriptedServer(refuses, repeat=True) as main, ScriptedServer([answer(json=chat())]) as other:
        backends = [OpenAIBackend("main", base_url=main.url), OpenAIBackend("other", base_url=other.url)]
        with Router(backends, agents={"py": Agent("main/m", fallback=["other/m"])}) as router:
            with pytest.raises(errors.InvalidRequestError):
                router.complete("hello", agent="py")
        assert other.requests == []


@complaint(
    "https://github.com/BerriAI/litellm/issues/3769",
    "what one deployment cannot carry fails the call, with weights at random",
)
def test_weights_do_not_matter_where_only_one_can_carry_it() -> None:
    from ccroute import OllamaBackend

    with ScriptedServer([answer(json=chat("other"))], repeat=True) as other:
        backends = [OllamaBackend("home"), OpenAIBackend("other", base_url=other.url)]
        with Router(
            backends, {"any": {"home/m": 1000, "other/m": 1}}, retry=RetryPolicy(attempts=1)
        ) as router:
            for _ in range(10):
                reply = router.complete("hello", model="any", user="me")
                assert (reply.text, len(reply.route.attempts)) == ("other", 1)


# -- What only sounds like it


@complaint(
    "https://github.com/ollama/ollama/issues/16547",
    "a model that cannot be loaded is said in loading's words",
)
@pytest.mark.parametrize(
    "words",
    [
        "llama-server process has terminated: exit status 1: error loading model: unknown model architecture",
        "error loading model: insufficient memory",
        "failed loading model foo: CUDA out of memory",
        "failed to load model",
        "unable to load model: sha256-x",
        "Loading model failed: out of memory",
    ],
)
def test_what_cannot_be_loaded_is_not_waited_for(words: str) -> None:
    assert type(error_of(500, {"error": words}, "ollama")) is errors.ServerError
    assert not error_of(503, said(words)).loading


@pytest.mark.parametrize(
    "words",
    [
        "Loading model",
        "the model is currently loading",
        "model is still loading",
        "The model x/y is being loaded",
        "server busy, please try again.  maximum pending requests exceeded",
    ],
)
def test_what_is_being_loaded_is_waited_for(words: str) -> None:
    for status in (500, 503):
        failure = error_of(status, {"error": words}, "ollama")
        assert (type(failure), failure.loading) == (errors.OverloadedError, True)


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long for the title field (max 50 characters)",
        "input too long: at most 10 images",
        "tools[0].description exceeds the context of allowed characters",
        "max_tokens is too large: 100000. This model's maximum context length is 8192 tokens",
        "messages: text content blocks must be non-empty",
        "please reduce the length of the input image to 4096 pixels",
    ],
)
def test_a_limit_of_something_else_is_no_overflow(words: str) -> None:
    assert type(error_of(400, said(words))) is errors.InvalidRequestError


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(
    "words",
    [
        "incorrect api key",
        "credit balance is too low",
        "insufficient balance",
        "too many requests",
        "rate limit exceeded",
        "server busy",
        "loading model",
        "invalid model name",
    ],
)
def test_what_others_would_suffer_from_counts_only_at_the_beginning(status: int, words: str) -> None:
    plain = errors.ServerError if status == 500 else errors.InvalidRequestError
    assert type(error_of(status, said(f"cannot compile the pattern of kind: {words}"))) is plain


@pytest.mark.parametrize(
    "before",
    [
        "",
        "litellm.BadRequestError: AzureException BadRequestError - ",
        '{"error": {"code": 400, "message": "',
    ],
)
def test_gateways_may_put_their_errors_names_before_it(before: str) -> None:
    assert type(error_of(400, said(before + "Incorrect API key provided"))) is errors.AuthenticationError
    relayed = said("Provider returned error", metadata={"raw": "rate limit exceeded"})
    assert type(error_of(400, relayed)) is errors.RateLimitError
