# SPDX-License-Identifier: Apache-2.0
"""One export from its options to its exit code: everything is checked before anything is sent."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from agent_kernel_otel.audit.files.chain import verify_chains
from agent_kernel_otel.audit.files.entries import (
    AuditFile,
    AuditFileError,
    Entry,
)
from agent_kernel_otel.audit.replay import Replay
from agent_kernel_otel.config import ConfigurationError
from agent_kernel_otel.export import summary as ends
from agent_kernel_otel.export.checkpoint import Checkpoint, CheckpointError, automatic_path
from agent_kernel_otel.export.links import Links, LinksError
from agent_kernel_otel.export.logs import logs_as_notices
from agent_kernel_otel.export.loop import Loop
from agent_kernel_otel.export.options import ExportOptions
from agent_kernel_otel.export.progress import Progress
from agent_kernel_otel.export.sending import open_otlp_sink
from agent_kernel_otel.export.settings import (
    ChainKeyError,
    chain_key,
    resource_of,
    settings_of,
    tell_of_hashes,
)
from agent_kernel_otel.export.sink import DeliveryError, Sink, UnusableDestinationError
from agent_kernel_otel.export.sources import Source, Sources
from agent_kernel_otel.export.stopping import Stopped, Stopping
from agent_kernel_otel.export.summary import Summary
from agent_kernel_otel.export.taking_up import take_up
from agent_kernel_otel.export.to_file import open_file_sink

_GO_ON = "run the same command again: it goes on where this run stopped"
_BEGIN_ANEW = (
    "run it again from the beginning: spans have the same ids each time, so that backends know "
    "which ones they have"
)
_UNUSABLE = (
    AuditFileError,
    ChainKeyError,
    CheckpointError,
    ConfigurationError,
    LinksError,
    UnusableDestinationError,
)


def run_export(options: ExportOptions, stopping: Stopping) -> int:
    """Export audit files, and tell how it went.

    Args:
        options: What to do.
        stopping: Whether the process is asked to stop; in force already.

    Returns:
        The exit code.
    """
    progress = Progress(sys.stderr, is_wanted=options.progress)
    summary = Summary(is_dry_run=options.dry_run)
    try:
        with logs_as_notices(progress.notice):
            _Run(options, stopping, progress, summary).run()
    except _UNUSABLE as error:
        progress.end()
        return ends.refuse(str(error), as_json=options.json, is_dry_run=options.dry_run)
    except Stopped:
        summary.exit_code = stopping.exit_code
        summary.advice = "stopped before anything was exported"
    except Exception as error:
        summary.exit_code = ends.FAULT
        summary.problems.append(ends.fault(error))
    stopping.over()
    progress.end()
    summary.tell(as_json=options.json)
    return summary.exit_code


class _Run:
    """What the steps of an export share."""

    def __init__(
        self, options: ExportOptions, stopping: Stopping, progress: Progress, summary: Summary
    ) -> None:
        self._options = options
        self._stopping = stopping
        self._progress = progress
        self._summary = summary

    def run(self) -> None:
        """Check, verify, export."""
        options, summary = self._options, self._summary
        began = time.monotonic()
        with self._stopping.at_once():
            self._sources = Sources(options.files, options.format)
        self._refuse_streams()
        key = chain_key(options.chain_key_file, os.environ) if options.verify_chain else None
        tell_of_hashes(self._progress.notice)
        with ExitStack() as opened:
            self._replay = self._open_replay(opened)
            receiver = self._open_receiver()
            if receiver is not None:
                opened.callback(receiver.close)
            summary.destination = receiver.destination if receiver else self._output()
            self._checkpoint = self._load_checkpoint(opened)
            if key is None or self._verify(key):
                self._checkpoint.prepare()
                sink = None if options.dry_run else receiver or self._open_output()
                if sink is not receiver and sink is not None:
                    opened.callback(sink.close)
                self._export(sink)
        summary.seconds = time.monotonic() - began

    def _refuse_streams(self) -> None:
        if self._sources.paths is None:
            for option, is_given in (
                ("--checkpoint", self._options.checkpoint is not None),
                ("--verify-chain", self._options.verify_chain),
            ):
                if is_given:
                    raise AuditFileError(
                        f"{option} does not go with a stream, which can be read only once"
                    )

    def _open_replay(self, opened: ExitStack) -> Replay:
        if not self._options.links:
            return Replay()
        with self._stopping.at_once():
            links = Links(self._options.links, self._progress.notice)
        opened.callback(links.close)
        return Replay(find_live=links.find)

    def _output(self) -> str:
        return str(Path(self._options.output or "").absolute())

    def _open_receiver(self) -> Sink | None:
        if self._options.output is not None:
            return None
        return open_otlp_sink(
            endpoint=self._options.endpoint,
            resource=resource_of(self._options.service_name),
            patience=self._options.patience,
            notify=self._progress.notice,
            is_stopping=lambda: self._stopping.number is not None,
        )

    def _load_checkpoint(self, opened: ExitStack) -> Checkpoint:
        options, destination = self._options, self._summary.destination
        filters = options.selection.filters()
        paths = self._sources.paths
        path = None if options.checkpoint is None else Path(options.checkpoint).resolve()
        if path is None and paths is not None:
            path = automatic_path(paths, destination, filters, os.environ)
        checkpoint = Checkpoint(
            path,
            is_kept=options.checkpoint is not None,
            is_written=not options.dry_run,
            destination=destination,
            filters=filters,
            settings=settings_of(
                resource_of(options.service_name),
                options.endpoint,
                os.environ,
                is_sent=options.output is None,
            ),
            now=time.time_ns(),
        )
        opened.callback(checkpoint.release)
        checkpoint.load(restart=options.restart)
        self._damaged = take_up(self._sources, checkpoint.positions)
        if self._damaged and options.verify_chain:
            raise AuditFileError(self._damaged[0])
        return checkpoint

    def _export(self, sink: Sink | None) -> None:
        checkpoint, summary = self._checkpoint, self._summary
        summary.counts = checkpoint.counts
        summary.earlier = checkpoint.counts.read
        if checkpoint.goes_on:
            self._progress.notice(
                f"goes on where an earlier run stopped, which had read {summary.earlier:,} records "
                "(--restart begins anew)"
            )
        checkpoint.is_finished = False
        checkpoint.save()
        self._progress.begin("exporting")
        self._end(
            Loop(
                sources=self._sources,
                sink=sink,
                checkpoint=checkpoint,
                matches=self._options.selection.matcher(checkpoint.now),
                replay=self._replay,
                stopping=self._stopping,
                progress=self._progress,
            )
        )

    def _end(self, loop: Loop) -> None:
        """Run the loop, and tell how that ended."""
        summary, checkpoint = self._summary, self._checkpoint
        is_file = self._sources.paths is not None
        again = _GO_ON if is_file and checkpoint.is_written else _BEGIN_ANEW
        loop.broken_off += self._damaged
        try:
            loop.run(self._entries)
            if not loop.broken_off:
                checkpoint.finish()
        except Stopped:
            summary.exit_code, summary.advice = self._stopping.exit_code, f"stopped; {again}"
        except DeliveryError as error:
            summary.exit_code = ends.UNDELIVERED
            summary.problems.append(str(error))
            summary.advice = f"once that is put right, {again}" if error.permanent else again
        except CheckpointError as error:
            summary.exit_code = ends.UNDELIVERED  # as for all else that is not "nothing done"
            summary.headline = "export stopped: how far it has come could not be kept"
            summary.problems.append(str(error))
            summary.advice = f"once that is put right, {again}"
        summary.cut_off, summary.rejection = loop.cut_off, loop.rejection
        summary.problems += loop.broken_off
        if self._options.links:
            summary.linked = loop.linked
        if summary.exit_code == ends.COMPLETE and (summary.failed or loop.broken_off):
            summary.exit_code = ends.SOME_FAILED
            summary.advice = f"when all of it can be read, {again}" if loop.broken_off else None
        is_there = checkpoint.is_written and checkpoint.path is not None
        if is_there and (checkpoint.is_kept or not checkpoint.is_finished):
            summary.checkpoint = str(checkpoint.path)

    def _open_output(self) -> Sink:
        checkpoint = self._checkpoint
        sink = open_file_sink(
            Path(self._output()),
            resource=resource_of(self._options.service_name),
            left=checkpoint.output,
            is_finished=checkpoint.is_finished,
        )
        checkpoint.output = sink.end
        return sink

    def _entries(self, source: Source) -> Iterator[Entry]:
        after = self._checkpoint.positions.get(source.path or "")
        yield from source.file.entries(after, source.verified)
        if source.cut_off is not None:
            yield source.cut_off
        source.check_size()

    def _verify(self, key: str) -> bool:
        """Whether the chain of each file holds; what is written to it later is not exported."""
        summary = self._summary
        self._progress.begin("verifying")
        with self._stopping.at_once():
            results = verify_chains(self._files_to_verify(), key, self._tick)
        summary.verified = sum(result.records for result in results)
        for source, result in zip(self._sources.all, results, strict=True):
            source.verified, source.cut_off = result.end, result.cut_off
            if not result.ok:
                summary.problems.append(f"{result.path}: {result.place}: {result.detail}")
        if summary.problems:
            summary.exit_code = ends.CHAIN_BROKEN
        self._sources.begin()
        return not summary.problems

    def _files_to_verify(self) -> Iterator[AuditFile]:
        for source in self._sources.all:
            self._verifying = source
            yield source.file
            source.is_read = True

    def _tick(self) -> None:
        self._progress.show(None, self._sources.share(self._verifying))
