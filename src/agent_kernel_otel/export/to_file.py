# SPDX-License-Identifier: Apache-2.0
"""The sink that writes a file of OTLP JSON lines, as the Collector's file exporter does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from opentelemetry.sdk.resources import Resource

from agent_kernel_otel.audit.files.entries import Position
from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.export.json_lines import JsonEncoder
from agent_kernel_otel.export.sink import (
    Delivered,
    DeliveryError,
    UnusableDestinationError,
)

_PIECE: Final = 4096


def open_file_sink(
    path: Path, *, resource: Resource, left: Position | None = None, is_finished: bool = False
) -> FileSink:
    """Open the sink that writes one ``ExportTraceServiceRequest`` in OTLP JSON a line.

    Args:
        path: The file.
        resource: Whose spans they are.
        left: Up to where an earlier run has written it, as :attr:`Delivered.end`, to go on from
            there; ``None`` to begin one. What comes after that was not confirmed, and is cut away.
        is_finished: Whether that run has come to its end. Then nothing comes after that, and
            whoever wanted the file may have taken it away.

    Raises:
        UnusableDestinationError: The file exists and none is to be gone on with, or it is not the
            one that was left, or it cannot be written.
    """
    file: BinaryIO
    may_begin = left is None or is_finished or not left["size"]
    try:
        if left is None or (may_begin and not path.exists()):
            file = path.open("x+b", buffering=0)
        else:
            file = _opened_again(path, left, is_finished=is_finished)
    except FileExistsError:
        raise UnusableDestinationError(
            f"{path} exists already, and is never overwritten: name another file, or remove it"
        ) from None
    except OSError as error:
        raise UnusableDestinationError(f"cannot write {path}: {error.strerror}") from error
    return FileSink(path, file, JsonEncoder(resource))


def _opened_again(path: Path, left: Position, *, is_finished: bool) -> BinaryIO:
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise UnusableDestinationError(
            f"{path} is gone, with what an interrupted run has written to it: put it back, or "
            "begin anew with --restart"
        ) from None
    with ExitStack() as opened:
        opened.enter_context(file)
        size, found = int(left["size"]), file.seek(0, os.SEEK_END)
        is_another = found > 0 and _end_of(file, size) != left
        if found < size or (is_finished and found > size) or is_another:
            raise UnusableDestinationError(
                f"{path} is not as the run before has left it: put that file back, or begin anew "
                "with --restart and another --output"
            )
        file.truncate(size)
        file.seek(size)
        opened.pop_all()
    return file


def _end_of(file: BinaryIO, size: int) -> Position:
    """By what a file of that size is known again; it stands at its end then."""
    if not size:
        status = os.fstat(file.fileno())
        return {"size": 0, "hash": f"{status.st_dev}:{status.st_ino}"}
    file.seek(max(0, size - _PIECE))
    return {"size": size, "hash": sha256(file.read(min(size, _PIECE))).hexdigest()}


class FileSink:
    """Writes lines, by a thread of its own.

    Spans are confirmed when they are on the disk. Without waiting for that, a power cut could leave
    a checkpoint that is ahead of the file, and the records in between would be lost.

    Args:
        path: The file.
        file: The file, opened and at its end.
        encoder: Encodes the spans.

    Attributes:
        end: Up to where the file is written, as :attr:`Delivered.end`.
    """

    def __init__(self, path: Path, file: BinaryIO, encoder: JsonEncoder) -> None:
        self.destination = str(path.absolute())
        self.end = _end_of(file, file.tell())
        self._file = file
        self._encoder = encoder
        self._failure: DeliveryError | None = None
        self._writing = ThreadPoolExecutor(1, "file-sink")

    def send(self, spans: Sequence[ReplayedSpan]) -> Future[Delivered]:
        """Encode spans, and write them as one line."""
        line = self._encoder.line(spans).encode() if spans else b""
        return self._writing.submit(self._write, line)

    def close(self) -> None:
        """Write what is left, which takes no longer than a moment, and close the file."""
        self._writing.shutdown()
        self._file.close()

    def _write(self, line: bytes) -> Delivered:
        if self._failure is not None:
            raise self._failure
        end = self._file.tell()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)  # what a full disk took of the line
            self._failure = DeliveryError(
                f"cannot write {self.destination}: {error.strerror}", permanent=False
            )
            raise self._failure from error
        self.end = _end_of(self._file, end + len(line))
        return Delivered(end=self.end)
