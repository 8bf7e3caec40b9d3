# SPDX-License-Identifier: Apache-2.0
"""Canaries wherever a record can hold what must not leave: none does, whatever is configured."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from weaver_kernel import TraceStore

from agent_kernel_otel import InstrumentationConfig, OTelTraceExporter, OTelTraceStore
from agent_kernel_otel.faults import faults
from tests.audit.scenes import SCENES
from tests.audit.traces import FORMS, SHAPES, of_shape, values
from tests.support.canaries import SHAPES as KINDS
from tests.support.canaries import Canaries
from tests.support.capture import Capture
from tests.support.instrumented import instrumented
from tests.support.otlp_sink import OtlpSink

EVERYTHING = InstrumentationConfig(
    capture_content=frozenset({"arguments", "results", "goals", "justifications"}),
    capture_exception_text=True,
)
"""What may be switched on for live calls, none of which is for records."""
CONFIGS = {"default": InstrumentationConfig(), "everything captured": EVERYTHING}

KINDS_OF_RECORD: dict[str, dict[str, Any]] = {
    "success": {},
    "failure": {"error": ...},
    "expansion": {"event_type": "expand"},
    "denial": {"event_type": "deny", "error": ..., "reason_code": "missing_role"},
    "refused invocation": {"error": ..., "reason_code": "rate_limited"},
}


def laden(canaries: Canaries, **changed: Any) -> dict[str, Any]:
    """A record with a secret in each place that is not for export."""
    plant = canaries.plant
    said = values(
        args={
            "q": plant("argument"),
            plant("argument key"): 1,
            "deep": [{"x": plant("deep argument")}],
        },
        result_summary={
            "fact_count": plant("fact count"),
            "row_count": 2,
            "warning_count": [plant("warning")],
            plant("summary key"): plant("summary value"),
        },
    )
    said.update(changed)
    if said["error"] is ...:
        said["error"] = f"DriverError: {plant('error')}"
    return said


def with_more(canaries: Canaries, said: dict[str, Any]) -> dict[str, Any]:
    """The same with what an export adds, and what a release to come may."""
    plant = canaries.plant
    return {
        **said,
        "status": plant("status"),
        "correction": {"corrected_by": plant("correction"), plant("correction key"): 1},
        "justification": plant("unknown field"),
        plant("unknown key"): plant("value of an unknown key"),
    }


def export(records: list[Any], config: InstrumentationConfig) -> tuple[Capture, Any]:
    capture = Capture()
    result = OTelTraceExporter(capture.tracer_provider, config=config).export(records)
    return capture, result


class Taking:
    """A trace store that takes anything."""

    def record(self, trace: Any) -> None: ...


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", KINDS)
@pytest.mark.parametrize("kind", KINDS_OF_RECORD)
def test_no_canary_of_a_record_is_exported(kind: str, shape: str, config: str) -> None:
    canaries = Canaries(shape)
    said = laden(canaries, **KINDS_OF_RECORD[kind])
    records: list[Any] = [
        form(of_shape(number, said)) for number in SHAPES for form in FORMS.values()
    ]
    records += [with_more(canaries, said), SimpleNamespace(**with_more(canaries, said))]
    capture, result = export(records, CONFIGS[config])
    assert result.exported == len(capture.spans()) == len(records)
    assert canaries.places_in(capture) == []


def test_a_canary_is_found_where_it_does_leave() -> None:
    canaries = Canaries()
    capture, _ = export([values(principal_id=canaries.plant("principal"))], EVERYTHING)
    assert canaries.places_in(capture) == ["principal"]


def test_what_is_said_of_unreadable_records_repeats_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    faults.reraise = False
    canaries = Canaries()
    plant = canaries.plant
    unreadable = [
        laden(canaries, action_id=None),
        laden(canaries, action_id=[plant("id in a list")]),
        laden(canaries, capability_id={plant("capability"): 1}),
        laden(canaries, invoked_at=plant("time")),
        laden(canaries, event_type=plant("event type")),
        plant("text in the place of a record"),
        {plant("key"): plant("value")},
    ]
    capture, result = export(unreadable, EVERYTHING)
    assert (result.exported, result.failed) == (0, len(unreadable))
    store = OTelTraceStore(Taking(), tracer_provider=capture.tracer_provider)
    for record in unreadable:
        store.record(record)
    assert capture.spans() == []
    said = "\n".join(result.problems) + caplog.text + repr(caplog.records)
    assert not [place for place, unique in canaries.planted.items() if unique in said]


@pytest.mark.parametrize("config", CONFIGS)
def test_no_canary_leaves_by_the_store(config: str) -> None:
    canaries = Canaries()
    capture = Capture()
    store = OTelTraceStore(
        Taking(), tracer_provider=capture.tracer_provider, config=CONFIGS[config]
    )
    for kind in KINDS_OF_RECORD.values():
        store.record(SimpleNamespace(**with_more(canaries, laden(canaries, **kind))))
    assert len(capture.spans()) == len(KINDS_OF_RECORD)
    assert canaries.places_in(capture) == []


@pytest.mark.parametrize("form", ["raw", "hash", "off"])
def test_a_principal_leaves_in_its_form_alone(form: Any) -> None:
    canaries = Canaries()
    record = values(principal_id=canaries.plant("principal"))
    capture, _ = export([record], InstrumentationConfig(principal_id=form))
    assert canaries.places_in(capture) == (["principal"] if form == "raw" else [])


def test_no_byte_on_the_wire_holds_a_canary() -> None:
    canaries = Canaries()
    records = [with_more(canaries, laden(canaries, **kind)) for kind in KINDS_OF_RECORD.values()]
    with OtlpSink() as sink:
        exporter = OTLPSpanExporter(endpoint=sink.endpoint, insecure=True)
        result = OTelTraceExporter(span_exporter=exporter, config=EVERYTHING).export(records)
        exporter.shutdown()
        assert result.exported == len(records)
        sink.wait_for(lambda received: len(received.spans()) == len(records))
        sent = sink.raw_bytes()
    assert records[0]["action_id"].encode() in sent
    assert not [place for place, unique in canaries.planted.items() if unique.encode() in sent]


class Canaried(TraceStore):
    """As the stores of older kernels: it has arguments and errors as they were."""

    def __init__(self, plant: Callable[[str], str]) -> None:
        super().__init__()
        self.plant = plant

    def record(self, trace: Any) -> None:
        trace.args = {"q": self.plant("argument"), self.plant("key"): 1}
        if trace.error is not None:
            trace.error = self.plant("error")
        super().record(trace)


@pytest.mark.parametrize("live", [True, False], ids=["live", "alone"])
@pytest.mark.parametrize("scene", SCENES)
async def test_no_canary_of_a_real_record_leaves_live_or_replayed(scene: str, live: bool) -> None:
    canaries = Canaries()
    inner = Canaried(canaries.plant)
    if live:
        with instrumented(
            capture_exception_text=True, capture_content="arguments,results"
        ) as capture:
            await SCENES[scene](OTelTraceStore(inner, tracer_provider=capture.tracer_provider))
    else:
        capture = Capture()
        store = OTelTraceStore(inner, tracer_provider=capture.tracer_provider, config=EVERYTHING)
        await SCENES[scene](store)
    records = inner.list_all()
    OTelTraceExporter(capture.tracer_provider, config=EVERYTHING).export(records)
    assert len(capture.spans()) >= 2 * len(records)
    assert canaries.planted
    assert canaries.places_in(capture) == []
