# SPDX-License-Identifier: Apache-2.0
"""The Collectors of ``collector-config``, running, and what of it came where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.collector.build import collector, load_balancer
from tests.support.collector_process import TELEMETRY, CollectorProcess
from tests.support.otlp_records import Item, items
from tests.support.ports import free_port

CONFIG: Final = Path(__file__).parents[2] / "collector-config"
ANY_PORT: Final = "127.0.0.1:0"
_KEYS: Final = {"traces": "resourceSpans", "metrics": "resourceMetrics", "logs": "resourceLogs"}


def written(path: Path, signal: str = "traces") -> list[Item]:
    """What a file exporter wrote; a last line that was cut off is none."""
    if not path.exists():
        return []
    return [
        item
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n") and _KEYS[signal] in (message := json.loads(line))
        for item in items(signal, message)
    ]


class Agent(CollectorProcess):
    """``agent.yaml``.

    Args:
        folder: A directory for its files, the same after a restart.
        gateway: Port of whom it sends to.
        variables: What to add to its environment.
        port: Where it listens for gRPC; any port by default.
    """

    def __init__(
        self,
        folder: Path,
        gateway: int,
        variables: Mapping[str, str] | None = None,
        *,
        port: int = 0,
    ) -> None:
        super().__init__(
            collector(),
            folder / "agent.json",
            {"service": {"telemetry": TELEMETRY}},
            beneath=[CONFIG / "agent.yaml"],
            variables={
                "AGENT_OTLP_GRPC": f"127.0.0.1:{port}",
                "AGENT_OTLP_HTTP": ANY_PORT,
                "AGENT_HEALTH": ANY_PORT,
                "AGENT_STORAGE": str(folder / "agent"),
                "GATEWAY_ENDPOINT": f"127.0.0.1:{gateway}",
                "GATEWAY_INSECURE": "true",
                "GATEWAY_RETRY_INTERVAL": "1s",
                **(variables or {}),
            },
        )


class Gateway(CollectorProcess):
    """``gateway.yaml``, and a backend that writes down what comes to it and what came of it.

    Args:
        folder: A directory for its files, the same after a restart.
        variables: What to add to its environment.
        port: Where it listens for gRPC; any port by default.
        over: Files of ``collector-config`` over ``gateway.yaml``.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        over: Sequence[str] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.prometheus = free_port()
        signals = {"traces": "forward/traces", "metrics": "forward/metrics", "logs": "forward/logs"}
        files = {**signals, "traces/received": "forward/received"}
        super().__init__(
            collector(),
            folder / "gateway.json",
            {
                "exporters": {
                    f"file/{name}": {
                        "path": str(self._file(name)),
                        "append": True,
                        "flush_interval": "100ms",
                    }
                    for name in files
                },
                "service": {
                    "telemetry": TELEMETRY,
                    "pipelines": {
                        f"{name.partition('/')[0]}/test-{name.replace('/', '-')}": {
                            "receivers": [connector],
                            "exporters": [f"file/{name}"],
                        }
                        for name, connector in files.items()
                    },
                },
            },
            beneath=[CONFIG / "gateway.yaml", *(CONFIG / name for name in over)],
            variables={
                "GATEWAY_OTLP_GRPC": f"127.0.0.1:{port}",
                "GATEWAY_OTLP_HTTP": ANY_PORT,
                "GATEWAY_HEALTH": ANY_PORT,
                "GATEWAY_PROMETHEUS": f"127.0.0.1:{self.prometheus}",
                "GATEWAY_STORAGE": str(folder / "queues"),
                "DECISIONS_FILE": str(self.decisions_file),
                **(variables or {}),
            },
        )

    @property
    def decisions_file(self) -> Path:
        """Where it writes every decision of a policy down."""
        return self.folder / "decisions.jsonl"

    def received(self) -> list[Item]:
        """Every span that came to it."""
        return written(self._file("traces/received"))

    def kept(self, signal: str = "traces") -> list[Item]:
        """Every span, metric or log record that the backend got of it."""
        return written(self._file(signal), signal)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '-')}.jsonl"


class LoadBalancer(CollectorProcess):
    """``loadbalancer.yaml``.

    Args:
        folder: A directory for its files.
        gateways: Their ports.
        variables: What to add to its environment.
        port: Where it listens for gRPC; any port by default.
        over: Files of ``collector-config`` over ``loadbalancer.yaml``.
    """

    def __init__(
        self,
        folder: Path,
        gateways: Sequence[int],
        variables: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        over: Sequence[str] = (),
    ) -> None:
        super().__init__(
            load_balancer(),
            folder / "loadbalancer.json",
            {"service": {"telemetry": TELEMETRY}},
            beneath=[CONFIG / "loadbalancer.yaml", *(CONFIG / name for name in over)],
            variables={
                "LOADBALANCER_OTLP_GRPC": f"127.0.0.1:{port}",
                "LOADBALANCER_OTLP_HTTP": ANY_PORT,
                "LOADBALANCER_HEALTH": ANY_PORT,
                "GATEWAYS": json.dumps([f"127.0.0.1:{port}" for port in gateways]),
                "GATEWAY_INSECURE": "true",
                "GATEWAY_RETRY_INTERVAL": "1s",
                **(variables or {}),
            },
        )
