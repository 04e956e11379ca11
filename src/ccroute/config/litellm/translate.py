"""LiteLLM's `config.yaml` as the native table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.litellm.backends import add_backends
from ccroute.config.litellm.document import Document
from ccroute.config.litellm.entries import Entries, Entry
from ccroute.config.litellm.fallbacks import Fallbacks, read_retry
from ccroute.config.litellm.providers import PROVIDERS
from ccroute.config.litellm.routes import Routes, read_aliases, read_strategy
from ccroute.config.litellm.section import Layer, Section
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Source

_USUAL_TOTAL: Final = 600.0
_BARE: Final = {"anthropic": ("claude-*",), "openai": ("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*")}
"""Names that LiteLLM knows without a provider, for `model: "*"`."""


def translate(
    content: Mapping[str, Any], environment: Environment, source: Source, external: ExternalNames
) -> dict[str, Any]:
    """The native table of the document, with secrets expanded."""
    builder = Builder(environment, source)
    document = Document(content, builder, source)
    for name, value, place in document.variables():
        expanded = environment.expand(value, place, Source(""))  # one that is not set may not be needed
        if isinstance(expanded, str | int | float):
            environment.define(name, str(expanded))
    router, litellm, general = document.settings()
    strategy = read_strategy(router)
    entries = Entries(
        builder, environment, document.credentials(), tuple(_defaults(router, litellm, general))
    )
    rows = list(document.entries())
    for row, place in _with_all(rows, environment):
        entries.read(row, place)
    source.absent |= entries.left_out
    if rows and not entries.found and not source.faults:
        why = "; ".join(f"{name}: {reason}" for name, reason in entries.left_out.items())
        builder.fault(("model_list",), f"has no model that ccroute can reach. {why}")
    by_name: dict[str, list[Entry]] = {}
    for entry in entries.found:
        by_name.setdefault(entry.name, []).append(entry)
        source.absent.pop(entry.name, None)
    leads = {name: {(each.server.identity, each.model) for each in group} for name, group in by_name.items()}
    deployments = add_backends(entries.found, builder, external, leads)
    routes = Routes(builder, strategy)
    for name, group in by_name.items():
        routes.add(name, group, deployments)
    given = list(read_aliases(router))
    aliases = {name: models for name, models, _ in given}
    for name, models, place in given:
        routes.alias(name, models, place)
    fallbacks = Fallbacks(router, aliases, routes.tiers)
    _add_ids(entries.found, deployments, fallbacks, routes)
    fallbacks.resolve()
    table: dict[str, Any] = {"backends": builder.backends, "aliases": routes.native()}
    table |= dict(_settings(router, litellm, general, fallbacks, routes, builder))
    if strategy != "weighted":
        table["strategy"] = strategy
    return table


def _defaults(router: Section, litellm: Section, general: Section) -> Iterator[Layer]:
    """What counts for an entry that does not say otherwise."""
    if (given := router.inner("default_litellm_params")) is not None:
        yield given
    for section, key in ((router, "default_max_parallel_requests"), (general, "max_parallel_requests")):
        if key in section:
            yield {"max_parallel_requests": section.whole(key)}, section.place(key)[:-1]
    if "ssl_verify" in litellm:
        yield {"ssl_verify": litellm.get("ssl_verify")}, litellm.place("ssl_verify")[:-1]


def _with_all(rows: list[tuple[Any, Any]], environment: Environment) -> Iterator[tuple[Any, Any]]:
    """The rows. One for any model of any provider becomes one for each provider whose key is set."""
    for row, place in rows:
        match row:
            case {"model_name": "*", "litellm_params": {"model": "*"} as params} if "api_base" not in params:
                for name, provider in PROVIDERS.items():
                    if any(environment.get(key) for key in provider.keys) or name == "ollama":
                        patterns = (f"{name}/*", *_BARE.get(name, ()))
                        for pattern in patterns if provider.url else ():
                            model = pattern if "/" in pattern else f"{name}/{pattern}"
                            made = {**params, "model": model}
                            yield {**row, "model_name": pattern, "litellm_params": made}, place
            case _:
                yield row, place


def _add_ids(
    entries: list[Entry], deployments: Mapping[int, str], fallbacks: Fallbacks, routes: Routes
) -> None:
    """Make aliases of the `model_info.id`s that fallbacks name: LiteLLM takes them for the deployment."""
    used = {*fallbacks.general, *fallbacks.windows, *(model for model, _ in fallbacks.names())}
    for entry in entries:
        if entry.id in used and entry.id is not None and entry.id not in routes.targets:
            routes.add(entry.id, [entry], deployments)


def _settings(
    router: Section,
    litellm: Section,
    general: Section,
    fallbacks: Fallbacks,
    routes: Routes,
    builder: Builder,
) -> Iterator[tuple[str, Any]]:
    """The keys of the whole file."""
    if fallbacks.native:
        yield "fallbacks", fallbacks.native
    retry = read_retry(router, fallbacks.native, routes.sizes)
    if retry:
        yield "retry", retry
        key = next((key for key in ("num_retries", "retry_after") if key in router), None)
        if key is not None:
            builder.comes_from(router.place(key), "retry")
    section = router if "timeout" in router else litellm
    key = "timeout" if "timeout" in router else "request_timeout"
    attempt, first = section.number(key), router.number("stream_timeout")
    if attempt or first:
        attempt = _longest_attempt(attempt, builder.backends) if attempt else None
        timeout = {
            name: float(seconds) for name, seconds in (("attempt", attempt), ("first", first)) if seconds
        }
        if attempt and (total := float(attempt) * retry.get("attempts", 1)) > _USUAL_TOTAL:
            timeout["total"] = total
        yield "timeout", timeout
        builder.comes_from(section.place(key) if attempt else router.place("stream_timeout"), "timeout")
    if router.flag("disable_cooldowns") or router.number("cooldown_time") == 0:
        yield "health", "off"
    elif "cooldown_time" in router:
        builder.ignore(
            router.place("cooldown_time"), "a breaker opens and closes by its own rules: docs/reliability.md"
        )
    if litellm.flag("drop_params"):
        yield "drop_params", True
    if (model := general.text("completion_model")) is not None:
        yield "default_model", model
        builder.comes_from(general.place("completion_model"), "default_model")


def _longest_attempt(usual: Decimal, backends: Mapping[str, dict[str, Any]]) -> Decimal:
    """The limit of one attempt for the whole file, which holds for all servers. Where a server has a longer
    one, the usual limit becomes that of each other server."""
    totals = [table["timeout"]["total"] for table in backends.values() if "total" in table.get("timeout", {})]
    longest = max(totals, default=0.0)
    if longest <= usual:
        return usual
    for table in backends.values():
        table["timeout"] = {"total": float(usual), **table.get("timeout", {})}
    return Decimal(longest)
