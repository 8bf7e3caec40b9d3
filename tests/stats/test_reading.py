# SPDX-License-Identifier: Apache-2.0
"""What is read of the counts: snapshots, resets, and by which labels."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.context import attach, detach, set_value
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from weaver_kernel import Capability, Kernel, PolicyDenied, SafetyClass
from weaver_kernel.errors import DriverError

from agent_kernel_otel import (
    StatsSnapshot,
    instrument_kernel,
    kernel_stats,
    semconv,
    stats,
    uninstrument_kernel,
)
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver, instrumented, open_stream
from tests.support.kernels import ALICE, READ, StreamingDriver, grant, make_kernel, token_of


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel that is counted, and nothing else."""
    made = make_kernel()
    instrument_kernel(made)
    yield made
    uninstrument_kernel(made)


async def invoke(kernel: Kernel, capability: str = READ, **options: Any) -> Any:
    token = token_of(kernel, capability)
    return await kernel.invoke(token, principal=ALICE, args={}, **options)


# Snapshots --------------------------------------------------------------------------------------


async def test_a_snapshot_cannot_be_changed_and_does_not_change(kernel: Kernel) -> None:
    await invoke(kernel)
    seen: Any = kernel_stats(kernel).snapshot()
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.invocations = 7
    for mapping in (
        seen.counts,
        seen.denials_by_reason,
        seen.by(semconv.INVOCATIONS.name, semconv.STATUS),
    ):
        with pytest.raises(TypeError):
            mapping["more"] = 1
    before = dict(seen.counts)
    await invoke(kernel)
    grant(kernel)
    assert seen.invocations == 1
    assert dict(seen.counts) == before


async def test_a_snapshot_can_be_written_as_json(kernel: Kernel) -> None:
    await invoke(kernel)
    with pytest.raises(PolicyDenied):
        grant(kernel, capability="tasks.add")
    seen = kernel_stats(kernel).snapshot()
    written = json.loads(json.dumps(seen.as_dict()))
    assert written.keys() == {field.name for field in dataclasses.fields(seen)} - {"counts"}
    assert written["denials_by_reason"] == {"missing_role": 1}
    assert written["invocations"] == 1


async def test_one_kernel_and_the_process_are_counted_apart(kernel: Kernel) -> None:
    other = make_kernel()
    instrument_kernel(other)
    await invoke(kernel)
    await invoke(kernel)
    await invoke(other)
    assert kernel_stats(kernel).snapshot().invocations == 2
    assert kernel_stats(other).snapshot().invocations == 1
    assert stats.snapshot().invocations == 3
    uninstrument_kernel(other)


async def test_what_is_not_instrumented_is_not_counted() -> None:
    kernel = make_kernel()
    await invoke(kernel)
    assert kernel_stats(kernel).snapshot().invocations == 0
    instrument_kernel(kernel)
    await invoke(kernel)
    uninstrument_kernel(kernel)
    await invoke(kernel)
    assert kernel_stats(kernel).snapshot().invocations == 1
    instrument_kernel(kernel)
    await invoke(kernel)
    assert kernel_stats(kernel).snapshot().invocations == 2
    uninstrument_kernel(kernel)


def test_only_a_kernel_has_counts() -> None:
    with pytest.raises(TypeError, match=r"expected a weaver_kernel\.Kernel"):
        kernel_stats(object())


@pytest.mark.parametrize("settings", [{"metrics_level": "off"}, {"span_level": "off"}])
async def test_a_level_that_is_off_does_not_stop_counting(settings: dict[str, Any]) -> None:
    with instrumented(**settings):
        await invoke(make_kernel())
    assert stats.snapshot().invocations == 1


async def test_neither_sampling_nor_suppression_stops_counting() -> None:
    with instrumented(sampler=ALWAYS_OFF):
        await invoke(make_kernel())
    with instrumented() as capture:
        attached = attach(set_value("suppress_instrumentation", True))
        await invoke(make_kernel())
        detach(attached)
        assert capture.roots() == []
    seen = stats.snapshot()
    assert seen.invocations == 2
    assert seen.driver_attempts == 2


async def test_a_stream_is_one_invocation_and_a_dry_run_none() -> None:
    kernel = make_kernel(StreamingDriver(driver_id="streamer"))
    instrument_kernel(kernel)
    frames = [frame async for frame in open_stream(kernel)]
    await invoke(kernel, dry_run=True)
    seen = kernel_stats(kernel).snapshot()
    assert len(frames) > 1
    assert (seen.invocations, seen.dry_runs, seen.driver_attempts) == (1, 1, 1)
    assert seen.invocations_active == 0
    uninstrument_kernel(kernel)


async def test_what_is_running_is_active_and_not_yet_an_invocation() -> None:
    kernel = make_kernel(StreamingDriver(driver_id="streamer"))
    instrument_kernel(kernel)
    stream = open_stream(kernel)
    await anext(stream)
    seen = kernel_stats(kernel).snapshot()
    assert (seen.invocations, seen.invocations_active) == (0, 1)
    await stream.aclose()
    seen = kernel_stats(kernel).snapshot()
    assert (seen.invocations, seen.invocations_active) == (1, 0)
    uninstrument_kernel(kernel)


async def test_counts_outlive_their_kernel() -> None:
    kernel = make_kernel()
    instrument_kernel(kernel)
    await invoke(kernel)
    del kernel
    gc.collect()
    assert stats.snapshot().invocations == 1


# Resets -----------------------------------------------------------------------------------------


async def test_a_reset_is_of_the_stats_that_were_reset(kernel: Kernel) -> None:
    await invoke(kernel)
    kernel_stats(kernel).reset()
    assert kernel_stats(kernel).snapshot().invocations == 0
    assert stats.snapshot().invocations == 1
    await invoke(kernel)
    stats.reset()
    assert kernel_stats(kernel).snapshot().invocations == 1
    assert stats.snapshot().invocations == 0


async def test_a_reset_leaves_no_number_and_no_reason(kernel: Kernel) -> None:
    await invoke(kernel)
    with pytest.raises(PolicyDenied):
        grant(kernel, capability="tasks.add")
    stats.reset()
    seen = stats.snapshot()
    numbers = {field.name: getattr(seen, field.name) for field in dataclasses.fields(seen)}
    series = numbers.pop("counts")
    assert numbers.pop("denials_by_reason") == {}
    assert not any(numbers.values())
    assert not any(series.values())


async def test_a_reset_does_not_end_what_is_running() -> None:
    kernel = make_kernel(StreamingDriver(driver_id="streamer"))
    instrument_kernel(kernel)
    stream = open_stream(kernel)
    await anext(stream)
    kernel_stats(kernel).reset()
    assert kernel_stats(kernel).snapshot().invocations_active == 1
    await stream.aclose()
    seen = kernel_stats(kernel).snapshot()
    assert (seen.invocations, seen.invocations_active) == (1, 0)
    uninstrument_kernel(kernel)


async def test_what_is_exported_does_not_fall_by_a_reset() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    kernel = make_kernel()
    instrument_kernel(kernel, meter_provider=provider)
    await invoke(kernel)
    assert exported(reader, semconv.INVOCATIONS.name) == 1
    stats.reset()
    kernel_stats(kernel).reset()
    assert exported(reader, semconv.INVOCATIONS.name) == 1
    await invoke(kernel)
    assert exported(reader, semconv.INVOCATIONS.name) == 2
    assert kernel_stats(kernel).snapshot().invocations == 1
    uninstrument_kernel(kernel)
    provider.shutdown()


def exported(reader: InMemoryMetricReader, name: str) -> int:
    data: Any = reader.get_metrics_data()
    return sum(
        point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    )


# By label ---------------------------------------------------------------------------------------


async def test_counts_by_a_label(kernel: Kernel) -> None:
    await invoke(kernel)
    grant(kernel)
    for capability in ("tasks.add", "tasks.delete_all"):
        with pytest.raises(PolicyDenied):
            grant(kernel, capability=capability)
    seen = kernel_stats(kernel).snapshot()
    by_capability = seen.by(semconv.POLICY_DENIALS.name, semconv.CAPABILITY_ID)
    assert {key: number for key, number in by_capability.items() if number} == {
        "tasks.add": 1,
        "tasks.delete_all": 1,
    }
    assert seen.by(semconv.GRANTS.name, semconv.STATUS)["denied"] == 2
    assert seen.by(semconv.DRIVER_ATTEMPTS.name, semconv.ERROR_TYPE) == {None: 1}


@pytest.mark.parametrize(
    ("metric", "attribute", "says"),
    [
        ("agent_kernel.nothing", semconv.STATUS, "no metric 'agent_kernel.nothing'.*invocations"),
        (semconv.INVOCATIONS.name, semconv.DRIVER_ID, "no attribute.*driver_id.*capability_id"),
        (semconv.HANDLES_STORED.name, semconv.STATUS, "no attribute.*none"),
        ("invocations", semconv.STATUS, "no metric 'invocations'"),
    ],
)
def test_a_label_that_is_not_there_is_said(metric: str, attribute: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stats.snapshot().by(metric, attribute)


def _by(seen: StatsSnapshot, metric: semconv.MetricDefinition, attribute: str) -> dict[Any, int]:
    return {key: number for key, number in seen.by(metric.name, attribute).items() if number}


def _with_capabilities(number: int, *drivers: Any) -> Kernel:
    kernel = make_kernel(*drivers)
    registry: Any = vars(kernel)["_registry"]
    for n in range(number):
        registry.register(Capability(f"many.c{n:03}", "n", "d", SafetyClass.READ))
    return kernel


@pytest.mark.parametrize(("settings", "limit"), [({}, 100), ({"capability_id_limit": 3}, 3)])
def test_capabilities_past_the_limit_are_one(settings: dict[str, Any], limit: int) -> None:
    with instrumented(**settings):
        kernel = _with_capabilities(limit + 5)
        for n in range(limit + 5):
            grant(kernel, capability=f"many.c{n:03}")
        grant(kernel, capability="many.c000")
    by_capability = _by(stats.snapshot(), semconv.GRANTS, semconv.CAPABILITY_ID)
    assert sum(by_capability.values()) == limit + 6
    assert len(by_capability) == limit + 1
    assert by_capability["_OTHER"] >= 5


async def test_a_capability_that_the_kernel_does_not_know_is_other(kernel: Kernel) -> None:
    with pytest.raises(Exception, match="chosen"):
        grant(kernel, capability="chosen.by.the.caller")
    token = token_of(kernel, "chosen.by.the.caller")
    with pytest.raises(Exception, match="chosen"):
        await kernel.invoke(token, principal=ALICE, args={})
    seen = kernel_stats(kernel).snapshot()
    assert _by(seen, semconv.GRANTS, semconv.CAPABILITY_ID) == {"_OTHER": 1}
    assert _by(seen, semconv.INVOCATIONS, semconv.CAPABILITY_ID) == {"_OTHER": 1}
    assert _by(seen, semconv.INVOCATIONS, semconv.SAFETY_CLASS) == {"_OTHER": 1}


async def test_drivers_and_error_types_past_the_limit_are_one() -> None:
    async def fail(_: Any) -> Any:
        raise type(f"Error{len(tried)}", (DriverError,), {})

    tried: list[str] = []
    with instrumented():
        for n in range(60):
            tried.append(f"d{n}")
            with pytest.raises(DriverError):
                await invoke(make_kernel(AsyncDriver(f"d{n}", fail)))
    seen = stats.snapshot()
    for attribute in (semconv.DRIVER_ID, semconv.ERROR_TYPE):
        by_label = _by(seen, semconv.DRIVER_ATTEMPTS, attribute)
        assert len(by_label) == 51
        assert by_label["_OTHER"] == 10


def test_reason_codes_of_the_app_past_the_limit_are_one_and_the_kernels_own_are_not() -> None:
    class Refusing:
        def evaluate(self, *_: Any, **__: Any) -> Any:
            raise PolicyDenied("no", reason_code=codes.pop())

    codes = ["missing_role", *(f"own_{n}" for n in range(105))]
    with instrumented():
        kernel = make_kernel(policy=Refusing())
        while codes:
            with pytest.raises(PolicyDenied):
                grant(kernel)
    by_reason = stats.snapshot().denials_by_reason
    assert by_reason["_OTHER"] == 5
    assert by_reason["missing_role"] == 1
    assert len(by_reason) == 102


def test_the_next_test_has_every_label_again() -> None:
    test_reason_codes_of_the_app_past_the_limit_are_one_and_the_kernels_own_are_not()


async def test_counts_are_the_same_whoever_listens() -> None:
    async def play(**settings: Any) -> dict[str, Any]:
        kernel = make_kernel()
        instrument_kernel(kernel, **settings)
        await invoke(kernel)
        with pytest.raises(PolicyDenied):
            grant(kernel, capability="tasks.add")
        uninstrument_kernel(kernel)
        seen = dict(kernel_stats(kernel).snapshot().counts)
        return {str(series): number for series, number in seen.items() if number}

    unheard = await play()
    assert unheard
    assert await play(**Capture().providers, span_level="debug", metrics_level="debug") == unheard
