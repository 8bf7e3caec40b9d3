# SPDX-License-Identifier: Apache-2.0
"""What kernels did, as plain numbers to be read at any time, with and without OpenTelemetry.

The metrics are the same numbers, under the same names (see ``docs/metrics.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agent_kernel_otel import counts, semconv
from agent_kernel_otel.by_kernel import ByKernel
from agent_kernel_otel.counts import Counts, Series, add_up
from agent_kernel_otel.semconv import MetricDefinition


@dataclass(frozen=True)
class StatsSnapshot:
    """What was counted up to one moment, since the process began or was last reset.

    The first ten have the names that weaver-kernel 0.12 has in ``kernel.stats``.

    Attributes:
        grants: Capabilities granted.
        denials: Grants refused by the policy.
        invocations: Invocations that are over, however they ended; a stream is one, a dry run none.
        invocation_failures: Those of them that ended with status ``error``.
        fallback_activations: Invocations in which more than one driver was tried.
        redaction_events: Invocations in which the firewall took something out.
        budget_downgrades: Invocations whose response mode became stricter, for any reason.
        handle_stores: Full results kept under a handle.
        expansions: Handles expanded.
        denials_by_reason: ``denials`` by reason code, ``unknown`` where there was none.
        invocations_denied: Invocations refused: by a token, or by a kernel that decides late.
        invocations_cancelled: Invocations cancelled.
        invocations_active: Invocations running now. Never reset.
        dry_runs: Dry runs, however they ended.
        driver_attempts: Attempts of drivers, however they ended.
        budget_exhaustions: Invocations refused because the budget was spent.
        handles_evicted: Full results given up before they were asked for.
        audit_records: Audit records written.
        audit_failures: Audit records that could not be written.
        audit_evictions: Audit records given up to make room.
        counts: Everything, by series: a metric's name and the values of its attributes.
    """

    grants: int
    denials: int
    invocations: int
    invocation_failures: int
    fallback_activations: int
    redaction_events: int
    budget_downgrades: int
    handle_stores: int
    expansions: int
    denials_by_reason: Mapping[str, int]
    invocations_denied: int
    invocations_cancelled: int
    invocations_active: int
    dry_runs: int
    driver_attempts: int
    budget_exhaustions: int
    handles_evicted: int
    audit_records: int
    audit_failures: int
    audit_evictions: int
    counts: Mapping[Series, int] = field(repr=False)

    def by(self, metric: str, attribute: str) -> Mapping[str | None, int]:
        """One metric's counts by one of its attributes.

        Args:
            metric: Its name, such as ``agent_kernel.driver_attempts``.
            attribute: The key of the attribute, such as ``agent_kernel.driver_id``.

        Returns:
            The counts by the attribute's value, ``None`` for where it is absent.

        Raises:
            ValueError: There is no such counter, or it has no such attribute.
        """
        definition = semconv.METRICS.get(metric)
        if definition is None or attribute not in definition.attributes:
            known = ", ".join(definition.attributes) if definition else ", ".join(semconv.METRICS)
            what = f"attribute {attribute!r} of {metric}" if definition else f"metric {metric!r}"
            raise ValueError(f"there is no {what}; there are: {known or 'none'}")
        return _by(self.counts, definition, attribute)

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """The numbers by name, to be written as JSON; all but ``counts``."""
        numbers = {name: value for name, value in vars(self).items() if name != "counts"}
        return {**numbers, "denials_by_reason": dict(self.denials_by_reason)}


class _Baseline:
    """What had been counted when it was reset, and in which process."""

    def __init__(self) -> None:
        self._state: tuple[dict[Series, int], int] = ({}, 0)

    def totals(self) -> dict[Series, int]:
        """What is to be left out; nothing in a child of the process that was reset."""
        totals, generation = self._state
        return totals if generation == counts.process.generation else {}

    def move_to(self, totals: dict[Series, int]) -> None:
        """Leave out what has been counted by now."""
        self._state = totals, counts.process.generation


class KernelStats:
    """Counts that can be read, and reset for whoever reads them here.

    Reading and resetting are safe from any thread, and touch no call that is running. In a forked
    child everything begins at 0.
    """

    def __init__(
        self,
        totals: Callable[[], dict[Series, int]],
        active: Callable[[], dict[Series, int]],
        baseline: _Baseline,
    ) -> None:
        self._totals = totals
        self._active = active
        self._baseline = baseline

    def snapshot(self) -> StatsSnapshot:
        """What was counted since the process began, or since the last :meth:`reset`."""
        # At one moment: what is running is not counted yet, what is counted is not running.
        with counts.process.lock:
            before, totals, active = self._baseline.totals(), self._totals(), self._active()
        since = {series: number - before.get(series, 0) for series, number in totals.items()}
        return _snapshot(since, sum(active.values()))

    def reset(self) -> None:
        """Count from 0 again in the snapshots to come; what is exported goes on unchanged."""
        with counts.process.lock:
            self._baseline.move_to(self._totals())


def _snapshot(totals: dict[Series, int], active: int) -> StatsSnapshot:
    def total(metric: MetricDefinition) -> int:
        return sum(number for series, number in totals.items() if series[0] == metric.name)

    at_grant = {
        series: number
        for series, number in totals.items()
        if series[0] == semconv.POLICY_DENIALS.name and series[_PHASE] == "grant"
    }
    by_status = _by(totals, semconv.INVOCATIONS, semconv.STATUS)
    denials_by_reason = _by(at_grant, semconv.POLICY_DENIALS, semconv.REASON_CODE)
    return StatsSnapshot(
        grants=_by(totals, semconv.GRANTS, semconv.STATUS).get("success", 0),
        denials=sum(at_grant.values()),
        invocations=sum(by_status.values()),
        invocation_failures=by_status.get("error", 0),
        fallback_activations=total(semconv.FALLBACKS),
        redaction_events=total(semconv.METRIC_REDACTIONS),
        budget_downgrades=total(semconv.DOWNGRADES),
        handle_stores=total(semconv.HANDLES_STORED),
        expansions=_by(totals, semconv.HANDLES_EXPANDED, semconv.STATUS).get("success", 0),
        denials_by_reason=MappingProxyType(
            {str(code): number for code, number in denials_by_reason.items() if number}
        ),
        invocations_denied=by_status.get("denied", 0),
        invocations_cancelled=by_status.get("cancelled", 0),
        invocations_active=active,
        dry_runs=total(semconv.DRY_RUNS),
        driver_attempts=total(semconv.DRIVER_ATTEMPTS),
        budget_exhaustions=total(semconv.BUDGET_EXHAUSTIONS),
        handles_evicted=total(semconv.HANDLES_EVICTED),
        audit_records=total(semconv.AUDIT_RECORDS),
        audit_failures=total(semconv.AUDIT_FAILURES),
        audit_evictions=total(semconv.AUDIT_EVICTIONS),
        counts=MappingProxyType(totals),
    )


_PHASE = 4
"""Where a denial's series has its phase."""


def _by(
    totals: Mapping[Series, int], metric: MetricDefinition, attribute: str
) -> Mapping[str | None, int]:
    place = metric.attributes.index(attribute) + 1
    found: dict[str | None, int] = {}
    for series, number in totals.items():
        if series[0] == metric.name:
            found[series[place]] = found.get(series[place], 0) + number
    return MappingProxyType(found)


stats = KernelStats(
    lambda: add_up(group.totals() for group in counts.groups()),
    lambda: add_up(group.active() for group in counts.groups()),
    _Baseline(),
)
"""What all kernels of this process did."""

_baselines: ByKernel[_Baseline] = ByKernel()


def stats_of(kernel: Any) -> KernelStats:
    """What one kernel did, and what remains to be counted of it.

    Args:
        kernel: The kernel; the result keeps it alive.
    """
    baseline = _baselines.get(id(kernel))
    if baseline is None:
        baseline = _Baseline()
        _baselines.put(kernel, baseline)

    def counted() -> list[Counts]:
        found = [group.find(kernel) for group in counts.groups()]
        return [one for one in found if one is not None]

    return KernelStats(
        lambda: add_up(one.totals() for one in counted()),
        lambda: add_up(one.active() for one in counted()),
        baseline,
    )
