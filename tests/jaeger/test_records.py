# SPDX-License-Identifier: Apache-2.0
"""What an auditor finds in Jaeger who has audit records, replayed in hand and from files."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from agent_kernel_otel import OTelTraceExporter, semconv
from tests.jaeger.running import Jaeger
from tests.jaeger.trails import IN_HAND, Trail, provider_to, replayed_trace_id

REPLAYED = {semconv.REPLAYED: "true"}
CHILDREN: dict[str, set[str]] = {
    "invoke": {semconv.POLICY, semconv.DRIVER},
    "expand": set(),
    "deny": {semconv.POLICY},
}
"""Spans that are below that of an operation at least, by the sort of its record."""


def trace_ids(traces: list[Any]) -> list[str]:
    return sorted(trace["traceID"] for trace in traces)


def attributes(span: Any) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def test_each_record_is_found_by_its_action_id(jaeger: Jaeger, replayed: Trail) -> None:
    for record in replayed.records:
        by_action_id = {semconv.ACTION_ID: record.action_id}
        (found,) = jaeger.found(replayed.replayed, {**by_action_id, **REPLAYED})
        (span,) = found["spans"]
        assert attributes(span)[semconv.ACTION_ID] == record.action_id
        assert span["startTime"] == round(record.invoked_at.timestamp() * 1_000_000)
        assert span["warnings"] is None


def test_the_live_span_is_found_by_the_same_action_id(jaeger: Jaeger, replayed: Trail) -> None:
    for record in replayed.records:
        found = jaeger.found(replayed.live, {semconv.ACTION_ID: record.action_id})
        live = [trace for trace in found if trace["traceID"] != replayed_trace_id(record)]
        assert len(live) == 1, record.event_type


def test_all_that_was_replayed_is_found_at_once(jaeger: Jaeger, replayed: Trail) -> None:
    found = jaeger.found(replayed.replayed, REPLAYED)
    assert trace_ids(found) == sorted(map(replayed_trace_id, replayed.records))


def test_denials_are_found_by_their_status(jaeger: Jaeger, replayed: Trail) -> None:
    denied = {semconv.STATUS: "denied"}
    found = jaeger.found(replayed.replayed, {**REPLAYED, **denied})
    assert trace_ids(found) == [replayed_trace_id(record) for record in replayed.of("deny")]
    assert [attributes(span)[semconv.REASON_CODE] for span in found[0]["spans"]] == ["missing_role"]


def test_failures_are_found_by_their_status(jaeger: Jaeger, replayed: Trail) -> None:
    found = jaeger.found(replayed.replayed, {**REPLAYED, semconv.STATUS: "error"})
    failed = [record for record in replayed.of("invoke") if record.error]
    assert trace_ids(found) == [replayed_trace_id(record) for record in failed]


def test_the_trace_that_an_auditor_is_told_of_opens(jaeger: Jaeger, replayed: Trail) -> None:
    for record in replayed.records:
        trace_id = replayed_trace_id(record)
        assert jaeger.text(f"/trace/{trace_id}").startswith("<!DOCTYPE html>")
        (span,) = jaeger.trace(trace_id)["spans"]
        assert attributes(span)[semconv.ACTION_ID] == record.action_id
        assert record.action_id in jaeger.text(f"/api/v3/traces/{trace_id}")


def test_a_link_leads_to_the_live_trace_with_all_its_spans(jaeger: Jaeger, replayed: Trail) -> None:
    for record in replayed.records:
        (span,) = jaeger.trace(replayed_trace_id(record))["spans"]
        if replayed.way != IN_HAND:
            # Nothing in a file tells of it.
            assert span["references"] == []
            continue
        (link,) = span["references"]
        assert link["refType"] == "FOLLOWS_FROM"
        live = jaeger.trace(link["traceID"])["spans"]
        (target,) = [span for span in live if span["spanID"] == link["spanID"]]
        assert target["operationName"] == span["operationName"]
        assert attributes(target)[semconv.ACTION_ID] == record.action_id
        below = {
            span["operationName"]
            for span in live
            for reference in span["references"]
            if reference["refType"] == "CHILD_OF" and reference["spanID"] == link["spanID"]
        }
        assert below >= CHILDREN[record.event_type]


def test_what_is_replayed_twice_is_there_once(jaeger: Jaeger, replayed: Trail) -> None:
    replayed.export()
    found = jaeger.found(replayed.replayed, REPLAYED)
    assert trace_ids(found) == sorted(map(replayed_trace_id, replayed.records))
    assert [len(trace["spans"]) for trace in found] == [1] * len(found)
    # It did come again: Jaeger keeps both, and shows what is the same in all once.
    kept = [jaeger.trace(trace["traceID"], raw="true")["spans"] for trace in found]
    assert min(map(len, kept)) > 1


def test_a_record_of_months_ago_is_found_in_its_own_time(jaeger: Jaeger, replayed: Trail) -> None:
    then = datetime.now(timezone.utc) - timedelta(days=200)
    recent = replayed.records[0]
    old = replace(recent, action_id=f"{recent.action_id}-then", invoked_at=then)
    archive = provider_to(jaeger, "archive")
    assert OTelTraceExporter(archive).export([old]).exported == 1
    archive.shutdown()
    by_action_id = {semconv.ACTION_ID: old.action_id}
    assert jaeger.found("archive", by_action_id) == []
    start = round((then - timedelta(days=1)).timestamp() * 1_000_000)
    assert trace_ids(jaeger.found("archive", by_action_id, start=start)) == [replayed_trace_id(old)]
    assert jaeger.trace(replayed_trace_id(old)) is not None


def test_no_secret_of_a_call_is_anywhere_in_jaeger(jaeger: Jaeger, replayed: Trail) -> None:
    recorded = repr(replayed.records)
    assert {"argument", "failing", "error"} <= {
        place for place, secret in replayed.secrets.items() if secret in recorded
    }
    returned = "".join(
        jaeger.text("/api/traces", service=service, start=0, limit=1000, raw=raw)
        for service in jaeger.services()
        for raw in ("true", "false")
    )
    assert all(record.action_id in returned for record in replayed.records)
    assert [place for place, secret in replayed.secrets.items() if secret in returned] == []
