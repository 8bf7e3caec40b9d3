# SPDX-License-Identifier: Apache-2.0
"""Audit trails of real kernels whose calls are in Jaeger twice: as they ran, and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import format_trace_id
from weaver_kernel import DriverError, Kernel, PolicyDenied
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import ActionTrace
from weaver_kernel.stores import JsonlTraceStore, SQLiteTraceStore
from weaver_kernel.trace import TraceStore

from agent_kernel_otel import (
    OTelTraceExporter,
    instrument_kernel,
    replayed_context,
    uninstrument_kernel,
)
from tests.distro.zero_code import environment, run
from tests.jaeger.running import Jaeger
from tests.support.canaries import Canaries
from tests.support.kernels import ADMIN, ALICE, DESTROY, WRITE, grant, make_kernel, memory_driver
from tests.support.ports import HOST

EVENTS: Final = ("invoke", "expand", "invoke", "deny")
"""The records of :func:`_act`, of which the second invocation fails."""
IN_HAND: Final = "in-hand"
PROTOCOLS: Final = {"jsonl": "grpc", "sqlite": "http/protobuf"}
"""Over which the command sends what each sort of file holds."""


@dataclass(frozen=True)
class Trail:
    """Some records, and where Jaeger has what became of them.

    Attributes:
        way: How they were replayed: in hand, or from which sort of file.
        live: The service of the spans as they ran.
        replayed: That of the replayed ones.
        records: What the kernel's own store gives.
        secrets: What was planted where nothing may leave from, by place.
        export: Replays all of the records once more.
    """

    way: str
    live: str
    replayed: str
    records: list[ActionTrace]
    secrets: dict[str, str]
    export: Callable[[], None]

    def of(self, event_type: str) -> list[ActionTrace]:
        """The records of one sort."""
        return [record for record in self.records if record.event_type == event_type]


def replayed_trace_id(record: ActionTrace) -> str:
    """What this package tells an auditor who has the record only."""
    return format_trace_id(replayed_context(record.action_id).trace_id)


def provider_to(jaeger: Jaeger, service: str) -> TracerProvider:
    """What sends the spans of a service to Jaeger."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"http://{HOST}:{jaeger.port('grpc')}", insecure=True))
    )
    return provider


@contextmanager
def trail(way: str, jaeger: Jaeger, folder: Path) -> Iterator[Trail]:
    """A kernel that does what there are records of, instrumented and replayed.

    Args:
        way: How its records are to be replayed.
        jaeger: Where all of it goes.
        folder: An empty directory for its audit file.
    """
    canaries = Canaries()
    live = replayed = f"agent-{way}"
    provider = provider_to(jaeger, live)
    store: Any = TraceStore()
    path = folder / "audit"
    if way in PROTOCOLS:
        replayed = f"audit-{way}"
        store = {"jsonl": JsonlTraceStore, "sqlite": SQLiteTraceStore}[way](path)

    def export() -> None:
        if way in PROTOCOLS:
            _run_command(path, jaeger, PROTOCOLS[way], replayed)
        else:
            result = OTelTraceExporter(provider).export(records)
            assert (result.exported, result.failed) == (len(records), 0), result.problems

    kernel = make_kernel(memory_driver(answer=_answer(canaries)), trace_store=store)
    instrument_kernel(kernel, tracer_provider=provider)
    asyncio.run(_act(kernel, canaries))
    uninstrument_kernel(kernel)
    assert provider.force_flush()
    records = store.list_all()
    assert tuple(record.event_type for record in records) == EVENTS
    export()
    yield Trail(way, live, replayed, records, canaries.planted, export)
    provider.shutdown()
    if way == "sqlite":
        store.close()


def _answer(canaries: Canaries) -> Callable[[ExecutionContext], Any]:
    rows = [{"id": 1, "note": canaries.plant("result")}]
    error = canaries.plant("error")

    def answer(ctx: ExecutionContext) -> Any:
        if ctx.capability_id == WRITE:
            raise DriverError(error)
        return rows

    return answer


async def _act(kernel: Kernel, canaries: Canaries) -> None:
    token = grant(kernel, justification=f"justified by {canaries.plant('justification')}").token
    frame = await kernel.invoke(
        token,
        principal=ALICE,
        args={"note": canaries.plant("argument")},
        response_mode="handle_only",
    )
    assert frame.handle is not None
    kernel.expand(frame.handle, query={"limit": 1}, principal=ALICE)
    token = grant(kernel, WRITE, ADMIN).token
    with suppress(DriverError):
        await kernel.invoke(token, principal=ADMIN, args={"note": canaries.plant("failing")})
    with suppress(PolicyDenied):
        grant(kernel, DESTROY)


def _run_command(path: Path, jaeger: Jaeger, protocol: str, service: str) -> None:
    run(
        *("-m", "agent_kernel_otel.cli", "export", str(path), "--service-name", service),
        env=environment(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{HOST}:{jaeger.port(protocol)}",
            XDG_STATE_HOME=str(path.with_name("state")),
        ),
        instrumented=False,
    )
