# SPDX-License-Identifier: Apache-2.0
"""JSON lines: what the kernel's ``JsonlTraceStore`` and ``weaver-kernel audit export`` write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.audit.files.entries import Entry, Link, Position
from agent_kernel_otel.audit.files.parsing import (
    CUT_OFF,
    LARGEST,
    NO_OBJECT,
    TOO_LONG,
    NoRecordError,
    parse_object,
)
from agent_kernel_otel.audit.files.source import Source, integer

if TYPE_CHECKING:
    from typing import BinaryIO

_PIECE: Final = 1024 * 1024
"""How much of a line that is too long is held at a time."""
_BOM: Final = b"\xef\xbb\xbf"


class JsonlFile:
    """Lines ``{"seq", "prev_hash", "record_hash", "trace"}``, or of a record each, or of both.

    A position is the byte after a line, that line's number, and a hash of it.

    Args:
        source: Where the lines come from.
    """

    format = "jsonl"

    def __init__(self, source: Source) -> None:
        self.path: Path = source.path
        self.size = source.size()
        self.done = 0
        self._source = source
        self._offset = 0
        self._number = 0
        self._last = b""

    def entries(
        self, after: Position | None = None, until: Position | None = None
    ) -> Iterator[Entry]:
        """See :meth:`agent_kernel_otel.audit.files.entries.AuditFile.entries`."""
        with self._source.open() as file:
            end = None
            if until is not None:
                self._source.check(file, until)
                end = integer(self._source, until, "offset")
            self._offset, self._number, self._last = 0, 0, b""
            if after is not None:
                self._last = self._source.check(file, after)
                self._offset = integer(self._source, after, "offset")
                self._number = integer(self._source, after, "line")
            elif until is not None:
                file.seek(0)
            self.done = self._offset
            yield from self._read(file, end)

    def _read(self, file: BinaryIO, end: int | None) -> Iterator[Entry]:
        readline, loads = file.readline, json.loads
        offset, number = self._offset, self._number
        if self._last and not self._last.endswith(b"\n"):
            number -= 1  # its line had no end when it was read, and the rest of it comes first
        while end is None or offset < end:
            line = readline(LARGEST + 1)
            if not line:
                break
            offset += len(line)
            number += 1
            try:
                entry = _entry(number, loads(line.decode())) if len(line) <= LARGEST else None
            except (ValueError, RecursionError):
                entry = None
            if entry is None:
                entry, line, skipped = _second_look(file, number, line)
                offset += skipped
            self.done = offset
            if entry is None:
                continue
            if not entry.is_cut_off:
                self._offset, self._number, self._last = offset, number, line
            yield entry
        if self.size is not None:
            self.size = self.done = offset

    def position(self) -> Position:
        """See :meth:`agent_kernel_otel.audit.files.entries.AuditFile.position`."""
        return self._source.position(self._offset, self._last, line=self._number)

    def first_hash(self) -> str | None:
        """The lines of a file say nothing of what came before them."""
        return None


def is_record(line: bytes) -> bool:
    """Whether a line is an audit record."""
    try:
        return _entry(0, parse_object(line.removeprefix(_BOM))).payload is not None
    except NoRecordError:
        return False


def _entry(number: int, record: Any) -> Entry:
    place = f"line {number}"
    if type(record) is not dict:
        return Entry(place, None, problem=NO_OBJECT)
    trace = record.get("trace")
    if type(trace) is dict and ("record_hash" in record or "action_id" not in record):
        return Entry(place, trace, _link(record))
    if "action_id" in record:
        return Entry(place, record)
    return Entry(place, None, problem="it is no audit record: it has neither trace nor action_id")


def _link(record: dict[str, Any]) -> Link | None:
    try:
        # What the kernel takes for a number and for text when it reads a line.
        return Link(int(record["seq"]), str(record["prev_hash"]), str(record["record_hash"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _second_look(file: BinaryIO, number: int, line: bytes) -> tuple[Entry | None, bytes, int]:
    """What a line is that is not simply JSON.

    Returns:
        The entry, if any; the line, or the last piece of it; and the bytes read after it.
    """
    place, skipped = f"line {number}", 0
    if len(line) > LARGEST:
        while not line.endswith(b"\n"):
            piece = file.readline(_PIECE)
            if not piece:
                return Entry(place, None, problem=TOO_LONG, is_cut_off=True), line, skipped
            line = piece
            skipped += len(piece)
        return Entry(place, None, problem=TOO_LONG), line, skipped
    text = line.removeprefix(_BOM).strip()
    if not text:
        return None, line, skipped
    try:
        return _entry(number, parse_object(text)), line, skipped
    except NoRecordError as error:
        if not line.endswith(b"\n"):
            return Entry(place, None, problem=CUT_OFF, is_cut_off=True), line, skipped
        return Entry(place, None, problem=str(error)), line, skipped
