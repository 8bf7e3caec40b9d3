# SPDX-License-Identifier: Apache-2.0
"""The books as metrics: what was sent, and what was dropped and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, Observation

from agent_kernel_otel import semconv
from agent_kernel_otel._version import __version__
from agent_kernel_otel.pipeline.ledger import ledger

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

SCOPE: Final = "agent_kernel_otel.distro"
_REFUSED: Final = "refused"


def register(provider: MeterProvider) -> None:
    """Have a provider's readers observe the books."""
    meter = provider.get_meter(SCOPE, __version__)
    for metric, observe in ((semconv.TELEMETRY_SENT, _sent), (semconv.TELEMETRY_DROPPED, _dropped)):
        meter.create_observable_counter(
            metric.name, callbacks=[observe], unit=metric.unit, description=metric.description
        )


def _sent(_: CallbackOptions) -> Iterable[Observation]:
    for signal, totals in ledger.snapshot().items():
        yield Observation(totals.sent, {semconv.SIGNAL: signal})


def _dropped(_: CallbackOptions) -> Iterable[Observation]:
    for signal, totals in ledger.snapshot().items():
        for reason, count in {_REFUSED: totals.refused, **totals.dropped}.items():
            yield Observation(count, {semconv.SIGNAL: signal, semconv.DROP_REASON: reason})
