# SPDX-License-Identifier: Apache-2.0
"""What the firewall keeps back, and what the handle stores hold for later."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Dashboard, Row
from agent_kernel_otel.dashboards.panels import DEBUG, above, lines, number, red_above
from agent_kernel_otel.dashboards.promql import (
    INSTANCE,
    JOB,
    STEP,
    current,
    increase,
    quantile,
    rate,
    share,
)
from agent_kernel_otel.dashboards.weaver.choices import CAPABILITY, PROCESSES, TAGS
from agent_kernel_otel.semconv import (
    CAPABILITY_ID,
    DOWNGRADE_REASON,
    DOWNGRADES,
    EVICTION_REASON,
    FIREWALL_DURATION,
    HANDLES_ACTIVE,
    HANDLES_EVICTED,
    HANDLES_EXPANDED,
    HANDLES_STORED,
    INVOCATIONS,
    MEMORY_USAGE,
    METRIC_REDACTIONS,
    RESPONSE_MODE,
    STATUS,
    TIER,
)

_BY: Final = (CAPABILITY_ID,)
_EARLY: Final = {EVICTION_REASON: "!expired"}
_SILENT: Final = (
    "A share that falls to nothing deserves as much attention as one that rises: a driver whose "
    "results changed shape can pass what used to be caught."
)

_NOW: Final = Row(
    "At a glance",
    (
        number(
            "Redacted",
            share(increase(METRIC_REDACTIONS), increase(INVOCATIONS)),
            shows="Share of invocations in which the firewall redacted, omitted or elided anything, over "
            "all that is shown.",
            advice=_SILENT,
        ),
        number(
            "Downgraded",
            share(increase(DOWNGRADES), increase(INVOCATIONS)),
            shows="Share of invocations that got a stricter response mode than they asked for.",
            advice="*Downgrades by reason* says what cut them.",
            steps=above(0.1, 0.5),
        ),
        number(
            "Handles held",
            current(HANDLES_ACTIVE),
            shows="Results that the handle stores hold, expired ones that are not yet evicted included.",
            advice="Compare with the stores' limits: what is past them is evicted early.",
        ),
        number(
            "Memory",
            current(MEMORY_USAGE),
            shows="Size of the results held, as the kernel estimates it; only of stores that count bytes.",
            advice="Compare with the memory of the process.",
            empty="not counted",
        ),
        number(
            "Evicted early",
            increase(HANDLES_EVICTED, where=_EARLY),
            shows="Results that a store let go before their time, because there were too many, or too many "
            "bytes. Who expands such a handle gets an error.",
            advice="raise the store's limits, shorten the life of handles, or have agents ask for "
            "less at a time.",
            steps=above(1, 100),
        ),
        number(
            "Failed expansions",
            increase(HANDLES_EXPANDED, where={STATUS: "error"}),
            shows="Expansions that failed: the handle was gone or too large.",
            advice="if *Evicted early* is not 0 either, the store is too small.",
            steps=red_above(1),
        ),
    ),
)

_FIREWALL: Final = Row(
    "Firewall",
    (
        lines(
            "Redactions by capability",
            rate(METRIC_REDACTIONS, _BY),
            shows="Invocations in which the firewall redacted anything, each once; how much it was, is on "
            "the span.",
            advice=_SILENT,
        ),
        lines(
            "Redacted, by capability",
            share(
                increase(METRIC_REDACTIONS, _BY, over=STEP), increase(INVOCATIONS, _BY, over=STEP)
            ),
            shows="Share of each capability's invocations in which the firewall redacted anything; without "
            "those of which there were fewer than ten.",
            advice=_SILENT,
        ),
        lines(
            "Downgrades by reason",
            share(
                increase(DOWNGRADES, (DOWNGRADE_REASON,), over=STEP),
                increase(INVOCATIONS, over=STEP),
            ),
            shows="Share of all invocations that were downgraded, by why: `budget`, the session's ran low; "
            "`admin_gate`, raw mode without the admin role; `firewall`, the firewall did it.",
            advice="`budget`: the dashboard *Budgets*. `admin_gate`: agents ask for raw results "
            "that they may not have. `firewall`: results are larger than the mode allows.",
            steps=above(0.1, 0.5),
        ),
        lines(
            "Downgrades by capability",
            rate(DOWNGRADES, (CAPABILITY_ID, DOWNGRADE_REASON)),
            shows="Invocations that were downgraded, a second.",
            advice="Have the agents ask this capability for what they get anyway.",
        ),
        lines(
            "Time in the firewall",
            quantile(0.95, FIREWALL_DURATION, (RESPONSE_MODE,)),
            shows="95 % of results took the firewall less, by the mode it gave. Streams are not in it. "
            f"{DEBUG}",
            advice="results are large: have drivers return less, or agents ask for summaries.",
            steps=above(25, 100),
        ),
        lines(
            "Response modes",
            rate(FIREWALL_DURATION, (RESPONSE_MODE,), part="count"),
            shows=f"What agents got. {DEBUG}",
            advice="`raw` is what the firewall does not look into: know who gets it.",
        ),
    ),
)

_HANDLES: Final = Row(
    "Handles",
    (
        lines(
            "Handles stored, expanded and evicted",
            rate(HANDLES_STORED).named("stored"),
            rate(HANDLES_EXPANDED).named("expanded"),
            rate(HANDLES_EVICTED).named("evicted"),
            shows="Results put into a handle store, asked for, and let go.",
            advice="Stored and never expanded: agents do not need the results that they are "
            "given handles of.",
        ),
        lines(
            "Expansions by status",
            rate(HANDLES_EXPANDED, (STATUS,)),
            shows="Expansions of handles, by how they ended.",
            advice="`error`: the handle was gone or too large. `denied`: another principal's, or against "
            "its constraints.",
        ),
        lines(
            "Evictions by reason",
            rate(HANDLES_EVICTED, (EVICTION_REASON,)),
            shows="`expired`: its time was over. `capacity`, `bytes`: it was the oldest of too many.",
            advice="`capacity` or `bytes`: the store is too small for the life of its handles.",
        ),
        lines(
            "Handles by process",
            current(HANDLES_ACTIVE, (JOB, INSTANCE)),
            shows="Results that each process holds.",
            advice="A line that only rises is a store without a limit.",
        ),
        lines(
            "Memory by tier and process",
            current(MEMORY_USAGE, (JOB, INSTANCE, TIER)),
            shows="Size of the results that each process holds; only of stores that count bytes.",
            advice="Give the store a limit in bytes that fits the process.",
            width=24,
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "weaver-firewall",
    "Weaver kernel: firewall and handles",
    "What the firewall keeps back, and what the handle stores hold.",
    TAGS,
    (*PROCESSES, CAPABILITY),
    (_NOW, _FIREWALL, _HANDLES),
)
