# SPDX-License-Identifier: Apache-2.0
"""Metrics on their way: collected at the start, at intervals, on request and at the end."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import MetricReader

from agent_kernel_otel.pipeline.delivery import Delivery
from agent_kernel_otel.pipeline.ledger import METRICS
from agent_kernel_otel.pipeline.lifecycle import lifecycle
from agent_kernel_otel.pipeline.settings import metric_interval
from agent_kernel_otel.pipeline.worker import Pipeline

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData

_COLLECT_TIMEOUT_MILLIS: Final = 10_000.0


class PunctualMetricReader(MetricReader):
    """Collects and exports metrics.

    Takes the place of :class:`opentelemetry.sdk.metrics.export.PeriodicExportingMetricReader` and
    its arguments; an interval that is None comes from ``OTEL_METRIC_EXPORT_INTERVAL``.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        export_interval_millis: float | None = None,
        export_timeout_millis: float | None = None,  # noqa: ARG002 - the exporter has its own
        **options: Any,
    ) -> None:
        known = inspect.signature(MetricReader.__init__).parameters
        super().__init__(
            # Private, and read in the same way by the SDK's own reader.
            preferred_temporality=exporter._preferred_temporality,
            preferred_aggregation=exporter._preferred_aggregation,
            **{name: value for name, value in options.items() if name in known},
        )
        self._pipeline = _Collection(self, exporter, metric_interval(export_interval_millis))
        lifecycle.add(self._pipeline)

    def _receive_metrics(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = _COLLECT_TIMEOUT_MILLIS,
        **_: Any,
    ) -> None:
        self._pipeline.deliver(metrics_data, timeout_millis)

    def force_flush(self, timeout_millis: float = _COLLECT_TIMEOUT_MILLIS) -> bool:
        """Collect and export now; whether all of it arrived within the time."""
        return self._pipeline.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Collect a last time, within the time that the end of the process may take."""
        self._pipeline.close(min(timeout_millis / 1000, lifecycle.exit_timeout))


class _Collection(Pipeline):
    """The thread that collects."""

    def __init__(self, reader: MetricReader, exporter: MetricExporter, interval: float) -> None:
        self._reader = reader
        super().__init__("OtelMetrics", Delivery(METRICS, exporter), interval)

    def deliver(self, metrics_data: MetricsData, timeout_millis: float) -> None:
        """Export what was collected, as one item."""
        self.delivery.account.end_one()
        self.delivery.export(metrics_data, 1, timeout_millis=timeout_millis)

    def _send(self, everything: bool) -> None:  # noqa: ARG002 - to be woken is to collect
        if not self.delivery.is_shut:
            self._reader.collect(timeout_millis=_COLLECT_TIMEOUT_MILLIS)

    def _forget(self) -> int:
        return 0
