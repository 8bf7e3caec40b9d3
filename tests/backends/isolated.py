# SPDX-License-Identifier: Apache-2.0
"""A network of its own with nothing in it but a stub of Datadog's intake, and what came to that."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.backends import datadog_intake
from tests.backends.datadog_payloads import (
    Series,
    Sketches,
    Span,
    Stats,
    host,
    series,
    sketches,
    spans,
    stats,
)
from tests.support.ports import HOST

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Request:
    """One that came to the intake.

    Attributes:
        path: Where.
        headers: With what, their names in lower case.
        body: What, decompressed.
    """

    path: str
    headers: dict[str, str]
    body: bytes


class IsolatedIntake:
    """Starts the network and the stub; a context manager.

    Args:
        folder: A directory for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                # The user's own namespace: nobody has to be root.
                *("unshare", "--map-root-user", "--net", "--"),
                *(sys.executable, "-I", datadog_intake.__file__, str(self._folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        if not port:
            raise RuntimeError("the intake did not start: unshare or ip is missing, or forbidden")
        self.port = int(port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, so that :meth:`attempts` are known."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What sends Datadog's exporter here, where its user names a site."""
        here = {"endpoint": f"http://{HOST}:{self.port}"}
        return {"exporters": {"datadog": {"traces": here, "metrics": here, "logs": here}}}

    @property
    def inside(self) -> list[str]:
        """What to put before a command that is to run in this network."""
        return ["nsenter", "--preserve-credentials", "--user", "--net", f"-t{self._process.pid}"]

    def attempts(self) -> set[tuple[str, int]]:
        """The addresses to which anybody in this network tried to send."""
        written = (self._folder / datadog_intake.ATTEMPTS).read_text()
        return {(address, port) for address, port in json.loads(written)}

    def requests(self, path: str = "") -> list[Request]:
        """What came so far, to a path or to any."""
        # The last line may still be in the making.
        *lines, _ = (self._folder / datadog_intake.REQUESTS).read_text().split("\n")
        parsed = map(json.loads, lines)
        return [
            Request(one["path"], one["headers"], base64.b64decode(one["body"]))
            for one in parsed
            if path in ("", one["path"])
        ]

    def names_of_the_sender(self) -> set[str]:
        """The host that sends, as it calls itself; not those that the spans are of."""
        return {host(request.body) for request in self.requests("/api/v0.2/traces")}

    def spans(self) -> list[Span]:
        """The spans that came so far."""
        return [
            span for request in self.requests("/api/v0.2/traces") for span in spans(request.body)
        ]

    def series(self) -> list[Series]:
        """The counts and gauges that came so far, without those of the exporter itself."""
        return [
            one
            for request in self.requests("/api/v2/series")
            if request.headers["content-type"] == "application/x-protobuf"
            for one in series(request.body)
            if one.metric.startswith("agent_kernel.")
        ]

    def sketches(self) -> list[Sketches]:
        """The distributions that came so far."""
        return [
            one for request in self.requests("/api/beta/sketches") for one in sketches(request.body)
        ]

    def stats(self) -> list[Stats]:
        """The trace metrics that came so far."""
        return [one for request in self.requests("/api/v0.2/stats") for one in stats(request.body)]

    def logs(self) -> list[dict[str, object]]:
        """The log records that came so far; what the exporter sends to try the connection is none."""
        return [
            json.loads(str(record["message"]))
            for request in self.requests("/api/v2/logs")
            if isinstance(records := json.loads(request.body), list)
            for record in records
        ]
