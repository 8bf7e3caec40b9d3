# SPDX-License-Identifier: Apache-2.0
"""Under which series the kernel's doings are counted, with every label within its bounds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from agent_kernel_otel import semconv
from agent_kernel_otel.cardinality import Bounded
from agent_kernel_otel.counts import Cell, Counts, Series
from agent_kernel_otel.semconv import ATTRIBUTES, OTHER

Labels = dict[str, str]
STATUSES: Final = ATTRIBUTES[semconv.STATUS].values
_NO_CATEGORY: Final = "other"
_EVENT_TYPES: Final = ATTRIBUTES[semconv.EVENT_TYPE].values
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
_modes: Final = _bounded(semconv.RESPONSE_MODE)
_engines: Final = _bounded(semconv.POLICY_ENGINE)
_sessions: Final = _bounded(semconv.SESSION)
_denials: Final = Bounded(semconv.POLICY_DENIALS.series_limit - _OVERFLOW)
_attempts: Final = Bounded(semconv.DRIVER_ATTEMPTS.series_limit - _OVERFLOW)


class KernelCounts:
    """Where what a kernel does is counted, found once; all of it from 0.

    Args:
        counts: The kernel's counts.

    Attributes:
        recorded: Audit records that were written, by what they are about.
    """

    __slots__ = (
        "_counts", "_failed", "audit_evicted", "evicted", "expanded", "recorded", "stored",
        "unsampled",
    )  # fmt: skip

    def __init__(self, counts: Counts) -> None:
        self.stored = counts.cell((semconv.HANDLES_STORED.name,))
        self.audit_evicted = counts.cell((semconv.AUDIT_EVICTIONS.name,))
        self.unsampled = counts.cell((semconv.UNSAMPLED_OPERATIONS.name,))
        self.expanded = {
            status: counts.cell((semconv.HANDLES_EXPANDED.name, status)) for status in STATUSES
        }
        self.evicted = {
            reason: counts.cell((semconv.HANDLES_EVICTED.name, reason))
            for reason in ATTRIBUTES[semconv.EVICTION_REASON].values
        }
        self._counts = counts
        self.recorded, self._failed = (
            {kind: counts.cell((metric.name, kind)) for kind in _EVENT_TYPES}
            for metric in (semconv.AUDIT_RECORDS, semconv.AUDIT_FAILURES)
        )

    def audit(self, event_type: object, *, failed: bool) -> Cell:
        """Where an audit record is counted.

        Args:
            event_type: The record's word for what it is about.
            failed: Whether it could not be written.
        """
        known = (self._failed if failed else self.recorded).get(str(event_type))
        if known is not None:
            return known
        metric = semconv.AUDIT_FAILURES if failed else semconv.AUDIT_RECORDS
        return self._counts.cell((metric.name, OTHER))


class CapabilityCounts:
    """Where a kernel's calls of one capability are counted, found once.

    Args:
        counts: The kernel's counts.
        capability: The label of its id.
        safety_class: The label of its safety class.

    Labels:
        capability: The label of its id.
        labels: By status, the attributes of the invocation's duration.
        first_chunk_labels: The attributes of a stream's time to its first chunk.
    """

    __slots__ = (
        "active", "capability", "downgrades", "dry_run", "fallback", "first_chunk_labels",
        "grants", "invocations", "labels", "redaction",
    )  # fmt: skip

    def __init__(self, counts: Counts, capability: str, safety_class: str) -> None:
        self.capability = capability
        self.active = counts.active_cell((semconv.INVOCATIONS_ACTIVE.name, capability))
        self.dry_run = counts.cell((semconv.DRY_RUNS.name, capability))
        self.fallback = counts.cell((semconv.FALLBACKS.name, capability))
        self.redaction = counts.cell((semconv.METRIC_REDACTIONS.name, capability))
        self.downgrades = {
            reason: counts.cell((semconv.DOWNGRADES.name, capability, reason))
            for reason in ATTRIBUTES[semconv.DOWNGRADE_REASON].values
        }
        self.invocations, self.grants = (
            {
                status: counts.cell((metric.name, capability, safety_class, status))
                for status in STATUSES
            }
            for metric in (semconv.INVOCATIONS, semconv.GRANTS)
        )
        self.first_chunk_labels, self.labels = _labels_of(capability, safety_class)


@lru_cache(maxsize=1024)  # kernels made for each request have the same capabilities
def _labels_of(capability: str, safety_class: str) -> tuple[Labels, dict[str, Labels]]:
    about: Labels = {
        semconv.SYSTEM: semconv.SYSTEM_WEAVER,
        semconv.CAPABILITY_ID: capability,
    }
    return about, {
        status: {**about, semconv.SAFETY_CLASS: safety_class, semconv.STATUS: status}
        for status in STATUSES
    }


def capability_labels(name: str | None, safety_class: str | None, limit: int) -> tuple[str, str]:
    """The labels of a capability's id and of its safety class.

    Args:
        name: The id of a capability that the kernel knows; ``None`` for any other.
        safety_class: Its safety class.
        limit: How many capabilities of the process are told apart.
    """
    if name is None:
        return OTHER, OTHER
    safety = safety_label(safety_class)
    return name if _capabilities.admits((name, safety), limit) else OTHER, safety


def safety_label(safety_class: str | None) -> str:
    """The label of a safety class."""
    return _safety_classes.label(safety_class) or OTHER


def has_room_for(capabilities: Iterable[tuple[str | None, str]], limit: int) -> bool:
    """Whether all of these capabilities would be told apart."""
    return _capabilities.has_room_for(capabilities, limit)


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


def engine_label(name: str) -> str | None:
    """The label of a policy engine's class name."""
    return _engines.label(name)


def driver_label(driver_id: str) -> str | None:
    """The label of a driver's id."""
    return _drivers.label(driver_id)


def error_label(error_type: str | None) -> str | None:
    """The label of an exception's class."""
    return _error_types.label(error_type)


def mode_label(mode: str | None) -> str | None:
    """The label of a response mode."""
    return _modes.label(mode)
