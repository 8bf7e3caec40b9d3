# SPDX-License-Identifier: Apache-2.0
"""Who is told of which alert, on the real amtool and Alertmanager."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.alerts.cases import CASES
from tests.alerts.prometheus.alertmanager import Alertmanager, amtool, rendered
from tests.alerts.prometheus.promtool import filled
from tests.alerts.rules import ALERTMANAGER_FILE, ALERTS, Alert

RECEIVERS = {"page": "pager", "ticket": "tickets"}
BY_ID = {alert.id: alert for alert in ALERTS}
LABELS: dict[str, Mapping[str, str]] = {
    fired.alert: fired.labels for case in CASES for fired in case.fires
}
"""Those of one alert of each rule, besides its own."""


def labels(alert_id: str, **others: str) -> dict[str, str]:
    alert = BY_ID[alert_id]
    return {"alertname": alert.name, **alert.labels, **LABELS[alert_id], **others}


def test_amtool_finds_no_fault_with_the_configuration() -> None:
    assert "SUCCESS" in amtool("check-config", str(ALERTMANAGER_FILE))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.id)
def test_an_alert_goes_to_those_whom_its_severity_concerns(alert: Alert) -> None:
    receiver = RECEIVERS[alert.labels["severity"]]
    route = [f"{key}={value}" for key, value in labels(alert.id).items()]
    told = amtool(
        *("config", "routes", "test", f"--config.file={ALERTMANAGER_FILE}"),
        *(f"--verify.receivers={receiver}", *route),
    )
    assert told.strip() == receiver


def test_an_alert_of_no_severity_is_not_lost() -> None:
    told = amtool(
        "config", "routes", "test", f"--config.file={ALERTMANAGER_FILE}", "alertname=Another"
    )
    assert told.strip() == "tickets"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.id)
def test_what_is_told_of_several_alerts_of_a_name_says_what_each_is_about(alert: Alert) -> None:
    receivers = yaml.safe_load(ALERTMANAGER_FILE.read_text(encoding="utf-8"))["receivers"]
    known = {receiver["name"]: receiver for receiver in receivers}
    paged = known["pager"]["pagerduty_configs"][0]["description"]
    template = {"page": paged, "ticket": known["tickets"]["slack_configs"][0]["text"]}
    group = []
    for place in ("here", "there"):
        # A group is of one name and job.
        own = {key: value if key == "job" else place for key, value in LABELS[alert.id].items()}
        summary = filled(alert.annotations["summary"], own)
        group.append((own, {**alert.annotations, "summary": summary}))
    told = rendered(template[alert.labels["severity"]], group)
    assert all(said["summary"] in told for _, said in group)


BURN = "AgentKernelErrorBudgetBurn page 1h", "AgentKernelErrorBudgetBurn ticket 3d"
AUDIT = "AgentKernelAuditFailing page 15m", "AgentKernelAuditFailing ticket 1d"
QUEUE = "AgentKernelCollectorQueueFilling page", "AgentKernelCollectorQueueFilling ticket"
BUDGET = "AgentKernelBudgetExhausted ticket", "AgentKernelBudgetNearlySpent ticket"
OVERFLOW = "AgentKernelCollectorOverflowing page", "AgentKernelCollectorQueueFilling page"
LOOP = "AgentKernelDenialStorm ticket", "AgentKernelDenialSpike ticket"
ELSEWHERE = {"job": "elsewhere"}


@pytest.mark.parametrize(("worse", "lesser"), [BURN, AUDIT, QUEUE, OVERFLOW, BUDGET, LOOP], ids=str)
def test_what_is_worse_silences_what_it_implies_and_only_there(
    worse: str, lesser: str, tmp_path: Path
) -> None:
    alerts = labels(worse), labels(lesser), labels(lesser, **ELSEWHERE)
    with Alertmanager(tmp_path) as alertmanager:
        told = alertmanager.told_of(*alerts)
    assert labels(lesser) not in told
    assert len(told) == 2


def test_a_page_silences_no_ticket_of_another_alert(tmp_path: Path) -> None:
    alerts = labels(BURN[0]), labels("AgentKernelCapabilityFailing ticket"), labels(QUEUE[1])
    with Alertmanager(tmp_path) as alertmanager:
        assert len(alertmanager.told_of(*alerts)) == len(alerts)


def test_where_nothing_arrives_only_that_and_what_may_be_its_cause_is_told(tmp_path: Path) -> None:
    with Alertmanager(tmp_path) as alertmanager:
        told = alertmanager.told_of(*map(labels, BY_ID))
    names = {alert["alertname"] for alert in told}
    assert "AgentKernelNothingArriving" in names
    causes = {name for name in names if "Collector" in name or "Sampler" in name}
    assert names - causes == {"AgentKernelNothingArriving"}
    assert len(causes) == 5


def test_a_silent_service_silences_its_other_alerts(tmp_path: Path) -> None:
    silent = labels("AgentKernelServiceSilent page")
    alerts = silent, labels(BURN[0]), labels(BURN[0], **ELSEWHERE)
    with Alertmanager(tmp_path) as alertmanager:
        assert alertmanager.told_of(*alerts).count(labels(BURN[0])) == 0
        assert len(alertmanager.told_of(*alerts)) == 2


def test_the_rest_of_what_happens_is_told(tmp_path: Path) -> None:
    silencing = {"AgentKernelNothingArriving", "AgentKernelServiceSilent"}
    implied = {lesser.split()[0] for _, lesser in (BUDGET, LOOP, OVERFLOW)}
    with Alertmanager(tmp_path) as alertmanager:
        told = alertmanager.told_of(
            *(labels(alert.id) for alert in ALERTS if alert.name not in silencing)
        )
    names = {alert.name for alert in ALERTS}
    assert {alert["alertname"] for alert in told} == names - silencing - implied
