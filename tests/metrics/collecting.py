# SPDX-License-Identifier: Apache-2.0
"""What a reader collected, in a form that tests can compare."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData


def points_of(data: MetricsData | None) -> dict[str, list[Any]]:
    """The points of each metric, by its name."""
    found: dict[str, list[Any]] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found.setdefault(metric.name, []).extend(metric.data.data_points)
    return found


def collect(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """Collect now."""
    return points_of(reader.get_metrics_data())


def count_of(points: list[Any]) -> int:
    """How many values the points of a histogram have."""
    return sum(point.count for point in points)


def run(script: str, *arguments: str) -> Any:
    """Run a script in a process of its own, and return the JSON of its last line.

    It is killed, and the test fails, if it hangs.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
