# SPDX-License-Identifier: Apache-2.0
"""What is said of telemetry that is lost: now and then while it happens, and once at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from agent_kernel_otel.pipeline.ledger import EXIT, FAILED, QUEUE_FULL, UNANSWERED, Totals, ledger

LOGGER: Final = __name__
_logger = logging.getLogger(LOGGER)

INTERVAL: Final = 60.0
"""Seconds between two lines."""
_EXPORTERS: Final = "opentelemetry.exporter."
_ITEMS: Final = {"traces": "spans", "logs": "log records", "metrics": "metric batches"}
_WORDS: Final = {
    QUEUE_FULL: "crowded out of the queue",
    UNANSWERED: "not answered",
    FAILED: "not sendable",
    EXIT: "unsent at the end",
}


class Notices:
    """The lines of this process about lost telemetry; never more than one in a while.

    Args:
        interval: Seconds between two of them.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self.reset()

    def reset(self) -> None:
        """Start anew, as a forked child does."""
        self._lock = threading.Lock()
        self._speaking = threading.Lock()
        self._holder: int | None = None
        self._next = 0.0
        self._told = 0

    def telemetry_was_lost(self) -> None:
        """Say so, if it has not been said a short while ago."""
        now = time.monotonic()
        with self._lock:
            if now < self._next:
                return
            self._next = now + self._interval
        self._tell("telemetry is being lost")

    def summarize(self) -> None:
        """Say at the end what was lost, if more was than has been said."""
        self._tell("telemetry was lost")

    def hold(self, timeout: float) -> None:
        """Let no line be written during a fork.

        A child that is forked while another thread writes to a stream hangs at its own first line
        to that stream: the lock within has nobody left to release it.

        Args:
            timeout: Seconds to wait at most for a line that is being written.
        """
        if self._speaking.acquire(timeout=timeout):
            self._holder = threading.get_ident()

    def release(self) -> None:
        """Let lines be written again, if it is this thread that holds them."""
        if self._holder == threading.get_ident():
            self._holder = None
            self._speaking.release()

    def _tell(self, headline: str) -> None:
        with self._speaking:
            self._write(headline)

    def _write(self, headline: str) -> None:
        snapshot = ledger.snapshot()
        lost = sum(totals.lost for totals in snapshot.values())
        if lost > self._told:
            self._told = lost
            _logger.warning(
                "%s: %s. The app is not affected; `agent-kernel-otel doctor` tells why",
                headline,
                summary(snapshot),
            )


def summary(snapshot: Mapping[str, Totals]) -> str:
    """What was lost of each signal and how, and the last error of the first, in one line."""
    lossy = {signal: totals for signal, totals in snapshot.items() if totals.lost}
    line = ", ".join(_of_signal(signal, totals) for signal, totals in lossy.items())
    for totals in lossy.values():
        if totals.last_error:
            return f"{line}; {totals.endpoint or 'the exporter'}: {totals.last_error.rstrip('.')}"
    return line


def _of_signal(signal: str, totals: Totals) -> str:
    reasons = {"refused": totals.refused} if totals.refused else {}
    reasons |= {_WORDS.get(reason, reason): n for reason, n in totals.dropped.items()}
    how = ", ".join(
        f"{n} {reason}" if len(reasons) > 1 else reason for reason, n in reasons.items()
    )
    return f"{totals.lost} of {totals.ended} {_ITEMS.get(signal, signal)} ({how})"


class _Complaints(threading.local):
    """What exporters log on this thread; a list while one of ours exports, else None."""

    heard: list[str] | None = None


complaints: Final = _Complaints()


class _ExporterFilter(logging.Filter):
    """Turns the exporters' line for each failed request into the last error of our own line."""

    def filter(self, record: logging.LogRecord) -> bool:
        heard = complaints.heard
        if heard is None:
            return True  # an exporter that is not ours to speak for
        if record.levelno >= logging.WARNING:
            heard.append(record.getMessage())
        return _logger.isEnabledFor(logging.DEBUG)


_filter: Final = _ExporterFilter()


def quieten_exporters() -> None:
    """Have the loggers of all exporters that are imported speak through our lines."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith(_EXPORTERS) and isinstance(logger, logging.Logger):
            logger.addFilter(_filter)


notices: Final = Notices()
"""The lines of this process."""
