# SPDX-License-Identifier: Apache-2.0
"""A file of OTLP JSON lines holds what OTLP would have sent, also after an interruption."""

from __future__ import annotations

import json
import os
import resource as limits
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent_kernel_otel import semconv
from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.console import otlp_json
from agent_kernel_otel.export import otlp, to_file
from agent_kernel_otel.export.json_lines import JsonEncoder
from agent_kernel_otel.export.sink import Delivered, DeliveryError, UnusableDestinationError
from agent_kernel_otel.export.to_file import open_file_sink
from tests.export.sinks import spans
from tests.export.test_otlp import RESOURCE, SPANS, of_the_sdk


def written(path: Path) -> list[str]:
    """The action ids in the file, read as any receiver of OTLP JSON lines reads it."""
    text = path.read_text("ascii")
    assert text.endswith("\n") or not text
    requests = [
        otlp_json.decode(ExportTraceServiceRequest, line.encode()) for line in text.splitlines()
    ]
    return [
        pair.value.string_value
        for request in requests
        for span in request.resource_spans[0].scope_spans[0].spans
        for pair in span.attributes
        if pair.key == semconv.ACTION_ID
    ]


def actions(*numbers: int) -> list[str]:
    return [f"action-{number}" for number in numbers]


def write(path: Path, batch: list[ReplayedSpan], *, append: bool = False) -> None:
    sink = open_file_sink(path, resource=RESOURCE, append=append)
    assert sink.send(batch).result() == Delivered(0, None)
    sink.close()


@given(st.lists(st.lists(SPANS, min_size=1, max_size=4), min_size=1, max_size=3))
def test_lines_hold_what_the_sdk_would_have_sent(batches: list[list[ReplayedSpan]]) -> None:
    encoder = JsonEncoder(RESOURCE)
    for batch in batches:  # by one encoder, so that what it keeps is used
        line = encoder.line(batch)
        assert line.isascii()
        assert line.index("\n") == len(line) - 1
        sent = of_the_sdk(batch, RESOURCE)
        assert otlp_json.decode(ExportTraceServiceRequest, line.encode()) == sent


@given(st.lists(SPANS, min_size=4, max_size=12))
def test_lines_hold_it_while_what_is_kept_runs_over(batch: list[ReplayedSpan]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otlp, "REMEMBERED", 3)
        encoder = JsonEncoder(RESOURCE)
        for _ in range(2):
            sent = of_the_sdk(batch, RESOURCE)
            line = encoder.line(batch).encode()
            assert otlp_json.decode(ExportTraceServiceRequest, line) == sent
        assert len(encoder._attributes) <= 3


def test_a_line_is_as_the_collector_writes_it() -> None:
    attributes: dict[str, Any] = {"text": "ü\n", "count": 2**53 + 1, "share": 0.5, "is": False}
    attributes["broken"] = "a\ud800"
    span = ReplayedSpan("x", b"\xab" * 16, b"\xcd" * 8, 12, attributes, failed=True, live=None)
    request = json.loads(JsonEncoder(RESOURCE).line([span]))
    assert request["resourceSpans"][0]["schemaUrl"] == RESOURCE.schema_url
    (written_span,) = request["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert written_span == {
        "traceId": "ab" * 16,
        "spanId": "cd" * 8,
        "name": "x",
        "kind": 1,
        "startTimeUnixNano": "12",
        "endTimeUnixNano": "13",
        "attributes": [
            {"key": "text", "value": {"stringValue": "ü\n"}},
            {"key": "count", "value": {"intValue": str(2**53 + 1)}},
            {"key": "share", "value": {"doubleValue": 0.5}},
            {"key": "is", "value": {"boolValue": False}},
            {"key": "broken", "value": {"stringValue": "a?"}},
        ],
        "status": {"code": 2},
        "flags": 256,
    }


def test_each_batch_is_a_line_and_no_spans_are_none(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    sink = open_file_sink(path, resource=RESOURCE, append=False)
    futures = [sink.send(spans(2)), sink.send([]), sink.send(spans(1, 2))]
    sink.close()
    assert [future.result() for future in futures] == [Delivered(0, None)] * 3
    assert written(path) == actions(1, 2, 3)
    assert len(path.read_text().splitlines()) == 2
    assert sink.destination == str(path)


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("mine")
    with pytest.raises(UnusableDestinationError, match="exists already"):
        open_file_sink(path, resource=RESOURCE, append=False)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_cannot_be_written_is_named(append: bool, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "spans.jsonl"
    with pytest.raises(UnusableDestinationError, match=f"cannot write {path}: No such file"):
        open_file_sink(path, resource=RESOURCE, append=append)


def test_appending_begins_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    write(path, spans(1), append=True)
    write(path, spans(1, 1), append=True)
    assert written(path) == actions(1, 2)


@pytest.mark.parametrize("block", [1, 7, 65_536])
@pytest.mark.parametrize("rest", ["", "{", '{"resourceSpans":[', "x" * 1000])
def test_a_half_line_is_cut_away_before_anything_is_appended(
    rest: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_file, "_BLOCK", block)
    path = tmp_path / "spans.jsonl"
    write(path, spans(2))
    with path.open("a") as file:
        file.write(rest)
    write(path, spans(1, 2), append=True)
    assert written(path) == actions(1, 2, 3)


def test_a_file_with_nothing_but_a_half_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text('{"resourceSpans"')
    write(path, spans(1), append=True)
    assert written(path) == actions(1)


def test_what_was_confirmed_is_in_the_file_of_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    app = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.export.test_to_file import RESOURCE, open_file_sink, spans
        sink = open_file_sink(Path(sys.argv[1]), resource=RESOURCE, append=False)
        number = 0
        while True:
            sink.send(spans(1, number)).result()
            number += 1
            print(number, flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", app, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 20:
            pass
        process.send_signal(signal.SIGKILL)
        confirmed = max([20, *(int(line) for line in process.stdout if line.endswith("\n"))])
    write(path, spans(1, 10_000), append=True)
    found = written(path)
    assert found[:confirmed] == actions(*range(1, confirmed + 1))
    assert found[-1] == "action-10001"


def test_a_disk_that_is_full_leaves_no_half_line_and_fails_all_that_follows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spans.jsonl"
    write(path, spans(1))
    size = path.stat().st_size
    before = limits.getrlimit(limits.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sink = open_file_sink(path, resource=RESOURCE, append=True)
    limits.setrlimit(limits.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        first, second = sink.send(spans(1, 1)), sink.send(spans(1, 2))
        error = first.exception()
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert isinstance(error, DeliveryError)
    assert not error.permanent
    assert str(error) == f"cannot write {path}: File too large"
    assert second.exception() is error
    sink.close()
    assert written(path) == actions(1)


def test_spans_are_confirmed_only_when_they_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spans.jsonl"
    synced: list[int] = []
    asked, allowed = threading.Event(), threading.Event()

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        asked.set()
        assert allowed.wait(60)

    sink = open_file_sink(path, resource=RESOURCE, append=False)
    monkeypatch.setattr(os, "fsync", fsync)
    future = sink.send(spans(3))
    assert asked.wait(60)
    assert not future.done()
    allowed.set()
    assert future.result() == Delivered()
    sink.close()
    assert synced == [path.stat().st_size]
