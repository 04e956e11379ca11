"""LiteLLM's `config.yaml` as the native table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final

from ccroute.backends.registry import well_known
from ccroute.config.additions import Translated
from ccroute.config.foreign.builder import Builder
from ccroute.config.foreign.external_names import ExternalNames
from ccroute.config.foreign.section import Layer, Section
from ccroute.config.litellm.budgets import Budgets
from ccroute.config.litellm.document import Document
from ccroute.config.litellm.fallbacks import Fallbacks, read_retry
from ccroute.config.litellm.model_list.backends import add_backends
from ccroute.config.litellm.model_list.entries import Entries, Entry
from ccroute.config.litellm.model_list.providers import PROVIDERS
from ccroute.config.litellm.routes import Routes, read_aliases, read_strategy
from ccroute.config.reading.secrets import Environment
from ccroute.config.reading.source import Source
from ccroute.routing.names import did_you_mean

_USUAL_TOTAL: Final = 600.0
_WILD: Final = frozenset("*?[")
_BARE: Final = {"anthropic": ("claude-*",), "openai": ("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*")}
"""Names that LiteLLM knows without a provider, for `model: "*"`."""


def translate(
    content: Mapping[str, Any], environment: Environment, source: Source, external: ExternalNames
) -> Translated:
    """The native table of the document, with secrets expanded, and its other rules."""
    builder = Builder(environment, source)
    document = Document(content, builder)
    for name, value, place in document.variables():
        expanded = environment.expand(value, place, Source(""))  # one that is not set may not be needed
        if isinstance(expanded, str | int | float):
            environment.define(name, str(expanded))
    router, litellm, general = document.settings()
    strategy = read_strategy(router)
    entries = Entries(builder, document.credentials(), tuple(_defaults(router, litellm, general)))
    rows = list(document.entries())
    for row, place in _with_all(rows, environment):
        entries.read(row, place)
    if rows and not entries.found and not source.faults:
        why = "; ".join(f"{name}: {reason}" for name, reason in entries.left_out.items())
        builder.fault(("model_list",), f"has no model that ccroute can reach. {why}")
    by_name: dict[str, list[Entry]] = {}
    for entry in entries.found:
        by_name.setdefault(entry.name, []).append(entry)
    builder.additions.absent.update(
        (name, why) for name, why in entries.left_out.items() if name not in by_name
    )
    budgets = Budgets(router, litellm)
    add_backends(entries.found, builder, external, budgets.providers)
    budgets.add(entries.found)
    routes = Routes(builder, strategy)
    for name, group in by_name.items():
        routes.add(name, group)
    given = list(read_aliases(router))
    aliases = {name: models for name, models, _ in given}
    for name, models, place in given:
        routes.alias(name, models, place)
    fallbacks = Fallbacks(router, aliases, routes.tiers)
    _add_ids(entries.found, fallbacks, routes)
    absent = builder.additions.absent
    faulty = {str(row.get("model_name")) for row, _ in rows if isinstance(row, Mapping)} - absent.keys()
    builder.fallbacks = fallbacks.native(_nowhere({*routes.targets, *faulty}, builder, external, absent))
    if strategy != "weighted":
        builder.option("strategy", strategy, router.place("routing_strategy"))
    attempts = _add_retry(router, routes, builder)
    _add_timeout(router, litellm, attempts, builder)
    _add_switches(router, litellm, general, builder)
    return builder.table() | {"aliases": routes.native()}, builder.additions


def _nowhere(
    own: Collection[str], builder: Builder, external: ExternalNames, absent: Mapping[str, str]
) -> Callable[[str], str | None]:
    """A function that says why a name leads nowhere; None if it is one of the file's `own` or of others."""
    names = {*own, *external.aliases, *external.chosen}
    any_regex = any(each.startswith("re:") for each in names)
    wildcards = [each for each in names if not _WILD.isdisjoint(each)]
    backends = {*builder.backends, *well_known()}

    def why(name: str) -> str | None:
        backend, slash, _ = name.partition("/")
        if slash and (backend in backends or external.is_backend(backend)):
            return None
        if name in names or any_regex or any(fnmatchcase(name, each) for each in wildcards):
            return None
        return absent.get(name) or f"no model has that name{did_you_mean(name, own)}"

    return why


def _defaults(router: Section, litellm: Section, general: Section) -> Iterator[Layer]:
    """What counts for an entry that does not say otherwise."""
    yield router.layer("default_litellm_params")
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


def _add_ids(entries: list[Entry], fallbacks: Fallbacks, routes: Routes) -> None:
    """Make aliases of the `model_info.id`s that fallbacks name: LiteLLM takes them for the deployment."""
    used = {*fallbacks.general, *fallbacks.windows, *(model for model, _ in fallbacks.names())}
    for entry in entries:
        if entry.id in used and entry.id is not None and entry.id not in routes.targets:
            routes.add(entry.id, [entry])


def _add_retry(router: Section, routes: Routes, builder: Builder) -> int:
    """Add `retry`, and return the attempts of a call."""
    retry = read_retry(router, builder.fallbacks, routes.sizes)
    if retry:
        builder.options["retry"] = retry
    for key in ("num_retries", "retry_after"):
        if key in router:
            builder.comes_from(router.place(key), "retry")
    return int(retry.get("attempts", 1))


def _add_timeout(router: Section, litellm: Section, attempts: int, builder: Builder) -> None:
    section, key = (router, "timeout") if "timeout" in router else (litellm, "request_timeout")
    attempt, first = section.number(key), router.number("stream_timeout")
    timeout: dict[str, float] = {}
    if first:
        timeout["first"] = float(first)
        builder.option("timeout", timeout, router.place("stream_timeout"))
    if attempt:
        timeout["attempt"] = float(_longest_attempt(attempt, builder.backends))
        if (total := timeout["attempt"] * attempts) > _USUAL_TOTAL:
            timeout["total"] = total
        builder.option("timeout", timeout, section.place(key))


def _add_switches(router: Section, litellm: Section, general: Section, builder: Builder) -> None:
    if router.flag("disable_cooldowns"):
        builder.option("health", "off", router.place("disable_cooldowns"))
    elif router.number("cooldown_time") == 0:
        builder.option("health", "off", router.place("cooldown_time"))
    elif "cooldown_time" in router:
        router.ignore("cooldown_time", "a breaker opens and closes by its own rules: docs/reliability.md")
    if litellm.flag("drop_params"):
        builder.option("drop_params", True, litellm.place("drop_params"))
    if (model := general.text("completion_model")) is not None:
        builder.option("default_model", model, general.place("completion_model"))


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
