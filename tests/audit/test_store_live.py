# SPDX-License-Identifier: Apache-2.0
"""The decorator of a trace store beside live instrumentation: one span for each action."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from weaver_kernel import TraceStore
from weaver_kernel.models import ActionTrace

from agent_kernel_otel import (
    KernelInstrumentor,
    OTelTraceStore,
    instrument_kernel,
    stats,
    trace_context,
    uninstrument_kernel,
)
from tests.audit.scenes import SCENES, is_replayed, kernel_with, spans_of, succeed
from tests.support.capture import Capture
from tests.support.counting import begin_anew
from tests.support.instrumented import AsyncDriver, instrumented
from tests.support.kernels import ALICE, grant, make_kernel, token_of


class AppStore:
    """An app's own decorator, which is foreign to the kernel and to us."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def record(self, trace: ActionTrace) -> None:
        self.inner.record(trace)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Subclass(OTelTraceStore):
    def record(self, trace: ActionTrace) -> Any:
        return super().record(trace)


SHAPES: dict[str, Any] = {
    "on its own": lambda provider: OTelTraceStore(TraceStore(), tracer_provider=provider),
    "around an app's": lambda provider: OTelTraceStore(
        AppStore(TraceStore()), tracer_provider=provider
    ),
    "inside an app's": lambda provider: AppStore(
        OTelTraceStore(TraceStore(), tracer_provider=provider)
    ),
    "a subclass": lambda provider: Subclass(TraceStore(), tracer_provider=provider),
    "twice": lambda provider: OTelTraceStore(
        OTelTraceStore(TraceStore(), tracer_provider=provider), tracer_provider=provider
    ),
}


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scene", SCENES)
async def test_each_action_has_its_live_span_and_no_other(
    scene: str, shape: str, level: str
) -> None:
    with instrumented(span_level=level) as capture:
        store = SHAPES[shape](capture.tracer_provider)
        await SCENES[scene](store)
        assert store.list_all()
        for record in store.list_all():
            (span,) = spans_of(record.action_id, capture.spans())
            assert not is_replayed(span)
            assert trace_context(record.action_id) == span.context


class Deferring:
    """An app's store whose records are written later, by a thread of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.waiting: list[ActionTrace] = []

    def record(self, trace: ActionTrace) -> None:
        self.waiting.append(trace)

    def write(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            list(pool.map(self.inner.record, self.waiting))


async def test_a_record_that_is_written_later_and_elsewhere_is_known_by_its_action() -> None:
    with instrumented() as capture:
        store = Deferring(OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider))
        frame = await succeed(store)
        store.write()
        (span,) = spans_of(frame.action_id, capture.spans())
        assert not is_replayed(span)
        assert len(store.inner.list_all()) == 1


QUIET: dict[str, dict[str, Any]] = {
    "off": {"span_level": "off"},
    "unsampled": {"sampler": ALWAYS_OFF},
    "nothing listens": {"span_level": "off", "metrics_level": "off"},
}


@pytest.mark.parametrize("quiet", QUIET)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scene", SCENES)
async def test_an_operation_that_is_to_have_no_span_gets_none_by_the_store(
    scene: str, shape: str, quiet: str
) -> None:
    with instrumented(**QUIET[quiet]) as capture:
        store = SHAPES[shape](capture.tracer_provider)
        await SCENES[scene](store)
        assert store.list_all()
        assert capture.spans() == []
        assert not any(trace_context(record.action_id) for record in store.list_all())


@pytest.mark.parametrize(
    "settings", [{}, {"span_level": "debug"}, *QUIET.values()], ids=["info", "debug", *QUIET]
)
@pytest.mark.parametrize("scene", SCENES)
async def test_it_changes_no_count(scene: str, settings: dict[str, Any]) -> None:
    counts = []
    for wrap in (False, True):
        begin_anew()
        with instrumented(**settings) as capture:
            plain = TraceStore()
            store = (
                OTelTraceStore(plain, tracer_provider=capture.tracer_provider) if wrap else plain
            )
            await SCENES[scene](store)
        counts.append(stats.snapshot())
    assert counts[0] == counts[1]
    assert counts[0].audit_records


async def test_a_kernel_that_is_opted_out_is_told_of_by_its_store() -> None:
    with instrumented() as capture:
        store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
        kernel = kernel_with(store)
        uninstrument_kernel(kernel)
        token = token_of(kernel)
        frame = await kernel.invoke(token, principal=ALICE, args={})
        (span,) = spans_of(frame.action_id, capture.spans())
        assert is_replayed(span)


async def test_of_two_kernels_with_one_store_the_instrumented_one_has_a_live_span() -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    live, alone = kernel_with(store), kernel_with(store)
    instrument_kernel(live, **capture.providers)
    try:
        frames = [
            await kernel.invoke(token_of(kernel), principal=ALICE, args={})
            for kernel in (live, alone)
        ]
    finally:
        uninstrument_kernel(live)
    told = [spans_of(frame.action_id, capture.spans()) for frame in frames]
    assert [[is_replayed(span) for span in spans] for spans in told] == [[False], [True]]


@pytest.mark.parametrize("inner_is_live", [True, False])
async def test_a_kernel_in_a_driver_of_another_has_one_span_too(inner_is_live: bool) -> None:
    with instrumented() as capture:
        store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
        within = make_kernel(trace_store=store)
        if not inner_is_live:
            uninstrument_kernel(within)

        async def call_another(_: Any) -> Any:
            await within.invoke(token_of(within), principal=ALICE, args={})
            return [{"n": 1}]

        around = kernel_with(store, AsyncDriver("outer", call_another))
        await around.invoke(token_of(around), principal=ALICE, args={})
        inner_record, outer_record = store.list_all()
        (outer_span,) = spans_of(outer_record.action_id, capture.spans())
        (inner_span,) = spans_of(inner_record.action_id, capture.spans())
        assert not is_replayed(outer_span)
        assert is_replayed(inner_span) is not inner_is_live
        driver = next(
            root.only("agent_kernel.driver.execute")
            for root in capture.roots()
            if root.span is outer_span
        )
        if inner_is_live:
            assert inner_span.parent == driver.span.context
        else:
            assert [link.context for link in inner_span.links] == [driver.span.context]


async def test_a_kernel_in_a_store_of_another_is_told_of_on_its_own() -> None:
    with instrumented() as capture:
        denying = make_kernel(
            trace_store=OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
        )
        uninstrument_kernel(denying)

        class Denying(TraceStore):
            def record(self, trace: ActionTrace) -> None:
                super().record(trace)
                with pytest.raises(Exception, match="writer"):
                    grant(denying, "tasks.add", ALICE)

        store = OTelTraceStore(Denying(), tracer_provider=capture.tracer_provider)
        frame = await succeed(store)
        (live,) = spans_of(frame.action_id, capture.spans())
        assert not is_replayed(live)
        (denied,) = denying.list_traces()
        (replayed,) = spans_of(denied.action_id, capture.spans())
        assert is_replayed(replayed)
        assert [link.context for link in replayed.links] == [live.context]


@pytest.mark.parametrize("then", ["uninstrument", "instrument"])
async def test_a_switch_in_the_midst_of_an_action_leaves_it_one_span(then: str) -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)

    async def switch(_: Any) -> Any:
        if then == "uninstrument":
            KernelInstrumentor().uninstrument()
        else:
            KernelInstrumentor().instrument(**capture.providers)
        return [{"n": 1}]

    if then == "uninstrument":
        KernelInstrumentor().instrument(**capture.providers)
    try:
        kernel = kernel_with(store, AsyncDriver("switching", switch))
        frame = await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    finally:
        KernelInstrumentor().uninstrument()
    assert len(spans_of(frame.action_id, capture.spans())) == 1
