# SPDX-License-Identifier: Apache-2.0
"""What must hold of counts, of the snapshots that an application reads, and of what is exported."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.simulation.checks import Evidence, check
from tests.simulation.model import session_of
from tests.simulation.plan import NESTED
from tests.simulation.told import Labels, Series, Told

_ID, _CLASS, _STATUS = (
    f"agent_kernel.{name}" for name in ("capability_id", "safety_class", "status")
)
_KEYS: dict[str, tuple[str, ...]] = {
    "invocations": (_ID, _CLASS, _STATUS),
    "invocation_duration": (_ID, _CLASS, _STATUS),
    "grants": (_ID, _CLASS, _STATUS),
    "policy_denials": (
        _ID, "agent_kernel.reason_category", "agent_kernel.reason_code",
        "agent_kernel.policy.phase", "security_rule.name",
    ),
    "policy_duration": tuple(f"agent_kernel.policy.{key}" for key in ("engine", "phase", "outcome")),
    "time_to_first_chunk": (_ID,),
    "driver_attempts": ("agent_kernel.driver_id", _STATUS, "error.type"),
    "driver_duration": ("agent_kernel.driver_id", _STATUS),
    "firewall_duration": ("agent_kernel.response_mode",),
    "fallbacks": (_ID,),
    "redactions": (_ID,),
    "downgrades": (_ID, "agent_kernel.downgrade_reason"),
    "dry_runs": (_ID,),
    "budget_exhaustions": ("agent_kernel.session",),
    "handles_stored": (),
    "handles_expanded": (_STATUS,),
    "handles_evicted": ("agent_kernel.eviction_reason",),
    "audit_records": ("agent_kernel.event_type",),
    "audit_failures": ("agent_kernel.event_type",),
    "audit_evictions": (),
    "unsampled_operations": (),
    "gen_ai.execute_tool.duration": (
        "gen_ai.tool.name", "gen_ai.operation.name", "gen_ai.tool.type", "error.type",
    ),
}  # fmt: skip
_HISTOGRAMS = frozenset(name for name in _KEYS if name.endswith(("duration", "_chunk")))


def _sum(told: Iterable[Told]) -> Counter[Series]:
    total: Counter[Series] = Counter()
    for each in told:
        total.update(each.counts)
    return total


def _differences(
    evidence: Evidence, expected: Mapping[Any, int], found: Mapping[Any, int]
) -> Iterator[str]:
    if evidence.traced.plan.turns_back:
        # Why a handle was evicted is told by the order of expiry, which is lost then.
        expected, found = _evicted_for_any_reason(expected), _evicted_for_any_reason(found)
    for series in sorted(expected.keys() | found.keys(), key=repr):
        if expected.get(series, 0) != found.get(series, 0):
            yield f"{series} must be {expected.get(series, 0)}, and is {found.get(series, 0)}"


def _evicted_for_any_reason(counts: Mapping[Any, int]) -> Counter[Any]:
    merged: Counter[Any] = Counter()
    for series, number in counts.items():
        merged[series[:1] if series[0] == "agent_kernel.handles_evicted" else series] += number
    return merged


def _since_reset(evidence: Evidence, kernel: str | None) -> list[Told]:
    """What was told since a snapshot was last set back."""
    resets = [each.after for each in evidence.traced.resets if each.kernel == kernel]
    after = resets[-1] if resets else 0
    return [
        told
        for number, told in evidence.told.items()
        if number % NESTED > after and kernel in {None, told.kernel}
    ]


@check
def each_round_is_counted_at_once(evidence: Evidence) -> Iterator[str]:
    """What runs at the same time is counted when it is over, and nothing before or after."""
    for ops, counted in evidence.traced.rounds:
        numbers = [each.number for op in ops for each in op.all()]
        expected = _sum(evidence.told[number] for number in numbers if number in evidence.told)
        for difference in _differences(evidence, expected, counted):
            kinds = ", ".join(f"{op.kind} {op.number}" for op in ops)
            yield f"{difference} (after {kinds})"


@check
def counts_are_true(evidence: Evidence) -> Iterator[str]:
    """The process counted, since it was last reset, exactly what came to pass."""
    expected = _sum(_since_reset(evidence, None))
    yield from _differences(evidence, expected, evidence.traced.counted())


@check
def each_kernel_counts_its_own(evidence: Evidence) -> Iterator[str]:
    """Each kernel counted, since it was last reset, what came to pass in it and in no other."""
    for kernel, snapshot in evidence.traced.final.items():
        if kernel is not None:
            expected = _sum(_since_reset(evidence, kernel))
            for difference in _differences(evidence, expected, snapshot.counts):
                yield f"{kernel}: {difference}"


@check
def snapshots_add_up(evidence: Evidence) -> Iterator[str]:
    """The fields of each kernel's snapshot are what its operations come to."""
    for kernel, snapshot in evidence.traced.final.items():
        if kernel is None:
            continue
        expected = _fields(_sum(_since_reset(evidence, kernel)))
        for name, value in expected.items():
            found = getattr(snapshot, name)
            if (dict(found) if name == "denials_by_reason" else found) != value:
                yield f"{kernel}: {name} must be {value}, and is {found}"


def _fields(counts: Counter[Series]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    by_status: Counter[tuple[str, str | None]] = Counter()
    denials: Counter[str] = Counter()
    for series, number in counts.items():
        name = str(series[0]).removeprefix("agent_kernel.")
        total[name] += number
        if _STATUS in _KEYS[name]:
            by_status[name, series[1 + _KEYS[name].index(_STATUS)]] += number
        if name == "policy_denials" and series[4] == "grant":
            denials[str(series[3])] += number
    return {
        "grants": by_status["grants", "success"],
        "denials": denials.total(),
        "denials_by_reason": dict(denials),
        "invocations": total["invocations"],
        "invocation_failures": by_status["invocations", "error"],
        "invocations_denied": by_status["invocations", "denied"],
        "invocations_cancelled": by_status["invocations", "cancelled"],
        "invocations_active": 0,
        "fallback_activations": total["fallbacks"],
        "redaction_events": total["redactions"],
        "budget_downgrades": total["downgrades"],
        "handle_stores": total["handles_stored"],
        "expansions": by_status["handles_expanded", "success"],
        "dry_runs": total["dry_runs"],
        "driver_attempts": total["driver_attempts"],
        "budget_exhaustions": total["budget_exhaustions"],
        "handles_evicted": total["handles_evicted"],
        "audit_records": total["audit_records"],
        "audit_failures": total["audit_failures"],
        "audit_evictions": total["audit_evictions"],
    }


@check
def operations_are_spans_are_counts(evidence: Evidence) -> Iterator[str]:
    """Each call is counted once, has one root span where it is sampled, and one status."""
    calls: Counter[str] = Counter()
    roots: Counter[str] = Counter()
    for number, told in evidence.told.items():
        kind = evidence.bare.runs[number].op.kind
        started = bool(told.counts)
        calls[{"stream": "invoke"}.get(kind, kind)] += started
        if told.root is not None:
            roots[told.root.name] += 1
    spans = Counter(
        span.name
        for of_one in evidence.traced.capture.recorder.ended.values()
        for span in of_one
        if span.name in roots
    )
    if spans != roots:
        yield f"there must be {dict(roots)} spans of operations, and are {dict(spans)}"
    exported = _exported_counts(evidence)
    by_name: Counter[str] = Counter()
    for series, value in exported.items():
        by_name[str(series[0]).removeprefix("agent_kernel.")] += value
    for kind, name in (("invoke", "invocations"), ("grant", "grants"), ("dry_run", "dry_runs"),
                       ("expand", "handles_expanded")):  # fmt: skip
        if by_name[name] != calls[kind]:
            yield f"{calls[kind]} operations are {by_name[name]} {name}"


@check
def exports_are_true(evidence: Evidence) -> Iterator[str]:
    """Exported totals are what came to pass since the process began; resets leave them alone."""
    yield from _differences(evidence, _sum(evidence.told.values()), _exported_counts(evidence))


def _exported_counts(evidence: Evidence) -> dict[Series, int]:
    found: dict[Series, int] = {}
    for (name, attributes), point in evidence.traced.exported.items():
        short = name.removeprefix("agent_kernel.")
        if short in _KEYS and short not in _HISTOGRAMS:
            series = (name, *_labels(short, dict(attributes)))
            found[series] = point.value
    return found


def _labels(name: str, attributes: dict[str, Any]) -> Labels:
    if not name.startswith("gen_ai."):
        assert attributes.pop("agent_kernel.system") == "weaver_kernel"
    labels = tuple(attributes.pop(key, None) for key in _KEYS[name])
    assert not attributes, f"{name} has other attributes: {attributes}"
    return labels


@check
def histograms_are_true(evidence: Evidence) -> Iterator[str]:
    """Each value is in the bucket whose upper bound is not below it, and counted once."""
    expected: defaultdict[tuple[str, Labels], list[float]] = defaultdict(list)
    for told in evidence.told.values():
        for metric, labels, value in told.observations:
            expected[metric, labels].append(value)
    found: dict[tuple[str, Labels], Any] = {}
    for (name, attributes), point in evidence.traced.exported.items():
        short = name.removeprefix("agent_kernel.")
        if short in _HISTOGRAMS:
            found[name, _labels(short, dict(attributes))] = point
    for key in sorted(expected.keys() | found.keys(), key=repr):
        point, values = found.get(key), expected.get(key, [])
        if point is None:
            yield f"{key} must have {len(values)} values, and is not exported"
            continue
        buckets = [0] * (len(point.explicit_bounds) + 1)
        for value in values:
            buckets[bisect_left(point.explicit_bounds, value)] += 1
        if list(point.bucket_counts) != buckets:
            yield f"buckets of {key} must be {buckets}, and are {list(point.bucket_counts)}"
        elif point.count != len(values):
            yield f"{key} must have {len(values)} values, and has {point.count}"
        elif values and (point.min, point.max) != (min(values), max(values)):
            yield f"{key} must be from {min(values)} to {max(values)}, is {point.min} to {point.max}"
        elif not math.isclose(point.sum, math.fsum(values), rel_tol=1e-9, abs_tol=1e-9):
            yield f"the sum of {key} must be {math.fsum(values)}, and is {point.sum}"


@check
def histograms_have_what_counters_have(evidence: Evidence) -> Iterator[str]:
    """There are as many durations as there are invocations, for each series."""
    counters = {
        series[1:]: number
        for series, number in _exported_counts(evidence).items()
        if series[0] == "agent_kernel.invocations" and number
    }
    histograms = {
        _labels("invocation_duration", dict(attributes)): point.count
        for (name, attributes), point in evidence.traced.exported.items()
        if name == "agent_kernel.invocation_duration"
    }
    if counters != histograms:
        yield f"counters have {counters}\n    histograms have {histograms}"


@check
def active_is_what_runs(evidence: Evidence) -> Iterator[str]:
    """As many invocations are active as are running: in their midst, and when all is over."""
    yield from evidence.traced.unsettled
    for (name, attributes), point in evidence.traced.exported.items():
        if name == "agent_kernel.invocations_active" and point.value:
            yield f"{point.value} of {dict(attributes)} are exported as active at the end"


@check
def totals_never_fall(evidence: Evidence) -> Iterator[str]:
    """Whoever collects while the kernels are at work never sees a total fall; nor after a reset."""
    yield from evidence.traced.complaints


@check
def forked_children_begin_at_zero(evidence: Evidence) -> Iterator[str]:
    """A child counts its own operations only, and none of its parent's values is told twice."""
    yield from evidence.traced.children


@check
def budgets_are_told_once(evidence: Evidence) -> Iterator[str]:
    """Each budget is told under the session of one of its kernels, used and limit."""
    kernels: defaultdict[int, set[str]] = defaultdict(set)
    budgets: dict[int, Any] = {}
    for site in evidence.traced.world.sites:
        if site.budget is not None:
            budgets[id(site.budget)] = site.budget
            kernels[id(site.budget)].add(session_of(site.plan.name))
    told: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (name, attributes), point in evidence.traced.exported.items():
        if name in {"agent_kernel.budget_consumed", "agent_kernel.budget_limit"}:
            told[str(dict(attributes)["agent_kernel.session"])][name] = point.value
    for key, budget in budgets.items():
        mine = [told.pop(session) for session in sorted(kernels[key]) if session in told]
        expected = {
            "agent_kernel.budget_consumed": budget.used,
            "agent_kernel.budget_limit": budget.total_budget,
        }
        if mine != [expected]:
            yield f"the budget of {sorted(kernels[key])} must be told as {expected}, and is {mine}"
    if told:
        yield f"budgets of nobody are told: {dict(told)}"


@check
def gauges_are_true(evidence: Evidence) -> Iterator[str]:
    """Gauges of handles tell what the stores of the kernels hold that are left."""
    sites = evidence.traced.world.sites
    stores = {id(store): store for store in (vars(site.kernel)["_handle_store"] for site in sites)}
    held = {
        "agent_kernel.handles_active": sum(len(store._meta) for store in stores.values()),
        "agent_kernel.memory_usage": sum(store.current_bytes for store in stores.values()),
    }
    for metric, value in held.items():
        found = [point.value for (name, _), point in evidence.traced.exported.items()
                 if name == metric]  # fmt: skip
        if found != [value]:
            yield f"{metric} must be {value}, and is {found}"
