# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that runs another project's tests under the instrumentation and watches it.

Loaded with ``-p watch``. All runs that are compared load it, so that Hypothesis sees the same
modules in all of them; only ``--instrumented`` makes it instrument.
"""

from __future__ import annotations

import gc
import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class _Watch:
    """What happened in the run, and what must not have happened."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.violations: list[str] = []
        self.emitted: Counter[str] = Counter()
        self.settle: Callable[[str], None] = lambda _where: None
        self.stop: Callable[[], None] = lambda: None

    def violation(self, where: str, what: str) -> None:
        self.violations.append(f"{where}: {what}")


class _Complaints(logging.Handler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__(logging.WARNING)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self._watch.violation(f"log of {record.name}", record.getMessage())


class _BalancedContext:
    """OpenTelemetry's context storage, counting what is attached and not yet detached."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.attached = 0

    def attach(self, context: Any) -> Any:
        token = self._storage.attach(context)
        self.attached += 1
        return token

    def detach(self, token: Any) -> None:
        self._storage.detach(token)
        self.attached -= 1

    def get_current(self) -> Any:
        return self._storage.get_current()


def _instrument(watch: _Watch, level: str) -> None:
    from opentelemetry import _logs, trace
    from opentelemetry import context as otel_context
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from agent_kernel_otel import KernelInstrumentor
    from agent_kernel_otel.semconv import SCOPE_WEAVER

    class OpenSpans(SpanProcessor):
        def __init__(self) -> None:
            self.names: Counter[str] = Counter()

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            self.names[span.name] += 1

        def on_end(self, span: ReadableSpan) -> None:
            self.names[span.name] -= 1

    spans, open_spans = InMemorySpanExporter(), OpenSpans()
    logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer_provider.add_span_processor(open_spans)
    trace.set_tracer_provider(tracer_provider)
    logger_provider = LoggerProvider()
    logger_provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    _logs.set_logger_provider(logger_provider)

    balance = _BalancedContext(otel_context._RUNTIME_CONTEXT)
    otel_context._RUNTIME_CONTEXT = balance  # type: ignore[assignment]
    complaints = _Complaints(watch)
    for name in ("opentelemetry", "agent_kernel_otel"):
        logging.getLogger(name).addHandler(complaints)

    instrumentor = KernelInstrumentor()
    instrumentor.instrument(span_level=level)

    def settle(where: str) -> None:
        if +open_spans.names:
            gc.collect()  # a stream that was left ends when it is collected
        for name in +open_spans.names:
            watch.violation(where, f"span {name} is not ended")
        if balance.attached:
            watch.violation(where, f"{balance.attached} contexts are still attached")
        current = trace.get_current_span()
        if current.get_span_context().is_valid:
            name = getattr(current, "name", "")
            watch.violation(where, f"span {name} is still current")
        # Each violation is told once, at the test that caused it.
        open_spans.names.clear()
        balance.attached = 0

    def stop() -> None:
        instrumentor.uninstrument()
        for span in spans.get_finished_spans():
            scope = span.instrumentation_scope
            if scope is not None and scope.name == SCOPE_WEAVER:
                watch.emitted[span.name] += 1
        for item in logs.get_finished_logs():
            watch.emitted[f"event {item.log_record.event_name}"] += 1

    watch.settle, watch.stop = settle, stop


_WATCH = pytest.StashKey[_Watch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--watch-report", required=True, type=Path)
    parser.addoption("--instrumented", metavar="LEVEL", help="the span level")


def pytest_configure(config: pytest.Config) -> None:
    watch = config.stash[_WATCH] = _Watch()
    level = config.getoption("instrumented")
    if level is not None:
        _instrument(watch, level)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    item.config.stash[_WATCH].settle(item.nodeid)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    outcomes = item.config.stash[_WATCH].outcomes
    # A failure in set-up or tear-down makes an error of what the call itself said.
    if report.when == "call" or not report.passed:
        outcomes[item.nodeid] = (
            "error" if report.when != "call" and report.failed else report.outcome
        )
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    watch = session.config.stash[_WATCH]
    watch.settle("the whole run")
    watch.stop()
    report = {
        "outcomes": watch.outcomes,
        "violations": watch.violations,
        "emitted": dict(sorted(watch.emitted.items())),
    }
    session.config.getoption("watch_report").write_text(json.dumps(report))
