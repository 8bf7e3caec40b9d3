# SPDX-License-Identifier: Apache-2.0
"""Apps under ``opentelemetry-instrument``, and what they say of themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.distro.zero_code import LAUNCHER, environment

AGENTS: Final = Path(__file__).with_name("agents.py")
_PATIENCE: Final = 90.0


@dataclass(frozen=True)
class Told:
    """What an app said at its end.

    Attributes:
        seen: How often it met each outcome.
        books: What became of its telemetry, by signal.
    """

    seen: Counter[str]
    books: dict[str, dict[str, Any]]


class App:
    """An app that has been started.

    Args:
        folder: A directory for its report.
        port: Where OTLP is taken.
        name: Its service's.
        command: What Python is to run; its last line must be a JSON object.
        variables: What to add to its environment.
    """

    def __init__(self, folder: Path, port: int, name: str, *command: str, **variables: str) -> None:
        self._report = folder / f"{name}-report"
        self._process = subprocess.Popen(
            [LAUNCHER, sys.executable, *command],
            env=environment(
                OTEL_SERVICE_NAME=name,
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
                OTEL_EXPORTER_OTLP_TIMEOUT="10",
                AGENT_KERNEL_OTEL_REPORT=str(self._report),
                **variables,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Told:
        """Wait until it has ended, and hear what it says."""
        output, errors = self._process.communicate(timeout=_PATIENCE)
        assert self._process.returncode == 0, errors
        (report,) = self._report.parent.glob(f"{self._report.name}.*")
        return Told(
            Counter(json.loads(output.splitlines()[-1])),
            json.loads(report.read_text())["telemetry"],
        )


def agents(
    folder: Path,
    port: int,
    turns: int,
    long_calls: int = 0,
    name: str = "agents",
    **variables: str,
) -> App:
    """Agents at work, as ``agents.py`` has them."""
    return App(folder, port, name, str(AGENTS), str(turns), str(long_calls), **variables)


def wait_for(is_so: Callable[[], bool], patience: float = _PATIENCE) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It was not in time.
    """
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {patience} s")
        time.sleep(0.2)
