# SPDX-License-Identifier: Apache-2.0
"""What an app under our distro did is found in a real Jaeger, behind the gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.trace import format_trace_id

from agent_kernel_otel import replayed_context, semconv
from tests.backends.running import (
    TOUR,
    Action,
    Gateway,
    export_trail,
    run_app,
    run_audited_agent,
    wait_until,
)
from tests.jaeger.running import Jaeger
from tests.support.canaries import Canaries
from tests.support.kernels import DESTROY, READ, WRITE
from tests.support.ports import HOST

LIVE: Final = "agent"
MIRRORING: Final = "mirroring-agent"
AUDIT: Final = "audit"
TRACES: Final = {"tour": 14, LIVE: 6, MIRRORING: 6, AUDIT: 4}
"""Operations, none of which is below another, but for the dry run that the gateway drops."""


@dataclass(frozen=True)
class Seen:
    """A Jaeger after it all.

    Attributes:
        jaeger: It.
        actions: What the agent's audit trail says, by the agent's service.
        secret: What nobody may see.
        warnings: What the gateway complained of.
    """

    jaeger: Jaeger
    actions: dict[str, list[Action]]
    secret: str
    warnings: list[str]

    def of(self, event_type: str, *, failed: bool = False, service: str = LIVE) -> Action:
        """The one action of a sort."""
        (action,) = (
            action
            for action in self.actions[service]
            if action.event_type == event_type
            and (action.failed and action.event_type == "invoke") == failed
        )
        return action

    def only(self, service: str, **tags: str) -> list[Any]:
        """The spans of the only trace that is found by these tags, named as in ``semconv``.

        Jaeger gives them in the order in which they came, which is not always the same.
        """
        (trace,) = self.jaeger.found(
            service, {getattr(semconv, name): value for name, value in tags.items()}
        )
        return sorted(trace["spans"], key=lambda span: str(span["spanID"]))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("jaeger")
    canaries = Canaries()
    secret = canaries.plant("everywhere")
    with Jaeger(folder) as jaeger:
        endpoint = {"JAEGER_ENDPOINT": f"{HOST}:{jaeger.port('grpc')}"}
        with Gateway(folder, "jaeger", variables=endpoint) as gateway:
            run_app(gateway, "tour", TOUR)
            actions = {
                LIVE: run_audited_agent(gateway, LIVE, folder / "trail.jsonl", secret),
                MIRRORING: run_audited_agent(
                    gateway, MIRRORING, folder / "mirrored.jsonl", secret, "mirror"
                ),
            }
            export_trail(gateway, AUDIT, folder / "trail.jsonl")
            wait_until(lambda: _traces(jaeger) == TRACES)
        yield Seen(jaeger, actions, secret, gateway.warnings())


def _traces(jaeger: Jaeger) -> dict[str, int]:
    return {service: len(jaeger.found(service, {})) for service in jaeger.services()}


def attributes(span: Any) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def named(spans: list[Any], name: str) -> Any:
    (span,) = [span for span in spans if span["operationName"] == name]
    return span


def events(spans: list[Any]) -> list[dict[str, Any]]:
    return [
        {field["key"]: field["value"] for field in log["fields"]}
        for span in spans
        for log in span["logs"] or ()
    ]


def test_each_service_is_there(seen: Seen) -> None:
    assert seen.jaeger.services() >= set(TRACES)


def test_calls_are_found_by_their_capability(seen: Seen) -> None:
    found = seen.jaeger.found("tour", {semconv.CAPABILITY_ID: "mail.send"})
    names = Counter(span["operationName"] for trace in found for span in trace["spans"])
    assert names == {
        semconv.GRANT: 1,
        semconv.INVOKE: 1,
        semconv.POLICY: 2,
        semconv.DRIVER: 2,
        semconv.FIREWALL: 1,
    }


def test_a_denial_is_found_and_says_why_on_its_spans(seen: Seen) -> None:
    spans = seen.only(LIVE, STATUS="denied")
    grant, policy = named(spans, semconv.GRANT), named(spans, semconv.POLICY)
    assert attributes(grant)[semconv.CAPABILITY_ID] == DESTROY
    assert attributes(grant)[semconv.REASON_CODE] == "missing_role"
    assert attributes(policy)[semconv.REASON_CATEGORY] == "identity"
    assert attributes(policy)[semconv.POLICY_OUTCOME] == "denied"
    assert seen.only(LIVE, REASON_CODE="missing_role") == spans


def test_denials_of_the_tour_are_found_at_the_grant_and_at_the_enforcement(seen: Seen) -> None:
    found = seen.jaeger.found("tour", {semconv.STATUS: "denied"})
    reasons = {
        attributes(span)[semconv.REASON_CODE]
        for trace in found
        for span in trace["spans"]
        if attributes(span).get(semconv.STATUS) == "denied"
    }
    assert reasons == {"missing_role", "token_revoked"}


def test_each_action_is_found_live_and_replayed_by_its_id(seen: Seen) -> None:
    assert {action.capability_id for action in seen.actions[LIVE]} >= {READ, WRITE, DESTROY}
    for action in seen.actions[LIVE]:
        live = seen.only(LIVE, ACTION_ID=action.action_id)
        (replayed,) = seen.only(AUDIT, ACTION_ID=action.action_id)
        assert attributes(replayed)[semconv.REPLAYED] is True
        assert replayed["traceID"] == format_trace_id(replayed_context(action.action_id).trace_id)
        assert replayed["traceID"] not in {span["traceID"] for span in live}


def test_a_failure_is_found_by_its_status_with_all_its_steps(seen: Seen) -> None:
    spans = seen.only(LIVE, STATUS="error", ACTION_ID=seen.of("invoke", failed=True).action_id)
    assert attributes(named(spans, semconv.DRIVER))[semconv.ERROR_TYPE] == "DriverError"
    assert {semconv.INVOKE, semconv.POLICY} <= {span["operationName"] for span in spans}


def test_log_events_do_not_come_by_themselves(seen: Seen) -> None:
    assert events(seen.only(LIVE, STATUS="denied")) == []


def test_log_events_are_on_their_spans_where_the_app_mirrors_them(seen: Seen) -> None:
    denied = seen.only(MIRRORING, STATUS="denied")
    (decision,) = events(denied)
    assert decision["event"] == semconv.POLICY_DECISION
    assert decision[semconv.REASON_CODE] == "missing_role"
    failed = seen.of("invoke", failed=True, service=MIRRORING)
    (raised,) = events(seen.only(MIRRORING, ACTION_ID=failed.action_id))
    assert raised["event"] == semconv.INVOKE_EXCEPTION
    assert raised[semconv.EXCEPTION_TYPE] == "weaver_kernel.errors.DriverError"


def test_what_a_gateway_could_not_send_its_successor_sends(seen: Seen, tmp_path: Path) -> None:
    with Gateway(tmp_path, "jaeger", variables={"JAEGER_ENDPOINT": f"{HOST}:1"}) as gateway:
        run_app(gateway, "patient", TOUR)
    endpoint = {"JAEGER_ENDPOINT": f"{HOST}:{seen.jaeger.port('grpc')}"}
    with Gateway(tmp_path, "jaeger", variables=endpoint):
        wait_until(lambda: _traces(seen.jaeger).get("patient") == TRACES["tour"])


def test_no_secret_is_anywhere_in_jaeger(seen: Seen) -> None:
    told = [
        seen.jaeger.text("/api/traces", service=service, start=0, limit=1000)
        for service in seen.jaeger.services()
    ]
    assert all(action.action_id in "".join(told) for action in seen.actions[LIVE])
    assert not [text for text in told if seen.secret in text]


def test_the_gateway_has_nothing_to_complain_of(seen: Seen) -> None:
    assert seen.warnings == []
