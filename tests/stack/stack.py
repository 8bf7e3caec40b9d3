# SPDX-License-Identifier: Apache-2.0
"""The services of ``compose.yaml`` but Grafana, running on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from tests.alerts.prometheus.alertmanager import PACKAGE, started
from tests.collector.build import collector
from tests.distro.zero_code import LAUNCHER
from tests.jaeger.build import jaeger
from tests.prometheus.server import program
from tests.stack.compose import Composition
from tests.stack.programs import Program

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT: Final = Path(__file__).parents[2]
READY: Final = {
    "jaeger": (13133, "/status"),
    "collector": (13134, "/"),
    "alertmanager": (9093, "/-/ready"),
    "prometheus": (9090, "/-/ready"),
}
"""The programs in the order in which they are started, and where each says that it is ready."""


class Stack:
    """Collector, Jaeger, Prometheus and Alertmanager; a context manager.

    Args:
        folder: An empty directory, for all that they write.
        variables: What ``.env`` would say, instead of the environment.
        replaced: Texts to be replaced in files of configuration, such as intervals.
        also: Further files that the Collector's configuration is merged with.
        collectors: What to add to the Collector's environment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        variables: Mapping[str, str] | None = None,
        replaced: Mapping[str, str] | None = None,
        also: tuple[Path, ...] = (),
        collectors: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.composition = Composition(folder, variables, replaced)
        self._also = [f"--config={file}" for file in also]
        self._collectors = dict(collectors or {})
        self._running = ExitStack()
        self.programs: dict[str, Program] = {}

    def __enter__(self) -> Self:
        with ExitStack() as started_so_far:
            for name in READY:
                self.programs[name] = started_so_far.enter_context(self._program(name))
            self._running = started_so_far.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    def address(self, service: str, port: int) -> str:
        """Where a port of a service is, as ``http://host:port``."""
        return f"http://{self.composition.address(service, port)}"

    def demo(self, service: str, *arguments: str, **variables: str) -> Program:
        """The demo, which is to be entered, as a service of the file."""
        heartbeat = {"DEMO_HEARTBEAT": str(self.folder / service)}
        return Program(
            service,
            [LAUNCHER, sys.executable, "-m", "tests.stack.demo", *arguments],
            self.folder,
            variables={**self.composition.environment(service), **heartbeat, **variables},
            cwd=ROOT,
        )

    def _program(self, name: str) -> Program:
        port, path = READY[name]
        extra = self._also if name == "collector" else []
        added = self._collectors if name == "collector" else {}
        return Program(
            name,
            [*_binary(name), *self.composition.command(name), *extra],
            self.folder,
            variables={**self.composition.environment(name), **added},
            ready=f"{self.address(name, port)}{path}",
        )


def _binary(name: str) -> list[str]:
    if name == "collector":
        return [os.environ.get("OTELCOL") or str(collector())]
    if name == "jaeger":
        return [os.environ.get("JAEGER") or str(jaeger())]
    if name == "alertmanager":
        return started(Path(program("prometheus-alertmanager", PACKAGE)))
    return [program(name)]
