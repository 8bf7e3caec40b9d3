# SPDX-License-Identifier: Apache-2.0
"""The loop: records are read, and their spans sent, batch by batch.

A few batches are on their way at a time, and the next one is read only when the oldest of them is
confirmed: a slow receiver slows the reading down, and nothing is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from agent_kernel_otel.audit.files.entries import AuditFileError, Entry, Position
from agent_kernel_otel.audit.records import AuditRecord, UnreadableRecordError, read_record
from agent_kernel_otel.audit.replay import Replay, ReplayedSpan
from agent_kernel_otel.export.checkpoint import Checkpoint
from agent_kernel_otel.export.problems import Problems
from agent_kernel_otel.export.progress import Progress
from agent_kernel_otel.export.sink import Delivered, Sink
from agent_kernel_otel.export.sources import Source, Sources
from agent_kernel_otel.export.stopping import Stopped, Stopping
from agent_kernel_otel.export.summary import Counts

_BATCH: Final = 1024
"""Spans after which a batch is sent."""
_PIECE: Final = 512
"""Records after which it is looked whether to stop, and how far it is."""
_LONGEST: Final = 32 * _PIECE
"""Records after which a batch ends even if the filters left hardly any of them."""
_ON_THEIR_WAY: Final = 2
_SECONDS_BETWEEN_LOOKS: Final = 0.25
_LOOKS_BEFORE_TOLD: Final = 2
"""Whoever waits for a receiver that is away stops in a moment, of which there is nothing to tell."""


@dataclass(slots=True)
class _Batch:
    """Records that are settled together; ``position`` is the one after them, if that can be told."""

    source: Source
    spans: list[ReplayedSpan] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    read: int = 0
    is_last: bool = False
    position: Position | None = None
    delivery: Future[Delivered] | None = None


class Loop:
    """Exports one file after the other.

    Args:
        sources: All files.
        sink: Where the spans go; ``None`` to count them only.
        checkpoint: Where what is confirmed is added up and kept.
        matches: Whether a record is to be exported; ``None`` if all are.
        replay: What makes the spans of records.
        stopping: Whether to stop.
        progress: What is shown of it.

    Attributes:
        cut_off: How many last lines were cut off, and are not left for another run.
        linked: How many spans have a link to their live span.
        rejection: What the receiver said of what it rejected last.
        broken_off: What went wrong with each file that could not be read to its end.
    """

    def __init__(
        self,
        *,
        sources: Sources,
        sink: Sink | None,
        checkpoint: Checkpoint,
        matches: Callable[[AuditRecord], bool] | None,
        replay: Replay,
        stopping: Stopping,
        progress: Progress,
    ) -> None:
        self._sources = sources
        self._sink = sink
        self._checkpoint = checkpoint
        self._matches = matches
        self._stopping = stopping
        self._progress = progress
        self._problems = Problems(progress.notice)
        self._span_of = replay.span_of
        self._pending: deque[_Batch] = deque()
        self._read = checkpoint.counts.read
        self._looks_since_stop = 0
        self.cut_off = self.linked = 0
        self.rejection: str | None = None
        self.broken_off: list[str] = []

    def run(self, entries_of: Callable[[Source], Iterator[Entry]]) -> None:
        """Export all files, and wait until everything is confirmed.

        Args:
            entries_of: The records of a file from where to begin.

        Raises:
            Stopped: It was asked to stop; what was on its way is settled, unless it was asked twice.
            DeliveryError: The spans cannot be delivered.
            CheckpointError: The checkpoint cannot be written any more.
        """
        try:
            for source in self._sources.all:
                self._export(source, entries_of(source))
                source.is_read = True
        finally:
            self._problems.end()
        self._settle_all()

    def _export(self, source: Source, entries: Iterator[Entry]) -> None:
        is_last = False
        while not is_last:
            batch = _Batch(source)
            try:
                self._fill(batch, entries)
            except Stopped:
                # Nobody can go on in standard input: what was taken from it is not to be lost.
                if source.path is None:
                    self._send(batch)
                self._settle_all()
                raise
            except AuditFileError as error:
                self.broken_off.append(str(error))
                batch.is_last = True
            is_last = batch.is_last
            if source.path is not None:
                batch.position = source.file.position()
            self._send(batch)

    def _fill(self, batch: _Batch, entries: Iterator[Entry]) -> None:
        while len(batch.spans) < _BATCH and batch.read < _LONGEST and not batch.is_last:
            before = batch.read
            try:
                with self._stopping.at_once():
                    self._take(batch, islice(entries, _PIECE))
            finally:
                self._read += batch.read - before
            batch.is_last = batch.read - before < _PIECE
            self._progress.show(self._read, self._sources.share(batch.source))

    def _take(self, batch: _Batch, entries: Iterator[Entry]) -> None:
        """Read records; every microsecond here is a second in a million of them."""
        matches, span_of, add = self._matches, self._span_of, batch.spans.append
        for entry in entries:
            batch.read += 1
            if entry.payload is None:
                self._report(batch, entry)
                continue
            try:
                record = read_record(entry.payload)
            except UnreadableRecordError as error:
                batch.counts.unreadable += 1
                self._problems.tell(batch.source.name, entry.place, str(error))
                continue
            if matches is None or matches(record):
                span = span_of(record)
                self.linked += span.live is not None
                add(span)
            else:
                batch.counts.skipped += 1

    def _report(self, batch: _Batch, entry: Entry) -> None:
        problem = entry.problem or "cannot be read"
        if not entry.is_cut_off:
            batch.counts.unreadable += 1
        elif self._checkpoint.is_kept:
            problem += "; it is left for the next run"
        else:
            self.cut_off += 1
        self._problems.tell(batch.source.name, entry.place, problem)

    def _send(self, batch: _Batch) -> None:
        while len(self._pending) >= _ON_THEIR_WAY:
            self._settle_oldest()
        batch.counts.exported = len(batch.spans)
        if batch.spans and self._sink is not None:
            batch.delivery = self._sink.send(batch.spans)
        batch.spans = []
        self._pending.append(batch)
        while self._pending and _is_done(self._pending[0]):
            self._settle_oldest()

    def _settle_all(self) -> None:
        while self._pending:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        """Wait until the oldest batch is confirmed, and keep that."""
        batch = self._pending[0]
        if batch.delivery is not None:
            self._wait_for(batch.delivery)
            delivered = batch.delivery.result()
            batch.counts.exported -= delivered.rejected
            batch.counts.rejected += delivered.rejected
            self.rejection = delivered.reason or self.rejection
            self._checkpoint.output = delivered.end or self._checkpoint.output
        self._pending.popleft()
        self._checkpoint.counts.add(batch.counts)
        if batch.source.path is not None and batch.position is not None:
            self._checkpoint.positions[batch.source.path] = batch.position
        self._checkpoint.save()

    def _wait_for(self, delivery: Future[Delivered]) -> None:
        while not wait((delivery,), timeout=_SECONDS_BETWEEN_LOOKS).done:
            self._looks_since_stop += self._stopping.number is not None
            if self._looks_since_stop == _LOOKS_BEFORE_TOLD:
                self._progress.notice(
                    "stopping as soon as the receiver has confirmed what is on its way; once more "
                    "stops at once"
                )
            share = self._sources.share(self._pending[-1].source)
            self._progress.show(self._read, share, "waiting for the receiver")


def _is_done(batch: _Batch) -> bool:
    return batch.delivery is None or batch.delivery.done()
