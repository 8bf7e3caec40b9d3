# SPDX-License-Identifier: Apache-2.0
"""How many series a process exports at most, counted on the page that Prometheus would read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from weaver_kernel import (
    BudgetManager,
    Capability,
    CapabilityNotFound,
    CapabilityRegistry,
    CapabilityRequest,
    HMACTokenProvider,
    Kernel,
    PolicyDenied,
    Principal,
    SafetyClass,
    StaticRouter,
)
from weaver_kernel.models import RawResult

from agent_kernel_otel import KernelInstrumentor, semconv

CAPABILITIES = 300
DRIVERS = 120
SESSIONS = 80
WHO = Principal("alice", roles=["reader", "writer", "admin"])
ENDS = ("success", "error", "cancelled")


class _Driver:
    """Ends as it is told to, each failure with a class of its own."""

    def __init__(self, number: int) -> None:
        self.driver_id = f"driver-{number}"

    async def execute(self, ctx: Any) -> Any:
        end = ctx.args["end"]
        if end == "error":
            raise type(f"Failure{ctx.args['number']}Error", (Exception,), {})
        if end == "cancelled":
            raise asyncio.CancelledError
        return RawResult(capability_id=ctx.capability_id, data=[{"n": 1}])

    async def execute_stream(self, ctx: Any) -> Any:
        yield {"n": ctx.args["number"], "__is_final__": True}


class _Refusing:
    """Refuses with a code of its own for each capability."""

    def evaluate(self, request: Any, *_: Any, justification: str) -> Any:
        error: Any = PolicyDenied(justification)
        error.reason_code = f"code-{request.capability_id}"
        raise error


def _kernel(session: int) -> Kernel:
    registry = CapabilityRegistry()
    for number in range(CAPABILITIES):
        safety = list(SafetyClass)[number % 3]
        registry.register(Capability(f"tool-{number}", "name", "description", safety))
    kernel = Kernel(
        registry,
        policy=_Refusing(),
        token_provider=HMACTokenProvider(secret="test"),
        router=StaticRouter(fallback=[f"driver-{session % DRIVERS}"]),
        budget_manager=BudgetManager(total_budget=10**9),
        kernel_id=f"kernel-{session}",
    )
    kernel.register_driver(_Driver(session % DRIVERS))
    return kernel


async def _use(kernel: Kernel, capability: str, number: int) -> None:
    with suppress(PolicyDenied, CapabilityNotFound):
        kernel.grant_capability(CapabilityRequest(capability, "goal"), WHO, justification="why")
    token = vars(kernel)["_token_provider"].issue(capability, WHO.principal_id)
    for end in ENDS:
        with suppress(Exception, asyncio.CancelledError):
            await kernel.invoke(token, principal=WHO, args={"end": end, "number": number})
    with suppress(Exception):
        await kernel.invoke(token, principal=Principal("bob"), args={})
    with suppress(Exception):
        await kernel.invoke(token, principal=WHO, args={}, dry_run=True)
    with suppress(Exception):
        async for _ in kernel.invoke_stream(token, principal=WHO, args={"number": number}):
            pass


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_process_with_more_of_everything_than_is_told_apart_stays_within_its_limit() -> None:
    page = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False)
    page.register(reader._collector)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    KernelInstrumentor().instrument(meter_provider=provider)
    try:
        kernels = [_kernel(session) for session in range(SESSIONS)]

        async def use_all() -> None:
            for number in range(CAPABILITIES):
                await _use(kernels[number % SESSIONS], f"tool-{number}", number)
                await _use(kernels[number % SESSIONS], f"unknown-{number}", number)

        asyncio.run(use_all())
        text = generate_latest(page).decode()
    finally:
        KernelInstrumentor().uninstrument()
        provider.shutdown()
    series = [line for line in text.splitlines() if line.startswith(("agent_kernel_", "gen_ai_"))]
    assert len(series) <= 10_000
    # All of it was driven to its limit, so that the test would notice if there were none.
    assert sum("invocation_duration_milliseconds_count" in line for line in series) >= 400
    assert sum(line.startswith("agent_kernel_policy_denials") for line in series) > 100
    assert sum(line.startswith("agent_kernel_budget_limit") for line in series) == 51
    assert f'"{semconv.OTHER}"' in text
