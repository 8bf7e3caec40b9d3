# SPDX-License-Identifier: Apache-2.0
"""What leaves for Grafana, in the cloud or in one image, at which paths and with which credentials."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from agent_kernel_otel import semconv
from tests.backends.running import Action, Gateway, export_trail, run_audited_agent
from tests.support.canaries import Canaries
from tests.support.faulty_collector import FaultyCollector

CREDENTIALS: Final = f"123456:glc_{secrets.token_hex()}"
SIGNALS: Final = ("traces", "metrics", "logs")
SERVICE: Final = "agent"
AUDIT: Final = "audit"


@dataclass(frozen=True)
class Received:
    """What came to a backend.

    Attributes:
        backend: The name of its file.
        prefix: What its paths begin with.
        sink: It, which has taken all.
        actions: What the agent's audit trail says.
        secret: What nobody may see.
        logged: What the gateway said of itself.
        warnings: What of this are complaints.
    """

    backend: str
    prefix: str
    sink: FaultyCollector
    actions: list[Action]
    secret: str
    logged: str
    warnings: list[str]


@pytest.fixture(scope="module", params=["grafana-cloud", "lgtm"])
def received(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Received]:
    folder = tmp_path_factory.mktemp(request.param)
    secret = Canaries().plant("everywhere")
    prefix = {"grafana-cloud": "/otlp", "lgtm": ""}[request.param]
    with FaultyCollector("healthy", "http/protobuf") as sink:
        address = {
            "GRAFANA_CLOUD_OTLP_ENDPOINT": f"{sink.endpoint}{prefix}",
            "GRAFANA_CLOUD_AUTH": base64.b64encode(CREDENTIALS.encode()).decode(),
            "LGTM_ENDPOINT": sink.endpoint,
        }
        with Gateway(folder, request.param, variables=address) as gateway:
            trail = folder / "trail.jsonl"
            actions = run_audited_agent(gateway, SERVICE, trail, secret)
            export_trail(gateway, AUDIT, trail)
            sink.wait_for(lambda sink: len({span.trace_id for span in sink.spans()}) == 10)
            sink.wait_for(_has_the_last_metrics)
            sink.wait_for(lambda sink: sink.logs())
        yield Received(
            request.param,
            prefix,
            sink,
            actions,
            secret,
            "".join(gateway.logged()),
            gateway.warnings(),
        )


def _has_the_last_metrics(sink: FaultyCollector) -> bool:
    return semconv.INVOCATIONS.name in {metric.name for metric in sink.metrics()}


def test_each_signal_comes_to_its_own_path(received: Received) -> None:
    paths = {headers[":path"] for headers in received.sink.headers()}
    assert paths == {f"{received.prefix}/v1/{signal}" for signal in SIGNALS}


def test_every_request_has_the_credentials_where_there_are_some(received: Received) -> None:
    presented = {headers.get("authorization") for headers in received.sink.headers()}
    if received.backend == "lgtm":
        assert presented == {None}
        return
    (header,) = presented
    scheme, _, encoded = str(header).partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == CREDENTIALS


def test_the_credentials_are_not_in_the_gateways_log(received: Received) -> None:
    assert "Everything is ready" in received.logged
    assert CREDENTIALS.partition(":")[2] not in received.logged
    assert base64.b64encode(CREDENTIALS.encode()).decode() not in received.logged


def test_every_action_comes_live_and_replayed(received: Received) -> None:
    spans = received.sink.spans()
    for service in (SERVICE, AUDIT):
        came = {
            span.attributes[semconv.ACTION_ID]
            for span in spans
            if span.resource["service.name"] == service and semconv.ACTION_ID in span.attributes
        }
        assert came >= {action.action_id for action in received.actions}


def test_metrics_come_cumulative_and_under_their_own_names(received: Received) -> None:
    (denials, *_) = [
        metric
        for metric in reversed(received.sink.metrics())
        if metric.name == semconv.POLICY_DENIALS.name
    ]
    assert denials.resource["service.name"] == SERVICE
    assert denials.raw["sum"]["isMonotonic"] is True
    assert denials.raw["sum"]["aggregationTemporality"] == "AGGREGATION_TEMPORALITY_CUMULATIVE"
    assert sum(int(point.get("asInt", 0)) for point in denials.points) == 1


def test_a_denial_comes_as_a_log_event_in_its_trace(received: Received) -> None:
    (decision,) = [log for log in received.sink.logs() if log.name == semconv.POLICY_DECISION]
    assert decision.attributes[semconv.REASON_CODE] == "missing_role"
    assert decision.trace_id in {span.trace_id for span in received.sink.spans()}


def test_no_secret_of_a_call_comes(received: Received) -> None:
    assert received.sink.raw_bytes()
    assert received.secret.encode() not in received.sink.raw_bytes()


def test_the_gateway_has_nothing_to_complain_of(received: Received) -> None:
    assert received.warnings == []
