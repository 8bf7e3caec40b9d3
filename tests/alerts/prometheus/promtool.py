# SPDX-License-Identifier: Apache-2.0
"""Cases as promtool reads them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.alerts.cases.case import Case, Fired
from tests.alerts.rules import ALERTS, ALERTS_FILE, GROUPS, RECORDING_FILE
from tests.prometheus.server import program

_BY_ID = {alert.id: alert for alert in ALERTS}


def verdict(case: Case, folder: Path) -> str:
    """What promtool has to say against a case; nothing where it holds."""
    file = folder / "case.json"  # which is YAML, too
    file.write_text(json.dumps(_as_test(case)))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


def filled(annotation: str, labels: Mapping[str, str]) -> str:
    """What an annotation says of an alert with some labels."""
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], annotation)


def _as_test(case: Case) -> dict[str, Any]:
    return {
        "rule_files": [str(RECORDING_FILE), str(ALERTS_FILE)],
        "evaluation_interval": f"{case.evaluated}m",
        "group_eval_order": GROUPS,  # else what is recorded is late at times
        "tests": [
            {
                "name": case.title,
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in case.series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": f"{case.minutes}m",
                        "alertname": _BY_ID[case.about].name,
                        "exp_alerts": [_expected(fired) for fired in case.fires],
                    }
                ],
                "promql_expr_test": [_was_pending(case, fired) for fired in case.fires],
            }
        ],
    }


def _was_pending(case: Case, fired: Fired) -> dict[str, Any]:
    """That it held for a while before it fired, where it has to."""
    alert = _BY_ID[fired.alert]
    labels = {"alertname": alert.name, "alertstate": "pending", **alert.labels, **fired.labels}
    matchers = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return {
        "expr": f"clamp_max(sum(count_over_time(ALERTS{{{matchers}}}[{case.minutes}m])), 1)",
        "eval_time": f"{case.minutes}m",
        "exp_samples": [{"labels": "{}", "value": 1}] if alert.waits else [],
    }


def _expected(fired: Fired) -> dict[str, Any]:
    alert = _BY_ID[fired.alert]
    labels = {**alert.labels, **fired.labels}
    return {
        "exp_labels": labels,
        "exp_annotations": {
            **alert.annotations,
            "summary": filled(alert.annotations["summary"], labels),
            "description": fired.description,
        },
    }
