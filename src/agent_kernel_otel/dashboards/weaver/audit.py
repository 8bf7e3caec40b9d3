# SPDX-License-Identifier: Apache-2.0
"""Whether the proof of what agents did is complete, and the telemetry with it."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Dashboard, Row, Variable
from agent_kernel_otel.dashboards.panels import above, lines, number, red_above, table
from agent_kernel_otel.dashboards.promql import (
    INSTANCE,
    JOB,
    STEP,
    current,
    increase,
    plus,
    rate,
    share,
)
from agent_kernel_otel.dashboards.weaver.choices import PROCESSES, TAGS
from agent_kernel_otel.semconv import (
    ACTION_ID,
    AUDIT_EVICTIONS,
    AUDIT_FAILURES,
    AUDIT_RECORDS,
    DROP_REASON,
    EVENT_TYPE,
    INFO,
    SIGNAL,
    SYSTEM,
    TELEMETRY_DROPPED,
    TELEMETRY_SENT,
    UNSAMPLED_OPERATIONS,
    VERSION,
)

_PROCESS: Final = (JOB, INSTANCE)
_DOCTOR: Final = "`agent-kernel-otel doctor` in the process says why."

_NOW: Final = Row(
    "At a glance",
    (
        number(
            "Actions without proof",
            increase(AUDIT_FAILURES),
            shows="Audit records that a trace store failed to take, over all that is shown.",
            advice="at once: actions leave no proof. Look at the disk and the rights of the "
            "audit file; the log of the app has the exception.",
            steps=red_above(1),
        ),
        number(
            "Proof evicted",
            increase(AUDIT_EVICTIONS),
            shows="Audit records that a store in memory dropped to make room. They are gone.",
            advice="write audit records to a file or a database, or raise `max_entries`.",
            steps=red_above(1),
        ),
        number(
            "Audit records",
            rate(AUDIT_RECORDS),
            shows="Audit records taken, a second.",
            advice="At 0 while there are invocations, the kernel has no trace store.",
        ),
        number(
            "Telemetry lost",
            share(
                increase(TELEMETRY_DROPPED),
                plus(increase(TELEMETRY_DROPPED), increase(TELEMETRY_SENT)),
            ),
            shows="Share of spans, log records and collections of metrics that were lost on their way.",
            advice="*Telemetry lost by reason* says why.",
            steps=above(0.001, 0.01),
        ),
        number(
            "Operations without spans",
            increase(UNSAMPLED_OPERATIONS),
            shows="Operations that a sampler, or the caller's trace, kept out of the traces. Metrics and "
            "events have them all the same.",
            advice="Nothing is wrong if you sample. Shares are best left to the gateway, which sees "
            "how a call ended.",
        ),
        number(
            "Processes reporting",
            current(INFO, how="count"),
            shows="Kernels' processes whose metrics arrive.",
            advice=f"Fewer than run: {_DOCTOR}",
        ),
    ),
)

_PROOF: Final = Row(
    "Audit",
    (
        lines(
            "Audit records by kind",
            rate(AUDIT_RECORDS, (EVENT_TYPE,)),
            shows="Audit records taken: of invocations, expansions and refusals. To see the trace of one, "
            "put its action id into the field above, and follow *Search*.",
            advice="A kind that stops while the kernel works is a store that fails: see beside.",
        ),
        lines(
            "Actions without proof, by kind",
            rate(AUDIT_FAILURES, (EVENT_TYPE,)),
            shows="Audit records that a trace store failed to take.",
            advice="Look at the disk and the rights of the audit file; the app's log has the "
            "exception. Traces have these actions: export them while they are kept.",
        ),
        lines(
            "Proof evicted, by process",
            rate(AUDIT_EVICTIONS, _PROCESS),
            shows="Audit records that a store in memory dropped to make room.",
            advice="Write audit records to a file or a database, or raise `max_entries`.",
        ),
        lines(
            "Operations without spans, by process",
            rate(UNSAMPLED_OPERATIONS, _PROCESS),
            shows="Operations that leave an audit record and counts, and no trace: their action ids are "
            "not found by *Search*. `agent-kernel-otel export` makes spans of their records.",
            advice="Look for `OTEL_TRACES_SAMPLER` in this process, or for a caller that does not "
            "sample.",
        ),
    ),
)

_TELEMETRY: Final = Row(
    "Telemetry itself",
    (
        lines(
            "Telemetry sent",
            rate(TELEMETRY_SENT, (SIGNAL,)),
            shows="Spans, log records and collections of metrics that the receiver has acknowledged.",
            advice=f"A signal at 0 is not sent at all: {_DOCTOR}",
        ),
        lines(
            "Telemetry lost by reason",
            rate(TELEMETRY_DROPPED, (SIGNAL, DROP_REASON)),
            shows="What was lost, by signal and reason.",
            advice="`refused`: the receiver's log says why. `queue_full`: more than it takes: raise the "
            "queue, or give it a Collector nearby. `unanswered`, `failed`: it is not "
            f"reached. `exit`: the process ended too soon. {_DOCTOR}",
        ),
        lines(
            "Telemetry lost, by signal",
            share(
                increase(TELEMETRY_DROPPED, (SIGNAL,), over=STEP),
                plus(
                    increase(TELEMETRY_DROPPED, (SIGNAL,), over=STEP),
                    increase(TELEMETRY_SENT, (SIGNAL,), over=STEP),
                ),
            ),
            shows="Share of each signal that was lost; without those of which there were fewer than ten.",
            advice="*Telemetry lost by reason* says why.",
            steps=above(0.001, 0.01),
        ),
        lines(
            "Telemetry sent, by process",
            rate(TELEMETRY_SENT, _PROCESS),
            shows="What each process sends; one of which the metrics are only scraped sends none of those.",
            advice=f"A process at 0 beside others that send: {_DOCTOR}",
        ),
        table(
            "Versions",
            current(INFO, (JOB, SYSTEM, VERSION), "count").named("Processes"),
            shows="Which release of the kernel runs where, in how many processes.",
            advice="Two versions of one job are a roll-out under way, or one that stopped half-way.",
            width=24,
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "weaver-audit",
    "Weaver kernel: audit and correlation",
    "Whether the proof of what agents did is complete, the telemetry with it, and the way from an "
    "action's audit record to its trace.",
    TAGS,
    (*PROCESSES, Variable("action", "Action id")),
    (_NOW, _PROOF, _TELEMETRY),
    search={ACTION_ID: "action"},
)
