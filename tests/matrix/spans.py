# SPDX-License-Identifier: Apache-2.0
"""What is expected of a span, how the usual ones look, and how trees are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent_kernel_otel import semconv as s

Attributes = dict[str, Any]

ABSENT = "<absent>"
"""Expected value of an attribute that must not be there."""
PRESENT = "<present>"
"""Expected value of an attribute whose value is not this test's matter."""


@dataclass
class Span:
    """An expected span: exact name, children, events and links, and what is said of attributes."""

    name: str
    attributes: Attributes
    children: list[Span] = field(default_factory=list)
    status: str | None = "UNSET"
    events: list[list[str]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def event(name: str, severity: str = "WARN") -> list[list[str]]:
    return [[name, severity]]


def of(capability_id: str, attributes: Attributes | None = None) -> Attributes:
    """Attributes of an invocation of another capability than the usual one."""
    return {
        s.CAPABILITY_ID: capability_id,
        s.GEN_AI_TOOL_NAME: capability_id,
        s.GEN_AI_TOOL_DESCRIPTION: f"The capability {capability_id}.",
        **(attributes or {}),
    }


def attempt(driver_id: str, status: str = "success", error: str = ABSENT) -> Span:
    return Span(
        s.DRIVER,
        {s.SYSTEM: s.SYSTEM_WEAVER, s.DRIVER_ID: driver_id, s.STATUS: status, s.ERROR_TYPE: error},
        status="ERROR" if status == "error" else "UNSET",
    )


def firewall(mode: str = "summary", redactions: int = 0) -> Span:
    return Span(
        s.FIREWALL,
        {s.SYSTEM: s.SYSTEM_WEAVER, s.RESPONSE_MODE: mode, s.REDACTIONS: redactions},
    )


def enforce(reason_code: str | None = None) -> Span:
    refused = reason_code is not None
    return Span(
        s.POLICY,
        {
            s.SYSTEM: s.SYSTEM_WEAVER,
            s.POLICY_PHASE: "enforce",
            s.POLICY_OUTCOME: "denied" if refused else "allowed",
            s.POLICY_ENGINE: "HMACTokenProvider",
            s.REASON_CODE: reason_code or ABSENT,
            s.REASON_CATEGORY: "token" if refused else ABSENT,
        },
        events=event(s.POLICY_DECISION) if refused else [],
    )


def evaluate(attributes: Attributes | None = None, outcome: str = "allowed") -> Span:
    return Span(
        s.POLICY,
        {
            s.SYSTEM: s.SYSTEM_WEAVER,
            s.POLICY_PHASE: "grant",
            s.POLICY_OUTCOME: outcome,
            s.POLICY_ENGINE: "DefaultPolicyEngine",
            **(attributes or {}),
        },
    )


def differences(expected: list[Span], got: list[Attributes], path: str = "") -> list[str]:
    """Every way in which the emitted trees are not the expected ones, each with its place."""
    names = [span.name for span in expected]
    if names != [node["name"] for node in got]:
        return [f"{path or 'roots'}: {[node['name'] for node in got]} instead of {names}"]
    found = []
    for span, node in zip(expected, got, strict=True):
        place = f"{path}/{span.name.removeprefix('agent_kernel.')}"
        if span.status not in (None, node["status"]):
            found.append(f"{place}: status is {node['status']}, not {span.status}")
        if node["description"]:
            found.append(f"{place}: the status has a description")
        if span.events != node["events"]:
            found.append(f"{place}: events are {node['events']}, not {span.events}")
        if span.links != node["links"]:
            found.append(f"{place}: links are {node['links']}, not {span.links}")
        for key, value in span.attributes.items():
            actual = node["attributes"].get(key, ABSENT)
            if actual != value and not (value == PRESENT and actual != ABSENT):
                found.append(f"{place}: {key} is {actual!r}, not {value!r}")
        found += differences(span.children, node["children"], place)
    return found
