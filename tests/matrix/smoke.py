# SPDX-License-Identifier: Apache-2.0
"""Installs the built wheel into empty environments, and tries it as a user would."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.matrix import environments

EXTRAS = "[config,console,http,instruments,prometheus]"
TOUR = environments.ROOT / "examples" / "tour.py"

LOADS_ENTRY_POINTS = """
from importlib.metadata import entry_points, files
import agent_kernel_otel
for kind in ("instrumentor", "distro", "configurator"):
    found = [point for point in entry_points(group=f"opentelemetry_{kind}")
             if point.dist.name == "agent-kernel-otel"]
    assert found, kind
    for point in found:
        point.load()()
assert any(path.name == "py.typed" for path in files("agent-kernel-otel"))
print(agent_kernel_otel.__version__)
"""

WORKS_WITHOUT_OPENTELEMETRY = """
import agent_kernel_otel
from weaver_kernel import CapabilityNotFound, CapabilityRegistry, CapabilityRequest, Kernel
from weaver_kernel import Principal
kernel = Kernel(CapabilityRegistry())
agent_kernel_otel.instrument_kernel(kernel)
try:
    kernel.grant_capability(CapabilityRequest("none", "g"), Principal("a"), justification="j")
except CapabilityNotFound:
    pass
seen = agent_kernel_otel.kernel_stats(kernel).snapshot()
assert seen.by("agent_kernel.grants", "agent_kernel.status")["error"] == 1, seen
agent_kernel_otel.uninstrument_kernel(kernel)
try:
    agent_kernel_otel.KernelInstrumentor()
except ImportError as error:
    assert "opentelemetry" in str(error), error
else:
    raise AssertionError("KernelInstrumentor works without OpenTelemetry")
"""


class Installation:
    """An empty environment into which something is installed."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.bin = directory / "bin"
        environments.run([sys.executable, "-m", "venv", directory])
        environments.run([self.bin / "python", "-m", "pip", "install", "--quiet", *arguments])

    def run(self, *command: str, expect: int | None = 0) -> str:
        """Run a command of this environment away from the repository; return all it printed."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "PYTHON"))}
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.bin.parent,
            env={**inherited, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert expect in (None, done.returncode), f"{command}: {done.returncode}\n{printed}"
        assert "Traceback" not in printed, f"{command}\n{printed}"
        return printed


def plain(wheel: Path, directory: Path) -> None:
    """No extra: it imports, its entry points load, and it says what the console needs."""
    installed = Installation(directory, str(wheel))
    version = installed.run("python", "-W", "error", "-c", LOADS_ENTRY_POINTS).strip()
    assert f"-{version}-" in wheel.name, version
    assert "console" in installed.run("agent-kernel-otel", "--help")
    assert "agent-kernel-otel[console]" in installed.run(
        "agent-kernel-otel", "console", expect=None
    )


def with_extras(wheel: Path, directory: Path) -> None:
    """All extras: an app that knows nothing of telemetry is drawn in the console."""
    installed = Installation(directory, f"{wheel}{EXTRAS}")
    console = [
        "console",
        "--grpc-port",
        "0",
        "--http-port",
        "0",
        "--",
        "opentelemetry-instrument",
        "python",
    ]
    shown = installed.run("agent-kernel-otel", *console, str(TOUR))
    for drawn in ("agent_kernel.grant", "agent_kernel.invoke", "missing_role"):
        assert drawn in shown, shown


def without_opentelemetry(wheel: Path, directory: Path) -> None:
    """No OpenTelemetry at all: one kernel can be counted all the same."""
    installed = Installation(directory, "weaver-kernel", "wrapt")
    environments.run([installed.bin / "python", "-m", "pip", "install", "--no-deps", wheel])
    installed.run("python", "-W", "error", "-c", WORKS_WITHOUT_OPENTELEMETRY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    checks: list[Callable[[Path, Path], None]] = [plain, with_extras, without_opentelemetry]
    failed = 0
    for check in checks:
        with tempfile.TemporaryDirectory() as directory:
            try:
                check(wheel, Path(directory))
            except (AssertionError, environments.CommandFailedError) as error:
                failed += 1
                print(f"{check.__name__}: FAILED\n{error}", flush=True)
            else:
                print(f"{check.__name__}: passed", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
