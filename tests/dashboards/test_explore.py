# SPDX-License-Identifier: Apache-2.0
"""Links search for the spans of what a panel shows, and for no others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards.explore import JAEGER, TEMPO, link, search_for
from agent_kernel_otel.dashboards.promql import INSTANCE, JOB, current, increase, rate, share

INVOKED = 'span.gen_ai.operation.name = "execute_tool"'
OF_CAPABILITY = 'span.agent_kernel.capability_id = "${__field.labels.agent_kernel_capability_id}"'
OF_REASON = 'span.agent_kernel.reason_code = "${__field.labels.agent_kernel_reason_code}"'
_BY_CAPABILITY = (semconv.CAPABILITY_ID,)


class Labels(dict[str, str]):
    """The labels of a field, by attribute."""

    def __missing__(self, key: str) -> str:
        return f"${{__field.labels.{key.replace('.', '_')}}}"


def asked(expression: Any, backend: str = TEMPO) -> Mapping[str, Any] | None:
    """The search that a panel of a query links to."""
    search = search_for(expression, Labels())
    if search is None:
        return None
    address = link(backend, search)
    (query,) = json.loads(parse_qs(urlsplit(address).query)["panes"][0])["traces"]["queries"]
    found: Mapping[str, Any] = query
    return found


@pytest.mark.parametrize(
    ("expression", "query"),
    [
        (
            rate(semconv.INVOCATIONS, _BY_CAPABILITY, {semconv.STATUS: "error"}),
            f'{{ {INVOKED} && {OF_CAPABILITY} && span.agent_kernel.status = "error" }}',
        ),
        (
            rate(semconv.GRANTS, where={semconv.STATUS: "denied"}),
            '{ name = "agent_kernel.grant" && span.agent_kernel.status = "denied" }',
        ),
        (rate(semconv.FALLBACKS), "{ span.agent_kernel.fallback = true }"),
        (
            share(increase(semconv.METRIC_REDACTIONS), increase(semconv.INVOCATIONS)),
            f"{{ {INVOKED} && span.agent_kernel.redactions >= 1 }}",
        ),
        # The phase is on the decision, the capability on the operation.
        (
            rate(
                semconv.POLICY_DENIALS,
                (semconv.CAPABILITY_ID, semconv.POLICY_PHASE, semconv.REASON_CODE),
            ),
            f"{{ {OF_CAPABILITY} && {OF_REASON} }}",
        ),
        # Most refusals have no rule, and are found without.
        (
            rate(semconv.POLICY_DENIALS, (semconv.REASON_CODE, semconv.SECURITY_RULE_NAME)),
            f"{{ {OF_REASON} }}",
        ),
        # Spans have the capability that was asked for, whatever it is on metrics.
        (
            rate(semconv.GRANTS, where={semconv.CAPABILITY_ID: semconv.OTHER}),
            '{ name = "agent_kernel.grant" }',
        ),
        (
            rate(
                semconv.POLICY_DENIALS,
                (semconv.SECURITY_RULE_NAME,),
                {semconv.SECURITY_RULE_NAME: "!"},
            ),
            '{ span.security_rule.name = "${__field.labels.security_rule_name}" }',
        ),
    ],
)
def test_tempo_is_asked_for_spans_of_that_kind(expression: Any, query: str) -> None:
    found = asked(expression)
    assert found is not None
    assert found["query"] == query


def test_jaeger_is_asked_in_the_service_that_is_chosen_for_what_it_can_compare() -> None:
    found = asked(rate(semconv.HANDLES_EXPANDED, (semconv.STATUS,)), JAEGER)
    assert found is not None
    assert found["service"] == "${job}"
    assert found["operation"] == "agent_kernel.expand"
    assert found["tags"] == 'agent_kernel.status="${__field.labels.agent_kernel_status}"'
    redacted = asked(rate(semconv.METRIC_REDACTIONS), JAEGER)
    assert redacted is not None
    assert redacted["tags"] == 'gen_ai.operation.name="execute_tool"'


@pytest.mark.parametrize(
    "expression",
    [
        current(semconv.INVOCATIONS_ACTIVE, _BY_CAPABILITY),  # their spans have not ended
        rate(semconv.AUDIT_RECORDS, (semconv.EVENT_TYPE,)),  # those spans need a higher level
        rate(semconv.TELEMETRY_SENT, (JOB, INSTANCE)),
        current(semconv.INFO, (semconv.SYSTEM,), "count"),
    ],
)
def test_what_has_no_spans_links_to_none(expression: Any) -> None:
    assert asked(expression) is None
