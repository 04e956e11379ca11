"""What a type checker must see of the public API; checked by mypy and pyright, never run."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_type

from pydantic import BaseModel, TypeAdapter

from ccroute import (
    Agent,
    AliasTable,
    AsyncBatch,
    AsyncStream,
    Batch,
    Budget,
    Chunk,
    Completion,
    OllamaBackend,
    Price,
    Report,
    Route,
    RoutePlan,
    Router,
    Stream,
    Timeout,
    Usage,
    errors,
)
from ccroute.accounting import LedgerRow
from ccroute.types import BackendHealth, CallOptions, LoadedModel, Progress

router = Router(
    [OllamaBackend("mini", max_concurrency=2)],
    AliasTable({"a": "mini/m", "b": ["mini/m", "mini/n"], "c": {"mini/m": 3}}, strategy="ordered"),
    {"x": "a", "y": Agent("b", fallback=["a"], triggers=["rate_limit"])},
    prices={"mini/m": Price("0.15", 1), "mini/n": "free"},
    budgets={"x": Budget(5), "router": Budget("200.00", per="month", tz="Europe/Berlin", then="queue")},
    timeout=Timeout(total=30),
)

reply = router.complete("hi", agent="x", temperature=0.2, stop=["."], metadata={"ticket": 7})
assert_type(reply, Completion)
assert_type(reply.text, str)
assert_type(reply.cost, Decimal | None)
assert_type(reply.usage, Usage)
assert_type(reply.route, Route)
assert_type(reply.choices[0].message.content, str | None)
assert_type(router.stream(messages=[{"role": "user", "content": "hi"}, reply.message]), Stream)
assert_type(router.astream("hi"), AsyncStream)
for chunk in router.stream("hi"):
    assert_type(chunk, Chunk)


async def main() -> None:
    assert_type(await router.acomplete("hi", fallback=False), Completion)
    async with router.astream("hi", timeout=5) as stream:
        async for chunk in stream:
            assert_type(chunk, Chunk)


for answer in router.complete_many(["hi", {"prompt": "hi", "model": "a"}], agent="x", max_tokens=5):
    assert_type(answer, Completion | errors.CcrouteError)
    assert_type(answer.index, int | None)


def show(progress: Progress) -> None:
    assert_type(progress.total, int | None)
    assert_type(progress.cost, Decimal | None)


async def many() -> None:
    requests: list[CallOptions] = [{"messages": [{"role": "user", "content": "hi"}], "model": "a"}]
    assert_type(router.acomplete_many(requests, on_progress=show), AsyncBatch)
    async with router.acomplete_many(({"prompt": str(i)} for i in range(9)), concurrency=5) as batch:
        async for answer in batch:
            if isinstance(answer, errors.CcrouteError):
                raise answer
            assert_type(answer, Completion)


class Finding(BaseModel):
    severity: str


@dataclass
class Point:
    x: int


def search(query: str) -> str:
    return query


async def fetch(url: str) -> str:
    return url


found = router.complete("hi", response_format=Finding, tools=[search, fetch, Finding, {"type": "function"}])
assert_type(found, Completion[Finding])
assert_type(found.parsed, Finding)
assert_type(found.parsed.severity, str)
assert_type(router.complete("hi", response_format=Point).parsed, Point)
assert_type(router.complete("hi", response_format=list[Finding]).parsed, list[Finding])
assert_type(router.complete("hi", response_format=TypeAdapter(list[int])).parsed, list[int])
assert_type(router.complete("hi", response_format={"type": "json_object"}), Completion)
assert_type(router.complete("hi", response_format=None), Completion)
assert_type(router.stream("hi", response_format=Finding), Stream[Finding])
assert_type(router.stream("hi", response_format=Finding).completion, Completion[Finding])
assert_type(router.stream("hi").completion, Completion)
assert_type(router.astream("hi", response_format=Finding), AsyncStream[Finding])
assert_type(found.tool_calls[0].arguments, dict[str, Any])
assert_type(found.tool_calls[0].validated(Finding), Finding)
search(**found.tool_calls[0].validated())


def noted(reply: Completion) -> str:
    """Any answer is a `Completion`, whatever it is parsed into."""
    return reply.text


def asked(options: CallOptions) -> Completion:
    """Keywords that are kept in a dict."""
    return router.complete(**options)


noted(found)


async def structured() -> None:
    assert_type(await router.ahealth(), dict[str, BackendHealth])
    assert_type(await router.acomplete("hi", response_format=Finding), Completion[Finding])
    async with router.astream("hi", response_format=Finding) as stream:
        assert_type(stream.completion.parsed, Finding)


assert_type(router.complete_many(["hi"], response_format=Finding), Batch[Finding])
for each in router.complete_many(["hi"], response_format=Finding):
    if not isinstance(each, errors.CcrouteError):
        assert_type(each.parsed, Finding)
router.complete_many([7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
router.complete_many(["hi"], temprature=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
router.complete("hi", response_format=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
router.complete("hi", tools=[7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
print(found.parsed.sevrity)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
router.complete("hi", temprature=0.2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Budget(tokens=1000, per="week")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Price(None, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Price(0.1, 1, above={200_000: Price(0.2, 2)})
Agent("a", triggers=["sometimes"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
AliasTable(
    {"a": {"targets": ["mini/m", "mini/n"], "strategy": "ordered"}, "b": {"mini/m": 1, "mini/n": 3}, "c": "a"}
)
AliasTable(
    {"a": {"targets": [], "strategy": "best"}}  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
)
Router([], {"a": {"targets": ["mini/m"], "strategy": "cost"}}, fallbacks={"a": ["mini/n"], "*": ["a"]})
report = router.report(by=())
assert_type([each["cost"] for each in report], list[Any])
assert_type(report[0], dict[str, Any])
assert_type(router.rows(), list[LedgerRow])
Router([], ledger="usage.db")
Router([], ledger=Path("usage.db"))
Router([], ledger=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(Report.from_ledger("usage.db", by=("agent", "day"), since="2026-01-01"), Report)
plan = router.explain("hi", agent="a", response_format=Finding, max_tokens=5)
assert_type(plan, RoutePlan)
assert_type(plan.candidates[0].worst_cost, Decimal | None)
assert_type(plan.candidates[0].budget_left, Decimal | None)
assert_type(plan.candidates[0].why_not, str | None)
assert_type(plan.candidates[0].predicted_wait, float | None)
assert_type(router.complete("hi", waiting_cost="2.50", max_wait_free=30), Completion)
Agent("a", waiting_cost=2.5, max_wait_free=30.5)
Agent("a", waiting_cost=Decimal(20), max_wait_free="30")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
router.explain("hi", temprature=0.2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type(router.health()["mini"].ok, bool | None)
assert_type(router.health()["mini"].loaded, tuple[LoadedModel, ...] | None)
stats = router.stats()
assert_type(stats.budgets["agent:x"].spent, Decimal | None)
assert_type(stats.backends["mini"].slots, int | None)
assert_type(stats.backends["mini"].credential.seconds_left, float)
assert_type(stats.deployments["mini/m"].health.state, Literal["on", "off", "probing", "cooling"])
