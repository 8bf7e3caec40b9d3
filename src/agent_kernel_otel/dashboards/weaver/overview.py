# SPDX-License-Identifier: Apache-2.0
"""How much the kernel is asked to do, how fast it does it, and what fails."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Dashboard, Row
from agent_kernel_otel.dashboards.panels import DEBUG, above, lines, number, table
from agent_kernel_otel.dashboards.promql import (
    INSTANCE,
    JOB,
    RANGE,
    STEP,
    current,
    increase,
    quantile,
    rate,
    share,
    share_above,
)
from agent_kernel_otel.dashboards.weaver.choices import CAPABILITY, PROCESSES, TAGS
from agent_kernel_otel.semconv import (
    CAPABILITY_ID,
    DRIVER_ATTEMPTS,
    DRIVER_DURATION,
    DRIVER_ID,
    DRY_RUNS,
    ERROR_TYPE,
    EXECUTE_TOOL_DURATION,
    FALLBACKS,
    GEN_AI_TOOL_NAME,
    GRANTS,
    INFO,
    INVOCATION_DURATION,
    INVOCATIONS,
    INVOCATIONS_ACTIVE,
    METRIC_TIME_TO_FIRST_CHUNK,
    STATUS,
)

_ERROR: Final = {STATUS: "error"}
_DENIED: Final = {STATUS: "denied"}
_SERVED: Final = {STATUS: "success|error"}
"""What no number of denials or cancellations can hide failures in, as in the alerts."""
_BY: Final = (CAPABILITY_ID,)
_SLOW: Final = 1000

_NOW: Final = Row(
    "At a glance",
    (
        number(
            "Invocations",
            rate(INVOCATIONS),
            shows="Invocations that ended, a second. Dry runs are not among them.",
            advice="At 0 nothing reaches the kernel: look whether the agents run and are granted "
            "their tokens, and under *Processes reporting* whether they report at all.",
        ),
        number(
            "Errors",
            share(increase(INVOCATIONS, where=_ERROR), increase(INVOCATIONS, where=_SERVED)),
            shows="Share of invocations whose caller saw an error, of all that succeeded or failed, over "
            "all that is shown. Denials and cancellations are in neither part.",
            advice="find the capability in *Errors by capability*, then the driver and its error "
            "in *Failed attempts*. Grants that fail are in *Grants by status* of *Policy and "
            "security*.",
            steps=above(0.01, 0.05),
        ),
        number(
            "Grants refused",
            share(increase(GRANTS, where=_DENIED), increase(GRANTS)),
            shows="Share of requests for a token that the policy refused, over all that is shown.",
            advice="the dashboard *Policy and security* says who is refused what, and why.",
            steps=above(0.1, 0.5),
        ),
        number(
            "p95",
            quantile(0.95, INVOCATION_DURATION, over=RANGE),
            shows="95 % of invocations were faster than this, over all that is shown.",
            advice="compare *Duration by capability* with what the capability's users expect, "
            "then look at its drivers.",
            steps=above(1_000, 10_000),
            empty="nothing ended",
        ),
        number(
            "Running",
            current(INVOCATIONS_ACTIVE),
            shows="Invocations that run now.",
            advice="A number that only rises means calls that never end: *Running by capability* "
            "says which.",
        ),
        number(
            "Processes reporting",
            current(INFO, how="count"),
            shows="Kernels' processes whose metrics arrive.",
            advice="Fewer than run: `agent-kernel-otel doctor` in a process that is missing says why.",
        ),
    ),
)

_GOLDEN: Final = Row(
    "Rate, errors, duration",
    (
        lines(
            "Invocations by status",
            rate(INVOCATIONS, (STATUS,)),
            shows="Invocations that ended, by how. `denied` is a token refused at its enforcement; what "
            "the policy refuses to grant is no invocation.",
            advice="Errors: see below. Denials: *Policy and security*. Cancellations: the "
            "callers give up, often because of time-outs shorter than *Duration*.",
        ),
        lines(
            "Errors by capability",
            share(
                increase(INVOCATIONS, _BY, _ERROR, over=STEP),
                increase(INVOCATIONS, _BY, _SERVED, over=STEP),
            ),
            shows="Share of each capability's invocations whose caller saw an error, of all that succeeded "
            "or failed; without those of which there were fewer than ten.",
            advice="open the traces by the line's menu, and look at the driver spans.",
            steps=above(0.01, 0.05),
        ),
        lines(
            "Duration",
            quantile(0.5, INVOCATION_DURATION),
            quantile(0.95, INVOCATION_DURATION),
            quantile(0.99, INVOCATION_DURATION),
            shows="Time from the call to its end, consumers of streams included; interpolated within a "
            "bucket. The diamonds are exemplars: each leads to the trace of such a call.",
            advice="look which capability it is, and whether its driver or its firewall takes "
            "the time.",
            steps=above(1_000, 10_000),
        ),
        lines(
            "Running by capability",
            current(INVOCATIONS_ACTIVE, _BY),
            shows="Invocations that run at each moment.",
            advice="A line that does not come back to 0 at night is of calls that hang: give them "
            "a time-out.",
        ),
    ),
)

_CAPABILITIES: Final = Row(
    "By capability",
    (
        table(
            "Capabilities",
            increase(INVOCATIONS, _BY).named("Invocations"),
            increase(INVOCATIONS, _BY, _ERROR).named("Errors"),
            increase(GRANTS, _BY, _DENIED).named("Grants refused"),
            quantile(0.95, INVOCATION_DURATION, _BY, over=RANGE).named("p95"),
            shows="Each capability over all that is shown. `_OTHER` is what the kernel does not know, and "
            "all past the first 100.",
            advice="Sort by a column; a capability that nobody uses can lose its grants.",
        ),
        lines(
            "Invocations by capability",
            rate(INVOCATIONS, _BY),
            shows="Invocations that ended, a second.",
            advice="A sudden rise of one capability alone is often an agent in a loop: its traces "
            "name the principal.",
        ),
        lines(
            "Duration by capability",
            quantile(0.95, INVOCATION_DURATION, _BY),
            shows="95 % of each capability's invocations were faster; with exemplars.",
            advice="open an exemplar's trace, and see which of its spans is long.",
            steps=above(1_000, 10_000),
        ),
        lines(
            "Slower than a second",
            share_above(_SLOW, INVOCATION_DURATION, _BY),
            shows="Share of invocations above a second: exact, unlike a percentile, and so the better "
            "ground for an objective. Without capabilities called fewer than ten times.",
            advice="it is the share of calls that break the promise of a second; if there is no "
            "such promise, set another threshold.",
            steps=above(0.05, 0.2),
        ),
        lines(
            "Time to first chunk",
            quantile(0.95, METRIC_TIME_TO_FIRST_CHUNK, _BY),
            shows="What a stream's consumer waits for; 95 % of streams were faster. Streams only.",
            advice="the driver starts late, or the model behind it does: look at its attempts.",
            steps=above(1_000, 10_000),
        ),
    ),
)

_DRIVERS: Final = Row(
    "Drivers",
    (
        lines(
            "Attempts by driver",
            rate(DRIVER_ATTEMPTS, (DRIVER_ID, STATUS)),
            shows="Attempts of drivers, by how they ended; a fallback is two or more.",
            advice="A driver whose errors rise while its successes fall is down.",
        ),
        lines(
            "Failed attempts",
            rate(DRIVER_ATTEMPTS, (DRIVER_ID, ERROR_TYPE), _ERROR),
            shows="Attempts that failed, by driver and exception. Those that a fallback made good are "
            "among them.",
            advice="`TimeoutError` is a slow backend or too short a time-out; what else it is, "
            "the driver's span says.",
        ),
        lines(
            "Duration by driver",
            quantile(0.95, DRIVER_DURATION, (DRIVER_ID,)),
            shows=f"95 % of each driver's attempts were faster. {DEBUG}",
            advice="the system behind this driver is slow; everything that it serves is.",
            steps=above(1_000, 10_000),
        ),
        lines(
            "Fallbacks",
            rate(FALLBACKS, _BY),
            shows="Invocations that tried more than one driver, whether or not one served.",
            advice="The first driver of these capabilities fails: *Failed attempts* says how. Nobody "
            "notices until the second fails, too.",
        ),
        lines(
            "Dry runs",
            rate(DRY_RUNS, _BY),
            shows="Invocations that were only planned. They are in no other panel, but for refusals.",
            advice="Dry runs in production that nobody asked for are an agent that was never "
            "switched to act.",
        ),
        lines(
            "GenAI tool duration",
            quantile(0.95, EXECUTE_TOOL_DURATION, (GEN_AI_TOOL_NAME,)),
            shows="The same durations under the name of OpenTelemetry's GenAI convention. Needs "
            "`gen_ai_metrics=true`.",
            advice="it is *Duration by capability* in seconds; see there.",
            steps=above(1, 10),
        ),
        lines(
            "Invocations by process",
            rate(INVOCATIONS, (JOB, INSTANCE)),
            shows="How the work is spread over the processes.",
            advice="A process at 0 beside busy ones gets no work, or hangs: see *Running*.",
            width=24,
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "weaver-overview",
    "Weaver kernel: overview",
    "How much the kernel does, how fast, and what fails.",
    TAGS,
    (*PROCESSES, CAPABILITY),
    (_NOW, _GOLDEN, _CAPABILITIES, _DRIVERS),
)
