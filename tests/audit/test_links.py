# SPDX-License-Identifier: Apache-2.0
"""The file that says which live span each action had."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import format_span_id, format_trace_id
from weaver_kernel import PolicyDenied, TraceStore

from agent_kernel_otel import (
    LinksFileExporter,
    OTelTraceExporter,
    OTelTraceStore,
    instrument_kernel,
    trace_context,
    uninstrument_kernel,
)
from agent_kernel_otel.pipeline.delivery import Delivery
from agent_kernel_otel.pipeline.ledger import FAILED, TRACES
from tests.support.kernels import ALICE, WRITE, grant, make_kernel


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "links.jsonl"


@pytest.fixture
def provider(path: Path) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(LinksFileExporter(path)))
    return provider


def links(path: Path) -> dict[str, str]:
    """The ``traceparent`` of each action."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["action_id"]: line["traceparent"] for line in lines}
    assert len(found) == len(lines)
    return found


def live(action_id: str) -> str:
    """What a line has to say of an action."""
    context = trace_context(action_id)
    assert context is not None
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


def ended(number: int) -> list[Any]:
    """Spans of so many actions, and one of something else."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    actions = [{"agent_kernel.action_id": str(action)} for action in range(number)]
    return [tracer.start_span("x", attributes=attributes) for attributes in [{}, *actions]]


def record(action_id: str) -> dict[str, Any]:
    return {
        "action_id": action_id,
        "capability_id": "c",
        "invoked_at": datetime.now(timezone.utc),
    }


def test_each_action_of_a_kernel_has_a_line_with_its_own_span(
    path: Path, provider: TracerProvider
) -> None:
    trail = TraceStore()
    kernel = make_kernel(trace_store=trail)
    instrument_kernel(kernel, tracer_provider=provider, span_level="debug")
    asyncio.run(kernel.invoke(grant(kernel).token, principal=ALICE, args={}))
    with pytest.raises(PolicyDenied):
        grant(kernel, capability=WRITE)
    uninstrument_kernel(kernel)
    recorded = [record.action_id for record in trail.list_all()]
    assert len(recorded) == 2
    assert links(path) == {action_id: live(action_id) for action_id in recorded}


def test_where_nothing_is_patched_it_is_the_span_that_was_current(
    path: Path, provider: TracerProvider
) -> None:
    trail = TraceStore()
    kernel = make_kernel(trace_store=OTelTraceStore(trail, tracer_provider=provider))
    with provider.get_tracer("app").start_as_current_span("request") as request:
        asyncio.run(kernel.invoke(grant(kernel).token, principal=ALICE, args={}))
    (written,) = trail.list_all()
    assert links(path) == {written.action_id: live(written.action_id)}
    trace_id = format_trace_id(request.get_span_context().trace_id)
    assert trace_id in links(path)[written.action_id]


def test_a_replayed_span_is_no_live_span(path: Path, provider: TracerProvider) -> None:
    result = OTelTraceExporter(tracer_provider=provider).export([record("long ago")])
    assert result.exported == 1
    assert not path.exists()


def test_a_file_that_was_moved_away_is_begun_anew(path: Path) -> None:
    exporter = LinksFileExporter(path)
    one, *two = ended(2)[1:]
    exporter.export([one])
    path.rename(path.with_suffix(".1"))
    exporter.export(two)
    assert [list(links(each)) for each in (path.with_suffix(".1"), path)] == [["0"], ["1"]]


def test_a_line_that_another_writer_was_killed_in_spoils_no_other(path: Path) -> None:
    path.write_text('{"action_id": "cut o')
    LinksFileExporter(path).export(ended(1))
    assert path.read_text().splitlines()[0] == '{"action_id": "cut o'
    assert json.loads(path.read_text().splitlines()[1])["action_id"] == "0"


def test_the_directory_in_which_an_app_began_is_meant(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("OTEL_AGENT_KERNEL_LINKS_FILE", path.name)
    exporter = LinksFileExporter()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    exporter.export(ended(1))
    assert list(links(path)) == ["0"]


def test_several_processes_and_their_threads_share_a_file(path: Path) -> None:
    program = (
        "import sys, threading\n"
        "from tests.audit.test_links import LinksFileExporter, ended\n"
        "def write():\n"
        "    for span in ended(100):\n"
        "        LinksFileExporter(sys.argv[1]).export([span])\n"
        "threads = [threading.Thread(target=write) for _ in range(2)]\n"
        "for thread in threads:\n"
        "    thread.start()\n"
        "for thread in threads:\n"
        "    thread.join()\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    assert sorted(line["action_id"] for line in lines) == sorted(map(str, [*range(100)] * 4))


def test_a_file_that_cannot_be_written_is_counted_as_a_loss_and_named(path: Path) -> None:
    path.mkdir()
    delivery = Delivery(TRACES, LinksFileExporter(path))
    delivery.account.end_one()
    delivery.export(ended(1)[1:], 1)
    totals = delivery.account.totals()
    assert totals.dropped == {FAILED: 1}
    assert totals.endpoint == str(path)
    assert "IsADirectoryError" in str(totals.last_error)
