# SPDX-License-Identifier: Apache-2.0
"""Reading audit files from code: into an exporter, by hand, and with next to nothing installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_kernel_otel import OTelTraceExporter
from agent_kernel_otel.audit.files import AuditFileError, UnreadableRecord, read_audit_file
from agent_kernel_otel.audit.records import UnreadableRecordError
from tests.audit.files.written import envelope, exported, ids, jsonl, sqlite, traces


@pytest.mark.parametrize("write", [jsonl, sqlite, exported, envelope])
def test_a_file_of_any_format_is_exported(tmp_path: Path, write: object) -> None:
    path = tmp_path / "audit"
    assert callable(write)
    write(path, traces(3))
    spans = InMemorySpanExporter()
    result = OTelTraceExporter(span_exporter=spans).export(read_audit_file(str(path)))
    assert (result.exported, result.failed) == (3, 0)
    found = [
        (span.attributes or {})["agent_kernel.action_id"] for span in spans.get_finished_spans()
    ]
    assert found == ids(3)


def test_a_record_that_cannot_be_read_is_counted_with_its_place_and_stops_nothing(
    tmp_path: Path,
) -> None:
    path = jsonl(tmp_path / "audit.jsonl", traces(3))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], b"canary", lines[1], lines[2][:50]]))
    result = OTelTraceExporter(span_exporter=InMemorySpanExporter()).export(read_audit_file(path))
    assert (result.exported, result.failed) == (2, 2)
    assert ["line 2: it is not valid JSON" in each for each in result.problems] == [True, False]
    assert "line 4: it is cut off" in result.problems[1]


def test_a_record_that_cannot_be_read_says_so_to_whoever_looks_into_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(jsonl(path, traces(1)).read_bytes() + b"{oops\n")
    first, second = read_audit_file(path)
    assert first["action_id"] == ids(1)[0]
    assert isinstance(second, UnreadableRecord)
    assert (second.place, second.problem) == ("line 2", "it is not valid JSON (column 2)")
    assert second
    for look in (
        lambda: second["action_id"],
        lambda: second.get("action_id"),
        lambda: "action_id" in second,
        lambda: dict(second),
        lambda: len(second),
        lambda: list(second.items()),
    ):
        with pytest.raises(UnreadableRecordError, match="line 2: it is not valid JSON"):
            look()


def test_what_is_no_audit_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(AuditFileError, match="No such file"):
        read_audit_file(tmp_path / "audit.jsonl")


def test_neither_a_kernel_nor_the_sdk_is_needed_to_read_and_check(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "audit.jsonl", traces(3))
    second = sqlite(tmp_path / "audit.db", traces(2))
    script = """
import sys
for name in ("weaver_kernel", "agent_kernel", "opentelemetry.sdk", "opentelemetry.exporter", "wrapt"):
    sys.modules[name] = None
from pathlib import Path
from agent_kernel_otel.audit.files import open_audit_file, read_audit_file
from agent_kernel_otel.audit.files.chain import verify_chains
print(*(len(list(read_audit_file(path))) for path in sys.argv[1:]))
print([result.ok for result in verify_chains([open_audit_file(Path(sys.argv[1]))], "audit-key")])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(first), str(second)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("3 2\n[True]\n", "")
