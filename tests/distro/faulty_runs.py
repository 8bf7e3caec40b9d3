# SPDX-License-Identifier: Apache-2.0
"""Runs ``apps/faulty_app.py`` against one faulty collector, and tells what came of it."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from tests.distro.apps.faulty_app import seconds_without_processor
from tests.distro.zero_code import APPS, LAUNCHER, environment
from tests.support.faulty_collector import FaultyCollector, Protocol

if TYPE_CHECKING:
    from typing_extensions import Self

APP: Final = APPS / "faulty_app.py"
SIGNALS: Final = ("traces", "logs", "metrics")
_HANGS_AFTER: Final = 60.0
_START_AT_ONCE: Final = 3
"""Starting needs the processor."""
_END_AT_ONCE: Final = 8
"""Ending waits for the network."""
_TIME: Final = re.compile(r"^at (\S+) (\S+) (\S+)$", re.MULTILINE)
_RSS: Final = re.compile(r"^rss (-?\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One run: how the collector fails, over which protocol, and how the app ends.

    Attributes:
        behaviour: Of the collector; ``None`` runs the app without us.
        protocol: As ``OTEL_EXPORTER_OTLP_PROTOCOL`` has it.
        mode: The app's argument.
        count: How many requests or items the collector's behaviour concerns.
    """

    behaviour: str | None
    protocol: Protocol
    mode: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.behaviour}-{self.protocol.partition('/')[0]}-{self.mode}"


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        output: The lines that the app printed, sorted, because children print when they please.
        returncode: The exit code, or less than 0 the signal that ended it.
        seconds: How long the end of each of its processes took from that process's last line,
            less the time in which it was kept waiting by what else the machine had to do.
        growth: By how many kilobytes the resident memory grew in its second round.
        reports: For each of its processes what its telemetry came to, by signal.
        acknowledged: What the collector acknowledged, by signal.
        errors: What the app wrote to standard error.
    """

    output: list[str]
    returncode: int
    seconds: dict[str, float]
    growth: int
    reports: list[dict[str, dict[str, Any]]]
    acknowledged: dict[str, int]
    errors: str = field(repr=False)

    def total(self, what: str) -> dict[str, int]:
        """``ended``, ``sent`` or ``refused`` of all processes, by signal."""
        sums = Counter(dict.fromkeys(SIGNALS, 0))
        for report in self.reports:
            sums.update({name: entry[what] for name, entry in report.items()})
        return dict(sums)


class _Run:
    """One run on its way: started, then ready, then ended."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._collector: FaultyCollector | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Return once the app is ready to end."""
        command = [sys.executable, str(APP), self.case.mode]
        variables = {}
        if self.case.behaviour is not None:
            self._collector = self._stack.enter_context(
                FaultyCollector(self.case.behaviour, self.case.protocol, self.case.count)
            )
            command.insert(0, LAUNCHER)
            variables = self._collector.environment()
            variables["AGENT_KERNEL_OTEL_REPORT"] = str(self._folder / "report")
        self._errors = self._stack.enter_context((self._folder / "errors").open("w+"))
        self._process = self._stack.enter_context(
            subprocess.Popen(
                command,
                env=environment(**variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        )
        self._stack.callback(self._process.kill)
        with self._unless_it_hangs():
            self._output = self._read_until("ready")

    def end(self) -> Outcome:
        """Let the app go on, and wait for its end."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._unless_it_hangs(), stdin, stdout:
            stdin.write("go\n")
            stdin.flush()
            if self.case.mode == "sigterm":
                self._output += self._read_until("at end")
                self._process.send_signal(signal.SIGTERM)
            self._output += stdout.read()
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            reaped = time.monotonic() - seconds_without_processor(self._process.pid)
            returncode = self._process.wait()
        times = {
            event: float(at) - float(without_processor)
            for event, at, without_processor in _TIME.findall(self._output)
        }
        times["reaped"] = reaped
        return Outcome(
            output=sorted(
                line
                for line in self._output.splitlines()
                if not _TIME.match(line) and not _RSS.match(line)
            ),
            returncode=returncode,
            seconds={
                event: times.get(event.replace("end", "reaped"), math.inf) - at
                for event, at in times.items()
                if event.startswith("end")
            },
            growth=int("".join(_RSS.findall(self._output)) or 0),
            reports=[
                json.loads(report.read_text())["telemetry"]
                for report in sorted(self._folder.glob("report.*"))
            ],
            acknowledged=self._collector.acknowledged() if self._collector else {},
            errors=_content(self._errors),
        )

    @contextmanager
    def _unless_it_hangs(self) -> Iterator[None]:
        watchdog = threading.Timer(_HANGS_AFTER, self._process.kill)
        watchdog.start()
        yield
        watchdog.cancel()

    def _read_until(self, beginning: str) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        read = ""
        for line in stdout:
            read += line
            if line.startswith(beginning):
                return read
        raise AssertionError(f"{self.case} ended before {beginning!r}: {_content(self._errors)}")


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def run_all(cases: Sequence[Case]) -> dict[Case, Outcome]:
    """Run all of them side by side: first all start, then all end."""
    with ExitStack() as stack:
        runs = [stack.enter_context(_Run(case)) for case in cases]
        with ThreadPoolExecutor(_START_AT_ONCE) as starting:
            list(starting.map(_Run.start, runs))
        with ThreadPoolExecutor(_END_AT_ONCE) as ending:
            return dict(zip(cases, ending.map(_Run.end, runs), strict=True))
