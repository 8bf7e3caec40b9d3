# SPDX-License-Identifier: Apache-2.0
"""Response modes stricter than asked, names of spans, and names of budget sessions."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from weaver_kernel import (
    BudgetExhausted,
    BudgetManager,
    DriverError,
    Firewall,
    Frame,
    Kernel,
    Principal,
    StaticRouter,
)

from agent_kernel_otel import ConfigurationError, semconv
from tests.support.capture import Capture, Node
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import (
    ADMIN,
    ALICE,
    READ,
    StreamingDriver,
    make_kernel,
    memory_driver,
    token_of,
)


async def budget(total: int = 100, used: int = 0) -> BudgetManager:
    manager = BudgetManager(total, default_request=1)
    await manager.record_usage(used)
    return manager


async def invoke(kernel: Kernel, principal: Principal = ALICE, **options: Any) -> Frame:
    frame: Frame = await kernel.invoke(
        token_of(kernel, READ, principal), principal=principal, args={}, **options
    )
    return frame


def check_mode(root: Node, asked: str, got: str | None, reason: str | None) -> None:
    assert root[semconv.REQUESTED_RESPONSE_MODE] == asked
    assert root.get(semconv.RESPONSE_MODE) == got
    assert root[semconv.DOWNGRADED] is (reason is not None)
    assert root.get(semconv.DOWNGRADE_REASON) == reason


CASES: list[tuple[Principal, str, int | None, str, str | None]] = [
    (ALICE, "summary", None, "summary", None),
    (ALICE, "table", None, "table", None),
    (ALICE, "handle_only", None, "handle_only", None),
    (ADMIN, "raw", None, "raw", None),
    (ALICE, "raw", None, "summary", "admin_gate"),
    (ALICE, "raw", 0, "summary", "admin_gate"),
    (ALICE, "table", 0, "table", None),
    (ADMIN, "raw", 60, "table", "budget"),
    (ADMIN, "table", 60, "table", None),
    (ALICE, "table", 85, "summary", "budget"),
    (ALICE, "table", 97, "handle_only", "budget"),
    (ALICE, "raw", 97, "handle_only", "budget"),
    (ALICE, "handle_only", 97, "handle_only", None),
]


@pytest.mark.parametrize(("principal", "asked", "used", "got", "reason"), CASES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stricter_mode_is_told_with_its_last_cause(
    capture: Capture,
    principal: Principal,
    asked: str,
    used: int | None,
    got: str,
    reason: str | None,
    streamed: bool,
) -> None:
    kernel = make_kernel(StreamingDriver())
    if used is not None:
        kernel = make_kernel(StreamingDriver(), budget_manager=await budget(used=used))
    if streamed:
        frames = await drain(open_stream(kernel, principal=principal, response_mode=asked))
        assert {frame.response_mode for frame in frames} == {got}
    else:
        assert (await invoke(kernel, principal, response_mode=asked)).response_mode == got
    check_mode(capture.root(), asked, got, reason)
    assert kernel.stats.budget_downgrades == (reason is not None)


async def test_a_firewall_of_the_apps_own_may_be_stricter(capture: Capture) -> None:
    class Strict(Firewall):
        def transform(self, *args: Any, **kwargs: Any) -> Frame:
            return super().transform(*args, **{**kwargs, "response_mode": "handle_only"})

    await invoke(make_kernel(firewall=Strict()), response_mode="table")
    check_mode(capture.root(), "table", "handle_only", "firewall")
    assert capture.root().only(semconv.FIREWALL)[semconv.RESPONSE_MODE] == "handle_only"


@pytest.mark.parametrize(
    ("principal", "used", "reason"),
    [(ALICE, 0, "admin_gate"), (ADMIN, 60, "budget"), (ALICE, 97, "budget"), (ADMIN, 0, None)],
)
@pytest.mark.parametrize("has_driver", [True, False])
async def test_a_failed_invocation_that_was_downgraded_says_so(
    capture: Capture, principal: Principal, used: int, reason: str | None, has_driver: bool
) -> None:
    def fail(_: object) -> None:
        raise OSError("x")

    kernel = make_kernel(
        memory_driver(answer=fail),
        budget_manager=await budget(used=used),
        router=StaticRouter(fallback=["memory" if has_driver else "absent"]),
    )
    with pytest.raises(DriverError):
        await invoke(kernel, principal, response_mode="raw")
    check_mode(capture.root(), "raw", None, reason)
    assert kernel.stats.budget_downgrades == (reason is not None)


async def test_an_invocation_refused_by_its_budget_was_not_downgraded(capture: Capture) -> None:
    kernel = make_kernel(budget_manager=await budget(used=100))
    with pytest.raises(BudgetExhausted):
        await invoke(kernel, response_mode="raw")
    check_mode(capture.root(), "raw", None, None)
    assert kernel.stats.budget_downgrades == 0


# Names of spans -------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_invoke_span_can_be_named_by_the_genai_convention(streamed: bool) -> None:
    with instrumented(span_naming="gen_ai") as capture:
        kernel = make_kernel(StreamingDriver())
        if streamed:
            await drain(open_stream(kernel))
        else:
            await invoke(kernel)
        root = capture.root()
        assert root.name == f"execute_tool {READ}"
        assert root[semconv.GEN_AI_OPERATION_NAME] == "execute_tool"
        assert root[semconv.GEN_AI_TOOL_NAME] == root[semconv.CAPABILITY_ID] == READ
        assert root[semconv.GEN_AI_TOOL_TYPE] == "function"
        assert root[semconv.GEN_AI_TOOL_DESCRIPTION] == "List the tasks"
        assert root[semconv.GEN_AI_TOOL_CALL_ID] == root[semconv.ACTION_ID]
        assert sorted(child.name for child in root.children) == sorted(
            [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL]
        )


async def test_failures_keep_their_event_under_the_genai_name() -> None:
    def fail(_: object) -> None:
        raise OSError("x")

    with instrumented(span_naming="gen_ai") as capture:
        with pytest.raises(DriverError):
            await invoke(make_kernel(memory_driver(answer=fail)))
        (event,) = capture.events()
        assert event.name == semconv.INVOKE_EXCEPTION


async def test_the_names_of_attributes_do_not_depend_on_the_naming_of_spans() -> None:
    keys = []
    for naming in ("agent_kernel", "gen_ai"):
        with instrumented(span_naming=naming) as capture:
            await invoke(make_kernel())
            keys.append(capture.root().attributes.keys())
    assert keys[0] == keys[1]


# Sessions -------------------------------------------------------------------------------------


async def session_of(kernel: Kernel, capture: Capture) -> Any:
    capture.clear()
    await invoke(kernel)
    return capture.root().get(semconv.SESSION)


async def test_a_kernel_without_a_budget_has_no_session(capture: Capture) -> None:
    assert await session_of(make_kernel(), capture) is None


async def test_each_kernel_with_a_budget_gets_a_name_and_keeps_it(capture: Capture) -> None:
    first = make_kernel(budget_manager=BudgetManager())
    second = make_kernel(budget_manager=BudgetManager(), kernel_id="other")
    third = make_kernel(budget_manager=BudgetManager())
    for _ in range(2):
        assert await session_of(first, capture) == "agent-kernel-1"
        assert await session_of(second, capture) == "other-1"
        assert await session_of(third, capture) == "agent-kernel-2"


async def test_the_name_of_a_kernel_that_is_gone_is_used_again(capture: Capture) -> None:
    first: Kernel | None = make_kernel(budget_manager=BudgetManager())
    assert first is not None
    second = make_kernel(budget_manager=BudgetManager())
    assert await session_of(first, capture) == "agent-kernel-1"
    assert await session_of(second, capture) == "agent-kernel-2"
    first = None
    gc.collect()
    third = make_kernel(budget_manager=BudgetManager())
    assert await session_of(third, capture) == "agent-kernel-1"
    assert await session_of(second, capture) == "agent-kernel-2"


async def test_a_thousand_kernels_one_after_the_other_share_one_name(capture: Capture) -> None:
    names = set()
    for _ in range(1000):
        names.add(await session_of(make_kernel(budget_manager=BudgetManager()), capture))
    assert names == {"agent-kernel-1"}


async def test_a_session_can_be_named_by_a_text() -> None:
    with instrumented(session="nightly") as capture:
        assert await session_of(make_kernel(budget_manager=BudgetManager()), capture) == "nightly"


async def test_a_session_can_be_named_by_a_callable_asked_once_per_kernel() -> None:
    asked: list[Any] = []

    def name(kernel: Any) -> str:
        asked.append(kernel)
        return f"session of {kernel.kernel_id}"

    with instrumented(session=name) as capture:
        kernels = [make_kernel(budget_manager=BudgetManager(), kernel_id=str(n)) for n in range(2)]
        for kernel in kernels * 3:
            assert await session_of(kernel, capture) == f"session of {kernel.kernel_id}"
        await asyncio.gather(*(invoke(kernel) for kernel in kernels * 3))
        assert asked == kernels
        assert await session_of(make_kernel(), capture) is None
        assert asked == kernels


@pytest.mark.parametrize("answer", [lambda _: None, lambda _: ""], ids=["None", "empty"])
async def test_a_callable_that_has_no_name_to_give_leaves_it_to_us(
    answer: Callable[[Any], Any],
) -> None:
    with instrumented(session=answer) as capture:
        kernel = make_kernel(budget_manager=BudgetManager())
        assert await session_of(kernel, capture) == "agent-kernel-1"


def test_a_session_that_is_no_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="session"), instrumented(session="  "):
        pass
