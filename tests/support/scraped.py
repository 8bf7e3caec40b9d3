# SPDX-License-Identifier: Apache-2.0
"""A running app that Prometheus can scrape, which does one thing for each line it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.distro.zero_code import LAUNCHER, environment
from tests.support.ports import HOST, free_port

if TYPE_CHECKING:
    from typing_extensions import Self

HANGS_AFTER = 60.0


def scraped_environment(port: int, **variables: str) -> dict[str, str]:
    """The variables that make an app serve a page, and nothing else unless told so."""
    return {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_PROMETHEUS_HOST": HOST,
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
        **variables,
    }


class ScrapedApp:
    """Starts a Python program under ``opentelemetry-instrument``; a context manager.

    Args:
        command: The program, and its arguments.
        variables: Its environment, besides that of the tests.
        port: Where its page is.
        cwd: Its working directory.
    """

    def __init__(
        self, command: Sequence[str], variables: dict[str, str], port: int, cwd: Path | None = None
    ) -> None:
        self.port = port
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed at the end
        self.process = subprocess.Popen(
            [LAUNCHER, *command],
            cwd=cwd,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        # All of its processes: a child that hangs has its standard output, too.
        self._watchdog = threading.Timer(HANGS_AFTER, os.killpg, (self.process.pid, signal.SIGKILL))
        self._watchdog.start()

    @classmethod
    def of(cls, script: Path, *, port: int | None = None, **variables: str) -> ScrapedApp:
        """A script that says ``ready`` when it is."""
        port = port or free_port()
        app = cls([sys.executable, str(script)], scraped_environment(port, **variables), port)
        assert app.hear() == "ready", app.errors()
        return app

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        self._errors.close()

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str) -> str:
        """Have it do something, and hear what it says when it has."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self) -> int:
        """Tell it nothing more, and wait for its end."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        returncode = self.process.wait()
        self._watchdog.cancel()
        return returncode

    def errors(self) -> list[str]:
        """The lines that it has written to standard error so far."""
        self._errors.seek(0)
        return self._errors.read().splitlines()

    def scrape(self, **headers: str) -> str:
        """The page as it is now."""
        return scrape(self.port, **headers)

    def samples(self) -> list[Sample]:
        """The samples of the page as it is now."""
        return list(samples(self.scrape()))

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series now, or ``None`` where it is not there."""
        found = [s.value for s in self.samples() if (s.name, s.labels) == (name, labels)]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None


def scrape(port: int, **headers: str) -> str:
    """A page of metrics as it is now.

    Raises:
        OSError: Nobody serves it.
    """
    request = Request(f"http://{HOST}:{port}/metrics", headers=headers)
    with urlopen(request, timeout=HANGS_AFTER) as answer:  # nothing but http is asked for
        return str(answer.read().decode())


def samples(page: str) -> Iterator[Sample]:
    """The samples of a page in the text format."""
    for family in text_string_to_metric_families(page):
        yield from family.samples
