# SPDX-License-Identifier: Apache-2.0
"""A running Prometheus, Debian's own, that scrapes pages and evaluates rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.support.ports import HOST, free_port
from tests.support.scraped import HANGS_AFTER

if TYPE_CHECKING:
    from typing_extensions import Self

INTERVAL: Final = 0.25
"""Seconds between two scrapes."""


def program(name: str, package: str = "prometheus") -> str:
    """Where a program of Prometheus is, by its name in Debian.

    Raises:
        RuntimeError: It is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: apt-get install {package}")
    return found


class Prometheus:
    """Scrapes and can be asked; a context manager.

    Args:
        folder: An empty directory for its files.
        targets: The ports of what it scrapes, on the loopback interface.
        rules: Files of rules, which it evaluates every second.
    """

    def __init__(self, folder: Path, *targets: int, rules: Sequence[Path] = ()) -> None:
        self._targets = len(targets)
        self._port = free_port()
        config = folder / "prometheus.json"  # which is YAML, too
        config.write_text(
            json.dumps(
                {
                    "global": {
                        "scrape_interval": f"{INTERVAL * 1000:.0f}ms",
                        "evaluation_interval": "1s",
                    },
                    "rule_files": [str(file) for file in rules],
                    "scrape_configs": [
                        {
                            "job_name": "agent",
                            "scrape_timeout": f"{INTERVAL * 1000:.0f}ms",
                            "static_configs": [{"targets": [f"{HOST}:{port}" for port in targets]}],
                        }
                    ],
                }
            )
        )
        self._log = folder / "log"
        self._command = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{self._port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stderr=log)
        self.wait_for(lambda: self.value("sum(up)") == self._targets)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP interface."""
        address = f"http://{HOST}:{self._port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(address, timeout=HANGS_AFTER) as answer:  # nothing but http is asked for
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an expression now."""
        result = self.ask("query", query=expression)["result"]
        return [(found["metric"], float(found["value"][1])) for found in result]

    def value(self, expression: str) -> float | None:
        """The value of an expression of one series, or ``None`` where it has none."""
        result = self.query(expression)
        assert len(result) <= 1, result
        return result[0][1] if result else None

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something holds; what it has scraped is known by asking only.

        Raises:
            TimeoutError: It does not.
        """
        deadline = time.monotonic() + HANGS_AFTER / 2
        while not self._holds(condition):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"it does not hold; Prometheus said: {self._log.read_text()}")
            time.sleep(INTERVAL / 5)

    def wait_for_scrapes(self, number: int) -> None:
        """Wait until there are so many more."""
        begun = self._scrapes()
        self.wait_for(lambda: self._scrapes() >= begun + number)

    def _scrapes(self) -> float:
        return self.value("min(count_over_time(up[1h]))") or 0.0

    @staticmethod
    def _holds(condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except OSError:
            return False  # it does not listen yet
