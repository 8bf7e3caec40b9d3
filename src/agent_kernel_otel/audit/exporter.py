# SPDX-License-Identifier: Apache-2.0
"""Audit records in hand as spans, by way of the app's own OpenTelemetry."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
    attach,
    detach,
    set_value,
)
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NoOpTracer, SpanContext, StatusCode, get_tracer_provider

from agent_kernel_otel import semconv
from agent_kernel_otel._version import __version__
from agent_kernel_otel.audit.records import UnreadableRecordError, read_record
from agent_kernel_otel.audit.replay import Replay, ReplayedSpan
from agent_kernel_otel.locks import SafeLock

if TYPE_CHECKING:
    import opentelemetry.trace
    from opentelemetry.sdk.trace.export import SpanExporter

    from agent_kernel_otel.config import InstrumentationConfig

_BATCH: Final = 256
"""Records after which it waits until their spans are sent, at most. The app's own spans need room
in the same queues, so that it is never more than half of the smallest one."""


MOST_PROBLEMS: Final = 20
"""Problems that a result tells of; a corrupt file can have as many as it has records."""


@dataclass(frozen=True)
class ExportResult:
    """What became of some records.

    Attributes:
        exported: How many spans were sent, as far as their exporter or processors say: a
            ``span_exporter=`` and the processors of this distro do. The SDK's own do not tell
            what their exporter could not send; there it is what was handed over and flushed.
        failed: How many were not: records that cannot be read, and spans that could not be sent.
        problems: What was wrong, the first :data:`MOST_PROBLEMS` kinds of it once each; nothing in
            it comes from a record.
    """

    exported: int
    failed: int
    problems: tuple[str, ...] = ()


class OTelTraceExporter:
    """Turns the kernel's audit records into spans.

    A record gives the same span each time, wherever it is exported: its ids come from the action
    id and its time is the record's own. ``agent_kernel.replayed`` is true on it, it links to the
    live span where this process knows that (:func:`agent_kernel_otel.trace_context`), and no
    metric counts it. The arguments and the error texts of records are never exported, whatever is
    configured. The sampler is not asked: an audit trail has no share that could be left out.

    It can be used by several threads at once.

    Args:
        tracer_provider: Through whose resource, limits and processors the spans go; the global one
            by default, whenever that is set.
        span_exporter: Where they go instead, without any processor, and with a result that tells
            what arrived.
        config: How spans are named and in which form principals leave; the environment's and
            the configuration file's by default.

    Raises:
        ValueError: Both a provider and an exporter are given.
    """

    def __init__(
        self,
        tracer_provider: opentelemetry.trace.TracerProvider | None = None,
        *,
        span_exporter: SpanExporter | None = None,
        config: InstrumentationConfig | None = None,
    ) -> None:
        if tracer_provider is not None and span_exporter is not None:
            raise ValueError("give tracer_provider or span_exporter, not both")
        self._replay = Replay(config)
        self._tracer_provider = tracer_provider
        self._of: object = None
        self._destination: _Destination | None = None
        if span_exporter is not None:
            self._destination = _Exporter(span_exporter)

    def export(self, traces: Iterable[Any]) -> ExportResult:
        """Export records, and wait until their spans are sent, or flushed by the SDK's processors.

        Args:
            traces: ``ActionTrace`` records of any release, or mappings with their fields as keys,
                as many as there are; ``kernel.list_traces()``, for one.

        Returns:
            What became of them. Neither a record that cannot be read nor a span that cannot be
            sent stops the others.

        Raises:
            RuntimeError: There is no SDK that the spans could go through.
        """
        destination = self._destination_now()
        if destination is None:
            raise RuntimeError(self._why_nowhere())
        tally = _Tally()
        spans: list[ReplayedSpan] = []
        size = destination.batch_size()
        try:
            for trace in traces:
                try:
                    spans.append(self._replay.span_of(read_record(trace)))
                except UnreadableRecordError as error:
                    tally.fail(f"a record cannot be read: {error}")
                    continue
                if len(spans) == size:
                    batch, spans = spans, []
                    destination.send(batch, tally)
        except Exception:
            destination.send(spans, tally)  # the records before the fault of where they come from
            raise
        destination.send(spans, tally)
        return ExportResult(tally.exported, tally.failed, tuple(tally.problems))

    def tell(self, trace: Any, link: SpanContext | None = None) -> None:
        """Hand one record's span to the processors, and do not wait. No effect without an SDK.

        Where an exporter was given it is sent at once, since nothing is there that could keep it.

        Args:
            trace: The record.
            link: The span that it is related to; the live one by default.

        Raises:
            UnreadableRecordError: The record cannot be read.
        """
        destination = self._destination_now()
        if destination is not None:
            span = self._replay.span_of(read_record(trace))
            span.live = link or span.live
            destination.take(span)

    def _destination_now(self) -> _Destination | None:
        """Find out where spans go; an app may set its provider up late."""
        destination = self._destination
        if not isinstance(destination, _Exporter):
            provider = self._provider()
            if destination is None or self._of is not provider:
                tracer: Any = provider.get_tracer(semconv.SCOPE_WEAVER, __version__)
                # Another vendor's tracer, and the API's own stand-in for none, have none of these.
                if not hasattr(tracer, "span_processor") or not hasattr(tracer, "resource"):
                    return None
                limits = getattr(tracer, "_span_limits", None)
                destination = _Destination(tracer.span_processor, tracer.resource, limits)
                self._destination, self._of = destination, provider
        return None if destination.is_off else destination

    def _provider(self) -> opentelemetry.trace.TracerProvider:
        given = self._tracer_provider
        return get_tracer_provider() if given is None else given

    def _why_nowhere(self) -> str:
        if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
            return "OTEL_SDK_DISABLED is set, so that spans go nowhere"
        kind = type(self._provider())
        advice = (
            "pass tracer_provider= or span_exporter=, or run the app with opentelemetry-instrument"
        )
        if kind.__module__.startswith("opentelemetry.trace"):
            return f"no OpenTelemetry SDK is set up, so that spans go nowhere; {advice}"
        return (
            f"{kind.__module__}.{kind.__qualname__} is no tracer provider of the OpenTelemetry SDK, "
            f"and takes no spans of another time; {advice}"
        )


class _Tally:
    """What became of records so far."""

    def __init__(self) -> None:
        self.exported = self.failed = 0
        self.problems: dict[str, None] = {}

    def fail(self, problem: str, number: int = 1) -> None:
        """Take note that some could not be exported, and why."""
        self.failed += number
        if len(self.problems) < MOST_PROBLEMS:
            self.problems[problem] = None


class _RecordIds(IdGenerator):
    """Gives a span the ids of its record."""

    def __init__(self) -> None:
        self._next = threading.local()

    def use(self, span: ReplayedSpan) -> None:
        """Set the ids of the span that this thread starts next."""
        self._next.trace_id = int.from_bytes(span.trace_id, "big")
        self._next.span_id = int.from_bytes(span.span_id, "big")

    def generate_trace_id(self) -> int:
        """The next span's trace id."""
        trace_id: int = self._next.trace_id
        return trace_id

    def generate_span_id(self) -> int:
        """The next span's own id."""
        span_id: int = self._next.span_id
        return span_id


class _Destination:
    """The processors of an app, by way of a provider of our own, whose ids are those of records.

    Args:
        processor: The app's, all in one.
        resource: The app's.
        limits: The app's limits of what a span may hold.
    """

    def __init__(
        self, processor: SpanProcessor, resource: Resource | None = None, limits: Any = None
    ) -> None:
        self._processor = processor
        self._ids = _RecordIds()
        self._sending = SafeLock()
        ours = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            id_generator=self._ids,
            span_limits=limits,
            shutdown_on_exit=False,
        )
        ours.add_span_processor(processor)
        tracer = ours.get_tracer(semconv.SCOPE_WEAVER, __version__)
        self.is_off = isinstance(tracer, NoOpTracer)
        self._start_span = tracer.start_span

    def batch_size(self) -> int:
        """How many spans can be taken before it is waited until they are sent."""
        return min(_BATCH, max(1, min(_queue_sizes(self._processor), default=2 * _BATCH) // 2))

    def take(self, replayed: ReplayedSpan) -> None:
        """Tell a span, for the processors to send when they do."""
        self.tell(replayed)

    def tell(self, replayed: ReplayedSpan) -> None:
        """Start and end a span."""
        self._ids.use(replayed)
        span = self._start_span(
            replayed.name,
            Context(),
            attributes=replayed.attributes,
            links=None if replayed.live is None else [Link(replayed.live)],
            start_time=replayed.time,
        )
        if replayed.failed:
            span.set_status(StatusCode.ERROR)
        span.end(replayed.end_time)

    def send(self, spans: Sequence[ReplayedSpan], tally: _Tally) -> None:
        """Take spans, and wait until they are sent."""
        with self._sending:  # another thread's would fill the same queues
            taken = sum([self._is_taken(span, tally) for span in spans])
            if not taken:
                return
            try:
                problem = self._flush()
            except Exception as error:
                problem = f"sending the spans raised {type(error).__qualname__}"
            if problem is None:
                tally.exported += taken
            else:
                tally.fail(problem, taken)

    def _is_taken(self, span: ReplayedSpan, tally: _Tally) -> bool:
        try:
            self.tell(span)
        except Exception as error:  # a processor can be anybody's
            tally.fail(f"a span processor raised {type(error).__qualname__}")
            return False
        return True

    def _flush(self) -> str | None:
        """Wait until the spans so far are sent; what went wrong, if anything did."""
        if self._processor.force_flush():
            return None
        return "the span processors did not confirm in time that the spans were sent"


class _Exporter(_Destination):
    """An exporter, and nothing before it.

    Args:
        span_exporter: The exporter.
    """

    def __init__(self, span_exporter: SpanExporter) -> None:
        self._exporter = span_exporter
        self._ended = _Ended()
        super().__init__(self._ended)

    def take(self, replayed: ReplayedSpan) -> None:
        """Send a span at once."""
        self.send([replayed], _Tally())

    def _flush(self) -> str | None:
        """Export the spans so far; what went wrong, if anything did."""
        # The exporter's own requests are nothing that the app does.
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            result = self._exporter.export(self._ended.take())
        finally:
            detach(token)
        if result is SpanExportResult.SUCCESS:
            return None
        return f"{type(self._exporter).__name__} could not send the spans"


class _Ended(SpanProcessor):
    """Keeps ended spans until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        """The spans that ended since."""
        spans, self._spans = self._spans, []
        return spans


def _queue_sizes(processor: Any) -> list[int]:
    """The lengths of the queues behind a processor, as far as they can be known."""
    sizes = []
    for each in (processor, *getattr(processor, "_span_processors", ())):
        queued = getattr(each, "_batch_processor", None) or getattr(each, "_pipeline", None)
        for name in ("_max_queue_size", "_queue_size"):
            size = getattr(queued, name, None)
            if isinstance(size, int):
                sizes.append(size)
    return sizes
