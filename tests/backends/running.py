# SPDX-License-Identifier: Apache-2.0
"""A running gateway with the files of some backends, and apps that send to it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.collector.build import collector
from tests.distro.zero_code import LAUNCHER, environment
from tests.support.collector_process import TELEMETRY, CollectorProcess
from tests.support.ports import HOST, free_port
from tests.support.scraped import HANGS_AFTER

ROOT: Final = Path(__file__).parents[2]
CONFIGS: Final = ROOT / "collector-config"
TOUR: Final = ROOT / "examples" / "tour.py"
AUDITED_AGENT: Final = Path(__file__).with_name("audited_agent.py")
_ANY: Final = f"{HOST}:0"


class Gateway(CollectorProcess):
    """``gateway.yaml`` with backends mixed in; a context manager.

    Args:
        folder: An empty directory for its files.
        backends: The names of their files.
        variables: What its user sets.
        settings: What no variable of a file can set, merged over all of them.
        inside: A command that runs it in another network.
    """

    def __init__(
        self,
        folder: Path,
        *backends: str,
        variables: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.page = free_port()
        self.inside = inside
        super().__init__(
            collector(),
            folder / "overrides.json",
            {"service": {"telemetry": TELEMETRY}, **(settings or {})},
            beneath=[CONFIGS / f"{name}.yaml" for name in ("gateway", *backends)],
            variables={
                "GATEWAY_OTLP_GRPC": _ANY,
                "GATEWAY_OTLP_HTTP": _ANY,
                "GATEWAY_HEALTH": _ANY,
                "GATEWAY_PROMETHEUS": f"{HOST}:{self.page}",
                "GATEWAY_STORAGE": str(folder / "queues"),
                "DECISIONS_FILE": str(folder / "decisions.jsonl"),
                # These tests are of what becomes of what is kept.
                "SHARE_PERCENT": "100",
                "WAIT_AFTER_ROOT": "1s",
                **(variables or {}),
            },
        )
        self._command[:0] = inside

    def warnings(self) -> list[str]:
        """What it complained of."""
        entries = [json.loads(line) for line in self.logged() if line.startswith("{")]
        return [entry["msg"] for entry in entries if entry["level"] != "info"]

    def _listen_for_ports(self, entry: dict[str, Any]) -> None:
        # Kelpie has a receiver of its own.
        if entry.get("otelcol.component.id", "otlp") == "otlp":
            super()._listen_for_ports(entry)


@dataclass(frozen=True)
class Action:
    """A line of an audit trail."""

    action_id: str
    capability_id: str
    event_type: str
    failed: bool


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for what a backend can only be asked for.

    Raises:
        TimeoutError: It does not come.
    """
    deadline = time.monotonic() + HANGS_AFTER / 2
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to the backend")
        time.sleep(0.05)


def run_app(
    gateway: Gateway, service: str, script: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script under ``opentelemetry-instrument``, which knows nothing of the gateway but its port."""
    return _run(gateway, service, [LAUNCHER, sys.executable, str(script), *arguments], variables)


def run_audited_agent(
    gateway: Gateway, service: str, trail: Path, secret: str, *wishes: str
) -> list[Action]:
    """Run the agent of :mod:`tests.backends.audited_agent`, and return what its trail says."""
    done = run_app(gateway, service, AUDITED_AGENT, str(trail), *wishes, AGENT_SECRET=secret)
    return [Action(**line) for line in json.loads(done.stdout)]


def export_trail(gateway: Gateway, service: str, trail: Path) -> None:
    """Have the command export an audit file."""
    state = {"XDG_STATE_HOME": str(trail.parent)}
    command = [sys.executable, "-m", "agent_kernel_otel.cli", "export", str(trail)]
    _run(gateway, service, command, state)


def _run(
    gateway: Gateway, service: str, command: Sequence[str], variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*gateway.inside, *command],
        env=environment(
            PYTHONPATH=str(ROOT),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{HOST}:{gateway.port('grpc')}",
            OTEL_SERVICE_NAME=service,
            **variables,
        ),
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
