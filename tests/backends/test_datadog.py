# SPDX-License-Identifier: Apache-2.0
"""The gateway with Datadog's files, the app and a stub of Datadog's intake, alone in a network."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from agent_kernel_otel import semconv
from tests.backends.isolated import IsolatedIntake
from tests.backends.running import (
    Action,
    Gateway,
    export_trail,
    run_audited_agent,
    wait_until,
)
from tests.support.canaries import Canaries
from tests.support.kernels import DESTROY, READ, WRITE
from tests.support.ports import HOST

KEY: Final = secrets.token_hex(16)
NAME: Final = "a-gateway"
SERVICE: Final = "agent"
AUDIT: Final = "audit"
CLOUD_METADATA: Final = ("169.254.169.254", 80)
"""The address at which a cloud tells a machine where it runs; it is on the machine's own link."""
RESOURCE_TAGS: Final = {
    "service",
    "service.instance.id",
    "process.executable.name",
    "os.type",
}
"""What every series has besides its own attributes and its host."""


@dataclass(frozen=True)
class Delivered:
    """What came to the intake, which has ended.

    Attributes:
        intake: It.
        ports: Where anything listened in its network.
        actions: What the agent's audit trail says.
        secret: What nobody may see.
        logged: What the gateway said of itself.
    """

    intake: IsolatedIntake
    ports: set[int]
    actions: list[Action]
    secret: str
    logged: str

    def counted(self, metric: semconv.MetricDefinition, *by: str) -> dict[tuple[str, ...], float]:
        """The sums of a count by some of its attributes, without those of 0."""
        sums: dict[tuple[str, ...], float] = {}
        for series in self.intake.series():
            if series.metric == metric.name:
                tags = dict(tag.split(":", 1) for tag in series.tags)
                labels = tuple(tags[key] for key in by)
                sums[labels] = sums.get(labels, 0.0) + sum(series.points)
        return {labels: count for labels, count in sums.items() if count}


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("datadog")
    secret = Canaries().plant("everywhere")
    with IsolatedIntake(folder) as intake:
        with Gateway(
            folder,
            "datadog",
            "datadog-apm",
            # Of what went well no traces: the trace metrics are of all the same.
            variables={"DD_API_KEY": KEY, "DD_HOSTNAME": NAME, "SHARE_PERCENT": "0"},
            settings=intake.settings,
            inside=intake.inside,
        ) as gateway:
            trail = folder / "trail.jsonl"
            actions = run_audited_agent(gateway, SERVICE, trail, secret)
            export_trail(gateway, AUDIT, trail)
            # Its exporters wait for more, each for its own time.
            wait_until(lambda: Counter(span.service for span in intake.spans())[AUDIT] == 4)
            wait_until(lambda: {DESTROY, WRITE} <= {span.resource for span in intake.spans()})
            wait_until(intake.stats)
            wait_until(intake.logs)
            wait_until(intake.sketches)
            ports = {gateway.port("grpc"), intake.port}
        intake.stop()
        yield Delivered(intake, ports, actions, secret, "".join(gateway.logged()))


def test_nobody_tries_another_address(delivered: Delivered) -> None:
    attempts = delivered.intake.attempts()
    assert attempts >= {(HOST, port) for port in delivered.ports}
    # The exporter asks the cloud where it runs, before it looks at the name that it was given.
    assert attempts - {CLOUD_METADATA} == {(HOST, port) for port in delivered.ports}


def test_all_signals_come_with_the_key(delivered: Delivered) -> None:
    requests = delivered.intake.requests()
    assert {request.path for request in requests} == {
        "/api/v0.2/traces",
        "/api/v0.2/stats",
        "/api/v2/series",
        "/api/beta/sketches",
        "/api/v2/logs",
    }
    assert {request.headers["dd-api-key"] for request in requests} == {KEY}
    assert KEY not in delivered.logged


def test_the_gateway_goes_by_the_name_that_it_was_given(delivered: Delivered) -> None:
    assert delivered.intake.names_of_the_sender() == {NAME}


def test_spans_are_grouped_by_operation_and_capability(delivered: Delivered) -> None:
    spans = [span for span in delivered.intake.spans() if span.service == SERVICE]
    assert {(span.operation, span.resource) for span in spans} >= {
        (semconv.GRANT, DESTROY),
        (semconv.INVOKE, WRITE),
        (semconv.DRIVER, semconv.DRIVER),
    }


def test_a_denial_and_a_failure_come_and_say_why(delivered: Delivered) -> None:
    spans = [span for span in delivered.intake.spans() if span.service == SERVICE and span.error]
    reasons = {
        (span.resource, span.meta[semconv.STATUS], span.meta.get(semconv.REASON_CODE))
        for span in spans
        if span.operation in (semconv.GRANT, semconv.INVOKE)
    }
    assert reasons == {(DESTROY, "denied", "missing_role"), (WRITE, "error", None)}


def test_every_audit_record_comes_with_its_action_id(delivered: Delivered) -> None:
    replayed = [span for span in delivered.intake.spans() if span.service == AUDIT]
    assert {span.meta[semconv.REPLAYED] for span in replayed} == {"true"}
    assert {span.meta[semconv.ACTION_ID] for span in replayed} == {
        action.action_id for action in delivered.actions
    }


def test_trace_metrics_are_of_every_call_once_whatever_was_sampled(delivered: Delivered) -> None:
    hits: Counter[tuple[str, str]] = Counter()
    errors: Counter[tuple[str, str]] = Counter()
    for stats in delivered.intake.stats():
        assert stats.service == SERVICE
        hits[stats.operation, stats.resource] += stats.hits
        errors[stats.operation, stats.resource] += stats.errors
    kept = {(s.operation, s.resource) for s in delivered.intake.spans() if s.service == SERVICE}
    expanded = semconv.EXPAND, READ
    assert expanded not in kept
    assert hits[expanded] == hits[semconv.INVOKE, READ] == 1
    assert hits[semconv.INVOKE, WRITE] == errors[semconv.INVOKE, WRITE] == 1
    assert hits[semconv.GRANT, DESTROY] == errors[semconv.GRANT, DESTROY] == 1


def test_counts_are_what_the_agent_did_from_the_first_on(delivered: Delivered) -> None:
    by = semconv.CAPABILITY_ID, semconv.STATUS
    assert delivered.counted(semconv.GRANTS, *by) == {
        (READ, "success"): 1,
        (WRITE, "success"): 1,
        (DESTROY, "denied"): 1,
    }
    assert delivered.counted(semconv.INVOCATIONS, *by) == {
        (READ, "success"): 1,
        (WRITE, "error"): 1,
    }
    assert delivered.counted(semconv.POLICY_DENIALS, semconv.REASON_CODE) == {("missing_role",): 1}


def test_durations_come_as_distributions(delivered: Delivered) -> None:
    counts = Counter[str]()
    for sketch in delivered.intake.sketches():
        counts[sketch.metric] += sketch.count
    assert counts[semconv.INVOCATION_DURATION.name] == 2


def test_a_series_costs_its_own_attributes_and_those_of_its_process(delivered: Delivered) -> None:
    (invocations, *_) = [
        series for series in delivered.intake.series() if series.metric == semconv.INVOCATIONS.name
    ]
    keys = {tag.partition(":")[0] for tag in invocations.tags}
    assert keys == {semconv.SYSTEM, *semconv.INVOCATIONS.attributes} | RESOURCE_TAGS
    assert invocations.kind == "count"
    assert invocations.host


def test_a_denial_comes_as_a_log_in_its_trace(delivered: Delivered) -> None:
    (decision,) = [
        log for log in delivered.intake.logs() if log.get(semconv.REASON_CODE) == "missing_role"
    ]
    trace_ids = {span.meta.get("otel.trace_id") for span in delivered.intake.spans()}
    assert decision["otel.trace_id"] in trace_ids


def test_no_secret_of_a_call_comes(delivered: Delivered) -> None:
    bodies = [request.body for request in delivered.intake.requests()]
    assert bodies
    assert not [body for body in bodies if delivered.secret.encode() in body]
