# SPDX-License-Identifier: Apache-2.0
"""What libraries log, as notices: beside them it would run into the line that shows progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Notices(logging.Handler):
    def __init__(self, notice: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._notice = notice

    def emit(self, record: logging.LogRecord) -> None:
        self._notice(record.getMessage())


@contextmanager
def logs_as_notices(notice: Callable[[str], None]) -> Iterator[None]:
    """Pass warnings and errors on, within the block.

    Args:
        notice: Writes a line.
    """
    handler = _Notices(notice)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
