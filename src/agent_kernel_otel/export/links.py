# SPDX-License-Identifier: Apache-2.0
"""The live spans of actions, read from files of :mod:`agent_kernel_otel.audit.links`."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry.trace import SpanContext, TraceFlags

from agent_kernel_otel.export.problems import Problems
from agent_kernel_otel.scrub import identifier

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_LONGEST_LINE: Final = 8192
_SET_UP: Final = """
    PRAGMA journal_mode = OFF;
    PRAGMA cache_size = -16384;
    CREATE TABLE links (action_id TEXT PRIMARY KEY, trace_id BLOB, span_id BLOB)
        WITHOUT ROWID;
"""
"""Of what it keeps at most 16 MB are in memory."""
_ADD: Final = "INSERT OR IGNORE INTO links VALUES (?, ?, ?)"
_FIND: Final = "SELECT trace_id, span_id FROM links WHERE action_id = ?"

_Link = tuple[str, bytes, bytes]


class LinksError(Exception):
    """A file of links cannot be used; the message says why, and what to do about it."""


class Links:
    """Which live span each action had. Of several of an action the first one counts.

    Args:
        paths: The files.
        notice: Writes a line: of what could not be read.

    Raises:
        LinksError: One of the files cannot be read, or is none.
    """

    def __init__(self, paths: Sequence[str], notice: Callable[[str], None]) -> None:
        # In a file that has no name, as far as it does not fit into the memory set aside for it.
        self._known = sqlite3.connect("", isolation_level=None)
        self._known.executescript(_SET_UP)
        self._known.execute("BEGIN")  # or each line would be written at once
        self._problems = Problems(notice)
        for path in paths:
            self._read(path)
        self._problems.end()

    def find(self, action_id: str) -> SpanContext | None:
        """The live span of an action; ``None`` where no file has it."""
        row = self._known.execute(_FIND, (action_id,)).fetchone()
        if row is None:
            return None
        trace_id, span_id = row
        return SpanContext(
            int.from_bytes(trace_id, "big"),
            int.from_bytes(span_id, "big"),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),  # or it would not have been exported
        )

    def close(self) -> None:
        """Let go of what it has kept."""
        self._known.close()

    def _read(self, path: str) -> None:
        wrong: list[int] = []
        has_links = False
        for number, line in _lines(path):
            if line == b"\n":
                continue  # where two processes began to write at once
            link = _link_of(line)
            if link is None:
                wrong.append(number)
            else:
                has_links = True
                self._known.execute(_ADD, link)
        if wrong and not has_links:
            raise LinksError(
                f"{path}: holds no links; an app writes them that runs with "
                "OTEL_TRACES_EXPORTER=otlp,agent_kernel_links"
            )
        for number in wrong:
            self._problems.tell(path, f"line {number}", "is no link")


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    try:
        with Path(path).open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                yield number, line
                while line and not line.endswith(b"\n"):
                    line = file.readline(_LONGEST_LINE)
    except OSError as error:
        raise LinksError(f"{path}: the links cannot be read: {error.strerror}") from error


def _link_of(line: bytes) -> _Link | None:
    try:
        link: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(link, dict):
        return None
    action_id, traceparent = link.get("action_id"), link.get("traceparent")
    if not isinstance(action_id, str) or not isinstance(traceparent, str):
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace_id, span_id = bytes.fromhex(found[1]), bytes.fromhex(found[2])
    if not any(trace_id) or not any(span_id):
        return None
    return identifier(action_id) or "", trace_id, span_id
