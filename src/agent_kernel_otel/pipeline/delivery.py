# SPDX-License-Identifier: Apache-2.0
"""One way out of the process: an exporter, what became of all that it was given, and its end."""

from __future__ import annotations

import re
import threading
from typing import Any, Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

from agent_kernel_otel.faults import faults
from agent_kernel_otel.pipeline.ledger import EXIT, FAILED, UNANSWERED, ledger
from agent_kernel_otel.pipeline.notices import complaints
from agent_kernel_otel.pipeline.wire import Answer, endpoint_of, watch
from agent_kernel_otel.scrub import scrub_text

_CAUSES: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (r"error details: (.+)", r"transient error (.+) encountered while exporting")
)
"""The cause, within what an exporter says of the data, the endpoint and its next attempt too."""
_INTERRUPTED: Final = ("hutdown", "CANCELLED")
"""Words of the lines in which an exporter says that it was shut down."""


class Delivery:
    """An exporter and its books.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        exporter: A span, log record or metric exporter.

    Attributes:
        account: The books of what it was given.
        wire: Its connection.
        exporter: The exporter itself.
        is_shut: Whether the exporter has been shut down.
    """

    def __init__(self, signal: str, exporter: Any) -> None:
        self.exporter = exporter
        self.account = ledger.open(signal, endpoint_of(exporter))
        self.wire = watch(exporter, signal)
        self.is_shut = False
        self._reset()

    def _reset(self) -> None:
        self._exporting = threading.Lock()
        self._settling = threading.Lock()
        self._in_flight = 0

    def after_fork_in_child(self) -> None:
        """Start anew: what was in flight is the parent's."""
        self._reset()
        self.account.reset()
        self.wire.after_fork_in_child()

    def export(self, items: Any, size: int, **options: Any) -> None:
        """Export, and enter what became of it. Nothing is raised.

        Args:
            items: What the exporter takes.
            size: For how many items it counts.
            **options: Further arguments of the exporter.
        """
        with self._exporting:
            self._export(items, size, options)

    def _export(self, items: Any, size: int, options: dict[str, Any]) -> None:
        self._in_flight = size
        self.wire.answer = Answer()
        complaints.heard = heard = []
        reason = UNANSWERED if self.wire.is_watched else FAILED
        succeeded = False
        try:
            with suppress_instrumentation():
                succeeded = self.exporter.export(items, **options).name == "SUCCESS"
        except Exception as error:
            reason = FAILED
            heard.append(f"{type(error).__qualname__}: {error}")
        finally:
            complaints.heard = None
        with self._settling:
            if not self._in_flight:
                return  # given up while it was on its way
            self._in_flight = 0
            self._enter(size, succeeded, reason, heard)

    def _enter(self, size: int, succeeded: bool, reason: str, heard: list[str]) -> None:
        answer = self.wire.answer
        if succeeded:
            # A metric batch counts as one, whatever number of its points is rejected.
            refused = min(size, answer.rejected)
            self.account.settle(sent=size - refused, refused=refused)
            if not refused:
                return
            heard.append(answer.error or "the receiver accepted a part only")
        elif answer.came:
            self.account.settle(refused=size)
        else:
            self.account.settle(**{EXIT if self.is_shut else reason: size})
        # That the end has interrupted an attempt is not why it took so long.
        causes = [line for line in heard if not any(word in line for word in _INTERRUPTED)]
        if causes:
            self.account.last_error = scrub_text(_cause(causes[-1]))

    def shut(self) -> None:
        """Shut the exporter down, which ends its waiting between two attempts."""
        if self.is_shut:
            return
        self.is_shut = True
        try:
            self.exporter.shutdown()
        except Exception:
            faults.swallow("shutting an exporter down")

    def give_up(self, waiting: int) -> None:
        """At the end of the time: enter as dropped what is in flight, and what waits behind it."""
        with self._settling:
            lost, self._in_flight = self._in_flight + waiting, 0
        if lost:
            self.account.settle(**{EXIT: lost})


def _cause(line: str) -> str:
    found = filter(None, (pattern.search(line) for pattern in _CAUSES))
    return next((match[1] for match in found), line)
