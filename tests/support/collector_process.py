# SPDX-License-Identifier: Apache-2.0
"""A running program that is made of the OpenTelemetry Collector: itself, or Jaeger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

TELEMETRY: Final = {"metrics": {"level": "none"}, "logs": {"encoding": "json"}}
"""What it tells of itself: no metrics, and a log that can be read here."""


class CollectorProcess:
    """Started with a configuration, and ready when entered; a context manager.

    Args:
        program: Where it is.
        config: Where its configuration is to be written.
        settings: The configuration, with :data:`TELEMETRY` in it.
        beneath: Files of configuration that this one is merged over.
        variables: What to add to the environment.
    """

    def __init__(
        self,
        program: Path,
        config: Path,
        settings: dict[str, Any],
        *,
        beneath: Sequence[Path] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        config.write_text(json.dumps(settings))  # which is YAML, too
        self._command = [str(program)]
        for file in (*beneath, config):
            self._command += ["--config", str(file)]
        # Jaeger traces itself.
        self._environment = {
            **os.environ,
            "OTEL_TRACES_SAMPLER": "always_off",
            **(variables or {}),
        }
        self._log: list[str] = []
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            entry = json.loads(line) if line.startswith("{") else {"msg": line}
            self._listen_for_ports(entry)
            if entry["msg"].startswith("Everything is ready"):
                # What is not read would in the end stop it.
                self._reader = threading.Thread(
                    target=self._log.extend, args=(self._process.stderr,), daemon=True
                )
                self._reader.start()
                return self
        self._process.wait()
        self._process.stderr.close()
        raise RuntimeError(f"it did not start: {''.join(self._log)}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, so that all that it received is where it goes."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the system does when memory is short."""
        self._end(signal.SIGKILL)

    def logged(self) -> list[str]:
        """What it said of itself so far, line by line."""
        return list(self._log)

    def _end(self, by: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(by)
            self._process.wait()
            self._reader.join()
            assert self._process.stderr is not None
            self._process.stderr.close()

    def port(self, protocol: str) -> int:
        """Where it takes OTLP: ``grpc``, or ``http/protobuf``; Jaeger's ``query`` too."""
        return self._ports[protocol.partition("/")[0]]

    def _listen_for_ports(self, entry: dict[str, Any]) -> None:
        words = entry["msg"].split()
        if words[:1] == ["Starting"] and words[-1:] == ["server"] and "endpoint" in entry:
            self._ports[words[1].lower()] = _port(entry["endpoint"])
        elif entry["msg"] == "Query server started":
            self._ports["query"] = _port(entry["http_addr"])


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
