# SPDX-License-Identifier: Apache-2.0
"""Dry runs: a span of their own kind, which never looks like an execution."""

from __future__ import annotations

from typing import Any

import pytest
from weaver_kernel import (
    BudgetManager,
    CapabilityNotFound,
    DryRunResult,
    Kernel,
    Principal,
)

from agent_kernel_otel import semconv
from tests.support.capture import Capture, Node
from tests.support.instrumented import instrumented
from tests.support.kernels import ADMIN, ALICE, READ, grant, make_kernel, memory_driver, token_of
from tests.support.refusals import check_failed


async def dry_run(kernel: Kernel, principal: Principal = ALICE, **options: Any) -> DryRunResult:
    result: DryRunResult = await kernel.invoke(
        token_of(kernel, READ, principal), principal=principal, args={}, dry_run=True, **options
    )
    return result


def check_no_execution(root: Node) -> None:
    assert root[semconv.DRY_RUN] is True
    assert not [key for key in root.attributes if key.startswith("gen_ai.")]
    for key in (
        semconv.ACTION_ID,
        semconv.DRIVER_ID,
        semconv.FALLBACK,
        semconv.HANDLE_ID,
        semconv.RESULT_FACTS,
        semconv.RESULT_ROWS,
        semconv.REDACTIONS,
        semconv.DOWNGRADED,
        semconv.DOWNGRADE_REASON,
        semconv.STREAM_END,
    ):
        assert key not in root.attributes
    assert [child.name for child in root.children] == [semconv.POLICY]


async def test_a_dry_run_is_a_span_without_any_sign_of_an_execution(capture: Capture) -> None:
    ran: list[object] = []
    kernel = make_kernel(memory_driver(answer=ran.append))
    await dry_run(kernel, response_mode="table")
    root = capture.root()
    check_no_execution(root)
    assert root[semconv.STATUS] == "success"
    assert root.status == "UNSET"
    assert root[semconv.RESPONSE_MODE] == "table"
    assert root[semconv.CAPABILITY_ID] == READ
    assert root[semconv.SAFETY_CLASS] == "READ"
    assert not ran
    assert not capture.events()


@pytest.mark.parametrize(
    ("principal", "used", "got"), [(ALICE, 0, "summary"), (ADMIN, 60, "table"), (ADMIN, 0, "raw")]
)
async def test_a_dry_run_tells_the_mode_that_it_would_give_and_no_downgrade(
    capture: Capture, principal: Principal, used: int, got: str
) -> None:
    budget = BudgetManager(100)
    await budget.record_usage(used)
    result = await dry_run(make_kernel(budget_manager=budget), principal, response_mode="raw")
    root = capture.root()
    check_no_execution(root)
    assert root[semconv.REQUESTED_RESPONSE_MODE] == "raw"
    assert root[semconv.RESPONSE_MODE] == result.response_mode == got
    assert result.budget_remaining == 100 - used


async def test_a_dry_run_links_to_its_grant(capture: Capture) -> None:
    kernel = make_kernel()
    token = grant(kernel).token
    await kernel.invoke(token, principal=ALICE, args={}, dry_run=True)
    (link,) = capture.root(semconv.INVOKE).span.links
    assert link.context == capture.root(semconv.GRANT).span.context


async def test_a_dry_run_that_fails_is_an_error_without_any_sign_of_an_execution(
    capture: Capture,
) -> None:
    kernel = make_kernel()
    token = token_of(kernel, "nowhere")
    with pytest.raises(CapabilityNotFound) as raised:
        await kernel.invoke(token, principal=ALICE, args={}, dry_run=True)
    root = check_failed(capture, semconv.INVOKE, raised.value)
    check_no_execution(root)


async def test_a_dry_run_keeps_its_name_under_the_genai_naming() -> None:
    with instrumented(span_naming="gen_ai") as capture:
        await dry_run(make_kernel())
        assert capture.root().name == semconv.INVOKE


async def test_a_dry_run_shows_the_route_at_level_debug(debug_capture: Capture) -> None:
    await dry_run(make_kernel())
    assert [child.name for child in debug_capture.root().children] == [
        semconv.POLICY,
        semconv.ROUTE,
    ]


@pytest.mark.parametrize("truthy", [1, "yes"])
async def test_what_the_kernel_takes_for_a_dry_run_is_one(capture: Capture, truthy: Any) -> None:
    kernel: Any = make_kernel()
    await kernel.invoke(token_of(kernel), principal=ALICE, args={}, dry_run=truthy)
    assert capture.root()[semconv.DRY_RUN] is True


async def test_the_result_of_a_dry_run_is_the_kernels_own(capture: Capture) -> None:
    kernel = make_kernel()
    result = await dry_run(kernel)
    assert type(result) is DryRunResult
    assert result.driver_id == "memory"
