# SPDX-License-Identifier: Apache-2.0
"""Spans and log records on their way: a bounded queue, and a thread that exports it in batches.

The SDK's own batch processors lose what does not fit without a count, take up to thirty seconds
to end, and answer a flush before they know. These do not; they read the same variables.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor

from agent_kernel_otel.pipeline import notices
from agent_kernel_otel.pipeline.delivery import Delivery
from agent_kernel_otel.pipeline.ledger import EXIT, LOGS, TRACES
from agent_kernel_otel.pipeline.lifecycle import lifecycle
from agent_kernel_otel.pipeline.settings import LOG_RECORDS, SPANS, Batching
from agent_kernel_otel.pipeline.worker import Pipeline

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

T = TypeVar("T")

_FLUSH_TIMEOUT: Final = 30.0
"""Seconds that a flush may take where its caller does not say; the SDK's own default."""


class BatchPipeline(Pipeline, Generic[T]):
    """A queue in front of an exporter. When it is full, the oldest item makes room.

    Args:
        name: Name of the thread.
        delivery: The way out.
        batching: Sizes and delay.
    """

    def __init__(self, name: str, delivery: Delivery, batching: Batching) -> None:
        self._queue: deque[T] = deque()
        self._queue_size = batching.queue_size
        self._batch_size = batching.batch_size
        self._early_batch_size = batching.early_batch_size
        self._last_batch_size = batching.last_batch_size
        super().__init__(name, delivery, batching.delay)

    def put(self, item: T) -> None:
        """Take an item; never waits."""
        account = self.delivery.account
        account.end_one()
        if self.closed:
            account.settle(**{EXIT: 1})
            self.refused = True
            return
        waiting = self._queue
        if len(waiting) >= self._queue_size:
            try:
                waiting.popleft()
            except IndexError:
                pass  # the thread has just taken the last one
            else:
                account.crowd_one_out()
        waiting.append(item)
        if len(waiting) >= self._early_batch_size:
            self.wake()
        if waiting is not self._queue:  # given up a moment ago
            account.settle(**{EXIT: _empty(waiting)})

    def _send(self, everything: bool) -> None:
        # What comes in meanwhile is for the next time: else a busy app would keep a flush waiting.
        left = len(self._queue) if everything else 0
        while left > 0 or len(self._queue) >= self._early_batch_size:
            if self.delivery.is_shut:
                return  # the time is over
            batch = self._take(self._last_batch_size if self.closed else self._batch_size)
            if not batch:
                return
            left -= len(batch)
            self.delivery.export(batch, len(batch))

    def _take(self, limit: int) -> list[T]:
        batch: list[T] = []
        try:
            while len(batch) < limit:
                batch.append(self._queue.popleft())
        except IndexError:
            pass  # an app thread at a full queue may take one, too
        return batch

    def _forget(self) -> int:
        waiting, self._queue = self._queue, deque()
        return _empty(waiting)


def _empty(waiting: deque[T]) -> int:
    # One by one, so that of two threads that do it each item is counted by one.
    count = 0
    while True:
        try:
            waiting.popleft()
        except IndexError:
            return count
        count += 1


class BatchingSpanProcessor(SpanProcessor):
    """Exports sampled spans in batches.

    Takes the place of :class:`opentelemetry.sdk.trace.export.BatchSpanProcessor` and its
    arguments; those that are None come from ``OTEL_BSP_*``.
    """

    def __init__(
        self,
        span_exporter: SpanExporter,
        max_queue_size: int | None = None,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        export_timeout_millis: float | None = None,  # noqa: ARG002 - the SDK's own ignores it too
        **_: Any,
    ) -> None:
        self._pipeline: BatchPipeline[ReadableSpan] = BatchPipeline(
            "OtelSpans",
            Delivery(TRACES, span_exporter),
            Batching.read(SPANS, max_queue_size, max_export_batch_size, schedule_delay_millis),
        )
        lifecycle.add(self._pipeline)
        self.span_exporter = span_exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, if it is sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._pipeline.put(span)

    def shutdown(self) -> None:
        """Send what is left, within the time that the end of the process may take."""
        self._pipeline.close(lifecycle.exit_timeout)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send all that has ended; whether all of it arrived within the time."""
        return self._pipeline.flush(_seconds(timeout_millis))


class BatchingLogRecordProcessor(LogRecordProcessor):
    """Exports log records in batches.

    Takes the place of :class:`opentelemetry.sdk._logs.export.BatchLogRecordProcessor` and its
    arguments; those that are None come from ``OTEL_BLRP_*``.
    """

    def __init__(
        self,
        exporter: LogRecordExporter,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        export_timeout_millis: float | None = None,  # noqa: ARG002 - the SDK's own ignores it too
        max_queue_size: int | None = None,
        **_: Any,
    ) -> None:
        self._pipeline: BatchPipeline[ReadableLogRecord] = BatchPipeline(
            "OtelLogRecords",
            Delivery(LOGS, exporter),
            Batching.read(
                LOG_RECORDS, max_queue_size, max_export_batch_size, schedule_delay_millis
            ),
        )
        lifecycle.add(self._pipeline)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take a log record."""
        scope = log_record.instrumentation_scope
        if scope is not None and scope.name == notices.LOGGER:
            return  # that telemetry is lost is not said by way of what loses it
        if notices.complaints.heard is not None:
            return  # logged by an export: to send it is an export, which logs, and so on
        # The context can hold much, and has given the record its ids already.
        record = copy.copy(log_record.log_record)
        record.context = Context()
        self._pipeline.put(
            ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=scope,
                limits=log_record.limits,
            )
        )

    def shutdown(self) -> None:
        """Send what is left, within the time that the end of the process may take."""
        self._pipeline.close(lifecycle.exit_timeout)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send all that has been emitted; whether all of it arrived within the time."""
        return self._pipeline.flush(_seconds(timeout_millis))


def _seconds(timeout_millis: float | None) -> float:
    return _FLUSH_TIMEOUT if timeout_millis is None else timeout_millis / 1000
