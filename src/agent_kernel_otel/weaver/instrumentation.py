# SPDX-License-Identifier: Apache-2.0
"""The adapter under one configuration: what all the calls that it traces share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.config import InstrumentationConfig
from agent_kernel_otel.telemetry import Telemetry
from agent_kernel_otel.weaver.gauges import report
from agent_kernel_otel.weaver.grants import GrantLedger
from agent_kernel_otel.weaver.kernels import KernelTable
from agent_kernel_otel.weaver.measuring import Measured
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES
from agent_kernel_otel.weaver.sessions import SessionNames

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from agent_kernel_otel.weaver.propagation import DriverSelf


class WeaverInstrumentation:
    """What the traced calls share: telemetry, grants, kernels, and which views they need.

    Args:
        config: The configuration.
        views: The views of each operation, by the name of its span.
        views_after_streams: The views that there are even after a stream.
        quiet_views: The views of an invocation that takes its usual course, and that nothing is
            told of.
        senders: What the kernel's drivers run on to write the trace context into their requests,
            by the name of their class.
        first_met: Called with each kernel when it is met for the first time.
        tracer_provider: Where spans go; the global provider by default.
        logger_provider: Where log events go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.

    Attributes:
        measured: Takes the times that the metrics level asks for.
    """

    def __init__(
        self,
        config: InstrumentationConfig,
        views: Mapping[str, Mapping[str, Any]],
        views_after_streams: Mapping[str, Any],
        quiet_views: Mapping[str, Any],
        senders: Mapping[str, type[DriverSelf]],
        first_met: Callable[[Any], None],
        *,
        tracer_provider: TracerProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self.telemetry = Telemetry(
            semconv.SCOPE_WEAVER,
            semconv.SYSTEM_WEAVER,
            config,
            tracer_provider=tracer_provider,
            logger_provider=logger_provider,
            meter_provider=meter_provider,
            redact=_kernel_redact,
        )
        metrics = self.telemetry.metrics
        self.measured = Measured(metrics)
        self.grants = GrantLedger()
        self.kernels = KernelTable(
            semconv.SYSTEM_WEAVER,
            SessionNames(config.session),
            first_met,
            self.telemetry.counts,
            config.capability_id_limit,
        )
        if metrics is not None:
            report(self.kernels, metrics)
        self.views = views
        self.views_after_streams = views_after_streams
        # Where stages are measured, each of them needs to be seen.
        self.quiet_views = quiet_views if self.measured.driver is None else None
        self.senders = senders


def _kernel_redact(text: str) -> str:
    for name in IMPORT_NAMES:
        redact = getattr(sys.modules.get(f"{name}.firewall.redaction"), "redact", None)
        if redact is not None:
            return str(redact(text)[0])
    return text
