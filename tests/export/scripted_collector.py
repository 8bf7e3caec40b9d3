# SPDX-License-Identifier: Apache-2.0
"""An OTLP receiver in a process of its own that answers the first requests as it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.export import scripted_server
from tests.support.faulty_collector import Protocol
from tests.support.otlp_records import Received

if TYPE_CHECKING:
    from typing_extensions import Self


class ScriptedCollector(Received):
    """Starts the receiver, and reads what it received; a context manager.

    Args:
        folder: Where it writes.
        answers: Its answers to the first requests; all later ones are taken.
        protocol: As ``OTEL_EXPORTER_OTLP_PROTOCOL`` has it.
        port: Where it listens; any free port by default.
        largest: Size of the largest request that it takes, in bytes.
        invalid: Values of attributes; a request with one of them is invalid.
    """

    def __init__(
        self,
        folder: Path,
        *answers: dict[str, Any],
        protocol: Protocol = "grpc",
        port: int = 0,
        largest: int | None = None,
        invalid: Iterable[str] = (),
    ) -> None:
        super().__init__(folder / "requests.jsonl")
        self._wanted = {
            "answers": answers,
            "protocol": protocol,
            "port": port,
            "largest": largest,
            "invalid": list(invalid),
            "output": str(self.written),
        }
        self.port = port

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-I", scripted_server.__file__, json.dumps(self._wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._process:
            self._process.kill()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def sizes(self) -> list[int]:
        """How many spans each request had, whatever it was answered."""
        return [request["items"] for request in self._all()]
