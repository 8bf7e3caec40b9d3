# SPDX-License-Identifier: Apache-2.0
"""Metric series: one row for each metric and set of attributes, with its latest point."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.metrics.v1 import metrics_pb2

from agent_kernel_otel.console import wire
from agent_kernel_otel.console.records import SERVICE_INSTANCE, SERVICE_NAME, text_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

POINT_TYPES: Final[dict[str, type[Any]]] = {
    "gauge": metrics_pb2.NumberDataPoint,
    "sum": metrics_pb2.NumberDataPoint,
    "histogram": metrics_pb2.HistogramDataPoint,
    "exponential_histogram": metrics_pb2.ExponentialHistogramDataPoint,
    "summary": metrics_pb2.SummaryDataPoint,
}
"""Class of the points of each kind of metric."""

_DELTA: Final = 1


@dataclass(frozen=True)
class Series:
    """One metric series.

    Attributes:
        key: Identity: resource, scope, metric and attributes, hashed.
        service: ``service.name`` of the sender.
        instance: ``service.instance.id`` of the sender, empty if it has none.
        name: The metric's name.
        unit: Its unit, as sent.
        description: Its description, as sent.
        kind: A key of :data:`POINT_TYPES`.
        monotonic: Whether it is a sum that only rises.
        delta: Whether the point counts since the last one rather than since the start.
        point: The latest point, or the sum of all where points are deltas.
    """

    key: bytes
    service: str
    instance: str
    name: str
    unit: str
    description: str
    kind: str
    monotonic: bool
    delta: bool
    point: Any


def read_series(request: ExportMetricsServiceRequest) -> Iterator[Series]:
    """Takes a request apart into its points, one series each."""
    for of_resource in request.resource_metrics:
        resource = of_resource.resource
        service = text_attribute(resource.attributes, SERVICE_NAME)
        instance = text_attribute(resource.attributes, SERVICE_INSTANCE)
        resource_key = wire.serialize(resource)
        for of_scope in of_resource.scope_metrics:
            scope_key = of_scope.scope.name.encode()
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                if kind not in POINT_TYPES:
                    continue
                data = getattr(metric, kind)
                delta = getattr(data, "aggregation_temporality", 0) == _DELTA
                metric_key = (resource_key, scope_key, metric.name.encode(), kind.encode())
                for point in data.data_points:
                    yield Series(
                        key=_key(metric_key, point),
                        service=service,
                        instance=instance,
                        name=metric.name,
                        unit=metric.unit,
                        description=metric.description,
                        kind=kind,
                        monotonic=getattr(data, "is_monotonic", False),
                        delta=delta,
                        point=point,
                    )


def _key(metric_key: tuple[bytes, ...], point: Any) -> bytes:
    attributes = sorted(wire.serialize(pair) for pair in point.attributes)
    digest = hashlib.blake2b(digest_size=16)
    for part in (*metric_key, *attributes):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def add_delta(kind: str, total: Any, delta: Any) -> Any:
    """Adds a delta point to the total so far.

    Args:
        kind: A key of :data:`POINT_TYPES`.
        total: The total so far; it is changed.
        delta: The new point.

    Returns:
        The new total; the delta alone where the two do not fit together.
    """
    fits = {
        "sum": _add_number,
        "histogram": _add_histogram,
        "exponential_histogram": _add_summary,
    }.get(kind)
    if fits is None or not fits(total, delta):
        return delta
    total.time_unix_nano = delta.time_unix_nano
    return total


def _add_number(total: Any, delta: Any) -> bool:
    field = delta.WhichOneof("value")
    if field is None or total.WhichOneof("value") != field:
        return False
    value = getattr(total, field) + getattr(delta, field)
    if field == "as_int" and not -(2**63) <= value < 2**63:
        return False
    setattr(total, field, value)
    return True


def _add_histogram(total: Any, delta: Any) -> bool:
    if total.explicit_bounds != delta.explicit_bounds or len(total.bucket_counts) != len(
        delta.bucket_counts
    ):
        return False
    counts = [a + b for a, b in zip(total.bucket_counts, delta.bucket_counts, strict=True)]
    if any(count >= 2**64 for count in counts) or not _add_summary(total, delta):
        return False
    total.bucket_counts[:] = counts
    return True


def _add_summary(total: Any, delta: Any) -> bool:
    if total.count + delta.count >= 2**64:
        return False
    total.count += delta.count
    total.sum += delta.sum
    if delta.HasField("min"):
        total.min = min(total.min, delta.min) if total.HasField("min") else delta.min
    if delta.HasField("max"):
        total.max = max(total.max, delta.max) if total.HasField("max") else delta.max
    return True
