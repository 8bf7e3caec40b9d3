# SPDX-License-Identifier: Apache-2.0
"""Beside ``weaver_kernel.otel.instrument_kernel``: no call is told twice, and ours is not hidden."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from weaver_kernel import otel as builtin

from agent_kernel_otel import KernelInstrumentor, instrument_kernel, semconv, uninstrument_kernel
from tests.support.capture import Capture
from tests.support.kernels import ALICE, grant, make_kernel

OURS = [semconv.GRANT, semconv.INVOKE]
THEIRS = ["weaver_kernel.grant", "weaver_kernel.invoke"]


class Global:
    """Stands for the process's providers, which can be set only once."""

    def __init__(self) -> None:
        self.capture = Capture()
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def counted(self) -> int:
        """Invocations that the built-in instrumentation has counted."""
        data: Any = self.reader.get_metrics_data()
        points = [
            point.value
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "weaver_kernel.invocations"
            for point in metric.data.data_points
        ]
        return sum(points)

    def roots(self) -> list[str]:
        names = [node.name for node in self.capture.roots()]
        self.capture.clear()
        return names


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Global]:
    world = Global()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", world.capture.tracer_provider)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", world.meter_provider)
    yield world
    KernelInstrumentor().uninstrument()
    builtin.reset_instrumentation()
    world.capture.tracer_provider.shutdown()
    world.meter_provider.shutdown()


async def one_call(kernel: Any) -> None:
    await kernel.invoke(grant(kernel).token, principal=ALICE, args={})


def ours_on() -> None:
    KernelInstrumentor().instrument()


async def test_before_ours_it_is_muted_and_comes_back(process: Global) -> None:
    kernel = make_kernel()
    builtin.instrument_kernel(kernel)
    closure = kernel.invoke
    ours_on()
    await one_call(kernel)
    assert process.roots() == OURS
    assert process.counted() == 0
    KernelInstrumentor().uninstrument()
    await one_call(kernel)
    assert process.roots() == THEIRS
    assert process.counted() == 1
    assert kernel.invoke is closure


async def test_after_ours_it_is_muted_and_comes_back(process: Global) -> None:
    ours_on()
    kernel = make_kernel()
    builtin.instrument_kernel(kernel)
    await one_call(kernel)
    assert process.roots() == OURS
    assert process.counted() == 0
    KernelInstrumentor().uninstrument()
    await one_call(kernel)
    assert process.roots() == THEIRS
    assert process.counted() == 1


@pytest.mark.parametrize("first", ["ours", "builtin"])
async def test_on_and_off_again_it_is_still_one_span(process: Global, first: str) -> None:
    kernel = make_kernel()
    if first == "ours":
        ours_on()
    builtin.instrument_kernel(kernel)
    for _ in range(3):
        ours_on()
        await one_call(kernel)
        assert process.roots() == OURS
        KernelInstrumentor().uninstrument()
        await one_call(kernel)
        assert process.roots() == THEIRS


@pytest.mark.parametrize("first", ["ours", "builtin"])
async def test_with_explicit_providers_it_is_a_second_destination(
    process: Global, first: str
) -> None:
    second = Global()
    kernel = make_kernel()
    if first == "ours":
        ours_on()
    builtin.instrument_kernel(
        kernel,
        tracer_provider=second.capture.tracer_provider,
        meter_provider=second.meter_provider,
    )
    if first == "builtin":
        ours_on()
    await one_call(kernel)
    assert process.roots() == OURS
    assert second.roots() == THEIRS
    assert second.counted() == 1
    second.meter_provider.shutdown()


async def test_wrapped_again_by_the_app_it_is_still_one_span(process: Global) -> None:
    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def opaque(*args: Any, **kwargs: Any) -> Any:
            seen.append(method)
            return method(*args, **kwargs)

        return opaque

    seen: list[Any] = []
    kernel: Any = make_kernel()
    builtin.instrument_kernel(kernel)
    kernel.invoke = watched(kernel.invoke)
    kernel.grant_capability = functools.wraps(kernel.grant_capability)(
        watched(kernel.grant_capability)
    )
    ours_on()
    await one_call(kernel)
    assert process.roots() == OURS
    assert len(seen) == 2


async def test_forgotten_by_reset_and_instrumented_twice_it_is_still_one_span(
    process: Global,
) -> None:
    kernel = make_kernel()
    builtin.instrument_kernel(kernel)
    builtin.reset_instrumentation(kernel)
    ours_on()
    await one_call(kernel)
    assert process.roots() == OURS
    KernelInstrumentor().uninstrument()
    builtin.instrument_kernel(kernel)
    ours_on()
    await one_call(kernel)
    assert process.roots() == OURS


async def test_for_one_kernel_only_that_one_is_muted(process: Global) -> None:
    ours, theirs = make_kernel(), make_kernel()
    builtin.instrument_kernel(theirs)
    builtin.instrument_kernel(ours)
    instrument_kernel(ours)
    await one_call(ours)
    assert process.roots() == OURS
    await one_call(theirs)
    assert process.roots() == THEIRS
    uninstrument_kernel(ours)
    await one_call(ours)
    assert process.roots() == THEIRS


async def test_opted_out_of_ours_a_kernel_has_its_own(process: Global) -> None:
    ours_on()
    kernel = make_kernel()
    builtin.instrument_kernel(kernel)
    uninstrument_kernel(kernel)
    await one_call(kernel)
    assert process.roots() == THEIRS


def test_its_module_is_as_it_was_afterwards(process: Global) -> None:
    before = dict(vars(builtin))
    ours_on()
    KernelInstrumentor().uninstrument()
    after = dict(vars(builtin))
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] is not before[name]] == []


def test_its_closures_hold_what_they_held(process: Global) -> None:
    kernel = make_kernel()
    builtin.instrument_kernel(kernel)
    closures: list[Any] = [kernel.invoke, kernel.grant_capability]
    before = [cell.cell_contents for closure in closures for cell in closure.__closure__]
    ours_on()
    KernelInstrumentor().uninstrument()
    after = [cell.cell_contents for closure in closures for cell in closure.__closure__]
    assert all(now is then for now, then in zip(after, before, strict=True))


def test_a_kernel_that_it_instrumented_dies_while_ours_is_on(process: Global) -> None:
    kernel = make_kernel()
    builtin.instrument_kernel(kernel)
    ours_on()
    grant(kernel)
    gone = weakref.ref(kernel)
    del kernel
    gc.collect()
    assert gone() is None
