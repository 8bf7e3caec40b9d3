# SPDX-License-Identifier: Apache-2.0
"""A running OpenTelemetry Collector, and what arrived at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.collector.build import collector
from tests.support.collector_process import TELEMETRY, CollectorProcess
from tests.support.otlp_records import Item, items

_SIGNALS = ("traces", "metrics", "logs")


class Collector(CollectorProcess):
    """Takes OTLP over gRPC and HTTP, and writes it down; a context manager.

    Args:
        folder: An empty directory for its files.
        server: What both servers get: the receiver's settings ``tls`` and ``auth``.
        extensions: The extensions to start, by name.
    """

    def __init__(
        self, folder: Path, server: dict[str, Any], extensions: dict[str, Any] | None = None
    ) -> None:
        self._written = folder / "received.json"
        listening = {"endpoint": "127.0.0.1:0", **server}
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        super().__init__(
            collector(),
            folder / "config.json",
            {
                "receivers": {"otlp": {"protocols": {"grpc": listening, "http": listening}}},
                "exporters": {"file": {"path": str(self._written)}},
                "extensions": extensions or {},
                "service": {
                    "extensions": list(extensions or ()),
                    "pipelines": dict.fromkeys(_SIGNALS, pipeline),
                    "telemetry": TELEMETRY,
                },
            },
        )

    def received(self, signal: str) -> list[Item]:
        """The spans, metrics or log records that arrived; complete once it was stopped."""
        key = {"traces": "resourceSpans", "metrics": "resourceMetrics", "logs": "resourceLogs"}
        return [
            item
            for line in self._written.read_text().splitlines()
            if key[signal] in (message := json.loads(line))
            for item in items(signal, message)
        ]
