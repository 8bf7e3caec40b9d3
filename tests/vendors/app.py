# SPDX-License-Identifier: Apache-2.0
"""The kernel app of the distro's tests, with a child process, and a report of who configured."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from opentelemetry import trace

runpy.run_path(
    str(Path(__file__).parents[1] / "distro" / "apps" / "orders.py"), run_name="__main__"
)
# A child is instrumented too, and inherits the environment.
child = subprocess.run(
    [sys.executable, "-c", "pass"], capture_output=True, text=True, timeout=60, check=True
)
report = {
    "found": [point.dist.name for point in entry_points(group="opentelemetry_distro")],  # type: ignore[union-attr]
    "provider": type(trace.get_tracer_provider()).__name__,
    "queue": os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE"),
    "child": child.stderr,
}
print(json.dumps(report))
