# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus that scrapes a real agent and a real Collector evaluates the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.alerts.rules import ALERTS_FILE, COLLECTOR, RECORDING_FILE, RECORDINGS
from tests.collector.build import collector
from tests.prometheus.conftest import AGENT, EVERYTHING
from tests.prometheus.server import Prometheus
from tests.support.collector_process import TELEMETRY, CollectorProcess
from tests.support.ports import HOST, free_port
from tests.support.scraped import ScrapedApp

ARRIVED = ("otelcol_receiver_accepted_spans", "otelcol_receiver_accepted_log_records")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """What has scraped a busy agent and the Collector that it sends to."""
    with ExitStack() as stack:
        own_page = free_port()
        gateway = stack.enter_context(_gateway(tmp_path_factory.mktemp("gateway"), own_page))
        app = stack.enter_context(
            ScrapedApp.of(
                AGENT,
                port=None,
                OTEL_METRICS_EXPORTER="otlp,prometheus",
                OTEL_TRACES_EXPORTER="otlp",
                OTEL_LOGS_EXPORTER="otlp",
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{HOST}:{gateway.port('grpc')}",
                OTEL_METRIC_EXPORT_INTERVAL="500",
                **EVERYTHING,
            )
        )
        prometheus = stack.enter_context(
            Prometheus(
                tmp_path_factory.mktemp("prometheus"),
                *(app.port, own_page),
                rules=[RECORDING_FILE, ALERTS_FILE],
            )
        )
        # Some series come with the first of what they count, and only the next is an increase.
        for deed in ("everything", "refuse", "fail"):
            before = {name: prometheus.value(name) or 0 for name in ARRIVED}
            assert app.tell(deed) == "done", app.errors()
            prometheus.wait_for(partial(_more_arrived, prometheus, before))
        yield prometheus


def _gateway(folder: Path, own_page: int) -> CollectorProcess:
    """A Collector that counts all that it gets, and serves its own metrics as it does by default."""
    pipeline = {"receivers": ["otlp"], "exporters": ["debug"]}
    page = {"pull": {"exporter": {"prometheus": {"host": HOST, "port": own_page}}}}
    return CollectorProcess(
        collector(),
        folder / "config.json",
        {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"{HOST}:0"}}}},
            "exporters": {"debug": {"sending_queue": {"enabled": True}}},
            "service": {
                "pipelines": dict.fromkeys(("traces", "metrics", "logs"), pipeline),
                "telemetry": {**TELEMETRY, "metrics": {"readers": [page]}},
            },
        },
    )


def _more_arrived(prometheus: Prometheus, before: dict[str, float]) -> bool:
    return all((prometheus.value(name) or 0) > count for name, count in before.items())


def test_no_recording_rule_is_empty(prometheus: Prometheus) -> None:
    missing = {(rule.name, *rule.labels.items()): rule for rule in RECORDINGS}

    def all_are_there() -> bool:
        for key, rule in list(missing.items()):
            matchers = ",".join(f'{name}="{value}"' for name, value in rule.labels.items())
            found = prometheus.query(f"{rule.name}{{{matchers}}}")
            if any(not math.isnan(value) for _, value in found):
                del missing[key]
        return not missing

    try:
        prometheus.wait_for(all_are_there)
    except TimeoutError as error:
        raise AssertionError(f"without a value: {sorted(map(str, missing))}") from error


def test_prometheus_evaluates_every_rule_without_an_error(prometheus: Prometheus) -> None:
    def all_were_evaluated() -> bool:
        return all(rule["health"] != "unknown" for rule in rules())

    def rules() -> list[dict[str, str]]:
        groups = prometheus.ask("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    prometheus.wait_for(all_were_evaluated)
    assert {rule["name"]: rule.get("lastError") for rule in rules() if rule["health"] != "ok"} == {}


def test_nothing_fires_of_a_few_of_everything(prometheus: Prometheus) -> None:
    prometheus.wait_for_scrapes(8)
    assert [alert for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"] == []  # fmt: skip


def test_the_collector_names_its_metrics_as_the_rules_do(prometheus: Prometheus) -> None:
    # Counters of failures come with the first; the Collector of the tests has no sampler.
    always = {name for name in COLLECTOR if "failed" not in name and "sampling" not in name}
    prometheus.wait_for(lambda: always <= set(prometheus.ask("label/__name__/values")))
    for name in always:
        for labels, _ in prometheus.query(name):
            assert COLLECTOR[name] <= set(labels)
