# SPDX-License-Identifier: Apache-2.0
"""What belongs to a whole process: the global provider, the SDK itself, forked children."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


RECORD = """
from datetime import datetime, timezone
record = {
    "action_id": "a", "capability_id": "c", "invoked_at": datetime.now(timezone.utc),
}
"""


def test_the_global_provider_is_found_whenever_it_is_set() -> None:
    said = run(
        RECORD
        + textwrap.dedent(
            """
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
            from agent_kernel_otel import OTelTraceExporter

            exporter = OTelTraceExporter()
            exporter.tell(record)
            try:
                exporter.export([record])
            except RuntimeError as error:
                print(error)
            memory = InMemorySpanExporter()
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(memory))
            trace.set_tracer_provider(provider)
            print(exporter.export([record]), len(memory.get_finished_spans()))
            """
        )
    )
    assert said.splitlines() == [
        (
            "no OpenTelemetry SDK is set up, so that spans go nowhere; pass tracer_provider= or "
            "span_exporter=, or run the app with opentelemetry-instrument"
        ),
        "ExportResult(exported=1, failed=0, problems=()) 1",
    ]


def test_without_the_sdk_one_error_names_it() -> None:
    said = run(
        """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name == "opentelemetry.sdk":
                    raise ModuleNotFoundError(name, name=name)

        sys.meta_path.insert(0, Absent())
        import agent_kernel_otel
        for name in ("OTelTraceExporter", "OTelTraceStore", "ExportResult"):
            try:
                getattr(agent_kernel_otel, name)
            except ImportError as error:
                print(error)
        print(agent_kernel_otel.replayed_context("a").is_valid)
        """
    )
    assert said.splitlines() == [
        *(
            f"{name} needs OpenTelemetry: opentelemetry.sdk is not installed; "
            "run: pip install opentelemetry-sdk"
            for name in ("OTelTraceExporter", "OTelTraceStore", "ExportResult")
        ),
        "True",
    ]


FORK = """
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from agent_kernel_otel import OTelTraceExporter
from agent_kernel_otel.pipeline.batching import BatchingSpanProcessor
import os, sys, threading

memory = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor({processor}(memory))
exporter = OTelTraceExporter(provider)
exporter.export([record])
memory.clear()
held, done = threading.Event(), threading.Event()

def hold():
    with exporter._destination._sending:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    print(exporter.export([record]).exported, len(memory.get_finished_spans()), flush=True)
    os._exit(0)
done.set()
thread.join()
os.waitpid(child, 0)
print(exporter.export([record]).exported, len(memory.get_finished_spans()))
"""


@pytest.mark.parametrize("processor", ["BatchSpanProcessor", "BatchingSpanProcessor"])
def test_a_forked_child_exports_whatever_its_parents_threads_were_at(processor: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", RECORD + FORK.format(processor=processor)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert said.stdout.split("\n")[:2] == ["1 1", "1 1"], said.stderr
