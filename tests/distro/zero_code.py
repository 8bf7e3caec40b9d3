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
_BIN = Path(sys.executable).parent


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without its OpenTelemetry settings, and with these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PYTHON", "WEAVER_KERNEL", "AGENT_KERNEL"))
    }
    return {**kept, **variables}


def run(
    *command: str, env: Mapping[str, str], instrumented: bool = True, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with a command line, under ``opentelemetry-instrument`` unless told otherwise."""
    launcher = [str(_BIN / "opentelemetry-instrument")] if instrumented else []
    done = subprocess.run(
        [*launcher, sys.executable, *command],
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done
