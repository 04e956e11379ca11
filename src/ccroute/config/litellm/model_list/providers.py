"""LiteLLM's providers: which API each has, where, and whose key it takes.

A provider is the part of `litellm_params.model` before the first slash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_LITELLM = "https://docs.litellm.ai/docs/providers/"


class Provider(NamedTuple):
    """A provider that ccroute can speak to.

    kind:   the kind of backend.
    url:    its address, where an entry gives none; None if each user has one.
    keys:   the variables that LiteLLM takes its key from; the first that is set counts.
    base:   the variable that LiteLLM takes its address from.
    prefix: is put before a model's name that has no slash.
    source: the page with the address.
    """

    kind: str
    url: str | None
    keys: tuple[str, ...]
    source: str
    base: str = ""
    prefix: str = ""


def _own(url: str, keys: str, source: str, prefix: str = "") -> Provider:
    """A provider with an OpenAI-compatible address."""
    return Provider("openai", url, tuple(keys.split()), source, prefix=prefix)


_OLLAMA: Final = Provider(
    "ollama", "http://localhost:11434", ("OLLAMA_API_KEY",), f"{_LITELLM}ollama", "OLLAMA_API_BASE"
)
_AZURE: Final = Provider("azure", None, ("AZURE_API_KEY",), f"{_LITELLM}azure", "AZURE_API_BASE")
_VLLM: Final = Provider("vllm", None, ("HOSTED_VLLM_API_KEY",), f"{_LITELLM}vllm", "HOSTED_VLLM_API_BASE")
_OPENAI: Final = Provider(
    "openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",), f"{_LITELLM}openai", "OPENAI_API_BASE"
)
_COHERE: Final = _own(
    "https://api.cohere.ai/compatibility/v1",
    "COHERE_API_KEY CO_API_KEY",
    "https://docs.cohere.com/docs/compatibility-api",
)
_AI21: Final = _own("https://api.ai21.com/studio/v1", "AI21_API_KEY", f"{_LITELLM}ai21")
_ANY: Final = Provider("openai", None, (), f"{_LITELLM}openai_compatible")
_FIREWORKS: Final = "accounts/fireworks/models/"

PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": _OPENAI,
    "text-completion-openai": _OPENAI,
    "custom_openai": _OPENAI,
    "openai_like": _ANY,
    "aiohttp_openai": _OPENAI,
    "anthropic": Provider(
        "anthropic",
        "https://api.anthropic.com",
        ("ANTHROPIC_API_KEY",),
        f"{_LITELLM}anthropic",
        "ANTHROPIC_API_BASE",
    ),
    "azure": _AZURE,
    "azure_text": _AZURE,
    "azure_ai": Provider("azure", None, ("AZURE_AI_API_KEY",), f"{_LITELLM}azure_ai", "AZURE_AI_API_BASE"),
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    "hosted_vllm": _VLLM,
    "vllm": _VLLM,
    "llamafile": Provider(
        "llamacpp",
        "http://127.0.0.1:8080/v1",
        ("LLAMAFILE_API_KEY",),
        f"{_LITELLM}llamafile",
        "LLAMAFILE_API_BASE",
    ),
    "lm_studio": Provider(
        "openai",
        "http://localhost:1234/v1",
        ("LM_STUDIO_API_KEY",),
        f"{_LITELLM}lm_studio",
        "LM_STUDIO_API_BASE",
    ),
    "docker_model_runner": _own(
        "http://localhost:12434/engines/v1", "", "https://docs.docker.com/ai/model-runner/api-reference/"
    ),
    "litellm_proxy": Provider(
        "litellm",
        "http://localhost:4000/v1",
        ("LITELLM_PROXY_API_KEY",),
        f"{_LITELLM}litellm_proxy",
        "LITELLM_PROXY_API_BASE",
    ),
    "xinference": Provider("openai", None, (), f"{_LITELLM}xinference", "XINFERENCE_API_BASE"),
    "databricks": Provider(
        "openai", None, ("DATABRICKS_API_KEY",), f"{_LITELLM}databricks", "DATABRICKS_API_BASE"
    ),
    "huggingface": Provider(
        "tgi",
        "https://router.huggingface.co/v1",
        ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        "https://huggingface.co/docs/inference-providers/index",
        "HUGGINGFACE_API_BASE",
    ),
    "deepseek": Provider(
        "deepseek",
        "https://api.deepseek.com/v1",
        ("DEEPSEEK_API_KEY",),
        f"{_LITELLM}deepseek",
        "DEEPSEEK_API_BASE",
    ),
    "mistral": Provider(
        "mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), f"{_LITELLM}mistral", "MISTRAL_API_BASE"
    ),
    "codestral": Provider(
        "mistral", "https://codestral.mistral.ai/v1", ("CODESTRAL_API_KEY",), f"{_LITELLM}codestral"
    ),
    "moonshot": Provider(
        "moonshot",
        "https://api.moonshot.ai/v1",
        ("MOONSHOT_API_KEY",),
        f"{_LITELLM}moonshot",
        "MOONSHOT_API_BASE",
    ),
    "openrouter": Provider(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY", "OR_API_KEY"),
        f"{_LITELLM}openrouter",
        "OPENROUTER_API_BASE",
    ),
    "dashscope": Provider(
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY",),
        f"{_LITELLM}dashscope",
        "DASHSCOPE_API_BASE",
    ),
    "gemini": _own(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY GOOGLE_API_KEY",
        "https://ai.google.dev/gemini-api/docs/openai",
    ),
    "groq": _own("https://api.groq.com/openai/v1", "GROQ_API_KEY", "https://console.groq.com/docs/openai"),
    "xai": _own("https://api.x.ai/v1", "XAI_API_KEY", "https://docs.x.ai/docs/overview"),
    "together_ai": _own(
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY TOGETHER_AI_API_KEY TOGETHERAI_API_KEY TOGETHER_AI_TOKEN",
        "https://docs.together.ai/docs/openai-api-compatibility",
    ),
    "fireworks_ai": _own(
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY FIREWORKS_AI_API_KEY FIREWORKSAI_API_KEY FIREWORKS_AI_TOKEN",
        "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
        _FIREWORKS,
    ),
    "perplexity": _own(
        "https://api.perplexity.ai/v1",
        "PERPLEXITYAI_API_KEY PERPLEXITY_API_KEY",
        "https://docs.perplexity.ai/docs/grounded-llm/openai-compatibility",
    ),
    "cerebras": _own(
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        "https://inference-docs.cerebras.ai/resources/openai",
    ),
    "nvidia_nim": _own(
        "https://integrate.api.nvidia.com/v1",
        "NVIDIA_NIM_API_KEY NVIDIA_API_KEY",
        "https://docs.api.nvidia.com/nim/reference/llm-apis",
    ),
    "sambanova": _own("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", f"{_LITELLM}sambanova"),
    "deepinfra": _own("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", f"{_LITELLM}deepinfra"),
    "meta_llama": _own("https://api.llama.com/compat/v1", "LLAMA_API_KEY", f"{_LITELLM}meta_llama"),
    "github": _own(
        "https://models.github.ai/inference",
        "GITHUB_API_KEY GITHUB_TOKEN",
        "https://docs.github.com/en/rest/models/inference",
    ),
    "cohere": _COHERE,
    "cohere_chat": _COHERE,
    "ai21": _AI21,
    "ai21_chat": _AI21,
    "volcengine": _own(
        "https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY ARK_API_KEY", f"{_LITELLM}volcano"
    ),
    "friendliai": _own(
        "https://api.friendli.ai/serverless/v1", "FRIENDLIAI_API_KEY FRIENDLI_TOKEN", f"{_LITELLM}friendliai"
    ),
    "hyperbolic": _own("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", f"{_LITELLM}hyperbolic"),
    "nebius": _own("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY", f"{_LITELLM}nebius"),
    "novita": _own("https://api.novita.ai/v3/openai", "NOVITA_API_KEY", f"{_LITELLM}novita"),
    "featherless_ai": _own(
        "https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY", f"{_LITELLM}featherless_ai"
    ),
    "nscale": _own("https://inference.api.nscale.com/v1", "NSCALE_API_KEY", f"{_LITELLM}nscale"),
    "zai": _own("https://api.z.ai/api/paas/v4", "ZAI_API_KEY", f"{_LITELLM}zai"),
    "minimax": _own("https://api.minimax.io/v1", "MINIMAX_API_KEY", f"{_LITELLM}minimax"),
    "lambda_ai": _own("https://api.lambda.ai/v1", "LAMBDA_API_KEY", f"{_LITELLM}lambda_ai"),
    "v0": _own("https://api.v0.dev/v1", "V0_API_KEY", f"{_LITELLM}v0"),
    "vercel_ai_gateway": _own(
        "https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY", f"{_LITELLM}vercel_ai_gateway"
    ),
    "wandb": _own("https://api.inference.wandb.ai/v1", "WANDB_API_KEY", f"{_LITELLM}wandb_inference"),
    "baseten": _own("https://inference.baseten.co/v1", "BASETEN_API_KEY", f"{_LITELLM}baseten"),
    "gradient_ai": _own("https://inference.do-ai.run/v1", "GRADIENT_AI_API_KEY", f"{_LITELLM}gradient_ai"),
    "aiml": _own("https://api.aimlapi.com/v1", "AIML_API_KEY", f"{_LITELLM}aiml"),
    "chutes": _own("https://llm.chutes.ai/v1", "CHUTES_API_KEY", f"{_LITELLM}chutes"),
    "scaleway": _own("https://api.scaleway.ai/v1", "SCW_SECRET_KEY", f"{_LITELLM}scaleway"),
    "ovhcloud": _own(
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", "OVHCLOUD_API_KEY", f"{_LITELLM}ovhcloud"
    ),
    "poe": _own("https://api.poe.com/v1", "POE_API_KEY", f"{_LITELLM}poe"),
    "nano-gpt": _own("https://nano-gpt.com/api/v1", "NANOGPT_API_KEY", f"{_LITELLM}nano-gpt"),
    "synthetic": _own("https://api.synthetic.new/openai/v1", "SYNTHETIC_API_KEY", f"{_LITELLM}synthetic"),
    "xiaomi_mimo": _own("https://api.xiaomimimo.com/v1", "XIAOMI_MIMO_API_KEY", f"{_LITELLM}xiaomi_mimo"),
    "morph": _own("https://api.morphllm.com/v1", "MORPH_API_KEY", f"{_LITELLM}morph"),
    "lemonade": _own("http://localhost:8000/api/v1", "LEMONADE_API_KEY", f"{_LITELLM}lemonade"),
}

_AWS: Final = "needs requests signed for AWS, which ccroute does not write"
_GOOGLE: Final = (
    "needs a sign-in at Google Cloud, which ccroute does not do; gemini/… reaches Gemini with a key"
)
_OTHER: Final = "has an API of its own, which ccroute does not speak"
_LOGIN: Final = "needs a sign-in, which ccroute does not do"
_ROUTES: Final = "is a router of LiteLLM's own, which ccroute does not run"

REASONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("bedrock", "bedrock_converse", "bedrock_mantle", "amazon_nova"), _AWS),
    **dict.fromkeys(("sagemaker", "sagemaker_chat", "sagemaker_nova"), _AWS),
    **dict.fromkeys(("vertex_ai", "vertex_ai_beta", "vertex_ai-language-models", "palm"), _GOOGLE),
    **dict.fromkeys(("watsonx", "watsonx_text", "oci", "snowflake", "sap", "gigachat"), _LOGIN),
    **dict.fromkeys(("github_copilot", "chatgpt", "a2a", "langgraph"), _LOGIN),
    **dict.fromkeys(
        ("replicate", "petals", "nlp_cloud", "aleph_alpha", "maritalk", "baseten_legacy"), _OTHER
    ),
    **dict.fromkeys(
        ("cloudflare", "predibase", "triton", "oobabooga", "clarifai", "topaz", "custom"), _OTHER
    ),
    **dict.fromkeys(("voyage", "jina_ai", "infinity", "deepgram", "elevenlabs", "assemblyai"), _OTHER),
    **dict.fromkeys(("recraft", "fal_ai", "stability", "runwayml", "bytez", "dify", "humanloop"), _OTHER),
    **dict.fromkeys(("auto_router", "complexity_router", "quality_router", "adaptive_router"), _ROUTES),
}
"""Providers that ccroute cannot speak to, and why."""

_BARE: Final = (
    (re.compile(r"gpt-.*|chatgpt-.*|o[134](?:-.*)?|ft:gpt-.*|codex-.*|(?:text-)?davinci.*"), "openai"),
    (re.compile(r"text-embedding-.*|dall-e-.*|tts-.*|whisper-.*|omni-moderation.*"), "openai"),
    (re.compile(r"claude-.*"), "anthropic"),
    (re.compile(r"command.*"), "cohere_chat"),
    (re.compile(r"gemini-.*|text-bison.*|chat-bison.*"), "vertex_ai"),
    (re.compile(r"(?:anthropic|amazon|meta|mistral|cohere|ai21)\..*"), "bedrock"),
)
"""Models that LiteLLM knows without a provider before their name."""


def split(model: str, provider: str | None) -> tuple[str, str]:
    """The provider and the model's own name; "" if the name has no provider.

    `provider` is LiteLLM's `custom_llm_provider`.
    """
    if provider:
        return provider, model.removeprefix(f"{provider}/")
    first, slash, rest = model.partition("/")
    if slash and (first in PROVIDERS or first in REASONS):
        return first, rest
    return next((known for names, known in _BARE if names.fullmatch(model)), ""), model
