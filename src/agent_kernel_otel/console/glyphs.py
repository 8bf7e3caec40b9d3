# SPDX-License-Identifier: Apache-2.0
"""Text that is safe to show: symbols that the stream can encode, and no control codes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

TEXT_LENGTH: Final = 200
"""Characters shown of one foreign text."""
GLUE: Final = "\ue000"
"""A space at which a line is not to be wrapped. Foreign text cannot hold it: it is cleaned."""


@dataclass(frozen=True)
class Glyphs:
    """The symbols of one drawing, and how foreign text is made to fit it.

    Attributes:
        success: Marks what succeeded or was allowed.
        error: Marks an error.
        denied: Marks a denial.
        cancelled: Marks a cancellation.
        plain: Marks a span that does not say how it ended.
        fallback: Marks an invocation that needed another driver.
        redaction: Marks redactions.
        log: Marks a log record or span event.
        branch: Guide to an entry with more after it.
        last_branch: Guide to the last entry.
        rail: Guide past an entry.
        arrow: From one thing to another.
        ellipsis: Stands for text left out.
        newline: Stands for a line end within a text.
        unprintable: Stands for a character that must not reach a terminal.
        micro: Prefix of microseconds.
    """

    success: str
    error: str
    denied: str
    cancelled: str
    plain: str
    fallback: str
    redaction: str
    log: str
    branch: str
    last_branch: str
    rail: str
    arrow: str
    ellipsis: str
    newline: str
    unprintable: str
    micro: str

    def clean(self, text: str, limit: int = TEXT_LENGTH) -> str:
        """Makes foreign text fit for a terminal.

        Escape sequences, control codes, bidirectional marks and invisible characters become
        visible marks, so that a span's name can neither act on the terminal nor disguise itself.

        Args:
            text: Anything.
            limit: Characters to keep.
        """
        cut = len(text) > limit
        text = text[:limit]
        if not text.isprintable():
            text = "".join(
                character if character.isprintable() else self._stand_in(character)
                for character in text
            )
        return text + self.ellipsis if cut else text

    def _stand_in(self, character: str) -> str:
        if character == "\n":
            return self.newline
        return " " if character == "\t" else self.unprintable

    def value(self, value: Any, limit: int = TEXT_LENGTH) -> str:
        """Writes an attribute's value; see :meth:`clean`."""
        if isinstance(value, str):
            return self.clean(value, limit)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return f"{value:.6g}"
        if isinstance(value, bytes):
            return self.clean(value[: limit + 1].hex(), limit)
        if isinstance(value, list | dict):
            return self.clean(
                json.dumps(value, ensure_ascii=False, default=lambda other: other.hex()), limit
            )
        return "" if value is None else str(value)

    def duration(self, nanoseconds: int) -> str:
        """Writes a duration in the unit that reads best."""
        if abs(nanoseconds) < 1_000:
            return f"{nanoseconds} ns"
        for limit, unit, size in (
            (1_000_000, f"{self.micro}s", 1_000),
            (1_000_000_000, "ms", 1_000_000),
            (60_000_000_000, "s", 1_000_000_000),
        ):
            # 999.96 must not become "1e+03".
            if abs(nanoseconds) < limit:
                return f"{nanoseconds / size:.{_decimals(nanoseconds / size)}f} {unit}"
        minutes, seconds = divmod(nanoseconds // 1_000_000_000, 60)
        return f"{minutes:,} min {seconds:02d} s"


def _decimals(number: float) -> int:
    return 2 if abs(number) < 10 else 1 if abs(number) < 100 else 0


UNICODE: Final = Glyphs(
    success="✓",
    error="✗",
    denied="⊘",
    cancelled="◌",
    plain="•",
    fallback="↻",
    redaction="▒",
    log="≡",
    branch="├─ ",
    last_branch="└─ ",
    rail="│  ",
    arrow="→",
    ellipsis="…",
    newline="⏎",
    unprintable="\N{REPLACEMENT CHARACTER}",
    micro="µ",
)
ASCII: Final = Glyphs(
    success="+",
    error="x",
    denied="!",
    cancelled="-",
    plain="*",
    fallback="~",
    redaction="#",
    log="=",
    branch="|- ",
    last_branch="`- ",
    rail="|  ",
    arrow="->",
    ellipsis="...",
    newline="\\n",
    unprintable="?",
    micro="u",
)


def glyphs_for(encoding: str | None) -> Glyphs:
    """Chooses the symbols that a stream of that encoding can show."""
    try:
        for field in fields(UNICODE):
            getattr(UNICODE, field.name).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def clock_time(nanoseconds: int) -> str:
    """Writes a time since 1970 as local time of day with milliseconds, or dashes if unknown."""
    try:
        moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000).astimezone()
    except (OverflowError, ValueError, OSError):
        return "--:--:--.---"
    return moment.strftime("%H:%M:%S.") + f"{nanoseconds // 1_000_000 % 1000:03d}"
