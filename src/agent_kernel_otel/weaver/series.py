# SPDX-License-Identifier: Apache-2.0
"""Under which series the kernel's doings are counted, with every label within its bounds."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from agent_kernel_otel import semconv
from agent_kernel_otel.cardinality import Bounded
from agent_kernel_otel.counts import Series
from agent_kernel_otel.semconv import ATTRIBUTES, OTHER
from agent_kernel_otel.telemetry import Attributes

STATUSES: Final = ATTRIBUTES[semconv.STATUS].values
UNSAMPLED: Final[Series] = (semconv.UNSAMPLED_OPERATIONS.name,)
HANDLE_STORED: Final[Series] = (semconv.HANDLES_STORED.name,)
AUDIT_EVICTED: Final[Series] = (semconv.AUDIT_EVICTIONS.name,)
EXPANDED: Final[dict[str, Series]] = {
    status: (semconv.HANDLES_EXPANDED.name, status) for status in STATUSES
}
EVICTED: Final[dict[str, Series]] = {
    reason: (semconv.HANDLES_EVICTED.name, reason)
    for reason in ATTRIBUTES[semconv.EVICTION_REASON].values
}
ALWAYS_EXPORTED: Final[tuple[Series, ...]] = (
    HANDLE_STORED,
    AUDIT_EVICTED,
    UNSAMPLED,
    *EXPANDED.values(),
    *EVICTED.values(),
    *(
        (metric.name, event_type)
        for metric in (semconv.AUDIT_RECORDS, semconv.AUDIT_FAILURES)
        for event_type in ATTRIBUTES[semconv.EVENT_TYPE].values
    ),
)
"""What is there from the start, so that the first one is an increase."""

_NO_CATEGORY: Final = "other"
_OVERFLOW: Final = 30
"""Of a metric's attribute sets, how many are left for those past its limit."""


def _bounded(key: str) -> Bounded:
    return Bounded(ATTRIBUTES[key].limit, ATTRIBUTES[key].known)


_capabilities: Final = _bounded(semconv.CAPABILITY_ID)
_safety_classes: Final = _bounded(semconv.SAFETY_CLASS)
_drivers: Final = _bounded(semconv.DRIVER_ID)
_error_types: Final = _bounded(semconv.ERROR_TYPE)
_reason_codes: Final = _bounded(semconv.REASON_CODE)
_rules: Final = _bounded(semconv.SECURITY_RULE_NAME)
_engines: Final = _bounded(semconv.POLICY_ENGINE)
_sessions: Final = _bounded(semconv.SESSION)
_denials: Final = Bounded(semconv.POLICY_DENIALS.series_limit - _OVERFLOW)
_attempts: Final = Bounded(semconv.DRIVER_ATTEMPTS.series_limit - _OVERFLOW)


class CapabilitySeries:
    """What is counted of one capability, made once because it is needed at every call.

    Args:
        capability: The label of its id.
        safety_class: The label of its safety class.

    Attributes:
        labels: By status, the attributes of the invocation's duration.
        first_chunk_labels: The attributes of a stream's time to its first chunk.
    """

    __slots__ = (
        "active",
        "capability",
        "downgrades",
        "dry_run",
        "fallback",
        "first_chunk_labels",
        "grants",
        "invocations",
        "labels",
        "redaction",
    )  # fmt: skip

    def __init__(self, capability: str, safety_class: str) -> None:
        self.capability = capability
        self.active: Series = (semconv.INVOCATIONS_ACTIVE.name, capability)
        self.dry_run: Series = (semconv.DRY_RUNS.name, capability)
        self.fallback: Series = (semconv.FALLBACKS.name, capability)
        self.redaction: Series = (semconv.METRIC_REDACTIONS.name, capability)
        self.downgrades: dict[str, Series] = {
            reason: (semconv.DOWNGRADES.name, capability, reason)
            for reason in ATTRIBUTES[semconv.DOWNGRADE_REASON].values
        }
        self.invocations, self.grants = (
            {status: (metric.name, capability, safety_class, status) for status in STATUSES}
            for metric in (semconv.INVOCATIONS, semconv.GRANTS)
        )
        about: Attributes = {
            semconv.SYSTEM: semconv.SYSTEM_WEAVER,
            semconv.CAPABILITY_ID: capability,
        }
        self.first_chunk_labels = about
        self.labels: dict[str, Attributes] = {
            status: {**about, semconv.SAFETY_CLASS: safety_class, semconv.STATUS: status}
            for status in STATUSES
        }

    def from_the_start(self) -> tuple[Series, ...]:
        """What a registered capability exports before it is used."""
        return (
            *self.invocations.values(),
            *self.grants.values(),
            *self.downgrades.values(),
            self.fallback,
            self.redaction,
        )


def capability_series(name: str | None, safety_class: str | None, limit: int) -> CapabilitySeries:
    """The series of a capability.

    Args:
        name: The id of a capability that the kernel knows; ``None`` for any other.
        safety_class: Its safety class.
        limit: How many capabilities of the process are told apart.
    """
    if name is None:
        return _series_of(OTHER, OTHER)
    safety = _safety_classes.label(safety_class) or OTHER
    return _series_of(name if _capabilities.admits((name, safety), limit) else OTHER, safety)


def has_room_for(capabilities: list[tuple[str | None, str | None]], limit: int) -> bool:
    """Whether all of these capabilities would be told apart."""
    return _capabilities.has_room_for(capabilities, limit)


@lru_cache(maxsize=1024)  # kernels made for each request have the same capabilities
def _series_of(capability: str, safety_class: str) -> CapabilitySeries:
    return CapabilitySeries(capability, safety_class)


@lru_cache(maxsize=1024)
def attempt_series(driver_id: str, status: str, error_type: str | None) -> Series:
    """The series of a driver's attempt."""
    driver, error = _drivers.label(driver_id), _error_types.label(error_type)
    if not _attempts.admits((driver, status, error)):
        driver, error = OTHER, None if error is None else OTHER
    return (semconv.DRIVER_ATTEMPTS.name, driver, status, error)


def denial_series(
    capability: str, category: str | None, code: str | None, phase: str, rule: str | None
) -> Series:
    """The series of a refusal."""
    category = category or _NO_CATEGORY
    code = _reason_codes.label(code or semconv.ABSENT_REASON)
    rule = _rules.label(rule)
    if not _denials.admits((capability, category, code, phase, rule)):
        capability, code, rule = OTHER, OTHER, None
    return (semconv.POLICY_DENIALS.name, capability, category, code, phase, rule)


def exhaustion_series(session: str) -> Series:
    """The series of an invocation that found its budget spent."""
    return (semconv.BUDGET_EXHAUSTIONS.name, _sessions.label(session))


@lru_cache(maxsize=64)
def record_series(metric: str, event_type: object) -> Series:
    """The series of an audit record.

    Args:
        metric: Name of the metric.
        event_type: The record's own word for what it is about.
    """
    known = ATTRIBUTES[semconv.EVENT_TYPE].values
    return (metric, event_type if isinstance(event_type, str) and event_type in known else OTHER)


def engine_label(name: str) -> str | None:
    """The label of a policy engine's class name."""
    return _engines.label(name)


def driver_label(driver_id: str) -> str | None:
    """The label of a driver's id."""
    return _drivers.label(driver_id)


def error_label(error_type: str | None) -> str | None:
    """The label of an exception's class."""
    return _error_types.label(error_type)
