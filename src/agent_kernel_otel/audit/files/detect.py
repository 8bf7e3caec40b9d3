# SPDX-License-Identifier: Apache-2.0
"""Which format an audit file has, by its content."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from agent_kernel_otel.audit.files.entries import AuditFile
from agent_kernel_otel.audit.files.envelope import EnvelopeFile, is_envelope
from agent_kernel_otel.audit.files.jsonl import JsonlFile, is_record
from agent_kernel_otel.audit.files.parsing import LARGEST
from agent_kernel_otel.audit.files.source import STANDARD_INPUT, Source

FORMATS: Final = ("jsonl", "sqlite", "envelope")

_HEAD: Final = 64 * 1024
_SQLITE: Final = b"SQLite format 3\0"
_PACKED: Final = (
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"BZh", "bzip2", "bzcat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
    (b"PK\x03\x04", "zip", "unzip -p"),
)
_BEGINS_AS_RECORD: Final = re.compile(
    rb'\s*\{\s*"(?:seq|prev_hash|record_hash|trace|action_id)"\s*:'
)
_EXPECTED: Final = (
    "expected JSON lines or SQLite as the kernel's trace stores write, or its JSON export"
)


def open_audit_file(path: Path, format: str | None = None) -> AuditFile:  # noqa: A002 - the command's word for it
    """Open an audit file.

    Args:
        path: Where it is; ``-`` for standard input.
        format: ``jsonl``, ``sqlite`` or ``envelope``; found out by default. It decides only where
            the content does not.

    Raises:
        AuditFileError: It cannot be read, or is no audit file, or is one of another format.
        ValueError: There is no such format.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}")
    source = Source(path)
    try:
        found = _format_of(source, format)
        if format not in {None, found}:
            source.fail(f"its format is {found}, and not {format}")
        if found == "jsonl":
            return JsonlFile(source)
        if found == "envelope":
            return EnvelopeFile(source)
        if source.is_stream:
            source.fail("SQLite cannot be read from a stream; write it to a file and name that")
    except BaseException:
        source.close()
        raise
    from agent_kernel_otel.audit.files.sqlite import SqliteFile  # noqa: PLC0415 - if need be

    return SqliteFile(path)


def _format_of(source: Source, wanted: str | None) -> str:
    head = b""
    is_all = False
    while not is_all:
        head, is_all = source.look(max(_HEAD, 2 * len(head)))
        found = _recognised(source, head, is_all=is_all)
        if found is not None:
            return found
        # A first line can be long; what is not known by its first lines will not be by more.
        if len(head) > LARGEST or (len(head) >= _HEAD and b"\n" in head):
            break
    if wanted == "jsonl":
        return wanted
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        source.fail(
            "it is a JSON array, as of `weaver-kernel audit list --json`; make it with "
            "`weaver-kernel audit export`"
        )
    advice = "" if is_all else "; if its first lines are damaged ones of JSON lines: --format jsonl"
    return source.fail(f"it is no audit file; {_EXPECTED}{advice}")


def _recognised(source: Source, head: bytes, *, is_all: bool) -> str | None:
    if head.startswith(_SQLITE):
        return "sqlite"
    _refuse(source, head)
    lines = [line for line in head.split(b"\n") if not line.isspace()]
    if not is_all:
        del lines[-1:]  # which may go on
    lines = [line for line in lines if line]
    if lines and is_record(lines[0]):
        return "jsonl"
    if is_envelope(head):
        return "envelope"
    if any(is_record(line) for line in lines[1:]):
        return "jsonl"
    if is_all and (not head.strip(b"\xef\xbb\xbf \t\r\n") or _BEGINS_AS_RECORD.match(head)):
        return "jsonl"
    return None


def _refuse(source: Source, head: bytes) -> None:
    """Refuse what is known, and cannot be read as it is."""
    is_named = source.path != STANDARD_INPUT
    name = shlex.quote(str(source.path)) if is_named else "FILE"
    for magic, kind, command in _PACKED:
        if head.startswith(magic):
            source.fail(f"it is packed by {kind}: {command} {name} | agent-kernel-otel export -")
    encoding = _utf_16(head[:4])
    if encoding is not None:
        source.fail(
            f"it is UTF-16 text: iconv -f {encoding} -t UTF-8 {name} | agent-kernel-otel export -"
        )


def _utf_16(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    zeros = [byte == 0 for byte in head]
    if zeros == [False, True] * 2:
        return "UTF-16LE"
    return "UTF-16BE" if zeros == [True, False] * 2 else None
