# SPDX-License-Identifier: Apache-2.0
"""Audit files as the kernel's own stores and exports write them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from weaver_kernel.models import ActionTrace
from weaver_kernel.stores import GENESIS_HASH, JsonlTraceStore, SQLiteTraceStore, build_record
from weaver_kernel.trace import export_action_trace, export_action_traces

from agent_kernel_otel.audit.files import AuditFileError, open_audit_file
from agent_kernel_otel.audit.files.entries import Entry, Position
from tests.audit.traces import WHEN, trace

KEY = "audit-key"


def traces(number: int, first: int = 0, **changed: Any) -> list[ActionTrace]:
    """Records a minute apart, each with its own action id."""
    return [
        trace(
            action_id=str(uuid.UUID(int=at)),
            invoked_at=WHEN + timedelta(minutes=at),
            **{"args": {"text": "Zürich ☃", "n": at}, **changed},
        )
        for at in range(first, first + number)
    ]


def ids(number: int, first: int = 0) -> list[str]:
    """The action ids of these records."""
    return [str(uuid.UUID(int=at)) for at in range(first, first + number)]


def jsonl(path: Path, records: Iterable[ActionTrace]) -> Path:
    """Have the kernel's store append to JSON lines."""
    store = JsonlTraceStore(path, secret=KEY)
    for record in records:
        store.record(record)
    return path


def sqlite(path: Path, records: Iterable[ActionTrace], journal: str = "delete") -> Path:
    """Have the kernel's store append to a SQLite file."""
    with closing(SQLiteTraceStore(path, secret=KEY)) as store:
        store._conn.execute(f"PRAGMA journal_mode={journal}")
        store._conn.execute("PRAGMA synchronous=off")
        for record in records:
            store.record(record)
    return path


def exported(path: Path, records: Sequence[ActionTrace]) -> Path:
    """What `weaver-kernel audit export` writes."""
    path.write_text("".join(json.dumps(export_action_trace(each)) + "\n" for each in records))
    return path


def envelope(path: Path, records: Sequence[ActionTrace], **layout: Any) -> Path:
    """The kernel's export envelope, in a layout of json.dumps()."""
    path.write_text(json.dumps(export_action_traces(records), **layout), encoding="utf-8")
    return path


def old_payloads(number: int) -> list[dict[str, Any]]:
    """What 0.11 wrote of a record: neither event_type nor reason_code."""
    payloads = [export_action_trace(each) for each in traces(number)]
    for payload in payloads:
        del payload["event_type"], payload["reason_code"]
    return payloads


def old_jsonl(path: Path, number: int) -> Path:
    """JSON lines as 0.11 wrote them."""
    before = GENESIS_HASH
    with path.open("w") as file:
        for seq, payload in enumerate(old_payloads(number)):
            record = build_record(seq, before, payload, secret=KEY)
            before = record.record_hash
            line = {
                "seq": seq,
                "prev_hash": record.prev_hash,
                "record_hash": before,
                "trace": payload,
            }
            file.write(json.dumps(line) + "\n")
    return path


def read(path: Path, after: Position | None = None) -> list[Entry]:
    """All that a file holds."""
    return list(open_audit_file(path).entries(after))


def read_to_the_error(path: Path) -> tuple[list[Entry], str]:
    """What a file holds before it cannot be read any further, and what is said of that."""
    found: list[Entry] = []
    try:
        found.extend(open_audit_file(path).entries())
    except AuditFileError as error:
        return found, str(error)
    raise AssertionError("it could be read to its end")


def action_ids(entries: Iterable[Entry]) -> list[str]:
    """The action ids of what could be read."""
    return [entry.payload["action_id"] for entry in entries if entry.payload is not None]


def problems(entries: Iterable[Entry]) -> list[tuple[str, str | None]]:
    """Where something could not be read, and why."""
    return [(entry.place, entry.problem) for entry in entries if entry.payload is None]


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file in a folder."""
    return {
        each.name: sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.iterdir())
        if each.is_file()
    }
