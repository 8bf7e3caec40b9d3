# SPDX-License-Identifier: Apache-2.0
"""The export envelope: ``{"schema": …, "version": "1", "traces": […]}``, of any size and layout."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from agent_kernel_otel.audit.files.entries import Entry, Position
from agent_kernel_otel.audit.files.json_text import CutOffError, JsonReader, LostError
from agent_kernel_otel.audit.files.parsing import CUT_OFF, NO_OBJECT, NoRecordError
from agent_kernel_otel.audit.files.source import Source, integer

_SCHEMA: Final = "weaver_kernel.action_trace_export"
_VERSION: Final = "1"


class EnvelopeFile:
    """What the kernel's ``export_action_traces`` gives, written as JSON.

    A position is the byte after a record, that record's number, and a hash of it.

    Args:
        source: Where it comes from.

    Raises:
        AuditFileError: It is of another version, or no envelope.
    """

    format = "envelope"

    def __init__(self, source: Source) -> None:
        self.path: Path = source.path
        self.size = source.size()
        self.done = 0
        self._source = source
        self._offset = 0
        self._number = 0
        self._last = b""
        if not source.is_stream:
            self._look_ahead()

    def _look_ahead(self) -> None:
        """See what it is before any record of it is taken for something that it is not."""
        with self._source.open() as file:
            reader = JsonReader(file)
            head = self._read_head(reader)
            if {"schema", "version"} <= head.keys():
                return
            try:
                if any(entry.is_cut_off for entry, _ in _records(reader, 0)):
                    return
            except LostError:
                return  # reading it comes to that as well, and says what it could read
            self._read_tail(reader, head)

    def entries(
        self, after: Position | None = None, until: Position | None = None
    ) -> Iterator[Entry]:
        """See :meth:`agent_kernel_otel.audit.files.entries.AuditFile.entries`."""
        with self._source.open() as file:
            end = None
            if until is not None:
                self._source.check(file, until)
                end = integer(self._source, until, "record")
            self._offset, self._number, self._last = 0, 0, b""
            if after is not None:
                self._last = self._source.check(file, after)
                self._offset = integer(self._source, after, "offset")
                self._number = integer(self._source, after, "record")
            self.done = self._offset
            if not self._source.is_stream:
                file.seek(0)
            reader = JsonReader(file)
            head = self._read_head(reader)
            if self._number:
                reader = JsonReader(file, self._offset)
            if end is None or self._number < end:
                yield from self._read(reader, head, end)

    def _read(self, reader: JsonReader, head: dict[str, Any], end: int | None) -> Iterator[Entry]:
        try:
            for entry, raw in _records(reader, self._number):
                self.done = reader.offset
                if not entry.is_cut_off:
                    self._offset, self._last = self.done, raw
                    self._number += 1
                yield entry
                if entry.is_cut_off or self._number == end:
                    return
        except LostError:
            self._source.fail(
                f"record {self._number + 1} is not valid JSON, and where it ends cannot be told: "
                "neither it nor anything after it is read"
            )
        if not self._read_tail(reader, head):
            problem = "the file is cut off after its last record"
            yield Entry(f"record {self._number + 1}", None, problem=problem, is_cut_off=True)
        self.done = reader.offset
        if self.size is not None:
            self.size = self.done

    def _read_head(self, reader: JsonReader) -> dict[str, Any]:
        head: dict[str, Any] = {}
        try:
            has_records = reader.take("{") and _read_members(reader, head)
        except CutOffError:
            self._source.fail("it is cut off before its first record")
        except (NoRecordError, LostError):
            self._source.fail("what stands before its records is not valid JSON")
        self._check(head)
        if not has_records:
            self._source.fail('it is no audit export: it has no "traces"')
        return head

    def _read_tail(self, reader: JsonReader, head: dict[str, Any]) -> bool:
        """Read what comes after the records; whether all of it was there."""
        try:
            has_more = reader.take(",") and _read_members(reader, head)
            is_whole = reader.take("}")
            has_more = has_more or reader.peek() != ""
        except CutOffError:
            return False
        except (NoRecordError, LostError):
            has_more = True
        self._check(head)
        if has_more:
            self._source.fail(
                "it goes on after its records as no export does; give each export as a file of "
                "its own"
            )
        if is_whole:
            for name in ("schema", "version"):
                if name not in head:
                    self._source.fail(f'it is no audit export: it has no "{name}"')
        return is_whole

    def _check(self, head: dict[str, Any]) -> None:
        if head.get("schema", _SCHEMA) != _SCHEMA:
            self._source.fail(f"its schema is not {_SCHEMA}")
        if head.get("version", _VERSION) != _VERSION:
            self._source.fail(
                f"it was written by a newer kernel: its version is not {_VERSION}; a newer "
                "agent-kernel-otel may know it"
            )

    def position(self) -> Position:
        """See :meth:`agent_kernel_otel.audit.files.entries.AuditFile.position`."""
        return self._source.position(self._offset, self._last, record=self._number)

    def first_hash(self) -> str | None:
        """An export has no chain."""
        return None


def is_envelope(head: bytes) -> bool:
    """Whether a file that begins so is an export envelope, of whatever version."""
    reader = JsonReader(io.BytesIO(head))
    members: dict[str, Any] = {}
    try:
        has_records = reader.take("{") and _read_members(reader, members)
    except (NoRecordError, LostError):
        has_records = False
    return has_records or members.get("schema") == _SCHEMA


def _read_members(reader: JsonReader, into: dict[str, Any]) -> bool:
    """Read members of an object up to its records, or up to its end.

    Returns:
        Whether its records come next.
    """
    while reader.peek() not in {"", "}"}:
        key, _ = reader.value()
        if not isinstance(key, str) or not reader.take(":"):
            raise CutOffError(CUT_OFF) if not reader.peek() else LostError
        if key == "traces" and reader.take("["):
            return True
        into[key], _ = reader.value()
        if not reader.take(","):
            break
    if not reader.peek():
        raise CutOffError(CUT_OFF)
    return False


def _records(reader: JsonReader, number: int) -> Iterator[tuple[Entry, bytes]]:
    """The records that come next, each with its text.

    Args:
        reader: At the first of them, or just after one.
        number: How many came before.
    """
    while True:
        following = reader.peek()
        if number and following == ",":
            reader.take(",")
            following = reader.peek()
        elif number and following not in {"", "]"}:
            raise LostError
        if reader.take("]"):
            return
        number += 1
        place = f"record {number}"
        try:
            value, raw = reader.value()
        except CutOffError as error:
            yield Entry(place, None, problem=str(error), is_cut_off=True), b""
            return
        except NoRecordError as error:
            yield Entry(place, None, problem=str(error)), b""
            continue
        if isinstance(value, dict):
            yield Entry(place, value), raw
        else:
            yield Entry(place, None, problem=NO_OBJECT), raw
