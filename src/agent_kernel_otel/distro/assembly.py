# SPDX-License-Identifier: Apache-2.0
"""The SDK set up with our pipelines, by whatever sets it up: environment or configuration file.

While it is being set up, the modules that do it find our processors, metric reader and providers
under the SDK's own names. So all that OpenTelemetry reads (exporters, samplers, id generators,
views, limits) is read by OpenTelemetry itself.
"""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    Resource,
    ServiceInstanceIdResourceDetector,
)
from opentelemetry.sdk.trace import TracerProvider

from agent_kernel_otel.distro.defaults import given_attributes
from agent_kernel_otel.distro.report import write_report_if_asked
from agent_kernel_otel.pipeline import meter_state, own_metrics
from agent_kernel_otel.pipeline.batching import BatchingLogRecordProcessor, BatchingSpanProcessor
from agent_kernel_otel.pipeline.lifecycle import lifecycle
from agent_kernel_otel.pipeline.metric_reader import PunctualMetricReader
from agent_kernel_otel.pipeline.notices import quieten_exporters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SET_UP_BY: Final = (
    "opentelemetry.sdk._configuration",
    "opentelemetry.configuration._tracer_provider",
    "opentelemetry.configuration._meter_provider",
    "opentelemetry.configuration._logger_provider",
)


@contextmanager
def our_pipelines(exit_timeout: float, *, is_scraped: bool = False) -> Iterator[None]:
    """While this lasts, an SDK that is set up gets our pipelines.

    Args:
        exit_timeout: Seconds that the end of the process may be held up.
        is_scraped: Whether a page for Prometheus is asked for.
    """
    lifecycle.exit_timeout = exit_timeout
    substitutes: dict[str, Mapping[str, Callable[..., Any]]]
    substitutes = dict.fromkeys(_SET_UP_BY, SUBSTITUTES)
    if is_scraped:
        with suppress(ImportError):  # an extra
            scraping = importlib.import_module("agent_kernel_otel.distro.prometheus")
            substitutes[scraping.EXPORTER] = scraping.SUBSTITUTES
    replaced: list[tuple[Any, str, Any]] = []
    for module_name, names in substitutes.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # the one for files is an extra, too
        for name, ours in names.items():
            if hasattr(module, name):
                replaced.append((module, name, getattr(module, name)))
                setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, original in replaced:
            setattr(module, name, original)
        quieten_exporters()
        lifecycle.come_first()
        lifecycle.at_end(write_report_if_asked)


class _HashedOnce(Resource):
    """A resource as the exporters need it, which look it up for every span and log record.

    The SDK's own writes all of its attributes as JSON each time, a sixth of what encoding costs.
    """

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


def _hash_once(kwargs: dict[str, Any]) -> None:
    resource = kwargs.get("resource")
    if resource is not None:
        kwargs["resource"] = _HashedOnce(resource.attributes, resource.schema_url)


def _tracer_provider(*args: Any, **kwargs: Any) -> TracerProvider:
    _hash_once(kwargs)
    provider = TracerProvider(*args, **kwargs)
    _attend_fork(provider, provider.resource)
    return provider


def _logger_provider(*args: Any, **kwargs: Any) -> LoggerProvider:
    _hash_once(kwargs)
    provider = LoggerProvider(*args, **kwargs)
    _attend_fork(provider, provider.resource)
    return provider


def _meter_provider(*args: Any, **kwargs: Any) -> MeterProvider:
    # An instrument that two views match is exported twice: a user's views go without ours.
    if not kwargs.get("views"):
        kwargs["views"] = meter_state.limiting_views()
    # A page that nobody can ask for would only keep numbers.
    readers = [r for r in kwargs.get("metric_readers", ()) if getattr(r, "page", r) is not None]
    provider = MeterProvider(*args, **{**kwargs, "metric_readers": readers})
    if not meter_state.HAS_LIMIT:
        meter_state.limit_series(provider)
    _attend_fork(provider, provider._sdk_config.resource)
    lifecycle.in_child(partial(meter_state.forget_measurements, provider))
    own_metrics.register(provider)
    for reader in readers:
        if hasattr(reader, "page"):
            lifecycle.in_child(partial(reader.retire_from, provider))
            reader.start()
    return provider


def _attend_fork(provider: Any, resource: Resource) -> None:
    # SDKs before 1.45 give each process an id of its own, but a forked child its parent's.
    if not hasattr(provider, "_handle_fork") and SERVICE_INSTANCE_ID not in given_attributes(
        os.environ
    ):
        lifecycle.in_child(partial(_renew_instance_id, resource))


def _renew_instance_id(resource: Resource) -> None:
    # Tracers and loggers hold this object, so that it must change in place.
    attributes: Any = resource.attributes
    attributes._dict.update(ServiceInstanceIdResourceDetector().detect().attributes)


SUBSTITUTES: Final[dict[str, Callable[..., Any]]] = {
    "BatchSpanProcessor": BatchingSpanProcessor,
    "BatchLogRecordProcessor": BatchingLogRecordProcessor,
    "PeriodicExportingMetricReader": PunctualMetricReader,
    "TracerProvider": _tracer_provider,
    "LoggerProvider": _logger_provider,
    "MeterProvider": _meter_provider,
}
