# SPDX-License-Identifier: Apache-2.0
"""Many calls at once: who is whose parent, and what foreign code meets meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from weaver_kernel import (
    BudgetManager,
    DefaultPolicyEngine,
    DriverError,
    Firewall,
    Frame,
    HandleStore,
    Kernel,
    SafetyClass,
    TraceStore,
)
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import semconv
from tests.support.capture import Capture, Node
from tests.support.instrumented import AsyncDriver, drain, instrumented, open_stream, turns_until
from tests.support.kernels import (
    ALICE,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
    token_of,
)

WHOLE = sorted([semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])


async def invoke(kernel: Kernel, **args: Any) -> Frame:
    return await kernel.invoke(token_of(kernel), principal=ALICE, args=args)


def check_whole(root: Node) -> None:
    assert root.name == semconv.INVOKE
    assert sorted(child.name for child in root.children) == WHOLE


async def test_a_thousand_invocations_at_once_have_each_their_own_children(
    capture: Capture,
) -> None:
    async def run(ctx: ExecutionContext) -> Any:
        await asyncio.sleep(0)
        if ctx.args["n"] % 10 == 0:
            raise OSError("each tenth")
        return ctx.args["n"]

    kernel = make_kernel(AsyncDriver("d", run), budget_manager=BudgetManager(10**9))
    tracer = capture.tracer_provider.get_tracer("app")

    async def call(n: int) -> None:
        with tracer.start_as_current_span(f"request {n}", record_exception=False):
            try:
                await invoke(kernel, n=n)
            except DriverError:
                assert n % 10 == 0
            assert trace.get_current_span().get_span_context().is_valid

    await asyncio.gather(*(call(n) for n in range(1000)))
    roots = capture.roots()
    assert len(roots) == 1000
    assert {root.name for root in roots} == {f"request {n}" for n in range(1000)}
    statuses = []
    for root in roots:
        operation = root.only(semconv.INVOKE)
        statuses.append(operation[semconv.STATUS])
        assert operation.only(semconv.DRIVER)[semconv.STATUS] == operation[semconv.STATUS]
        assert operation.only(semconv.POLICY)
    assert statuses.count("error") == 100
    assert statuses.count("success") == 900
    assert len(capture.events()) == 100
    assert kernel.stats.invocations == 1000


async def test_twenty_drivers_at_once_have_twenty_parents(capture: Capture) -> None:
    everybody = asyncio.Event()
    inside = 0

    async def run(_: ExecutionContext) -> None:
        nonlocal inside
        inside += 1
        if inside == 20:
            everybody.set()
        await everybody.wait()

    kernel = make_kernel(AsyncDriver("d", run))
    await asyncio.gather(*(invoke(kernel) for _ in range(20)))
    parents = {
        span.parent.span_id
        for span in capture.spans()
        if span.name == semconv.DRIVER and span.parent is not None
    }
    assert len(parents) == 20
    for root in capture.roots():
        check_whole(root)


async def test_streams_and_invocations_at_once_keep_to_themselves(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver(before_chunk=lambda _: asyncio.sleep(0)))
    await asyncio.gather(
        *(drain(open_stream(kernel)) for _ in range(50)), *(invoke(kernel) for _ in range(50))
    )
    roots = capture.roots()
    assert len(roots) == 100
    for root in roots:
        check_whole(root)
    assert sum(root[semconv.STREAM] for root in roots) == 50


def test_threads_with_a_loop_each_on_one_kernel(capture: Capture) -> None:
    async def run(_: ExecutionContext) -> None:
        await asyncio.sleep(0)

    unlimited = DefaultPolicyEngine(rate_limits={SafetyClass.READ: (10**6, 60.0)})
    kernel = make_kernel(AsyncDriver("d", run), policy=unlimited)
    tracer = capture.tracer_provider.get_tracer("app")
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        async def rounds() -> None:
            for _ in range(50):
                with tracer.start_as_current_span(f"thread {number}"):
                    given = await asyncio.to_thread(grant, kernel)
                    await kernel.invoke(given.token, principal=ALICE, args={})
                    assert trace.get_current_span().get_span_context().is_valid

        barrier.wait()
        asyncio.run(rounds())

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(work, number) for number in range(6)]:
            done.result()
    assert not trace.get_current_span().get_span_context().is_valid
    roots = capture.roots()
    assert len(roots) == 300
    for root in roots:
        assert [child.name for child in root.children] == [semconv.GRANT, semconv.INVOKE]
        granted, invoked = root.children
        assert granted.outline() == (semconv.GRANT, [semconv.POLICY])
        check_whole(invoked)
        assert [link.context for link in invoked.span.links] == [granted.span.context]


async def test_a_grant_in_a_worker_thread_is_a_child_of_the_caller(capture: Capture) -> None:
    tracer = capture.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("request"):
        await asyncio.to_thread(grant, make_kernel())
    assert capture.root("request").only(semconv.GRANT).only(semconv.POLICY)


@pytest.mark.parametrize("same_kernel", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_invocation_inside_a_driver_is_under_that_drivers_span(
    capture: Capture, same_kernel: bool, streamed: bool
) -> None:
    other = make_kernel(memory_driver())

    async def nested(_: object) -> None:
        await inner.invoke(token_of(inner), principal=ALICE, args={"inner": True})

    async def run(ctx: ExecutionContext) -> int:
        if not ctx.args.get("inner"):
            await nested(ctx)
        return 1

    if streamed:
        kernel = make_kernel(
            StreamingDriver([{"n": 0}], before_chunk=nested), memory_driver(), route=["streamer"]
        )
    else:
        kernel = make_kernel(AsyncDriver("outer", run))
    inner = kernel if same_kernel else other
    if streamed:
        await drain(open_stream(kernel))
    else:
        await invoke(kernel)
    outer = capture.root()
    check_whole(outer)
    check_whole(outer.only(semconv.DRIVER).only(semconv.INVOKE))


async def test_a_grant_inside_a_driver_is_under_that_drivers_span(capture: Capture) -> None:
    kernel = make_kernel(memory_driver(answer=lambda _: grant(kernel) and None))
    await invoke(kernel)
    assert capture.root().only(semconv.DRIVER).only(semconv.GRANT).only(semconv.POLICY)


async def test_a_grant_inside_a_policy_engine_is_under_its_span(capture: Capture) -> None:
    other = make_kernel()

    class Engine:
        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            assert kernel._policy is self
            return grant(other).decision

    kernel = make_kernel(policy=Engine())
    grant(kernel)
    assert capture.root().only(semconv.POLICY).only(semconv.GRANT).only(semconv.POLICY)


async def test_two_kernels_that_share_their_collaborators_do_not_mix(capture: Capture) -> None:
    async def run(_: ExecutionContext) -> None:
        await asyncio.sleep(0)

    shared: dict[str, Any] = {
        "firewall": Firewall(),
        "handle_store": HandleStore(),
        "trace_store": TraceStore(),
        "budget_manager": BudgetManager(10**9),
    }
    driver = AsyncDriver("d", run)
    kernels = [make_kernel(driver, kernel_id=name, **shared) for name in ("one", "two")]
    await asyncio.gather(*(invoke(kernel) for kernel in kernels for _ in range(20)))
    roots = capture.roots()
    for root in roots:
        check_whole(root)
    assert sorted(root[semconv.KERNEL_ID] for root in roots) == ["one"] * 20 + ["two"] * 20
    action_ids = {record.action_id for record in shared["trace_store"].list_all()}
    assert {root[semconv.ACTION_ID] for root in roots} == action_ids


async def test_a_task_that_outlives_its_invocation_meets_the_raw_kernel(capture: Capture) -> None:
    go_on = asyncio.Event()
    seen: list[Any] = []
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        await go_on.wait()
        seen.extend(
            (kernel._drivers, kernel._firewall, kernel._handle_store, kernel._token_provider)
        )
        kernel._token_provider.verify(
            token, expected_principal_id="alice", expected_capability_id=token.capability_id
        )
        await kernel._drivers["d"].execute(ExecutionContext(token.capability_id, "alice"))

    async def run(_: ExecutionContext) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(background()))

    kernel = make_kernel(AsyncDriver("d", run))
    token = token_of(kernel)
    await kernel.invoke(token, principal=ALICE, args={})
    emitted = len(capture.spans())
    go_on.set()
    await tasks[0]
    raw = vars(kernel)
    assert seen == [
        raw["_drivers"], raw["_firewall"], raw["_handle_store"], raw["_token_provider"],
    ]  # fmt: skip
    assert seen[0] is raw["_drivers"]
    assert len(capture.spans()) == emitted == 4


async def test_a_task_started_by_the_kernels_side_of_a_call_meets_raw_objects_afterwards(
    capture: Capture,
) -> None:
    contexts: list[contextvars.Context] = []

    class Router:
        def route(self, capability_id: str) -> Any:
            contexts.append(contextvars.copy_context())
            return real.route(capability_id)

    kernel = make_kernel()
    real = vars(kernel)["_router"]
    kernel._router = Router()
    await invoke(kernel)
    assert contexts[0].run(lambda: kernel._drivers) is vars(kernel)["_drivers"]


async def test_an_invocation_made_by_a_task_that_outlives_its_invocation_is_traced(
    capture: Capture,
) -> None:
    tasks: list[asyncio.Task[Frame]] = []

    async def run(ctx: ExecutionContext) -> None:
        if ctx.args.get("first"):
            tasks.append(asyncio.create_task(invoke(kernel)))

    kernel = make_kernel(AsyncDriver("d", run))
    await invoke(kernel, first=True)
    await tasks[0]
    check_whole(capture.root().only(semconv.DRIVER).only(semconv.INVOKE))


# The budget's lock ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["off", "info", "debug"])
async def test_a_budget_shared_by_concurrent_calls_adds_up(level: str) -> None:
    budget = BudgetManager(10**6, token_counter=lambda _: 7, default_request=100)

    async def run(_: ExecutionContext) -> None:
        await asyncio.sleep(0)

    with instrumented(span_level=level):
        kernels = [make_kernel(AsyncDriver("d", run), budget_manager=budget) for _ in range(3)]
        await asyncio.gather(*(invoke(kernel) for kernel in kernels * 30))
    assert budget.used == 90 * 7
    assert budget.remaining == 10**6 - 90 * 7
    assert not budget._lock.locked()


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_a_budgets_lock_is_free_while_drivers_run_and_after_a_cancellation(
    level: str,
) -> None:
    budget = BudgetManager(1000, default_request=10)
    reached = asyncio.Event()

    async def run(_: ExecutionContext) -> None:
        assert not budget._lock.locked()
        reached.set()
        await asyncio.Event().wait()

    with instrumented(span_level=level):
        task = asyncio.create_task(
            invoke(make_kernel(AsyncDriver("d", run), budget_manager=budget))
        )
        await reached.wait()
        assert budget.remaining == 990
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert budget.remaining == 1000
    assert not budget._lock.locked()


async def test_an_invocation_that_waits_for_the_budget_can_be_cancelled(
    debug_capture: Capture,
) -> None:
    budget = BudgetManager(1000)
    await budget._lock.acquire()
    task = asyncio.create_task(invoke(make_kernel(budget_manager=budget)))
    await turns_until(lambda: budget._lock._waiters)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    budget._lock.release()
    root = debug_capture.root()
    assert root[semconv.STATUS] == "cancelled"
    allocation = root.only(semconv.BUDGET)
    assert allocation.status == "UNSET"
    assert allocation[semconv.ERROR_TYPE] == "CancelledError"


async def test_a_token_counter_of_the_apps_own_sees_the_raw_collaborators(
    capture: Capture,
) -> None:
    seen: list[object] = []

    def count(value: Any) -> int:
        seen.append(kernel._firewall)
        return 1

    kernel = make_kernel(budget_manager=BudgetManager(1000, token_counter=count))
    await invoke(kernel)
    assert seen == [vars(kernel)["_firewall"]]
