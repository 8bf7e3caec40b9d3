# SPDX-License-Identifier: Apache-2.0
"""What reading an audit file gives, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Position = Mapping[str, int | str]
"""Where in a file to go on: what the format needs to find the place again, and to tell whether the
file is still the same one. It can be written as JSON."""


class AuditFileError(Exception):
    """A file cannot be read as an audit file; the message says why, and what to do about it."""


class ChangedFileError(AuditFileError):
    """A file is not the one, or no longer holds what it did, when a position was taken in it."""


@dataclass(slots=True)
class Link:
    """Where a record stands in the hash chain of its file.

    Attributes:
        seq: Its number.
        prev_hash: The hash of the record before it.
        record_hash: Its own hash.
    """

    seq: int
    prev_hash: str
    record_hash: str


@dataclass(slots=True)
class Entry:
    """One record of a file, or what stands in its place.

    Attributes:
        place: Where it is, to follow the file's name: ``line 12``, ``seq 12`` or ``record 12``.
        payload: The record with its fields as keys; ``None`` where it could not be read.
        link: Its place in the chain; ``None`` where the format has none.
        problem: Why it could not be read; repeats nothing of its content.
        is_cut_off: Whether the file ends in the midst of it, which can be a write under way.
    """

    place: str
    payload: Mapping[str, Any] | None
    link: Link | None = None
    problem: str | None = None
    is_cut_off: bool = False


class AuditFile(Protocol):
    """An audit file of any format. It is only ever read, and never held locked between records.

    Attributes:
        path: Where it is; ``-`` for standard input.
        format: ``jsonl``, ``sqlite`` or ``envelope``.
        size: How much there is to read, in the unit of :attr:`done`, which can be more by the time
            that it is read; ``None`` where nobody knows.
        done: How much has been read so far.
    """

    path: Path
    format: str
    size: int | None
    done: int

    def entries(
        self, after: Position | None = None, until: Position | None = None
    ) -> Iterator[Entry]:
        """The records in order, with memory for a few of them at a time.

        Args:
            after: Where to go on; at the beginning by default.
            until: Where to stop; at the end by default.

        Raises:
            ChangedFileError: A position does not fit the file.
            AuditFileError: The file cannot be read any further.
        """
        ...

    def position(self) -> Position:
        """Just after the last entry that :meth:`entries` gave.

        Where that was cut off it is before it, which may have been completed by the next time;
        where it is in a damaged part of a database, too, since nothing tells that place.
        """
        ...

    def first_hash(self) -> str | None:
        """The hash that its first record is to have as that of the one before.

        Of a pruned SQLite store that is its checkpoint; ``None`` where the format says nothing.
        """
        ...
