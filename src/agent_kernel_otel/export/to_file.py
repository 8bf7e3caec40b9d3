# SPDX-License-Identifier: Apache-2.0
"""The sink that writes a file of OTLP JSON lines, as the Collector's file exporter does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from opentelemetry.sdk.resources import Resource

from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.export.json_lines import JsonEncoder
from agent_kernel_otel.export.sink import (
    Delivered,
    DeliveryError,
    Sink,
    UnusableDestinationError,
)

_BLOCK: Final = 65_536


def open_file_sink(path: Path, *, resource: Resource, append: bool) -> Sink:
    """Open the sink that writes one ``ExportTraceServiceRequest`` in OTLP JSON a line.

    Args:
        path: The file.
        resource: Whose spans they are.
        append: Whether to go on in a file that an earlier run has left, or to begin one. A last
            line that is not whole is cut away first: a line is confirmed only after it is written
            with its end, so that its spans are still to come.

    Raises:
        UnusableDestinationError: The file exists and nothing is to be appended, or it cannot be
            written.
    """
    try:
        file = _opened_to_append(path) if append else path.open("xb", buffering=0)
    except FileExistsError:
        raise UnusableDestinationError(
            f"{path} exists already, and is never overwritten: name another file, or remove it"
        ) from None
    except OSError as error:
        raise UnusableDestinationError(f"cannot write {path}: {error.strerror}") from error
    return _FileSink(path, file, JsonEncoder(resource))


def _opened_to_append(path: Path) -> BinaryIO:
    # Not "ab": a half line has to be cut away, wherever the file stands then.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    file = os.fdopen(descriptor, "r+b", buffering=0)
    try:
        file.truncate(_end_of_last_line(file))
        file.seek(0, os.SEEK_END)
    except BaseException:
        file.close()
        raise
    return file


def _end_of_last_line(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


class _FileSink:
    """Writes lines, by a thread of its own.

    Spans are confirmed when they are on the disk. Without waiting for that, a power cut could leave
    a checkpoint that is ahead of the file, and the records in between would be lost.

    Args:
        path: The file.
        file: The file, opened and at its end.
        encoder: Encodes the spans.
    """

    def __init__(self, path: Path, file: BinaryIO, encoder: JsonEncoder) -> None:
        self.destination = str(path.absolute())
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
        return Delivered()
