# SPDX-License-Identifier: Apache-2.0
"""A program that sends what an instrumented kernel sends, by the real SDK and exporters."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from agent_kernel_otel import semconv

RESOURCE = Resource.create({"service.name": "sample-agent"})


class Telemetry:
    """The three providers of the program, sending to where the environment says."""

    def __init__(self) -> None:
        self.tracers = TracerProvider(resource=RESOURCE)
        self.tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.meters = MeterProvider(
            resource=RESOURCE,
            metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())],
        )
        self.loggers = LoggerProvider(resource=RESOURCE)
        self.loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self.tracer = self.tracers.get_tracer(semconv.SCOPE_WEAVER)
        self.meter = self.meters.get_meter(semconv.SCOPE_WEAVER)
        self.logger = self.loggers.get_logger(semconv.SCOPE_WEAVER)

    def shutdown(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()
        self.loggers.shutdown()

    def event(self, name: str, severity: SeverityNumber, attributes: dict[str, Any]) -> None:
        self.logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=severity,
                severity_text=severity.name,
                event_name=name,
                attributes=attributes,
            )
        )


def operation(capability: str, **more: Any) -> dict[str, Any]:
    return {
        semconv.SYSTEM: semconv.SYSTEM_WEAVER,
        semconv.CAPABILITY_ID: capability,
        semconv.PRINCIPAL_ID: "alice",
        **more,
    }


def policy(phase: str, outcome: str, **more: Any) -> dict[str, Any]:
    return {semconv.POLICY_PHASE: phase, semconv.POLICY_OUTCOME: outcome, **more}


def granted_invocation_with_fallback(telemetry: Telemetry) -> None:
    tracer = telemetry.tracer
    capability = "billing.list_invoices"
    with tracer.start_as_current_span(
        semconv.GRANT, attributes=operation(capability, **{semconv.STATUS: "success"})
    ) as grant:
        allowed = policy("grant", "allowed", **{semconv.SECURITY_RULE_NAME: "readers-may-read"})
        tracer.start_span(semconv.POLICY, attributes=allowed).end()
    attributes = {
        semconv.STATUS: "success",
        semconv.FALLBACK: True,
        semconv.REDACTIONS: 2,
        semconv.DOWNGRADED: True,
        semconv.DOWNGRADE_REASON: "budget",
        semconv.REQUESTED_RESPONSE_MODE: "table",
        semconv.RESPONSE_MODE: "summary",
        semconv.RESULT_FACTS: 3,
    }
    with tracer.start_as_current_span(
        semconv.INVOKE,
        attributes=operation(capability, **attributes),
        links=[Link(grant.get_span_context())],
    ):
        tracer.start_span(semconv.POLICY, attributes=policy("enforce", "allowed")).end()
        failed = tracer.start_span(
            semconv.DRIVER,
            attributes={
                semconv.DRIVER_ID: "billing_primary",
                semconv.STATUS: "error",
                semconv.ERROR_TYPE: "DriverError",
            },
        )
        failed.set_status(Status(StatusCode.ERROR))
        failed.end()
        tracer.start_span(
            semconv.DRIVER,
            attributes={semconv.DRIVER_ID: "billing_replica", semconv.STATUS: "success"},
        ).end()
        tracer.start_span(
            semconv.FIREWALL,
            attributes={semconv.RESPONSE_MODE: "summary", semconv.REDACTIONS: 2},
        ).end()


def denied_grant(telemetry: Telemetry) -> None:
    tracer = telemetry.tracer
    reason = {semconv.REASON_CODE: "role_missing", semconv.REASON_CATEGORY: "identity"}
    with tracer.start_as_current_span(
        semconv.GRANT,
        attributes=operation(
            "billing.delete",
            **{semconv.STATUS: "denied", semconv.REASON_CODE: "role_missing"},
        ),
        set_status_on_exception=False,
    ) as span:
        span.set_status(Status(StatusCode.ERROR))
        with tracer.start_as_current_span(
            semconv.POLICY,
            attributes=policy(
                "grant", "denied", **{**reason, semconv.SECURITY_RULE_NAME: "writers-only"}
            ),
        ):
            telemetry.event(
                semconv.POLICY_DECISION,
                SeverityNumber.WARN,
                {semconv.POLICY_OUTCOME: "denied", **reason},
            )


def failed_and_cancelled_invocations(telemetry: Telemetry) -> None:
    tracer = telemetry.tracer
    with tracer.start_as_current_span("handle request", kind=SpanKind.SERVER) as request:
        request.set_attribute("http.request.method", "POST")
        with tracer.start_as_current_span(
            "execute_tool crm.lookup",
            attributes=operation(
                "crm.lookup",
                **{
                    semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
                    semconv.STATUS: "error",
                    semconv.ERROR_TYPE: "DriverError",
                },
            ),
        ) as span:
            span.set_status(Status(StatusCode.ERROR))
            telemetry.event(
                semconv.INVOKE_EXCEPTION,
                SeverityNumber.WARN,
                {semconv.EXCEPTION_TYPE: "agent_kernel.errors.DriverError"},
            )
        tracer.start_span(
            semconv.INVOKE,
            attributes=operation(
                "crm.export",
                **{
                    semconv.STATUS: "cancelled",
                    semconv.STREAM: True,
                    semconv.STREAM_END: "cancelled",
                    semconv.ERROR_TYPE: "CancelledError",
                },
            ),
        ).end()


def measure(telemetry: Telemetry) -> None:
    labels = {semconv.CAPABILITY_ID: "billing.list_invoices", semconv.STATUS: "success"}
    telemetry.meter.create_counter("agent_kernel.invocations", "{invocation}").add(7, labels)
    telemetry.meter.create_counter("agent_kernel.fallbacks", "{invocation}").add(0, labels)
    telemetry.meter.create_gauge("agent_kernel.budget_consumed", "{token}").set(1234)
    durations = telemetry.meter.create_histogram("agent_kernel.invocation_duration", "ms")
    for milliseconds in (3.0, 12.0, 40.0):
        durations.record(milliseconds, labels)


def main() -> int:
    logging.basicConfig()
    telemetry = Telemetry()
    sys.stdout.write("stdout of the sample agent\n")
    sys.stderr.write("stderr of the sample agent\n")
    granted_invocation_with_fallback(telemetry)
    denied_grant(telemetry)
    failed_and_cancelled_invocations(telemetry)
    telemetry.event("agent.started", SeverityNumber.INFO, {})
    measure(telemetry)
    telemetry.shutdown()
    assert not trace.get_current_span().is_recording()
    return int(sys.argv[1]) if len(sys.argv) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
