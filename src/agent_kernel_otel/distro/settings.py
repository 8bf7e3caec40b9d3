# SPDX-License-Identifier: Apache-2.0
"""Numbers that the pipelines read from OpenTelemetry's own variables."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.environment_variables import (
    OTEL_BLRP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BLRP_MAX_QUEUE_SIZE,
    OTEL_BLRP_SCHEDULE_DELAY,
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
    OTEL_METRIC_EXPORT_INTERVAL,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_logger = logging.getLogger(__name__)

QUEUE_SIZE: Final = 16384
"""Items that wait at most: a burst of 8,000 spans fits, and 48 MB are the worst case."""
BATCH_SIZE: Final = 128
"""Items in a request: to encode 512, as the SDK does, keeps the interpreter's lock for 10 ms."""
_LAST_BATCH_SIZE: Final = 512
"""At the end, when the lock is nobody else's, fewer requests count for more; only where the user
has not set a size."""
_SPAN_DELAY: Final = 5000.0
_LOG_DELAY: Final = 1000.0
_METRIC_INTERVAL: Final = 60_000.0


@dataclass(frozen=True)
class Batching:
    """Sizes and delay of a queue.

    Attributes:
        queue_size: Items that wait at most.
        batch_size: Items in one request at most.
        delay: Seconds after which less than a batch is sent.
    """

    queue_size: int
    batch_size: int
    delay: float

    @property
    def last_batch_size(self) -> int:
        """Items in one request when the process ends."""
        return _LAST_BATCH_SIZE if self.batch_size == BATCH_SIZE else self.batch_size

    @classmethod
    def of_spans(
        cls, queue_size: int | None, batch_size: int | None, delay_millis: float | None
    ) -> Batching:
        """That of spans; what is None comes from ``OTEL_BSP_*``."""
        return _batching(
            queue_size or _whole(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE_SIZE),
            batch_size or _whole(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, BATCH_SIZE),
            delay_millis or positive(os.environ, OTEL_BSP_SCHEDULE_DELAY, _SPAN_DELAY),
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
        )

    @classmethod
    def of_log_records(
        cls, queue_size: int | None, batch_size: int | None, delay_millis: float | None
    ) -> Batching:
        """That of log records; what is None comes from ``OTEL_BLRP_*``."""
        return _batching(
            queue_size or _whole(OTEL_BLRP_MAX_QUEUE_SIZE, QUEUE_SIZE),
            batch_size or _whole(OTEL_BLRP_MAX_EXPORT_BATCH_SIZE, BATCH_SIZE),
            delay_millis or positive(os.environ, OTEL_BLRP_SCHEDULE_DELAY, _LOG_DELAY),
            OTEL_BLRP_MAX_EXPORT_BATCH_SIZE,
        )


def metric_interval(millis: float | None) -> float:
    """Seconds between two collections; None is ``OTEL_METRIC_EXPORT_INTERVAL``."""
    if millis is None:
        millis = positive(os.environ, OTEL_METRIC_EXPORT_INTERVAL, _METRIC_INTERVAL)
    return millis / 1000


def positive(environ: Mapping[str, str], variable: str, default: float) -> float:
    """A number above 0 from a variable; one line says that it is none, and the default is used."""
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number > 0:
        return number
    _logger.error(
        "%s=%r cannot be read: expected a number above 0; the default %g is used",
        variable,
        text,
        default,
    )
    return default


def _whole(variable: str, default: int) -> int:
    number = positive(os.environ, variable, default)
    return max(1, int(min(number, 10**9)))


def _batching(queue_size: int, batch_size: int, delay_millis: float, variable: str) -> Batching:
    if batch_size > queue_size:
        _logger.error(
            "%s=%d is more than the queue of %d holds; %d is used",
            variable,
            batch_size,
            queue_size,
            queue_size,
        )
        batch_size = queue_size
    return Batching(queue_size, batch_size, delay_millis / 1000)
