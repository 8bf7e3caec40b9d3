# SPDX-License-Identifier: Apache-2.0
"""Notices for the person at the terminal, never more than they can read."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS_BETWEEN: Final = 5.0
_KINDS: Final = 20


class Notices:
    """Passes lines on, each kind of trouble at most once in five seconds.

    Args:
        write: Takes one line without its line end; called from any thread, one at a time.
        clock: Seconds, rising.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def say(self, text: str) -> None:
        """Passes a line on, always."""
        with self._lock:
            self._write(text)

    def warn(self, kind: str, text: str) -> None:
        """Passes a line on unless one of its kind was there a moment ago.

        Args:
            kind: What is counted together; what was held back is told with the next one.
            text: The line.
        """
        with self._lock:
            now = self._clock()
            if kind not in self._last and len(self._last) >= _KINDS:
                kind = "other"
            if now - self._last.get(kind, -_SECONDS_BETWEEN) < _SECONDS_BETWEEN:
                self._held[kind] = self._held.get(kind, 0) + 1
                return
            self._last[kind] = now
            held = self._held.pop(kind, 0)
            self._write(text + (f" (and {held} more like it)" if held else ""))

    def flush(self) -> None:
        """Says how many of each kind were held back; for the end."""
        with self._lock:
            for kind, held in self._held.items():
                self._write(f"{kind}: {held} more like it")
            self._held.clear()
