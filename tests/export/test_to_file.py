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
from agent_kernel_otel.audit.files.entries import Position
from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.console import otlp_json
from agent_kernel_otel.export import otlp
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


def write(path: Path, batch: list[ReplayedSpan], *, after: Position | None = None) -> Position:
    """Write spans, and tell how the file is left."""
    sink = open_file_sink(path, resource=RESOURCE, left=after)
    delivered = sink.send(batch).result()
    sink.close()
    assert delivered == Delivered(end=sink.end)
    assert sink.end["size"] == path.stat().st_size
    return sink.end


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
    sink = open_file_sink(path, resource=RESOURCE)
    futures = [sink.send(spans(2)), sink.send([]), sink.send(spans(1, 2))]
    sink.close()
    ends = [future.result().end for future in futures]
    assert ends[0] == ends[1] != ends[2] == sink.end
    assert written(path) == actions(1, 2, 3)
    assert len(path.read_text().splitlines()) == 2
    assert sink.destination == str(path)


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("mine")
    with pytest.raises(UnusableDestinationError, match="exists already"):
        open_file_sink(path, resource=RESOURCE)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("left", [None, {"size": 0, "hash": ""}])
def test_a_file_that_cannot_be_written_is_named(left: Position | None, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "spans.jsonl"
    with pytest.raises(UnusableDestinationError, match=f"cannot write {path}: No such file"):
        open_file_sink(path, resource=RESOURCE, left=left)


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("rest", ["", "{", '{"resourceSpans":[{}]}\n', "x" * 100_000])
def test_what_was_not_confirmed_is_cut_away_before_anything_is_added(
    rest: str, count: int, tmp_path: Path
) -> None:
    path = tmp_path / "spans.jsonl"
    left = write(path, spans(count))
    with path.open("a") as file:
        file.write(rest)
    write(path, spans(2, count), after=left)
    assert written(path) == actions(*range(1, count + 3))


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("rest", ["", "more"])
def test_another_file_in_its_place_is_left_as_it_is(count: int, rest: str, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    left = write(path, spans(count))
    path.rename(tmp_path / "taken away")
    path.write_text("mine" * path.with_name("taken away").stat().st_size + rest)
    before = path.read_text()
    if before:
        with pytest.raises(UnusableDestinationError, match="not as the run before has left it"):
            open_file_sink(path, resource=RESOURCE, left=left)
    assert path.read_text() == before


def test_an_empty_file_is_gone_on_with_from_another_disk(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.touch()
    write(path, spans(1), after={"size": 0, "hash": "of a disk of before the last reboot"})
    assert written(path) == actions(1)


def test_a_file_that_has_become_shorter_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    left = write(path, spans(3))
    os.truncate(path, 100)
    with pytest.raises(UnusableDestinationError, match="begin anew with --restart and another"):
        open_file_sink(path, resource=RESOURCE, left=left)
    assert path.stat().st_size == 100


def test_what_was_added_to_a_file_that_was_finished_is_not_cut_away(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    left = write(path, spans(1))
    with path.open("a") as file:
        file.write("mine\n")
    with pytest.raises(UnusableDestinationError, match="not as the run before has left it"):
        open_file_sink(path, resource=RESOURCE, left=left, is_finished=True)
    assert path.read_text().endswith("mine\n")


def test_a_file_that_is_gone_is_begun_anew_only_where_nothing_is_missing_for_that(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spans.jsonl"
    left = write(path, spans(1))
    path.unlink()
    with pytest.raises(UnusableDestinationError, match="is gone, with what an interrupted run"):
        open_file_sink(path, resource=RESOURCE, left=left)
    assert not path.exists()
    open_file_sink(path, resource=RESOURCE, left=left, is_finished=True).close()
    assert path.read_text() == ""


def test_what_was_confirmed_is_in_the_file_of_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    app = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.export.test_to_file import RESOURCE, json, open_file_sink, spans
        sink = open_file_sink(Path(sys.argv[1]), resource=RESOURCE)
        number = 0
        while True:
            end = sink.send(spans(1, number)).result().end
            number += 1
            print(json.dumps([number, end]), flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", app, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        told += [line for line in process.stdout if line.endswith("\n")]
    confirmed, end = json.loads(told[-1])
    write(path, spans(1, 10_000), after=end)
    assert written(path) == actions(*range(1, confirmed + 1), 10_001)


def test_a_disk_that_is_full_leaves_no_half_line_and_fails_all_that_follows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spans.jsonl"
    left = write(path, spans(1))
    size = path.stat().st_size
    before = limits.getrlimit(limits.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sink = open_file_sink(path, resource=RESOURCE, left=left)
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

    sink = open_file_sink(path, resource=RESOURCE)
    monkeypatch.setattr(os, "fsync", fsync)
    future = sink.send(spans(3))
    assert asked.wait(60)
    assert not future.done()
    allowed.set()
    assert future.result() == Delivered(end=sink.end)
    sink.close()
    assert synced == [path.stat().st_size]
