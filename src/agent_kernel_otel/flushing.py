# SPDX-License-Identifier: Apache-2.0
"""Sending what there is now, for a process whose end nobody can see coming."""

from __future__ import annotations

import threading
from typing import Any

_OPENTELEMETRY = "opentelemetry"


def flush(timeout: float = 5.0) -> bool:
    """Send all spans, log records and metrics that there are, and wait for it.

    The distro does this by itself at the end of the process, at SIGTERM, and at the end of a
    child of ``multiprocessing``. It cannot where a process ends by ``os._exit()``, or where a
    serverless platform freezes it: call this before. It may be called from any thread.

    Args:
        timeout: Seconds to wait at most; 0 asks for it and does not wait.

    Returns:
        Whether all that had ended by now was sent, and acknowledged, in that time. Where the
        providers are not the distro's own it is what they answer, which OpenTelemetry's own do
        with True whatever happens. True where there is nothing to send.
    """
    try:
        # Not at the top: an app may run without OpenTelemetry.
        from agent_kernel_otel.pipeline.lifecycle import lifecycle  # noqa: PLC0415

        if lifecycle.pipelines:
            return lifecycle.flush(timeout)
        from opentelemetry import _logs, metrics, trace  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _OPENTELEMETRY:
            raise
        return True
    getters = trace.get_tracer_provider, _logs.get_logger_provider, metrics.get_meter_provider
    return _flush_others([getter() for getter in getters], timeout)


def _flush_others(providers: list[Any], timeout: float) -> bool:
    answers: list[bool] = []

    def ask() -> None:
        for provider in providers:
            force_flush = getattr(provider, "force_flush", None)
            answers.append(force_flush is None or force_flush(int(timeout * 1000)) is not False)

    # OpenTelemetry's own do not keep to their time-out.
    thread = threading.Thread(target=ask, name="OtelFlush", daemon=True)
    thread.start()
    thread.join(timeout)
    return len(answers) == len(providers) and all(answers)
