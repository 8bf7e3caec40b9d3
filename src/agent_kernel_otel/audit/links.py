# SPDX-License-Identifier: Apache-2.0
"""A file of links: which live span each action had, for whoever replays its record long after."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from agent_kernel_otel import semconv
from agent_kernel_otel.config import InstrumentationConfig

_END: Final = b"\n"


class LinksFileExporter(SpanExporter):
    """Writes a line for each action of a kernel: its id, and the ``traceparent`` of its span.

    ``agent-kernel-otel export --links FILE`` reads them. It goes beside the exporter that sends the
    spans: as ``OTEL_TRACES_EXPORTER=otlp,agent_kernel_links``, or in a batch processor of its own.
    Several processes can write to one file, and it can be moved away at any time.

    Args:
        path: Where to write; the setting ``links_file`` of
            :class:`agent_kernel_otel.InstrumentationConfig` by default.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is None:
            path = InstrumentationConfig.resolve().links_file
        self._path = Path(path).absolute()  # an app may change its directory
        self._endpoint = str(self._path)  # under this name the notices of lost spans look it up

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append the links of spans; those that are no action of a kernel have none.

        Raises:
            OSError: The file cannot be written. Span processors count that as a failure, and say
                what it was.
        """
        lines = [line for line in map(_line_of, spans) if line is not None]
        if lines:
            # Opened each time: for a file that was moved away, and for forks, which share nothing.
            # Written at once, not by way of a buffer: other processes write between two pieces.
            with self._path.open("a+b", buffering=0) as file:
                if _is_cut_off(file):
                    lines.insert(0, _END)
                rest = b"".join(lines)
                while rest:
                    rest = rest[file.write(rest) :]
        return SpanExportResult.SUCCESS


def _line_of(span: ReadableSpan) -> bytes | None:
    attributes = span.attributes or {}
    action_id = attributes.get(semconv.ACTION_ID)
    live = span.context
    if attributes.get(semconv.REPLAYED):  # where nothing is patched the link is to the app's own
        live = span.links[0].context if span.links else None
    if action_id is None or live is None:
        return None
    line = {"action_id": action_id, "traceparent": _traceparent(live)}
    return json.dumps(line).encode() + _END


def _traceparent(context: SpanContext) -> str:
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


def _is_cut_off(file: FileIO) -> bool:
    """Whether a writer that was killed has left a line without its end; maybe one still writes."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return False
    file.seek(size - 1)
    return file.read(1) != _END
