# SPDX-License-Identifier: Apache-2.0
"""However a process ends, a healthy collector gets all of it, and the end is the app's own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distro.zero_code import LAUNCHER, environment
from tests.support.otlp_sink import OtlpSink

START = """
import logging, os, signal, sys, threading, time
from opentelemetry import metrics, trace
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
tracer = trace.get_tracer("app")
counter = metrics.get_meter("app").create_counter("app.calls")
def work(times=1):
    for _ in range(times):
        with tracer.start_as_current_span("work"):
            counter.add(1)
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


@pytest.fixture
def app(receiver: OtlpSink, tmp_path: Path) -> App:
    return App(receiver, tmp_path / "app.py")


class App:
    """A program under ``opentelemetry-instrument``, and what of it arrives."""

    def __init__(self, receiver: OtlpSink, script: Path) -> None:
        self._receiver = receiver
        self._script = script
        self.name = script.parent.name
        self.output = self.errors = ""

    def run(self, code: str, **variables: str) -> int:
        """Run some code, and return its exit code, or less than 0 the signal that ended it."""
        self._script.write_text(START + code)
        done = subprocess.run(
            [LAUNCHER, sys.executable, str(self._script)],
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=self._receiver.endpoint,
                OTEL_SERVICE_NAME=self.name,
                **variables,
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.output, self.errors = done.stdout, done.stderr
        return done.returncode

    @property
    def spans(self) -> list[str]:
        """Names of the spans that arrived."""
        return [s.name for s in self._receiver.spans() if s.resource["service.name"] == self.name]

    @property
    def metrics(self) -> set[str]:
        """Names of the metrics that arrived."""
        return {m.name for m in self._receiver.metrics() if m.resource["service.name"] == self.name}


@pytest.mark.parametrize(
    ("ending", "returncode"),
    [
        ("", 0),
        ("sys.exit(7)", 7),
        ("sys.exit('no')", 1),
        ("raise RuntimeError('on purpose')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    ],
)
def test_all_arrives_and_the_exit_code_is_the_apps_own(
    app: App, ending: str, returncode: int
) -> None:
    assert app.run(f"work(300)\n{ending}\n") == returncode
    assert app.spans == ["work"] * 300
    assert "app.calls" in app.metrics
    assert "telemetry" not in app.errors


def test_a_second_signal_while_the_first_begins_to_end_the_process_costs_nothing(app: App) -> None:
    code = """
from agent_kernel_otel.pipeline.lifecycle import lifecycle
class Slow:
    lock = lifecycle._ending
    def acquire(self, blocking):
        if not self.lock.acquire(blocking):
            return False
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        time.sleep(0.1)
        return True
lifecycle._ending = Slow()
work(300)
os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
"""
    assert app.run(code) == -signal.SIGTERM
    assert app.spans == ["work"] * 300


def test_ten_thousand_spans_of_the_last_moment_arrive(app: App) -> None:
    assert app.run("work(10_000)") == 0
    assert len(app.spans) == 10_000


def test_what_the_apps_own_exit_handlers_do_arrives_too(app: App) -> None:
    assert app.run("import atexit; atexit.register(work); work()") == 0
    assert app.spans == ["work", "work"]


def test_a_handler_of_the_apps_own_is_what_ends_it(app: App) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: (work(), print("mine"), sys.exit(5)))
work()
os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
"""
    assert app.run(code) == 5
    assert app.output == "mine\n"
    assert app.spans == ["work", "work"]


def test_a_handler_that_was_there_before_us_is_called_after_the_flush(app: App) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: (print("mine"), work(), sys.exit(5)))
from agent_kernel_otel.pipeline.lifecycle import lifecycle
lifecycle._attend_sigterm()  # as if the app had set up its handler before the distro
work()
os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
"""
    assert app.run(code) == 5
    assert app.output == "mine\n"
    assert app.spans == ["work", "work"]


def test_who_ignores_the_signal_goes_on_to_ignore_it(app: App) -> None:
    code = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from agent_kernel_otel.pipeline.lifecycle import lifecycle
lifecycle._attend_sigterm()
os.kill(os.getpid(), signal.SIGTERM)
work()
"""
    assert app.run(code) == 0
    assert app.spans == ["work"]


def test_a_signal_ends_an_asyncio_program_that_does_not_handle_it(app: App) -> None:
    code = """
import asyncio
async def main():
    work()
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    assert app.run(code) == -signal.SIGTERM
    assert app.spans == ["work"]


def test_threads_that_are_at_work_do_not_keep_the_process(app: App) -> None:
    code = """
def forever():
    while True:
        work()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.2)
sys.exit(3)
"""
    assert app.run(code) == 3
    assert len(app.spans) > 10


def test_metrics_of_a_short_job_are_collected_at_its_start_and_at_its_end(
    app: App, receiver: OtlpSink
) -> None:
    assert app.run("work()") == 0
    collected = [
        metric.name for metric in receiver.metrics() if metric.resource["service.name"] == app.name
    ]
    assert collected.count("agent_kernel.telemetry_sent") == 2
    assert collected.count("app.calls") >= 1


def test_a_flush_is_over_when_all_has_arrived(app: App, receiver: OtlpSink) -> None:
    code = """
from agent_kernel_otel import flush
work(1000)
print(flush(), flush=True)
os._exit(4)
"""
    assert app.run(code) == 4
    assert app.output == "True\n"
    assert len(app.spans) == 1000
    assert "app.calls" in app.metrics


def test_a_processor_of_the_apps_own_gets_its_end_too(app: App) -> None:
    code = """
from opentelemetry.sdk.trace import SpanProcessor
class Mine(SpanProcessor):
    def shutdown(self):
        print("shut down")
trace.get_tracer_provider().add_span_processor(Mine())
work()
"""
    assert app.run(code) == 0
    assert app.output == "shut down\n"
    assert app.spans == ["work"]


def test_an_app_that_shuts_the_providers_down_itself_loses_nothing(app: App) -> None:
    code = """
from opentelemetry._logs import get_logger_provider
work(10)
for provider in trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider():
    provider.shutdown()
"""
    assert app.run(code) == 0
    assert app.spans == ["work"] * 10
    assert "app.calls" in app.metrics
    assert app.errors == ""


def test_no_time_at_the_end_means_no_wait_and_a_line_about_it(app: App) -> None:
    assert app.run("work(300)", OTEL_AGENT_KERNEL_EXIT_TIMEOUT="0") == 0
    lost = 300 - len(app.spans)
    assert lost == 0 or "of 300 spans (unsent at the end)" in app.errors
