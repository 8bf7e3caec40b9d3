# SPDX-License-Identifier: Apache-2.0
"""Audit files: their formats, told apart and read record by record, and their hash chain.

:mod:`~agent_kernel_otel.audit.files.detect` opens a file of any format,
:mod:`~agent_kernel_otel.audit.files.jsonl`, :mod:`~agent_kernel_otel.audit.files.sqlite` and
:mod:`~agent_kernel_otel.audit.files.envelope` read one each, and
:mod:`~agent_kernel_otel.audit.files.chain` checks whether records were changed. A file is only
ever read. Neither a kernel nor the OpenTelemetry SDK is needed for any of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from agent_kernel_otel.audit.files.detect import open_audit_file
from agent_kernel_otel.audit.files.entries import AuditFileError, ChangedFileError

__all__ = [
    "AuditFileError",
    "ChangedFileError",
    "UnreadableRecord",
    "open_audit_file",
    "read_audit_file",
]


class UnreadableRecord(Mapping[str, Any]):
    """Stands for a record that cannot be read: whoever looks into it is told so.

    Args:
        place: Where it is.
        problem: Why it cannot be read.
    """

    def __init__(self, place: str, problem: str) -> None:
        self.place = place
        self.problem = problem

    def _refuse(self) -> NoReturn:
        from agent_kernel_otel.audit.records import UnreadableRecordError  # noqa: PLC0415 - brings the API along

        raise UnreadableRecordError(f"{self.place}: {self.problem}")

    def __getitem__(self, key: str) -> Any:
        self._refuse()

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def __len__(self) -> int:
        return self._refuse()

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<UnreadableRecord {self.place}: {self.problem}>"


def read_audit_file(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Any]]:
    """Read the records of an audit file: ``exporter.export(read_audit_file("audit.jsonl"))``.

    One that cannot be read is neither left out nor the end of the others: it is given as an
    :class:`UnreadableRecord`, which raises ``UnreadableRecordError`` where it is looked into.
    :class:`agent_kernel_otel.OTelTraceExporter` counts it as failed.

    Args:
        path: A file that ``JsonlTraceStore`` or ``SQLiteTraceStore`` writes, or an export.

    Returns:
        The records in order, a few of them in memory at a time.

    Raises:
        AuditFileError: It cannot be read, or is no audit file; while it is read, too, where it
            cannot be read any further.
    """
    file = open_audit_file(Path(path))
    return (
        UnreadableRecord(entry.place, entry.problem or "it cannot be read")
        if entry.payload is None
        else entry.payload
        for entry in file.entries()
    )
