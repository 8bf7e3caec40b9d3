# SPDX-License-Identifier: Apache-2.0
"""The rules are in force in the stack, and what the demo does wrong is told."""

from __future__ import annotations

from typing import Any

from tests.alerts.rules import ALERTS, RECORDINGS
from tests.stack.asking import eventually, get_json
from tests.stack.conftest import SERVICE, Worked

FORCED = {"AgentKernelAuditFailing", "AgentKernelBudgetExhausted"}
"""Those that wait for nothing; the demo's audit store fails, and its budget is spent."""


def _rules(worked: Worked) -> list[dict[str, Any]]:
    groups = worked.prometheus.ask("rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_prometheus_has_every_rule_and_none_has_an_error(worked: Worked) -> None:
    eventually(lambda: all(rule["health"] != "unknown" for rule in _rules(worked)))
    rules = _rules(worked)
    assert len(rules) == len(ALERTS) + len(RECORDINGS)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


def test_every_target_is_up(worked: Worked) -> None:
    targets = worked.prometheus.ask("targets")["activeTargets"]
    assert {target["labels"]["job"]: target["health"] for target in targets} == {
        "collector": "up",
        "otelcol": "up",
    }


def test_alertmanager_is_told_what_goes_wrong(worked: Worked) -> None:
    address = worked.stack.address("alertmanager", 9093)

    def told() -> dict[str, Any]:
        return {
            alert["labels"]["alertname"]: alert
            for alert in get_json(f"{address}/api/v2/alerts")
            if alert["status"]["state"] == "active" and alert["labels"].get("job") == SERVICE
        }

    eventually(lambda: set(told()) >= FORCED)
    alert = told()["AgentKernelAuditFailing"]
    assert {receiver["name"] for receiver in alert["receivers"]} == {"pager"}
    assert alert["annotations"]["summary"] == f"Actions of {SERVICE} leave no audit record"
