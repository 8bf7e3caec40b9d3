# SPDX-License-Identifier: Apache-2.0
"""Queries follow the definitions that they are made of, and refuse what those do not have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards.promql import increase, quantile, rate, share, share_above

CHOSEN = 'job=~"$job", instance=~"$instance", agent_kernel_capability_id=~"$capability"'


def test_a_metric_that_is_renamed_is_renamed_in_its_query() -> None:
    renamed = replace(semconv.INVOCATIONS, name="agent_kernel.calls")
    asked = rate(renamed, (semconv.STATUS,)).text
    assert asked == (
        "sum by (agent_kernel_status) "
        f"(rate(agent_kernel_calls_total{{{CHOSEN}}}[$__rate_interval]))"
    )


def test_a_unit_that_changes_changes_the_series_and_the_axis() -> None:
    changed = replace(semconv.INVOCATION_DURATION, unit="s")
    asked = quantile(0.95, changed)
    assert "agent_kernel_invocation_duration_seconds_bucket{" in asked.text
    assert asked.unit == "s"


def test_an_attribute_that_a_metric_loses_can_neither_group_nor_select() -> None:
    poorer = replace(semconv.INVOCATIONS, attributes=(semconv.CAPABILITY_ID,))
    with pytest.raises(ValueError, match=r"has no agent_kernel\.status"):
        rate(poorer, (semconv.STATUS,))
    with pytest.raises(ValueError, match=r"has no agent_kernel\.status"):
        rate(poorer, where={semconv.STATUS: "error"})


def test_a_value_that_is_never_there_is_refused() -> None:
    with pytest.raises(ValueError, match="is never failed"):
        rate(semconv.INVOCATIONS, where={semconv.STATUS: "failed"})


def test_one_of_several_values_that_is_never_there_is_refused() -> None:
    asked = rate(semconv.INVOCATIONS, where={semconv.STATUS: "success|error"}).text
    assert 'agent_kernel_status=~"success|error"' in asked
    with pytest.raises(ValueError, match="is never failed"):
        rate(semconv.INVOCATIONS, where={semconv.STATUS: "success|failed"})


def test_a_bucket_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no bucket that ends at 999"):
        share_above(999, semconv.INVOCATION_DURATION)


@pytest.mark.parametrize(
    ("bound", "edge"), [(1_000, r'le=~"1000(\\.0)?"'), (0.25, r'le=~"0\\.25"')]
)
def test_the_edge_of_a_bucket_is_matched_as_a_number(bound: float, edge: str) -> None:
    assert edge in share_above(bound, semconv.INVOCATION_DURATION).text


def test_what_a_query_fixes_is_not_chosen_as_well() -> None:
    asked = rate(semconv.GRANTS, where={semconv.CAPABILITY_ID: semconv.OTHER}).text
    assert "$capability" not in asked
    assert 'agent_kernel_capability_id="_OTHER"' in asked


def test_a_share_of_a_coarser_whole_keeps_the_labels_of_its_part() -> None:
    part = increase(semconv.DOWNGRADES, (semconv.DOWNGRADE_REASON,))
    asked = share(part, increase(semconv.INVOCATIONS))
    assert " / on () group_left () (sum(increase(" in asked.text
    assert asked.by == part.by
