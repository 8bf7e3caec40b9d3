# SPDX-License-Identifier: Apache-2.0
"""The audit files of one export, in order, and how far it is in them."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_kernel_otel.audit.files.detect import open_audit_file
from agent_kernel_otel.audit.files.entries import AuditFile, AuditFileError, Entry, Position

STANDARD_INPUT: Final = "-"


@dataclass
class Source:
    """One audit file.

    Attributes:
        file: The file itself.
        name: What it is called in notices.
        path: Its absolute path; ``None`` of a stream, in which nobody can go on.
        weight: Its share of all the work, in bytes.
        inode: What the file itself is known by, whatever its name.
        is_read: Whether nothing of it is left to read.
        verified: Up to where its chain was verified; ``None`` where nobody asked for it.
        cut_off: The last record, where that was cut off when the chain was verified.
    """

    file: AuditFile
    name: str
    path: str | None
    weight: int
    inode: int = 0
    is_read: bool = False
    verified: Position | None = None
    cut_off: Entry | None = None

    @property
    def share(self) -> float | None:
        """The share of it that has been read; ``None`` where nobody knows."""
        if self.is_read:
            return 1.0
        size = self.file.size
        if size is None:
            return None
        return min(self.file.done / size, 1.0) if size else 0.0

    def check_size(self) -> None:
        """See to it that nothing was cut away before it could be read.

        Raises:
            AuditFileError: Something was.
        """
        if self.path is None or self.file.format == "sqlite":  # which is not counted in bytes
            return
        with suppress(OSError):
            status = Path(self.path).stat()
            if status.st_ino == self.inode and status.st_size < self.file.done:
                raise AuditFileError(
                    f"{self.name}: it was cut while it was read; if it was rotated by copying, "
                    "give the copy as well, which has the rest"
                )


class Sources:
    """All of them.

    Args:
        paths: Where they are, in order; ``-`` for standard input.
        format: Their format; ``None`` to find out.

    Raises:
        AuditFileError: One of them is given twice, is not there, or is no audit file.
    """

    def __init__(self, paths: Sequence[str], format: str | None) -> None:  # noqa: A002 - of the option
        self.all: list[Source] = []
        for path in paths:
            source = _open(path, format)
            if any(_is_same(source, other) for other in self.all):
                raise AuditFileError(f"{source.name}: is given twice")
            self.all.append(source)
        self._weight = sum(source.weight for source in self.all)

    @property
    def paths(self) -> list[str] | None:
        """Their absolute paths; ``None`` with a stream among them."""
        paths = [source.path for source in self.all if source.path is not None]
        return paths if len(paths) == len(self.all) else None

    def begin(self) -> None:
        """All of them are to be read from the start."""
        for source in self.all:
            source.is_read = False

    def share(self, current: Source) -> float | None:
        """The share of all that has been read; ``None`` where nobody knows.

        Args:
            current: The one that is being read.
        """
        of_current = current.share
        if of_current is None or not self._weight:
            return None
        before = sum(source.weight for source in self.all if source.is_read)
        return (before + (0 if current.is_read else current.weight * of_current)) / self._weight


def _open(path: str, format_: str | None) -> Source:
    file = open_audit_file(Path(path), format_)
    if path == STANDARD_INPUT:
        return Source(file, "standard input", None, 0)
    with suppress(OSError):
        status = Path(path).stat()
        if stat.S_ISREG(status.st_mode):
            return Source(file, path, str(Path(path).absolute()), status.st_size, status.st_ino)
    return Source(file, path, None, 0)


def _is_same(one: Source, other: Source) -> bool:
    with suppress(OSError):
        return Path(one.name).samefile(other.name)
    return one.name == other.name
