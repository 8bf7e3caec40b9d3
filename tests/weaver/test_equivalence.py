# SPDX-License-Identifier: Apache-2.0
"""A random run of operations gives the same on a traced kernel as on one that is opted out."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weaver_kernel import (
    BudgetManager,
    CapabilityRequest,
    HMACTokenProvider,
    Kernel,
    Principal,
)
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import semconv, uninstrument_kernel
from agent_kernel_otel.current import current_operation
from tests.support.instrumented import AsyncDriver, instrumented
from tests.support.kernels import (
    ADMIN,
    ALICE,
    BOB,
    DESTROY,
    READ,
    WRITE,
    StreamingDriver,
    make_kernel,
    memory_driver,
    token_of,
)

PRINCIPALS = [ALICE, BOB, ADMIN, Principal("nobody"), Principal("writer", roles=["writer"])]
CAPABILITIES = [READ, WRITE, DESTROY, "tasks.unknown", ""]
ANSWERS: list[Any] = [
    [{"id": 1, "email": "a@example.com"}], {"a": {"b": {"c": {"d": 1}}}}, "text", None, [], 7,
    ConnectionError("down"), TimeoutError("slow"), ValueError("bad"), asyncio.CancelledError(),
]  # fmt: skip

Step = tuple[str, dict[str, Any]]


def step(kind: str, **choices: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(choices))


NUMBER = st.integers(0, 3)
WHO = st.sampled_from(PRINCIPALS)
MODE = st.sampled_from(["summary", "table", "handle_only", "raw", "nonsense"])
STEPS = st.lists(
    st.one_of(
        step("grant", capability=st.sampled_from(CAPABILITIES), who=WHO,
             justification=st.sampled_from(["", "needed for the weekly report"]),
             constraints=st.sampled_from([{}, {"max_rows": 1}, {"max_rows": "x"},
                                          {"invoke_timeout_s": -1}])),
        step("invoke", token=NUMBER, who=WHO, mode=MODE, dry_run=st.booleans(),
             answer=st.sampled_from(ANSWERS)),
        step("stream", token=NUMBER, who=WHO, mode=MODE, take=st.integers(0, 6)),
        step("expand", handle=NUMBER, who=WHO,
             query=st.sampled_from([{}, {"limit": 1}, {"offset": -1}, {"fields": ["id"]}])),
        step("revoke", token=NUMBER),
        step("wrong", method=st.sampled_from(["invoke", "grant_capability", "expand"])),
        step("explain", capability=st.sampled_from(CAPABILITIES), who=WHO),
    ),
    max_size=8,
)  # fmt: skip


@dataclass
class Run:
    """One kernel, and all that came of the steps taken on it."""

    kernel: Kernel
    streaming: bool

    def __post_init__(self) -> None:
        self.answer: Any = None
        self.tokens: list[Any] = [token_of(self.kernel, READ, who) for who in (ALICE, ADMIN)]
        self.handles: list[Any] = []
        self.said: list[str] = []

    async def respond(self, _: ExecutionContext) -> Any:
        await asyncio.sleep(0)
        if isinstance(self.answer, BaseException):
            raise type(self.answer)(*self.answer.args)
        return self.answer

    def say(self, what: str) -> None:
        # Generated ids, times and addresses differ from run to run.
        what = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{64}|0x[0-9a-f]+", "…", what)
        self.said.append(re.sub(r"datetime\.datetime\([^)]*\)|\d{4}-\d\d-\d\dT[^ ,)']*", "…", what))

    async def take(self, kind: str, choices: dict[str, Any]) -> None:
        try:
            self.say(repr(await getattr(self, kind)(**choices)))
        except (Exception, asyncio.CancelledError) as error:
            chain = [error, error.__cause__, error.__context__]
            self.say(" < ".join(f"{type(each).__qualname__}: {each}" for each in chain))

    async def grant(self, capability: str, who: Any, justification: str, constraints: Any) -> Any:
        request = CapabilityRequest(capability, "goal", constraints=dict(constraints))
        granted = self.kernel.grant_capability(request, who, justification=justification)
        self.tokens.append(granted.token)
        return granted

    async def invoke(self, token: int, who: Any, mode: Any, dry_run: bool, answer: Any) -> Any:
        self.answer = answer
        kernel: Any = self.kernel
        result = await kernel.invoke(
            self.pick(self.tokens, token), principal=who, args={"a": 1}, response_mode=mode,
            dry_run=dry_run,
        )  # fmt: skip
        self.handles.append(getattr(result, "handle", None))
        return result

    async def stream(self, token: int, who: Any, mode: Any, take: int) -> Any:
        frames: Any = self.kernel.invoke_stream(
            self.pick(self.tokens, token), principal=who, args={}, response_mode=mode
        )
        taken = [await anext(frames, "end") for _ in range(take)]
        await frames.aclose()
        await asyncio.sleep(0)
        return taken

    async def expand(self, handle: int, who: Any, query: Any) -> Any:
        return self.kernel.expand(self.pick(self.handles, handle), query=query, principal=who)

    async def revoke(self, token: int) -> Any:
        provider: Any = vars(self.kernel)["_token_provider"]
        return provider.revoke(self.pick(self.tokens, token).token_id)

    async def wrong(self, method: str) -> Any:
        return getattr(self.kernel, method)(1, unknown=2)

    async def explain(self, capability: str, who: Any) -> Any:
        return self.kernel.explain_denial(CapabilityRequest(capability, "goal"), who)

    @staticmethod
    def pick(things: list[Any], number: int) -> Any:
        return things[number % len(things)] if things else None


def run_of(*, streaming: bool, budget: bool) -> Run:
    run: Any = None

    async def respond(ctx: ExecutionContext) -> Any:
        return await run.respond(ctx)

    drivers: list[Any] = [AsyncDriver("first", respond), memory_driver("second")]
    if streaming:
        drivers.insert(0, StreamingDriver())
    more: dict[str, Any] = {"budget_manager": BudgetManager(total_budget=2_000)} if budget else {}
    provider = HMACTokenProvider(secret="s")
    run = Run(make_kernel(*drivers, token_provider=provider, **more), streaming)
    return run  # type: ignore[no-any-return]


@pytest.mark.parametrize("level", ["off", "info", "debug"])
@given(steps=STEPS, streaming=st.booleans(), budget=st.booleans())
@settings(deadline=None, max_examples=120)
def test_a_traced_kernel_does_what_an_untraced_one_does(
    level: str, steps: list[Step], streaming: bool, budget: bool
) -> None:
    traced = run_of(streaming=streaming, budget=budget)
    plain = run_of(streaming=streaming, budget=budget)

    async def both() -> None:
        for kind, choices in steps:
            await traced.take(kind, choices)
            await plain.take(kind, choices)
            assert traced.said[-1] == plain.said[-1]
            assert current_operation() is None

    with instrumented(span_level=level) as captured:
        uninstrument_kernel(plain.kernel)
        asyncio.run(both())
        assert traced.kernel.stats == plain.kernel.stats
        records = [len(run.kernel.list_traces()) for run in (traced, plain)]
        assert records[0] == records[1]
        calls = [root.name for root in captured.roots()]
        # A step that is refused before it calls the kernel, and a stream never started, are none.
        possible = [kind for kind, _ in steps if kind in {"grant", "invoke", "stream", "expand"}]
        assert len(calls) <= len(possible)
        if level != "off":
            granted = [kind for kind, _ in steps if kind == "grant"]
            assert calls.count(semconv.GRANT) == len(granted)
