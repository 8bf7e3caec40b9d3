# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's own log lines, kept out of the doctor's report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_opentelemetry() -> Iterator[None]:
    """Keep OpenTelemetry from logging: it repeats headers that it cannot read, secrets and all."""
    logger = logging.getLogger("opentelemetry")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
