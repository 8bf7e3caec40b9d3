# SPDX-License-Identifier: Apache-2.0
"""The way out of the process: nothing waits, nothing is lost without a count, and it ends in time.

The exporter here is the test's own, because it must stop and fail at will; what real receivers do
to real exporters is in ``test_fault_matrix``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace.export import SpanExportResult

from agent_kernel_otel.pipeline import delivery as delivery_module
from agent_kernel_otel.pipeline import notices as notices_module
from agent_kernel_otel.pipeline.batching import BatchPipeline
from agent_kernel_otel.pipeline.delivery import Delivery
from agent_kernel_otel.pipeline.ledger import Ledger, Totals
from agent_kernel_otel.pipeline.notices import Notices
from agent_kernel_otel.pipeline.settings import BATCH_SIZE, Batching
from tests.support.interrupting import interrupted_by, needs_timers

SOON = 10.0
"""Seconds within which what is awaited happens; only a failure takes as long."""


class Exporter:
    """Takes batches; can be held up, and made to fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.result = SpanExportResult.SUCCESS
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Semaphore(0)
        self.was_suppressed = False
        self.shut = threading.Event()

    def export(self, batch: Sequence[int]) -> SpanExportResult:
        self.was_suppressed = not is_instrumentation_enabled()
        self.entered.release()
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(list(batch))
        return self.result

    def shutdown(self) -> None:
        self.shut.set()
        self.go_on.set()

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Books of the test's own."""
    fresh = Ledger()
    monkeypatch.setattr(delivery_module, "ledger", fresh)
    monkeypatch.setattr(notices_module, "ledger", fresh)
    return fresh


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


@pytest.fixture
def pipe(books: Ledger, exporter: Exporter) -> Iterator[Callable[..., BatchPipeline[int]]]:
    """Makes pipelines that end with the test."""
    made: list[BatchPipeline[int]] = []

    def make(queue: int = 1000, batch: int = 10, delay: float = 3600.0) -> BatchPipeline[int]:
        pipeline: BatchPipeline[int] = BatchPipeline(
            "test", Delivery("traces", exporter), Batching(queue, batch, delay)
        )
        made.append(pipeline)
        return pipeline

    yield make
    exporter.go_on.set()
    for pipeline in made:
        pipeline.close(SOON)


def totals(pipeline: BatchPipeline[int]) -> Totals:
    return pipeline.delivery.account.totals()


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_full_batch_is_sent_at_once_and_the_rest_waits(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe(batch=10)
    for item in range(13):
        pipeline.put(item)
    await_that(lambda: exporter.batches == [list(range(10))])
    assert totals(pipeline).pending == 3


def test_of_the_default_size_a_few_are_sent_at_once_and_more_together_if_more_wait(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    exporter.go_on.clear()
    pipeline = pipe(batch=BATCH_SIZE)
    for item in range(32):
        pipeline.put(item)
    assert exporter.entered.acquire(timeout=SOON)
    for item in range(32, 300):
        pipeline.put(item)
    exporter.go_on.set()
    await_that(lambda: [len(batch) for batch in exporter.batches] == [32, 128, 128])
    assert exporter.items == list(range(288))


def test_what_is_less_than_a_batch_is_sent_after_the_delay(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe(delay=0.01)
    pipeline.put(1)
    await_that(lambda: exporter.batches == [[1]])


def test_the_exporters_own_requests_are_not_instrumented(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe()
    pipeline.put(1)
    assert pipeline.flush(SOON)
    assert exporter.was_suppressed
    assert context.get_current() == {}


def test_a_flush_answers_true_once_all_has_arrived(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe()
    for item in range(25):
        pipeline.put(item)
    assert pipeline.flush(SOON)
    assert exporter.items == list(range(25))
    assert totals(pipeline) == Totals(ended=25, sent=25)


def test_a_flush_answers_false_for_what_came_after_the_end(
    pipe: Callable[..., BatchPipeline[int]],
) -> None:
    pipeline = pipe()
    pipeline.put(1)
    pipeline.close(SOON)
    assert pipeline.flush(SOON)
    pipeline.put(2)
    assert not pipeline.flush(SOON)


@pytest.mark.parametrize("fault", [SpanExportResult.FAILURE, RuntimeError("no route")])
def test_a_flush_answers_false_when_the_exporter_fails(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter, fault: Any
) -> None:
    pipeline = pipe()
    if isinstance(fault, Exception):
        exporter.error = fault
    else:
        exporter.result = fault
    pipeline.put(1)
    assert not pipeline.flush(SOON)
    assert totals(pipeline).dropped == {"failed": 1}


def test_a_flush_keeps_its_deadline_and_answers_false_when_the_exporter_hangs(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    exporter.go_on.clear()
    pipeline = pipe()
    pipeline.put(1)
    began = time.monotonic()
    assert not pipeline.flush(0.05)
    assert time.monotonic() - began < SOON
    assert totals(pipeline) == Totals(ended=1, pending=1)


def test_a_full_queue_drops_the_oldest_and_counts_each(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    exporter.go_on.clear()
    pipeline = pipe(queue=20, batch=10)
    for item in range(10):
        pipeline.put(item)
    assert exporter.entered.acquire(timeout=SOON)  # the first ten are under way
    for item in range(10, 110):
        pipeline.put(item)
    assert totals(pipeline) == Totals(ended=110, dropped={"queue_full": 80}, pending=30)
    exporter.go_on.set()
    pipeline.close(SOON)
    assert exporter.items == [*range(10), *range(90, 110)]
    assert totals(pipeline) == Totals(ended=110, sent=30, dropped={"queue_full": 80})


def test_the_books_add_up_when_many_threads_crowd_a_small_queue(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe(queue=50, batch=10)

    def crowd() -> None:
        for item in range(5000):
            pipeline.put(item)

    threads = [threading.Thread(target=crowd) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipeline.close(SOON)
    final = totals(pipeline)
    assert final.ended == 40_000
    assert final.sent == len(exporter.items)
    assert final.sent + final.dropped.get("queue_full", 0) == 40_000
    assert final.pending == 0


def test_the_end_sends_what_is_left(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe()
    for item in range(33):
        pipeline.put(item)
    pipeline.close(SOON)
    assert sorted(exporter.items) == list(range(33))
    assert exporter.shut.is_set()


def test_the_end_gives_up_what_hangs_and_counts_it_once(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    exporter.go_on.clear()
    exporter.shutdown = lambda: None  # type: ignore[method-assign] # it does not let go of its call
    pipeline = pipe(batch=10)
    for item in range(25):
        pipeline.put(item)
    assert exporter.entered.acquire(timeout=SOON)
    pipeline.close(0.05)
    given_up = Totals(ended=25, dropped={"exit": 25})
    assert totals(pipeline) == given_up
    exporter.go_on.set()
    await_that(lambda: bool(exporter.batches))
    assert totals(pipeline) == given_up


def test_the_end_interrupts_an_exporter_that_can_be_interrupted(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    exporter.go_on.clear()
    exporter.result = SpanExportResult.FAILURE
    pipeline = pipe(batch=10)
    for item in range(25):
        pipeline.put(item)
    assert exporter.entered.acquire(timeout=SOON)
    pipeline.close(0.05)
    assert totals(pipeline) == Totals(ended=25, dropped={"exit": 25})


def test_what_comes_after_the_end_is_counted_as_dropped(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe()
    pipeline.close(SOON)
    pipeline.put(1)
    assert totals(pipeline) == Totals(ended=1, dropped={"exit": 1})
    assert exporter.batches == []


def test_a_second_end_and_a_flush_after_it_do_nothing(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe()
    pipeline.put(1)
    pipeline.close(SOON)
    pipeline.close(SOON)
    assert pipeline.flush(SOON)
    assert exporter.batches == [[1]]


@needs_timers
def test_an_item_can_be_put_by_a_signal_handler_that_interrupts_a_put(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    pipeline = pipe(queue=100_000, batch=1)
    with interrupted_by(lambda: pipeline.put(-1)):
        for item in range(20_000):
            pipeline.put(item)
    pipeline.close(SOON)
    assert -1 in exporter.items
    assert totals(pipeline).sent == totals(pipeline).ended > 20_000


def test_a_forked_child_starts_with_nothing_of_its_parents(
    pipe: Callable[..., BatchPipeline[int]], exporter: Exporter
) -> None:
    exporter.go_on.clear()
    pipeline = pipe()
    for item in range(15):
        pipeline.put(item)
    assert exporter.entered.acquire(timeout=SOON)
    exporter.go_on.set()
    pipeline.after_fork_in_child()
    assert totals(pipeline) == Totals()
    pipeline.put(99)
    assert pipeline.flush(SOON)
    assert exporter.batches[-1] == [99]
    assert totals(pipeline) == Totals(ended=1, sent=1)


def test_a_lasting_failure_gives_one_line_with_totals_and_the_end_another(
    pipe: Callable[..., BatchPipeline[int]],
    exporter: Exporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = Notices(interval=3600)
    monkeypatch.setattr("agent_kernel_otel.pipeline.worker.notices", lines)
    exporter.error = RuntimeError("no route to https://user:hunter2@collector")
    pipeline = pipe(batch=10)
    for _ in range(5):
        for item in range(10):
            pipeline.put(item)
        pipeline.flush(SOON)
    await_that(lambda: len(caplog.records) == 1)
    assert caplog.records[0].levelno == logging.WARNING
    assert "10 of 10 spans (not sendable)" in caplog.records[0].getMessage()
    lines.summarize()
    assert "telemetry was lost: 50 of 50 spans (not sendable)" in caplog.records[1].getMessage()
    assert "no route to https://" in caplog.records[1].getMessage()
    assert "hunter2" not in caplog.text
    lines.summarize()
    assert len(caplog.records) == 2, "nothing new was lost"


def test_nothing_is_said_when_nothing_is_lost(
    pipe: Callable[..., BatchPipeline[int]], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipe()
    pipeline.put(1)
    pipeline.close(SOON)
    Notices().summarize()
    assert caplog.records == []


def test_no_line_is_written_during_a_fork(books: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    books.open("traces").settle(refused=1)
    lines = Notices()
    lines.hold(SOON)

    def fork_too() -> None:
        lines.hold(0)
        lines.release()

    other_fork = threading.Thread(target=fork_too)
    other_fork.start()
    other_fork.join(SOON)
    speaker = threading.Thread(target=lines.summarize)
    speaker.start()
    speaker.join(0.05)
    assert caplog.records == []
    lines.release()
    speaker.join(SOON)
    assert len(caplog.records) == 1
