# SPDX-License-Identifier: Apache-2.0
"""How full the budgets of sessions are, and what that costs their agents."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Dashboard, Row
from agent_kernel_otel.dashboards.panels import (
    FIRST_COUNTS,
    NONE_YET,
    above,
    bars,
    lines,
    number,
    red_above,
    table,
)
from agent_kernel_otel.dashboards.promql import (
    INSTANCE,
    JOB,
    STEP,
    current,
    full,
    increase,
    rate,
    share,
    slope,
    total,
)
from agent_kernel_otel.dashboards.weaver.choices import (
    BUDGET_SESSION,
    CAPABILITY,
    PROCESSES,
    TAGS,
)
from agent_kernel_otel.semconv import (
    BUDGET_CONSUMED,
    BUDGET_EXHAUSTIONS,
    BUDGET_LIMIT,
    CAPABILITY_ID,
    DOWNGRADE_REASON,
    DOWNGRADES,
    INVOCATIONS,
    SESSION,
)

_BY: Final = (SESSION,)
_BY_PROCESS: Final = (JOB, INSTANCE, SESSION)
"""Processes may give their sessions the same name."""
_BUDGET: Final = {DOWNGRADE_REASON: "budget"}
_FULL: Final = above(0.8, 0.95)
_NO_BUDGET: Final = "no budget"
_RAISE: Final = "raise the budget, end the session, or find what its agent reads so much of."

_NOW: Final = Row(
    "At a glance",
    (
        number(
            "Fullest budget",
            full(BUDGET_CONSUMED, BUDGET_LIMIT, ()),
            shows="How much of its budget the session has used that has used most of it. What running "
            "invocations have reserved is not in it.",
            advice=_RAISE,
            steps=_FULL,
            width=6,
            empty=_NO_BUDGET,
        ),
        number(
            "Sessions",
            current(BUDGET_LIMIT, how="count"),
            shows="Sessions that have a budget; those past the first 50 of a process are one, `_OTHER`.",
            advice="A number that only rises is kernels that are never let go.",
            width=6,
            empty=_NO_BUDGET,
        ),
        number(
            "Refused for a spent budget",
            total(BUDGET_EXHAUSTIONS),
            shows=f"Invocations that failed because their session's budget was spent, over all that "
            f"is shown. {FIRST_COUNTS}",
            advice="agents are standing still: *Sessions* below says which. Raise the budget or "
            "let them end.",
            steps=red_above(1),
            width=6,
            empty=NONE_YET,
        ),
        number(
            "Downgraded by a budget",
            share(increase(DOWNGRADES, where=_BUDGET), increase(INVOCATIONS)),
            shows="Share of invocations that got a shorter answer than they asked for because the budget "
            "ran low, over all that is shown.",
            advice="agents work with less than they asked for, and may ask again: " + _RAISE,
            steps=above(0.1, 0.5),
            width=6,
        ),
    ),
)

_SESSIONS: Final = Row(
    "Sessions",
    (
        bars(
            "Used of the budget",
            full(BUDGET_CONSUMED, BUDGET_LIMIT, _BY),
            shows="How much of its budget each session has used. `_OTHER` shows the fullest of all past "
            "the first 50. A manager that several kernels share is shown once.",
            advice=_RAISE,
            steps=_FULL,
            empty=_NO_BUDGET,
        ),
        lines(
            "Used of the budget, over time",
            full(BUDGET_CONSUMED, BUDGET_LIMIT, _BY),
            shows="The same, over time.",
            advice=_RAISE,
            steps=_FULL,
        ),
        table(
            "Tokens",
            full(BUDGET_CONSUMED, BUDGET_LIMIT, _BY_PROCESS).named("Used"),
            current(BUDGET_CONSUMED, _BY_PROCESS, "max").named("Tokens used"),
            current(BUDGET_LIMIT, _BY_PROCESS, "max").named("Tokens in all"),
            total(BUDGET_EXHAUSTIONS, _BY_PROCESS).named("Refused"),
            shows="Each session's budget in tokens, by process, and the invocations that failed because it "
            "was spent. Exhaustions are under the session of the kernel that met them.",
            advice=_RAISE,
        ),
        lines(
            "Tokens used",
            current(BUDGET_CONSUMED, _BY, "max"),
            shows="Tokens that each session has used.",
            advice="A line that rises steadily will meet its limit; where, the table above says.",
        ),
        lines(
            "Tokens a second",
            slope(BUDGET_CONSUMED, _BY),
            shows="How fast each session spends. A negative value is a budget that began anew.",
            advice="A session many times as fast as others is an agent in a loop, or one that reads "
            "whole tables: its traces say which capability.",
        ),
    ),
)

_CONSEQUENCES: Final = Row(
    "What it costs the agents",
    (
        lines(
            "Refused for a spent budget, by session",
            rate(BUDGET_EXHAUSTIONS, _BY),
            shows="Invocations that failed because the budget was spent. The first of a session makes no "
            "rate; it is in the number above.",
            advice=_RAISE.capitalize(),
        ),
        lines(
            "Downgraded by a budget, by capability",
            share(
                increase(DOWNGRADES, (CAPABILITY_ID,), _BUDGET, over=STEP),
                increase(INVOCATIONS, (CAPABILITY_ID,), over=STEP),
            ),
            shows="Share of each capability's invocations that a low budget cut; without those of which "
            "there were fewer than ten.",
            advice="large answers: ask this capability for less, or for a summary.",
            steps=above(0.1, 0.5),
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "weaver-budgets",
    "Weaver kernel: budgets",
    "How full the budgets of sessions are, and what that costs their agents.",
    TAGS,
    (*PROCESSES, CAPABILITY, BUDGET_SESSION),
    (_NOW, _SESSIONS, _CONSEQUENCES),
)
