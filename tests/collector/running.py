# SPDX-License-Identifier: Apache-2.0
"""A running OpenTelemetry Collector, and what arrived at it."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.collector.build import collector
from tests.support.otlp_records import Item, items

if TYPE_CHECKING:
    from typing_extensions import Self

_SIGNALS = ("traces", "metrics", "logs")


class Collector:
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
        self._config = folder / "config.json"
        listening = {"endpoint": "127.0.0.1:0", **server}
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        self._config.write_text(
            json.dumps(
                {
                    "receivers": {"otlp": {"protocols": {"grpc": listening, "http": listening}}},
                    "exporters": {"file": {"path": str(self._written)}},
                    "extensions": extensions or {},
                    "service": {
                        "extensions": list(extensions or ()),
                        "pipelines": dict.fromkeys(_SIGNALS, pipeline),
                        "telemetry": {"metrics": {"level": "none"}, "logs": {"encoding": "json"}},
                    },
                }
            )
        )
        self._log: list[str] = []
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [str(collector()), "--config", str(self._config)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            entry = json.loads(line) if line.startswith("{") else {"msg": line}
            words = entry["msg"].split()
            if words[:1] == ["Starting"] and words[-1:] == ["server"]:
                self._ports[words[1].lower()] = int(entry["endpoint"].rpartition(":")[2])
            if entry["msg"].startswith("Everything is ready"):
                # What is not read would in the end stop it.
                self._reader = threading.Thread(
                    target=self._log.extend, args=(self._process.stderr,), daemon=True
                )
                self._reader.start()
                return self
        self._process.wait()
        self._process.stderr.close()
        raise RuntimeError(f"the Collector did not start: {''.join(self._log)}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, so that all that it received is written."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()
            assert self._process.stderr is not None
            self._process.stderr.close()

    def port(self, protocol: str) -> int:
        """Where it listens: ``grpc``, or ``http/protobuf``."""
        return self._ports[protocol.partition("/")[0]]

    def received(self, signal: str) -> list[Item]:
        """The spans, metrics or log records that arrived; complete once it was stopped."""
        key = {"traces": "resourceSpans", "metrics": "resourceMetrics", "logs": "resourceLogs"}
        return [
            item
            for line in self._written.read_text().splitlines()
            if key[signal] in (message := json.loads(line))
            for item in items(signal, message)
        ]
