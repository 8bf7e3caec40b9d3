# SPDX-License-Identifier: Apache-2.0
"""Broken providers, processors and exporters: the application notices nothing but one log line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from weaver_kernel import DriverError, PolicyDenied

from agent_kernel_otel import KernelInstrumentor
from agent_kernel_otel.faults import Faults, faults
from tests.support.instrumented import drain, open_stream
from tests.support.kernels import ALICE, DESTROY, StreamingDriver, grant, make_kernel, memory_driver


class Broken(Exception):  # noqa: N818 - what it is, not what went wrong
    """Something of OpenTelemetry is broken."""


def fail(*args: Any, **kwargs: Any) -> NoReturn:
    raise Broken("top" + " secret")


class Processor(SpanProcessor):
    def __init__(self, **methods: Any) -> None:
        for name, method in methods.items():
            setattr(self, name, method)


class Exporter(SpanExporter):
    export = shutdown = force_flush = fail


class Logger:
    emit = fail


def with_processor(processor: Any) -> dict[str, Any]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return {"tracer_provider": provider}


class Tracers:
    """A provider whose spans break at one method."""

    def __init__(self, method: str) -> None:
        self.method = method

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        real = TracerProvider(shutdown_on_exit=False).get_tracer("real")
        method = self.method

        class Tracer:
            def start_span(self, *args: Any, **kwargs: Any) -> Any:
                if method == "start_span":
                    fail()
                span = real.start_span(*args, **kwargs)
                setattr(span, method, fail)
                return span

        return Tracer()


class Loggers(LoggerProvider):
    def get_logger(self, *args: Any, **kwargs: Any) -> Any:
        return Logger()


PROVIDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "get_tracer": lambda: {"tracer_provider": SimpleNamespace(get_tracer=fail)},
    "on_start": lambda: with_processor(Processor(on_start=fail)),
    "on_end": lambda: with_processor(Processor(on_end=fail)),
    "export": lambda: with_processor(SimpleSpanProcessor(Exporter())),
    "start_span": lambda: {"tracer_provider": Tracers("start_span")},
    "set_attributes": lambda: {"tracer_provider": Tracers("set_attributes")},
    "set_status": lambda: {"tracer_provider": Tracers("set_status")},
    "end": lambda: {"tracer_provider": Tracers("end")},
    "emit": lambda: {
        "tracer_provider": TracerProvider(shutdown_on_exit=False),
        "logger_provider": Loggers(shutdown_on_exit=False),
    },
}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Faults are swallowed, as they are in an application."""
    monkeypatch.setattr(faults, "reraise", False)
    monkeypatch.setattr(faults, "_logged", set())
    yield
    KernelInstrumentor().uninstrument()


async def all_is_as_ever() -> None:
    kernel = make_kernel()
    token = grant(kernel).token
    frame = await kernel.invoke(token, principal=ALICE, args={}, response_mode="table")
    assert frame.response_mode == "table"
    assert frame.handle is not None
    assert len(kernel.expand(frame.handle, query={"limit": 1}, principal=ALICE).table_preview) == 1
    with pytest.raises(PolicyDenied):
        grant(kernel, DESTROY)
    broken = make_kernel(memory_driver("memory", fail))
    with pytest.raises(DriverError):
        await broken.invoke(grant(broken).token, principal=ALICE, args={})
    assert len(await drain(open_stream(make_kernel(StreamingDriver())))) == 4
    assert kernel.stats.invocations == 1
    assert kernel.stats.denials == 1


@pytest.mark.parametrize("where", PROVIDERS)
@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.usefixtures("quiet")
async def test_a_broken_pipeline_changes_nothing_and_is_logged_once_for_each_place(
    where: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    count = faults.count
    KernelInstrumentor().instrument(**PROVIDERS[where](), span_level=level)
    await all_is_as_ever()
    await all_is_as_ever()
    lines = [record.getMessage() for record in caplog.records if record.name == faults.__module__]
    assert len(lines) == len(set(lines))
    assert (faults.count > count) is (where != "export")
    assert bool(lines) is (where != "export")
    for line in lines:
        assert "Broken" in line
        assert "secret" not in line
    ours = [record for record in caplog.records if record.name == faults.__module__]
    assert not [record for record in ours if record.exc_info or record.stack_info]


def test_a_fault_is_counted_logged_once_and_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fresh = Faults()

    def swallow() -> None:
        try:
            fail()
        except Broken:
            fresh.swallow("testing this")

    for _ in range(3):
        swallow()
    assert fresh.count == 3
    (record,) = caplog.records
    assert "Broken" in record.getMessage()
    assert "while testing this" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_a_log_handler_that_raises_does_not_reach_the_app() -> None:
    class Handler(logging.Handler):
        emit = fail

    logger, handler = logging.getLogger("agent_kernel_otel.faults"), Handler()
    logger.addHandler(handler)
    try:
        try:
            raise Broken
        except Broken:
            Faults().swallow("testing this")
    finally:
        logger.removeHandler(handler)


def test_a_fault_names_our_line(caplog: pytest.LogCaptureFixture) -> None:
    from agent_kernel_otel.scrub import scrub_text

    try:
        scrub_text("text", fail)
    except Broken:
        Faults().swallow("testing this")
    assert "scrub.py:" in caplog.text


@pytest.mark.usefixtures("quiet")
async def test_a_session_callable_that_raises_gives_a_generated_name() -> None:
    from weaver_kernel import BudgetManager

    from tests.support.instrumented import instrumented

    with instrumented(session=fail) as captured:
        kernel = make_kernel(budget_manager=BudgetManager(total_budget=1_000))
        await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
        sessions = {span.attributes.get("agent_kernel.session") for span in captured.spans()
                    if span.attributes}  # fmt: skip
        assert sessions - {None} == {"agent-kernel-1"}
