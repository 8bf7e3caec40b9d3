# SPDX-License-Identifier: Apache-2.0
"""How far it is, in the last line of a terminal, and notices that never run into it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from agent_kernel_otel.export.summary import duration, one_line

_SECONDS_BETWEEN: Final = 0.1
_SECONDS_TO_GUESS: Final = 1.0
"""How long to look on before it is said how long it will take."""
_WIDEST_BAR: Final = 30
_NARROWEST_BAR: Final = 8
_USUAL_WIDTH: Final = 80


class Progress:
    """Writes notices to a stream, and beneath them, on a terminal, how far it is.

    Args:
        stream: Where to write.
        is_wanted: Whether to show how far it is, if the stream is a terminal.
        clock: Seconds, rising.
    """

    def __init__(
        self, stream: TextIO, *, is_wanted: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._is_shown = is_wanted and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()  # notices come from other threads too
        self._line = ""
        self._full, self._empty = _bar_of(stream)
        self.begin("")

    def begin(self, doing: str) -> None:
        """Start anew, with something else.

        Args:
            doing: What is being done, in a word.
        """
        self._doing = doing
        self._began = self._due = self._clock()
        self._first: tuple[int, float] | None = None

    def show(self, records: int | None, share: float | None, note: str | None = None) -> None:
        """Show how far it is, unless that was done a moment ago.

        Args:
            records: How many have been read; ``None`` where nobody counts.
            share: Which share of all that is, from 0 to 1; ``None`` where nobody knows.
            note: What to say instead of how long it will take.
        """
        if not self._is_shown:
            return
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _SECONDS_BETWEEN
        with self._lock:
            self._draw(self._line_of(records, share, note, now))

    def notice(self, text: str) -> None:
        """Write a line above; from any thread."""
        with self._lock:
            line = self._line
            self._draw("")
            self._write(f"{one_line(text)}\n")
            self._draw(line)

    def end(self) -> None:
        """Leave nothing of it on the terminal."""
        with self._lock:
            self._draw("")
            self._is_shown = False

    def _line_of(
        self, records: int | None, share: float | None, note: str | None, now: float
    ) -> str:
        seconds = now - self._began
        if self._first is None:
            self._first = records or 0, share or 0.0
        records_before, share_before = self._first
        parts = []
        if records is not None:
            rate = (records - records_before) / seconds if seconds > 0 else 0.0
            parts += [f"{records:,} records", f"{rate:,.0f} records/s"]
        if note is not None:
            parts.append(note)
        elif share is not None and share > share_before and seconds >= _SECONDS_TO_GUESS:
            left = seconds * (1 - share) / (share - share_before)
            parts.append(f"{duration(left)} left")
        return self._fitted(share, parts)

    def _fitted(self, share: float | None, parts: list[str]) -> str:
        """As much of it as one line of the terminal holds."""
        room = self._width() - 1  # in the last column some would begin a new line
        head = self._doing if share is None else f"{self._doing} {share:4.0%}"
        while parts and len(head) + len("  ".join(["", *parts])) > room:
            parts.pop()
        line = "  ".join([head, *parts])
        width = min(_WIDEST_BAR, room - len(line) - 2)
        if share is not None and width >= _NARROWEST_BAR:
            full = int(width * min(share, 1.0))
            bar = self._full * full + self._empty * (width - full)
            line = "  ".join([head, bar, *parts])
        return line[:room]

    def _width(self) -> int:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or _USUAL_WIDTH
        return _USUAL_WIDTH

    def _draw(self, line: str) -> None:
        """Put a line in place of the one that is there."""
        if line or self._line:
            rest = " " * (len(self._line) - len(line))
            end = "" if line else "\r"
            self._write(f"\r{line}{rest}{end}")
            self._line = line

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody listens any more, which stops no export
            self._stream.write(text)
            self._stream.flush()


def _bar_of(stream: TextIO) -> tuple[str, str]:
    with suppress(UnicodeError, LookupError):
        "\u2588\u2591".encode(stream.encoding or "ascii")
        return "\u2588", "\u2591"
    return "#", "-"
