# SPDX-License-Identifier: Apache-2.0
"""The rule files, read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml  # type: ignore[import-untyped]

FOLDER: Final = Path(__file__).parent.parent.parent / "collector-config" / "prometheus"
RECORDING_FILE: Final = FOLDER / "recording.rules.yaml"
ALERTS_FILE: Final = FOLDER / "alerts.rules.yaml"
ALERTMANAGER_FILE: Final = FOLDER / "alertmanager.yaml"


class Alert(NamedTuple):
    """An alert rule; several can have one name, at other severities or windows.

    Attributes:
        waits: Whether it must hold for a while.
    """

    name: str
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]
    waits: bool

    @property
    def id(self) -> str:
        """Its name, severity and window."""
        return " ".join((self.name, *self.labels.values()))


class Recording(NamedTuple):
    """A recording rule."""

    name: str
    expression: str
    labels: dict[str, str]


def _groups(file: Path) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return groups


_RECORDING, _ALERTING = _groups(RECORDING_FILE), _groups(ALERTS_FILE)
GROUPS: Final = [group["name"] for group in (*_RECORDING, *_ALERTING)]
ALERTS: Final = [
    Alert(rule["alert"], rule["expr"], rule["labels"], rule["annotations"], "for" in rule)
    for group in _ALERTING
    for rule in group["rules"]
]
RECORDINGS: Final = [
    Recording(rule["record"], rule["expr"], rule.get("labels", {}))
    for group in _RECORDING
    for rule in group["rules"]
]
_ITEMS = ("spans", "metric_points", "log_records")
_SAMPLER = (
    "new_trace_id_received",
    "sampling_policy_evaluation_error",
    "sampling_trace_dropped_too_early",
)
COLLECTOR: Final[dict[str, set[str]]] = {
    **{f"otelcol_receiver_accepted_{item}": {"receiver", "transport"} for item in _ITEMS},
    **{f"otelcol_receiver_refused_{item}": {"receiver", "transport"} for item in _ITEMS},
    **{f"otelcol_exporter_sent_{item}": {"exporter"} for item in _ITEMS},
    **{f"otelcol_exporter_send_failed_{item}": {"exporter"} for item in _ITEMS},
    **{f"otelcol_exporter_enqueue_failed_{item}": {"exporter"} for item in _ITEMS},
    "otelcol_exporter_queue_size": {"exporter", "data_type"},
    "otelcol_exporter_queue_capacity": {"exporter", "data_type"},
    **{f"otelcol_processor_tail_sampling_{name}": set() for name in _SAMPLER},
}
"""Series of the Collector 0.155, and their labels besides the target's."""
