# SPDX-License-Identifier: Apache-2.0
"""The ways in which audit records become spans, and what they have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agent_kernel_otel import OTelTraceExporter, semconv
from agent_kernel_otel.audit.files.detect import open_audit_file
from agent_kernel_otel.audit.records import read_record
from agent_kernel_otel.audit.replay import Replay
from tests.matrix.audit_trails import SECRET


@dataclass(frozen=True)
class Replayed:
    """A replayed span, whichever way it was made.

    Attributes:
        name: Its name.
        trace_id: Its trace.
        span_id: Itself.
        start: When it began, in nanoseconds since the epoch.
        end: When it ended.
        status: ``UNSET`` or ``ERROR``.
        attributes: Its attributes.
        links: The trace id and span id of each of its links.
    """

    name: str
    trace_id: int
    span_id: int
    start: int
    end: int
    status: str
    attributes: dict[str, Any]
    links: tuple[tuple[int, int], ...] = ()


def by_exporter(records: list[Any]) -> list[Replayed]:
    """The spans of records in hand."""
    exporter = InMemorySpanExporter()
    result = OTelTraceExporter(span_exporter=exporter).export(records)
    assert (result.exported, result.failed) == (len(records), 0), result
    return [_of_sdk(span) for span in exporter.get_finished_spans()]


def _of_sdk(span: ReadableSpan) -> Replayed:
    context, scope = span.context, span.instrumentation_scope
    assert context is not None
    assert span.kind is SpanKind.INTERNAL
    assert scope is not None
    assert scope.name == semconv.SCOPE_WEAVER
    assert span.parent is None
    assert not span.events
    assert not span.status.description
    return Replayed(
        span.name,
        context.trace_id,
        context.span_id,
        span.start_time or 0,
        span.end_time or 0,
        span.status.status_code.name,
        dict(span.attributes or {}),
        tuple((link.context.trace_id, link.context.span_id) for link in span.links),
    )


def by_file(path: Path) -> list[Replayed]:
    """The spans of an audit file's records, in this process."""
    replay = Replay()
    found = []
    for entry in open_audit_file(path).entries():
        assert entry.payload is not None, entry
        span = replay.span_of(read_record(entry.payload))
        found.append(
            Replayed(
                span.name,
                int.from_bytes(span.trace_id, "big"),
                int.from_bytes(span.span_id, "big"),
                span.time,
                span.end_time,
                (StatusCode.ERROR if span.failed else StatusCode.UNSET).name,
                span.attributes,
                () if span.live is None else ((span.live.trace_id, span.live.span_id),),
            )
        )
    return found


def by_command(path: Path, links: Path, *, chained: bool) -> list[Replayed]:
    """The spans that the command makes of an audit file.

    Args:
        path: The file.
        links: Where it is written down which live span each action had.
        chained: Whether it has a hash chain, which is to be verified first.
    """
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "spans.jsonl"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "agent_kernel_otel.cli", "export", str(path)),
                *("--links", str(links), "--output", str(output)),
                *(["--verify-chain"] if chained else []),
            ],
            env={**os.environ, "WEAVER_KERNEL_SECRET": SECRET, "XDG_STATE_HOME": scratch},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [span for line in output.read_text().splitlines() for span in _of_otlp(line)]


def _of_otlp(line: str) -> Iterator[Replayed]:
    for resource_spans in json.loads(line)["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            assert scope_spans["scope"]["name"] == semconv.SCOPE_WEAVER
            for span in scope_spans["spans"]:
                assert span["kind"] == SpanKind.INTERNAL.value + 1
                assert not span.get("parentSpanId")
                assert not span.get("status", {}).get("message")
                yield Replayed(
                    span["name"],
                    int(span["traceId"], 16),
                    int(span["spanId"], 16),
                    int(span["startTimeUnixNano"]),
                    int(span["endTimeUnixNano"]),
                    "ERROR" if span.get("status", {}).get("code") == 2 else "UNSET",
                    {each["key"]: _value(each["value"]) for each in span["attributes"]},
                    tuple(
                        (int(link["traceId"], 16), int(link["spanId"], 16))
                        for link in span.get("links", ())
                    ),
                )


def _value(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    return int(content) if kind == "intValue" else content
