"""Phrases in servers' errors that are more exact than the status and the code, each with its source.

Data only. A row is one or more patterns, and the page where the phrases were seen. `<limit>` and `<prompt>`
match numbers of tokens. A text is searched only if it has a pattern's longest fixed text, so that should be
long. Patterns are tried in order: an exact phrase comes before a general one. To recognise one more phrase,
add a row and a test.
"""

from typing import Final, NamedTuple

from ccroute.errors import (
    AuthenticationError,
    ContentPolicyError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitError,
)
from ccroute.failures import CallFailure


class Meaning:
    """The error that a phrase means, and the statuses under which the phrase counts: `anywhere` in the text,
    or only at its `start`. None: in a stream, or under HTTP 200."""

    def __init__(
        self,
        error: type[CallFailure],
        anywhere: tuple[int | None, ...],
        start: tuple[int | None, ...] = (),
    ) -> None:
        self.error = error
        self.anywhere = anywhere
        self.start = start


QUOTA: Final = Meaning(QuotaExhaustedError, (401, 403, 412, 429), start=(None, 400, 422, 500))
"""A limit of money: waiting does not help."""
KEY: Final = Meaning(AuthenticationError, (), start=(None, 400, 403, 500))
RATE: Final = Meaning(RateLimitError, (403, 413), start=(None, 400, 500))
"""Too many requests or tokens in a time."""
UNCLEAR: Final = Meaning(InvalidRequestError, (None, 400))
"""The phrase names several causes, so it shows only that the request was refused."""
OUTPUT: Final = Meaning(InvalidRequestError, (None, 400, 422, 500))
"""The request asks for more output than the model can give."""
OVERFLOW: Final = Meaning(ContextWindowExceededError, (None, 400, 403, 413, 422, 500))
"""The prompt exceeds the context window."""
MISTAKE: Final = Meaning(InvalidRequestError, (None, 400, 422, 500))
"""A mistake of the caller, whatever the status."""
LACKS: Final = Meaning(InvalidRequestError, (None, 400, 404, 422, 500))
"""The deployment lacks a feature, whatever the status."""
FEATURE: Final = Meaning(InvalidRequestError, (400, 404, 422))
"""A missing feature, in general words that a failing server may also use."""
LOADING: Final = Meaning(OverloadedError, (503,), start=(None, 500))
"""The server is loading a model, or its queue is full: it will answer later."""
MODEL: Final = Meaning(ModelNotFoundError, (503,), start=(400, 422))
POLICY: Final = Meaning(ContentPolicyError, (None, 400, 413, 422, 500))
"""The provider does not allow the prompt or the answer."""

START: Final = (
    r"\s*(?:(?:\S{0,60}(?:error|exception|/completions)\S{0,3}|provider returned error) (?:- )?){0,4}"
    r"""(?:\{[^}]{0,200}["']message["']:\s*["'])?"""
)
"""Text that may come before the start: error names that gateways add, and an error around the error."""


class Wording(NamedTuple):
    """A meaning, and a pattern that recognises it in a text in lower case."""

    meaning: Meaning
    pattern: str


WORDINGS: Final[list[Wording]] = []


def _rows(meaning: Meaning, *rows: tuple[str, ...]) -> None:
    """Add patterns. Each row ends with its source: a page, or a path below `https://github.com/`."""
    WORDINGS.extend(Wording(meaning, pattern) for *patterns, _ in rows for pattern in patterns)


_MEASURED: Final = "measured on Ollama 0.24.0"
_PI: Final = "badlogic/pi-mono/blob/main/packages/ai/src/utils/overflow.ts"
_NO_FIELD: Final = r"(?!.{0,100}\b(?:characters|chars|bytes|pixels|images?|seconds|field)\b)"
"""A limit in these units belongs to one field. The limit of a context window is in tokens."""

_rows(
    LACKS,
    (r"failed to parse messages: unsupported content part", "ggml-org/llama.cpp/issues/12947"),
)
# These errors quote the request, which may contain any other phrase.
_rows(
    MISTAKE,
    (r"failed to parse (?:tools|messages)", "VirtusLab/llm-tools-mcp/issues/51"),
    (r"failed to parse tool call arguments", "am17an/llama.cpp/issues/43"),
    (r"\[json\.exception\.", "VirtusLab/llm-tools-mcp/issues/51"),
    (r"option .{1,60} must be of type", "awaescher/OllamaSharp/issues/176"),
    (r"invalid format: ", "ollama/ollama/issues/8126"),
    (r"json: cannot unmarshal", "aliasrobotics/cai/issues/76"),
    (r"invalid think value", r"illegal base64 data", r"invalid duration", r"unit in duration", _MEASURED),
)
_rows(
    QUOTA,
    (r"your credit balance is too low", r"credit balance is too low", "anthropics/claude-code/issues/66314"),
    (r"insufficient[_ ](?:account )?(?:balance|credits?|funds)", "MiniMax-AI/MiniMax-M2/issues/62"),
    (r"no resource package", r"余额不足", "zai-org/feedback/issues/789"),
    (r"account is in good standing", r"overdue account", "hsliuping/TradingAgents-CN/issues/170"),
    (r"requires more credits", "Gitlawb/openclaude/pull/1263"),
    (r"user quota is not enough", r"用户额度不足", "popjane/free_chatgpt_api/issues/78"),
    (
        r"you(?:'|’| ha)ve reached your \w+ (?:\(.{1,20}\) )?usage limit",
        r"reached your \w+ (?:\(.{1,20}\) )?usage limit",
        "openclaw/openclaw/pull/142656",
    ),
    (
        r"budget has been exceeded",
        r"authentication error, exceededbudget",
        r"exceededbudget",
        "BerriAI/litellm/issues/14144",
    ),
)
_rows(
    KEY,
    (r"api key not valid", r"incorrect api key", "cequence-io/openai-scala-client/issues/109"),
)
_rows(
    RATE,
    (r"request too large for .{0,300}? (?:tokens|requests) per min", "continuedev/continue/issues/10218"),
    (r"rate limit (?:exceeded|reached)", r"too many requests", "anomalyco/opencode/pull/40239"),
    (r"throttlingexception", r"too many tokens, please wait", "anomalyco/opencode/pull/39621"),
)
_rows(
    UNCLEAR,
    (r"possible causes: input exceeds", "letta-ai/letta"),
)
_rows(
    OUTPUT,
    (r"maximum allowed number of output tokens", "OpenHands/software-agent-sdk/issues/596"),
    (r"valid range of max_tokens", "musistudio/claude-code-router/issues/1249"),
    (r"maximum tokens you requested exceeds", "charmbracelet/crush/issues/946"),
    (r"max_tokens should be less or equal", "TokenRhythm/opensquilla/issues/782"),
    (r"range of max_tokens should be", "agentscope-ai/QwenPaw/issues/6255"),
    (r"max_\w*tokens\b.{0,80}above maximum value", "xuanyustudio/LocalMiniDrama/issues/39"),
    (r"max tokens must be less than or equal to", "cohere-ai/sandbox-topically/issues/4"),
    (r"max_(?:\w+_)?tokens['`\"]? is too large", "tailcallhq/forgecode/issues/1185"),
    (r"supports at most \d+ completion tokens", "tailcallhq/forgecode/issues/1185"),
    (r"must be greater than .?thinking\.budget_tokens", "liuw1535/antigravity2api-nodejs/issues/150"),
)
_rows(
    OVERFLOW,
    (
        (
            r"maximum context length (?:is|of) <limit>\b(?:.{0,160}?\b<prompt>"
            r" (?:in the messages|of text input|(?:tokens from the )?input (?:tokens|messages)))?"
        ),
        "esengine/DeepSeek-Reasonix/issues/8004",
    ),
    (r"you passed (?:at least )?<prompt> input tokens", "harbor-framework/harbor/issues/996"),
    (
        r"input \(<prompt> tokens\) is longer than the model.s context length \(<limit>",
        "fuergaosi233/claude-code-proxy/issues/60",
    ),
    (
        (
            r"tokens to keep from the initial prompt is greater than the context length"
            r"(?: \(n_keep: <prompt>\s*>=\s*n_ctx: <limit>)?"
        ),
        "Gitlawb/openclaude/issues/353",
    ),
    (
        r"trying to keep the first <prompt> tokens.{0,80}context length of only <limit>",
        "lmstudio-ai/lmstudio-bug-tracker/issues/546",
    ),
    (r"context size has been exceeded", "NousResearch/hermes-agent/issues/348"),
    (r"input length <prompt> exceeds context length <limit>", "lmstudio-ai/examples/issues/29"),
    (r"maximum prompt length is <limit> but the request contains <prompt>", "chenyme/grok2api/issues/693"),
    (r"exceed the configured limit of <limit> tokens", "cline/cline/issues/5474"),
    (r"range of input length should be \[\d+, <limit>\]", "agentscope-ai/QwenPaw/issues/6255"),
    (r"exceeded model token limit: <limit>(?: \(requested: <prompt>)?", "MoonshotAI/kimi-cli/issues/2011"),
    (r"prompt contains <prompt> tokens.{0,40}too large for model with <limit>", _PI),
    (
        r"input token count \(?<prompt>\)? exceeds the maximum number of tokens allowed \(?<limit>",
        "google-gemini/gemini-cli/issues/4231",
    ),
    (r"input is too long for requested model", "anthropics/claude-code/issues/760"),
    (r"expected maxlength: \d+, actual: \d+", "ryanadoty/Amazon-Bedrock-Amazon-RDS-POC/issues/9"),
    (r"prompt is too long: <prompt> tokens > <limit>", "strands-agents/harness-sdk/pull/1663"),
    (r"prompt is too long: <prompt>, model maximum context length: <limit>", "warpdotdev/warp/issues/15402"),
    (r"current length is <prompt> while limit is <limit>", "cline/cline/issues/5140"),
    (r"context window exceeds limit", "NousResearch/hermes-agent/pull/14743"),
    (r"prompt exceeds max length", r"prompt 超长", "mangowhoiscloud/geode/pull/668"),
    (
        r"input tokens exceeds the model.{0,3}s maximum context length <limit>",
        "foreveryh/claude-code-switch/issues/12",
    ),
    (r"prompt token count of <prompt> exceeds the limit of <limit>", "microsoft/vscode/issues/289219"),
    (r"exceeded max context length by \d+ tokens", "dyad-sh/dyad/issues/3498"),
    (r"the input length exceeds the context length", _MEASURED),
    (
        r"request \(<prompt> tokens\) exceeds the available context size \(<limit>",
        "lfnovo/open-notebook/issues/470",
    ),
    (r"exceeds the available context size", "ggml-org/llama.cpp/pull/15780"),
    (r"requested tokens \(<prompt>\) exceed context window of <limit>", "rllm-team/rllm/issues/55"),
    (r"prompt_tokens \(<prompt>\) must be less than max_seq_len \(<limit>", "chatboxai/chatbox/issues/2060"),
    (
        r"max_total_tokens \(\d+\) must be less than or equal to max_seq_len \(<limit>",
        "continuedev/continue/issues/10993",
    ),
    (r"exceed context limit: <prompt> \+ \d+ > <limit>", "docker/docker-agent/issues/569"),
    (r"max_new_tokens` must be <= <limit>\. given: <prompt>", "bytedance/UI-TARS-desktop/issues/626"),
    (r"must have less than <limit> tokens\. given: <prompt>", "huggingface/text-generation-inference"),
    (
        r"prompt length \(<prompt>\) exceeds maximum (?:input|sequence) length \(<limit>",
        "triton-inference-server/tensorrtllm_backend/issues/565",
    ),
    (
        r"input length \(<prompt> tokens\) exceeds the maximum allowed length \(<limit>",
        "sgl-project/sglang/issues/4048",
    ),
    (r"prompt exceeds maximum context length", "ddalcu/mlx-serve/issues/66"),
    (r"prompt <prompt> > <limit> maximum context length", _PI),
    (
        r"size limit exceeded by \d+ tokens(?:.{0,80}limit for this model is <limit>)?",
        "cohere-ai/sandbox-topically/issues/4",
    ),
    (
        r"context window exceeded: <prompt> tokens exceeds the limit of <limit>",
        "zed-industries/zed/issues/62362",
    ),
    (r"input length <prompt> exceeds the maximum allowed input length of <limit>", _PI),
    (r"must be less than the context length of the model", "https://docs.together.ai/docs/error-codes"),
    (r"contextwindowexceedederror", "getkimchi/kimchi/issues/794"),
    (r"exceeds? the context window", "anomalyco/opencode/issues/8089"),
    (rf"reduce the length of the (?:messages|prompt|input)\b{_NO_FIELD}", "Nutlope/aicommits/issues/259"),
    (r"maximum context length", "Nutlope/aicommits/issues/259"),
    (rf"exceeds? (?:the )?(?:\w+ ){{0,2}}context\b{_NO_FIELD}", "Nutlope/aicommits/issues/259"),
    (
        rf"prompt (?:is )?too long{_NO_FIELD}",
        rf"input (?:is )?too long{_NO_FIELD}",
        "anthropics/claude-code/issues/760",
    ),
    (rf"exceeds the maximum number of tokens{_NO_FIELD}", "google-gemini/gemini-cli/issues/6678"),
)
_rows(
    LACKS,
    (
        r"image input is not supported",
        r"audio input is not supported",
        r"mmproj",
        "ggml-org/llama.cpp/issues/15377",
    ),
    (r"jinja exception", r"raise_exception", r"template error", "sipeed/picoclaw/issues/207"),
    (r"at row \d+, column \d+", r"at line \d+, column \d+ in source", "ggml-org/llama.cpp/issues/13178"),
    (r"can only get item pairs from a mapping", "QwenLM/Qwen3/issues/1894"),
    (r"roles must alternate", r"roles are supported, got", "anomalyco/opencode/issues/5034"),
    (r"failed to parse grammar", "lidge-jun/opencodex/issues/2135"),
    (r"unable to generate parser", r"json schema conversion failed", "ggml-org/llama.cpp/issues/26930"),
    (r"invalid json schema in format", "ollama/ollama/issues/8185"),
    (r"does not support (?:tools|thinking|images|chat)", "kenlasko/monize/pull/405"),
    (r"no endpoints found that support", "nodetool-ai/nodetool/pull/5755"),
    (r"not a multimodal model", "vllm-project/vllm/issues/23402"),
)
_rows(
    FEATURE,
    (r"does not support", r"doesn't support", r"do not support", "kenlasko/monize/pull/405"),
    (r"not(?<!\wnot) (?:currently )?support(?:ed)?\b", "griptape-ai/ComfyUI-Griptape/issues/312"),
    (r"unsupported (?:parameter|value)", r"is unsupported", "Kilo-Org/kilocode/issues/10375"),
    (
        r"is deprecated for this model",
        r"cannot both be specified for this model",
        "szczyglis-dev/py-gpt/pull/184",
    ),
    (r"is allowed for this model", "NousResearch/hermes-agent/pull/12668"),
    (r"reasoning is mandatory", "matsonj/eval-connections/issues/12"),
    (r"extra inputs are not permitted", r"extra_forbidden", "openai/openai-agents-python/issues/442"),
    (r"unknown name .{0,80}cannot find field", "Vali-98/ChatterUI/issues/227"),
    (
        r"unrecognized request argument",
        r"unknown (?:field|parameter)",
        r"unrecognized (?:field|parameter)",
        "BerriAI/litellm/issues/12503",
    ),
    (r"is unavailable now", "llm-exe/llm-exe/issues/662"),
    (r"only support stream mode", r"non-streaming calls", r"stream=false", "infiniflow/ragflow/issues/5912"),
    (r"requires --enable-auto-tool-choice", "langchain4j/langchain4j/issues/3475"),
)
_rows(
    LOADING,
    # A model that failed to load will not be there soon: ollama/ollama/issues/16547.
    (
        r"loading model(?<!error loading model)(?<!failed loading model)(?!.{0,300}(?:fail|error|memory))",
        "mostlygeek/llama-swap/issues/146",
    ),
    (
        r"the model is (?:\w+ )?(?:loading|being loaded)",
        r"model is (?:\w+ )?(?:loading|being loaded)",
        "mostlygeek/llama-swap/issues/146",
    ),
    (
        r"the model \S{1,200} is currently loading",
        r"model \S{1,200} is currently loading",
        r"the model \S{1,200} is being loaded",
        r"model \S{1,200} is being loaded",
        "BerriAI/litellm/issues/1242",
    ),
    (r"server busy", r"server is busy", r"maximum pending requests", "ollama/ollama/issues/4159"),
)
_rows(
    MODEL,
    (
        r"no available channel for model",
        r"当前分组.{0,300}无可用渠道",
        r"无可用渠道",
        "QuantumNous/new-api/pull/6310",
    ),
    (r"invalid model (?:name|')", "BerriAI/litellm/issues/9663"),
)
_rows(
    POLICY,
    (
        r"content filtering policy",
        r"content management policy",
        "https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter",
    ),
)


# Numbers of tokens for rows without `<limit>` or `<prompt>`.
LIMITS: Final = r"(?:context (?:length|size|window)(?: is| of)?(?: only)? \(?|tokens > )(?P<limit>\d+)"
PROMPTS: Final = (
    r"(?:requested (?:about |a total of )?|resulted in |passed |\b(?=\d+ input tokens exceeds ))"
    r"(?P<prompt>\d+)"
)
