# SPDX-License-Identifier: Apache-2.0
"""The metrics, and how many series they can be.

Units follow UCUM; names carry neither a unit nor ``total``, which a Prometheus exporter adds.
"""

from __future__ import annotations

from math import prod
from typing import Final

from agent_kernel_otel.semconv.attributes import (
    ATTRIBUTES,
    CAPABILITY_ID,
    DOWNGRADE_REASON,
    DRIVER_ID,
    DROP_REASON,
    ERROR_TYPE,
    EVENT_TYPE,
    EVICTION_REASON,
    GEN_AI_OPERATION_NAME,
    GEN_AI_TOOL_NAME,
    GEN_AI_TOOL_TYPE,
    POLICY_ENGINE,
    POLICY_OUTCOME,
    POLICY_PHASE,
    REASON_CATEGORY,
    REASON_CODE,
    RESPONSE_MODE,
    SAFETY_CLASS,
    SECURITY_RULE_NAME,
    SESSION,
    SIGNAL,
    STATUS,
    TIER,
    VERSION,
)
from agent_kernel_otel.semconv.definitions import Instrument, MetricDefinition, MetricLevel

METRICS: Final[dict[str, MetricDefinition]] = {}


def _metric(
    name: str,
    instrument: Instrument,
    unit: str,
    description: str,
    attributes: tuple[str, ...] = (),
    *,
    level: MetricLevel = "info",
    bounds: tuple[float, ...] = (),
    series_limit: int = 0,
    of_kernel: bool = True,
) -> MetricDefinition:
    metric = MetricDefinition(
        name, instrument, unit, description, attributes, level, bounds, series_limit, of_kernel
    )
    METRICS[name] = metric
    return metric


_CALL_BOUNDS = (0.25, 1, 5, 25, 100, 250, 1_000, 2_500, 10_000, 30_000)
_DRIVER_BOUNDS = (0.1, 0.5, 1, 5, 25, 100, 250, 500, 1_000, 2_500, 10_000, 30_000)
_STAGE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 25, 100, 1_000)
_CALL = (CAPABILITY_ID, SAFETY_CLASS, STATUS)

INVOCATIONS: Final = _metric(
    "agent_kernel.invocations",
    "counter",
    "{invocation}",
    "Invocations that ended, by how; a stream counts once, a dry run not at all. A refusal at the "
    "grant leads to none.",
    _CALL,
)
INVOCATION_DURATION: Final = _metric(
    "agent_kernel.invocation_duration",
    "histogram",
    "ms",
    "Time from the call to its end, however it ended; a stream's is from its first step and "
    "includes its consumer. No dry runs.",
    _CALL,
    bounds=_CALL_BOUNDS,
)
INVOCATIONS_ACTIVE: Final = _metric(
    "agent_kernel.invocations_active",
    "updowncounter",
    "{invocation}",
    "Invocations that are running; a stream from its first step to its end. No dry runs.",
    (CAPABILITY_ID,),
)
GRANTS: Final = _metric(
    "agent_kernel.grants",
    "counter",
    "{grant}",
    "Calls for a capability token, by how they ended. A decision that was returned as not allowed, "
    "and not raised, is a success: the kernel issues the token.",
    _CALL,
)
POLICY_DENIALS: Final = _metric(
    "agent_kernel.policy_denials",
    "counter",
    "{denial}",
    "Refusals, each once, by the phase that refused; those of a dry run's token too. Decisions "
    "returned as not allowed, and not raised, do not count.",
    (CAPABILITY_ID, REASON_CATEGORY, REASON_CODE, POLICY_PHASE, SECURITY_RULE_NAME),
    series_limit=500,
)
POLICY_DURATION: Final = _metric(
    "agent_kernel.policy_duration",
    "histogram",
    "ms",
    "Time of one decision: the engine's in a grant, the verification of the token in an invocation.",
    (POLICY_ENGINE, POLICY_PHASE, POLICY_OUTCOME),
    level="debug",
    bounds=_STAGE_BOUNDS,
)
METRIC_TIME_TO_FIRST_CHUNK: Final = _metric(
    "agent_kernel.time_to_first_chunk",
    "histogram",
    "ms",
    "Time from a stream's first step to its first frame; streams that gave none are not in it.",
    (CAPABILITY_ID,),
    bounds=_CALL_BOUNDS,
)
DRIVER_ATTEMPTS: Final = _metric(
    "agent_kernel.driver_attempts",
    "counter",
    "{attempt}",
    "Attempts of drivers, by how they ended, so that a fallback is two or more.",
    (DRIVER_ID, STATUS, ERROR_TYPE),
    series_limit=500,
)
DRIVER_DURATION: Final = _metric(
    "agent_kernel.driver_duration",
    "histogram",
    "ms",
    "Time of one attempt of a driver, however it ended; a stream's lasts to its end and includes its "
    "consumer.",
    (DRIVER_ID, STATUS),
    level="debug",
    bounds=_DRIVER_BOUNDS,
)
FIREWALL_DURATION: Final = _metric(
    "agent_kernel.firewall_duration",
    "histogram",
    "ms",
    "Time that the firewall took to make a frame of a result, or to fail, by the mode it gave; "
    "streams are not in it.",
    (RESPONSE_MODE,),
    level="debug",
    bounds=_STAGE_BOUNDS,
)
FALLBACKS: Final = _metric(
    "agent_kernel.fallbacks",
    "counter",
    "{invocation}",
    "Invocations that tried more than one driver, each once, whether or not one served.",
    (CAPABILITY_ID,),
)
METRIC_REDACTIONS: Final = _metric(
    "agent_kernel.redactions",
    "counter",
    "{invocation}",
    "Invocations in which the firewall redacted, omitted or elided anything, each once; notices "
    "about raw mode are none.",
    (CAPABILITY_ID,),
)
DOWNGRADES: Final = _metric(
    "agent_kernel.downgrades",
    "counter",
    "{invocation}",
    "Invocations whose response mode became stricter than asked, each once by its last cause, "
    "failures included. No dry runs.",
    (CAPABILITY_ID, DOWNGRADE_REASON),
)
DRY_RUNS: Final = _metric(
    "agent_kernel.dry_runs",
    "counter",
    "{dry_run}",
    "Dry runs, however they ended; of all other counts they are only in that of denials.",
    (CAPABILITY_ID,),
)
BUDGET_CONSUMED: Final = _metric(
    "agent_kernel.budget_consumed",
    "gauge",
    "{token}",
    "Tokens that a budget session has used; those reserved by invocations that run are not in it.",
    (SESSION,),
)
BUDGET_LIMIT: Final = _metric(
    "agent_kernel.budget_limit",
    "gauge",
    "{token}",
    "Tokens that a budget session may use in all.",
    (SESSION,),
)
BUDGET_EXHAUSTIONS: Final = _metric(
    "agent_kernel.budget_exhaustions",
    "counter",
    "{exhaustion}",
    "Invocations that failed because the budget of their session was spent.",
    (SESSION,),
)
HANDLES_STORED: Final = _metric(
    "agent_kernel.handles_stored",
    "counter",
    "{handle}",
    "Results put into a handle store; those it refused as too large are not in it.",
)
HANDLES_EXPANDED: Final = _metric(
    "agent_kernel.handles_expanded",
    "counter",
    "{handle}",
    "Expansions of handles, by how they ended.",
    (STATUS,),
)
HANDLES_EVICTED: Final = _metric(
    "agent_kernel.handles_evicted",
    "counter",
    "{handle}",
    "Results that a handle store let go, by why.",
    (EVICTION_REASON,),
)
MEMORY_USAGE: Final = _metric(
    "agent_kernel.memory_usage",
    "gauge",
    "By",
    "Size of the results held, as the kernel estimates it; only where a store counts its bytes.",
    (TIER,),
)
HANDLES_ACTIVE: Final = _metric(
    "agent_kernel.handles_active",
    "gauge",
    "{handle}",
    "Results that the handle stores hold, expired ones that are not yet evicted included.",
)
AUDIT_RECORDS: Final = _metric(
    "agent_kernel.audit_records",
    "counter",
    "{record}",
    "Audit records that a trace store took.",
    (EVENT_TYPE,),
)
AUDIT_FAILURES: Final = _metric(
    "agent_kernel.audit_failures",
    "counter",
    "{record}",
    "Audit records that a trace store failed to take: actions without proof.",
    (EVENT_TYPE,),
)
AUDIT_EVICTIONS: Final = _metric(
    "agent_kernel.audit_evictions",
    "counter",
    "{record}",
    "Audit records that a trace store dropped to make room: proof that is gone.",
)
UNSAMPLED_OPERATIONS: Final = _metric(
    "agent_kernel.unsampled_operations",
    "counter",
    "{operation}",
    "Operations without spans, because a sampler or the caller's trace said so; all other metrics "
    "have them all the same.",
)
INFO: Final = _metric(
    "agent_kernel.info",
    "gauge",
    "",
    "Always 1; its attributes say which kernel runs.",
    (VERSION,),
)
EXECUTE_TOOL_DURATION: Final = _metric(
    "gen_ai.execute_tool.duration",
    "histogram",
    "s",
    "Time of a tool's execution, by the GenAI convention: the same invocations and times as in "
    "agent_kernel.invocation_duration.",
    (GEN_AI_TOOL_NAME, GEN_AI_OPERATION_NAME, GEN_AI_TOOL_TYPE, ERROR_TYPE),
    level="opt-in",
    bounds=tuple(0.01 * 2**n for n in range(14)),
    of_kernel=False,
)
TELEMETRY_SENT: Final = _metric(
    "agent_kernel.telemetry_sent",
    "counter",
    "{item}",
    "Spans, log records and metric batches that the receiver has acknowledged.",
    (SIGNAL,),
    of_kernel=False,
)
TELEMETRY_DROPPED: Final = _metric(
    "agent_kernel.telemetry_dropped",
    "counter",
    "{item}",
    "Spans, log records and metric batches that were lost, by reason.",
    (SIGNAL, DROP_REASON),
    of_kernel=False,
)


_MAY_BE_ABSENT = (ERROR_TYPE, EVENT_TYPE, RESPONSE_MODE, SECURITY_RULE_NAME)


def attribute_sets(metric: MetricDefinition) -> int:
    """The most attribute sets of a metric that a process exports, with the default settings."""
    sets = 1
    for key in metric.attributes:
        if ATTRIBUTES[key].follows in metric.attributes:
            continue
        # Each value that is kept apart has one value of what follows it; OTHER may have any.
        followers = (
            a.bound for a in map(ATTRIBUTES.__getitem__, metric.attributes) if a.follows == key
        )
        sets *= ATTRIBUTES[key].bound - 1 + prod(followers) + (key in _MAY_BE_ABSENT)
    return min(sets, metric.series_limit or sets)


def prometheus_series(metric: MetricDefinition) -> int:
    """The most series of a metric in Prometheus: a histogram's buckets, sum and count are one each."""
    per_set = len(metric.bounds) + 3 if metric.instrument == "histogram" else 1
    return attribute_sets(metric) * per_set
