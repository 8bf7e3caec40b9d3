# SPDX-License-Identifier: Apache-2.0
"""Runs an app as a user does: ``opentelemetry-instrument python app.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

APPS = Path(__file__).parent / "apps"
KERNEL_APP = APPS / "orders.py"
LAUNCHER = str(Path(sys.executable).parent / "opentelemetry-instrument")


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without its OpenTelemetry settings, and with these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PYTHON", "WEAVER_KERNEL", "AGENT_KERNEL"))
    }
    return {**kept, **variables}


def run(
    *command: str,
    env: Mapping[str, str],
    instrumented: bool = True,
    fails: bool = False,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python with a command line, under ``opentelemetry-instrument`` unless told otherwise."""
    launcher = [LAUNCHER] if instrumented else []
    done = subprocess.run(
        [*launcher, sys.executable, *command],
        env=dict(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done


def install(folder: Path, name: str, entry_points: dict[str, str], code: str) -> None:
    """A distribution as pip would leave it in a folder."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{line}\n" for group, line in entry_points.items())
    )
