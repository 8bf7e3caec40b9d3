# SPDX-License-Identifier: Apache-2.0
"""Where a fault of this package ends: counted, logged once, and never seen by the app."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

_logger = logging.getLogger(__name__)
_PACKAGE = str(Path(__file__).parent)


class Faults:
    """The faults of this package in this process.

    Attributes:
        count: How many there were.
        reraise: Whether they are raised instead of swallowed. For this package's own tests only.
    """

    def __init__(self) -> None:
        self.count = 0
        self.reraise = False
        self._logged: set[str] = set()

    def swallow(self, doing: str) -> None:
        """Take note of the exception being handled; call it from an ``except`` block.

        The log line names the exception's class and our own source line, and neither its text
        nor a stack trace: both can hold what the app must keep to itself.

        Args:
            doing: What failed, to follow "while"; one line is logged for each.
        """
        self.count += 1
        if self.reraise:
            raise  # noqa: PLE0704 - called from an except block
        if doing in self._logged:
            return
        self._logged.add(doing)
        error = sys.exc_info()[1]
        # Handlers and filters of the app can raise, and would make this fault its own.
        with suppress(Exception):
            _logger.warning(
                "telemetry is incomplete: %s at %s while %s; the app is not affected, "
                "and this is logged once",
                type(error).__qualname__,
                our_line(error),
                doing,
            )


def our_line(error: BaseException | None) -> str:
    """Where in this package an exception comes from, as ``file:line``."""
    place = "an unknown place"
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if filename.startswith(_PACKAGE):
            place = f"{Path(filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


faults = Faults()
