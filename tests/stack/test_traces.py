# SPDX-License-Identifier: Apache-2.0
"""What the demo did is found in Jaeger: by capability, by denial and by the id of an action."""

from __future__ import annotations

import json

from agent_kernel_otel import semconv
from tests.jaeger.test_records import attributes
from tests.stack.conftest import AUDITED_SERVICE, SERVICE, Worked

CAPABILITIES = {"orders.list", "orders.mail", "orders.fail", "orders.wait", "orders.follow"}
CHILDREN = {semconv.POLICY, semconv.DRIVER, semconv.FIREWALL}


def _denied(worked: Worked, capability: str, reason: str) -> list[object]:
    tags = {
        semconv.STATUS: "denied",
        semconv.CAPABILITY_ID: capability,
        semconv.REASON_CODE: reason,
    }
    return worked.jaeger.found(SERVICE, tags)


def test_calls_are_found_by_capability_with_all_that_happened_in_them(worked: Worked) -> None:
    for capability in CAPABILITIES:
        tags = {
            semconv.CAPABILITY_ID: capability,
            semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
        }
        found = worked.jaeger.found(SERVICE, tags)
        assert found, capability
        invoked = {
            span["operationName"]: attributes(span) for trace in found for span in trace["spans"]
        }
        assert CHILDREN - {semconv.FIREWALL} <= set(invoked), capability
    assert {
        span["operationName"]
        for trace in worked.jaeger.found(SERVICE, {semconv.CAPABILITY_ID: "orders.list"})
        for span in trace["spans"]
    } >= CHILDREN


def test_denials_are_found_with_their_reason(worked: Worked) -> None:
    assert _denied(worked, "orders.purge", "missing_role")
    assert _denied(worked, "orders.list", "token_revoked")


def test_the_spans_of_each_audit_record_are_found_by_its_action_id(worked: Worked) -> None:
    assert {record.event_type for record in worked.records} == {"invoke", "expand", "deny"}
    for record in worked.records:
        (found,) = worked.jaeger.found(SERVICE, {semconv.ACTION_ID: record.action_id})
        assert record.action_id in json.dumps(found)


def test_exported_audit_records_pass_the_sampler_and_are_found_by_their_action_id(
    worked: Worked,
) -> None:
    for record in worked.records:
        tags = {semconv.ACTION_ID: record.action_id, semconv.REPLAYED: "true"}
        ((span,),) = (trace["spans"] for trace in worked.jaeger.found(AUDITED_SERVICE, tags))
        assert attributes(span)[semconv.CAPABILITY_ID] == record.capability_id


def test_an_exemplar_leads_to_a_trace(worked: Worked) -> None:
    name = f"{semconv.INVOCATION_DURATION.prometheus_name}_bucket"
    found = worked.prometheus.ask("query_exemplars", query=name, start="0", end="9e9")
    exemplars = [
        (series["seriesLabels"], exemplar["labels"]["trace_id"])
        for series in found
        for exemplar in series["exemplars"]
    ]
    assert exemplars
    for labels, trace_id in exemplars:
        trace = worked.jaeger.trace(trace_id)
        assert trace is not None, (labels, trace_id)
        assert labels["agent_kernel_capability_id"] in json.dumps(trace)
