# SPDX-License-Identifier: Apache-2.0
"""Which traces ``gateway.yaml`` promises to keep, said once more and in another language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from agent_kernel_otel import semconv
from tests.support.otlp_records import Item

SLOW: Final = 2.0
"""Seconds, as in ``gateway.yaml``."""
_ERROR: Final = 2
Traces = Mapping[str, list[Item]]


def traces_of(spans: Iterable[Item]) -> Traces:
    """The spans by their trace."""
    traces: dict[str, list[Item]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    return traces


def seconds(span: Item) -> float:
    """How long it lasted."""
    return (int(span.raw["endTimeUnixNano"]) - int(span.raw["startTimeUnixNano"])) / 1e9


def reasons(trace: list[Item]) -> set[str]:
    """Why a trace must be kept; empty where it need not be."""
    found = {reason for span in trace for reason in _reasons(span)}
    is_call = any(semconv.DRY_RUN in span.attributes for span in trace)
    if not is_call and any(span.name == "agent_kernel.grant" for span in trace):
        found.add("lone grant")
    return found


def is_unwanted(trace: list[Item]) -> bool:
    """Whether it is nothing but a dry run that went well."""
    return any(
        not span.parent_span_id
        and span.attributes.get(semconv.DRY_RUN) is True
        and span.attributes.get(semconv.STATUS) == "success"
        for span in trace
    )


def _reasons(span: Item) -> Iterable[str]:
    said = span.attributes
    if span.raw.get("status", {}).get("code") == _ERROR:
        yield "error"
    if (status := said.get(semconv.STATUS)) in {"denied", "error", "cancelled"}:
        yield str(status)
    if said.get(semconv.POLICY_OUTCOME) == "denied":
        yield "denied"
    if said.get(semconv.FALLBACK) is True:
        yield "fallback"
    if int(said.get(semconv.REDACTIONS, 0)) > 0:
        yield "redaction"
    if said.get(semconv.DOWNGRADED) is True:
        yield "downgrade"
    if said.get(semconv.SAFETY_CLASS) == "DESTRUCTIVE":
        yield "destructive"
    if said.get(semconv.DRY_RUN) is False and seconds(span) > SLOW:
        yield "slow"
