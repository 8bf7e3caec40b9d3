# SPDX-License-Identifier: Apache-2.0
"""Numbers that the pipelines read from OpenTelemetry's own variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.environment_variables import OTEL_METRIC_EXPORT_INTERVAL

SPANS: Final = "OTEL_BSP"
LOG_RECORDS: Final = "OTEL_BLRP"
QUEUE_SIZE: Final = 16384
"""Items that wait at most: a burst of 8,000 spans fits, and 48 MB are the worst case."""
BATCH_SIZE: Final = 128
"""Items in a request: the SDK's own 512 keep the interpreter's lock for some 20 ms."""
_EARLY_BATCH_SIZE: Final = 32
"""Items that are worth a request while no more wait. A hundred ended spans are a thousand objects,
which the garbage collector would keep and come to look through all of the process for; and to
encode as many holds the interpreter's lock for as long as its other threads will wait. Only where
the user has not set a size."""
_LAST_BATCH_SIZE: Final = 512
"""At the end, when the lock is nobody else's, fewer requests count for more; only where the user
has not set a size."""
_DELAYS: Final = {SPANS: 5000.0, LOG_RECORDS: 1000.0}
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
    def early_batch_size(self) -> int:
        """Items that are worth a request of their own."""
        return _EARLY_BATCH_SIZE if self.batch_size == BATCH_SIZE else self.batch_size

    @property
    def last_batch_size(self) -> int:
        """Items in one request when the process ends."""
        return _LAST_BATCH_SIZE if self.batch_size == BATCH_SIZE else self.batch_size

    @classmethod
    def read(
        cls,
        family: str,
        queue_size: int | None,
        batch_size: int | None,
        delay_millis: float | None,
    ) -> Batching:
        """What is given; what is None comes from the environment.

        Args:
            family: Of the variables: :data:`SPANS` or :data:`LOG_RECORDS`.
            queue_size: Items that wait at most.
            batch_size: Items in one request at most.
            delay_millis: Milliseconds after which less than a batch is sent.
        """
        return cls(
            int(queue_size or _number(f"{family}_MAX_QUEUE_SIZE", QUEUE_SIZE)),
            int(batch_size or _number(f"{family}_MAX_EXPORT_BATCH_SIZE", BATCH_SIZE)),
            (delay_millis or _number(f"{family}_SCHEDULE_DELAY", _DELAYS[family])) / 1000,
        )


def metric_interval(millis: float | None) -> float:
    """Seconds between two collections; None is ``OTEL_METRIC_EXPORT_INTERVAL``."""
    return (millis or _number(OTEL_METRIC_EXPORT_INTERVAL, _METRIC_INTERVAL)) / 1000


def _number(variable: str, default: float) -> float:
    # What cannot be read has been replaced by now; see checks.py.
    return float(os.environ.get(variable, "").strip() or default)
