# SPDX-License-Identifier: Apache-2.0
"""Log lines that the doctor's report says itself, and without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenTelemetry, which repeats headers that it cannot read, and our distro from logging."""
    loggers = [logging.getLogger(name) for name in ("opentelemetry", "agent_kernel_otel.distro")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
