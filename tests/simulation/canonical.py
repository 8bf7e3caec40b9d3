# SPDX-License-Identifier: Apache-2.0
"""All telemetry of a run as one text: the same for the same seed, to the byte."""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.capture import Capture, Points


def canonical(capture: Capture, points: Points) -> str:
    """Spans and log records in the order in which they ended, and the final data points."""
    lines = [json.dumps(_span(span), sort_keys=True) for span in capture.recorder.in_order]
    lines += [
        json.dumps(_record(each), sort_keys=True) for each in capture.logs.get_finished_logs()
    ]
    metrics = [[repr(key), json.loads(point.to_json())] for key, point in points.items()]
    lines += [json.dumps(each, sort_keys=True) for each in sorted(metrics, key=repr)]
    return "\n".join(lines) + "\n"


def _span(span: Any) -> Any:
    return json.loads(span.to_json(indent=None))


def _record(each: Any) -> Any:
    return json.loads(each.to_json(indent=None))
