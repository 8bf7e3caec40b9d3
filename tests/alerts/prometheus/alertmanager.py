# SPDX-License-Identifier: Apache-2.0
"""A running Alertmanager, Debian's own, with the routes of the project."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

from tests.alerts.rules import ALERTMANAGER_FILE
from tests.prometheus.server import program
from tests.support.ports import HOST, free_port
from tests.support.scraped import HANGS_AFTER

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE: Final = "prometheus-alertmanager"


def amtool(*arguments: str) -> str:
    """What amtool prints.

    Raises:
        CalledProcessError: It found a fault.
    """
    command = [program("amtool", PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(template: str, alerts: Sequence[tuple[dict[str, str], dict[str, str]]]) -> str:
    """What a template makes of a notification of some alerts, by their labels and annotations."""
    labels, annotations = ([pair[place] for pair in alerts] for place in (0, 1))
    data = {
        "status": "firing",
        "alerts": [
            {"status": "firing", "labels": one, "annotations": other} for one, other in alerts
        ],
        "commonLabels": _common(labels),
        "commonAnnotations": _common(annotations),
    }
    with NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(data, file)
        file.flush()
        return amtool(
            *("template", "render", f"--template.glob={ALERTMANAGER_FILE}"),
            *(f"--template.data={file.name}", f"--template.text={template}"),
        )


def _common(several: Sequence[dict[str, str]]) -> dict[str, str]:
    first, *others = several
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def started(binary: Path) -> list[str]:
    """How to start it: from a package that was only unpacked, with its templates where they belong."""
    templates = "prometheus/alertmanager/default.tmpl"
    if (Path("/usr/share") / templates).exists():
        return [str(binary)]
    unpacked = binary.parent.parent / "share"
    assert (unpacked / templates).exists()
    there = 'mount --bind "$0" /usr/share && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", there, str(unpacked), str(binary)]


class Alertmanager:
    """Takes alerts and says what it makes of them; a context manager.

    It is asked long before the first notification would be due, and so tells nobody.

    Args:
        folder: An empty directory for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._address = f"{HOST}:{free_port()}"
        self._log = folder / "log"
        self._command = [
            *started(Path(program("prometheus-alertmanager", PACKAGE))),
            f"--config.file={ALERTMANAGER_FILE}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={self._address}",
            "--cluster.listen-address=",
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stderr=log)
        deadline = time.monotonic() + HANGS_AFTER
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not start: {self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def told_of(self, *alerts: dict[str, str]) -> list[dict[str, str]]:
        """Which of some alerts, by their labels, it would tell somebody."""
        self._ask("alerts", [{"labels": labels} for labels in alerts])
        known = self._ask("alerts")
        assert len(known) == len(alerts)
        return [alert["labels"] for alert in known if not alert["status"]["inhibitedBy"]]

    def _ready(self) -> bool:
        try:
            with urlopen(f"http://{self._address}/-/ready", timeout=HANGS_AFTER):
                return True
        except OSError:
            return False  # it does not listen yet

    def _ask(self, path: str, body: Any = None) -> Any:
        request = Request(
            f"http://{self._address}/api/v2/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=HANGS_AFTER) as answer:  # nothing but http is asked for
            return json.loads(answer.read() or "null")
