# SPDX-License-Identifier: Apache-2.0
"""Calls that fail."""

from __future__ import annotations

from agent_kernel_otel import semconv
from tests.alerts.cases.case import DAY, HOUR, Case, Fired, flat, rising, series, then

BURN_1H = "AgentKernelErrorBudgetBurn page 1h"
BURN_6H = "AgentKernelErrorBudgetBurn page 6h"
BURN_3D = "AgentKernelErrorBudgetBurn ticket 3d"
FAILING = "AgentKernelCapabilityFailing ticket"


def invocations(status: str, capability: str = "orders.list") -> str:
    return series(
        semconv.INVOCATIONS,
        {
            semconv.CAPABILITY_ID: capability,
            semconv.SAFETY_CLASS: "READ",
            semconv.STATUS: status,
        },
    )


def grants(status: str, capability: str = "orders.list", safety_class: str = "READ") -> str:
    return series(
        semconv.GRANTS,
        {
            semconv.CAPABILITY_ID: capability,
            semconv.SAFETY_CLASS: safety_class,
            semconv.STATUS: status,
        },
    )


def calls(failing: str, succeeding: str, **others: str) -> dict[str, str]:
    """Invocations and grants, of which some statuses are always there."""
    return {
        invocations("error"): failing,
        invocations("success"): succeeding,
        grants("error"): flat(0, DAY),
        **{invocations(status): samples for status, samples in others.items()},
    }


Share = tuple[float, int]
"""How many of 100 calls a minute fail, and for how many minutes."""


def shares(*parts: Share, good: int = 7 * HOUR) -> dict[str, str]:
    """One after the other, after so many minutes of many calls that do not fail."""
    failing, succeeding = [rising(0, good - 1)], [rising(10_000, good - 1)]
    failed, succeeded = 0.0, 10_000.0 * good
    for share, minutes in parts:
        failing.append(rising(share, minutes - 1, failed + share))
        succeeding.append(rising(100 - share, minutes - 1, succeeded + 100 - share))
        failed += share * minutes
        succeeded += (100 - share) * minutes
    # A first sample before all, so that the first of them is an increase.
    return calls(then("0", *failing[not good :]), then("0", *succeeding[not good :]))


def burn(about: str, title: str, *parts: Share, says: str = "", good: int = 7 * HOUR) -> Case:
    """Whether it fires for such shares, and what it says then."""
    return Case(
        about,
        title,
        good + sum(minutes for _, minutes in parts),
        shares(*parts, good=good),
        (Fired(about, says),) if says else (),
        evaluated=5 if about != BURN_1H else 1,
    )


def in_an_hour(percent: float) -> str:
    return f"{percent}% of the calls failed in the last hour. At this pace the budget of 30 days is spent in two, or sooner."


def in_six_hours(percent: float) -> str:
    return f"{percent}% of the calls failed in the last six hours. At this pace the budget of 30 days is spent in five, or sooner."


def in_three_days(percent: float) -> str:
    return f"{percent}% of the calls failed in the last three days. At this pace the budget of 30 days does not last."


def few(about: str, title: str, a_minute: float, minutes: int, says: str = "") -> Case:
    """Whether it fires where so many calls a minute fail, and none succeed."""
    fires = (Fired(about, says),) if says else ()
    return Case(about, title, minutes, calls(rising(a_minute, minutes), flat(0, minutes)), fires)


_HIDDEN = Case(
    FAILING,
    "6 % of the calls of a rare capability fail, eleven of them, in a busy service",
    HOUR,
    {
        invocations("error", "orders.rare"): rising(0.375, HOUR),
        invocations("success", "orders.rare"): rising(5.875, HOUR),
        invocations("error"): flat(0, HOUR),
        invocations("success"): rising(10_000, HOUR),
    },
    (
        Fired(
            FAILING,
            "6% of its invocations failed in the last 30 minutes.",
            {"job": "shop", "agent_kernel_capability_id": "orders.rare"},
        ),
    ),
)

CASES = (
    burn(BURN_1H, "16 % fail for an hour", (16, 65), says=in_an_hour(16)),
    burn(BURN_1H, "14 % fail, which is just under it", (14, 65)),
    burn(BURN_1H, "a fifth failed for an hour, and 14 % in the last minutes", (20, 60), (14, 6)),
    burn(BURN_1H, "half of them fail since four minutes, and a tenth did before", (10, 60), (50, 4)),
    burn(BURN_1H, "all of them fail since a minute", (0, 3), (100, 1), good=0),
    Case(BURN_1H, "all of the calls fail, and these are nine", HOUR, calls(
        then(flat(0, 4), rising(0.16, 55)), flat(0, HOUR),
    )),
    Case(BURN_1H, "all of the calls fail, and these are eleven", HOUR, calls(
        then(flat(0, 4), rising(0.2, 55)), flat(0, HOUR),
    ), (Fired(BURN_1H, in_an_hour(100)),)),
    Case(BURN_1H, "nearly all calls are refused or cancelled", HOUR, calls(
        flat(0, HOUR), rising(1, HOUR), denied=rising(100, HOUR), cancelled=rising(100, HOUR),
    )),
    Case(BURN_1H, "agents ask for what is not registered", HOUR, {
        **calls(flat(0, HOUR), rising(1, HOUR)),
        grants("error", "_OTHER", "_OTHER"): rising(50, HOUR),
    }),
    Case(BURN_1H, "refusals do not hide the failures", 10, calls(
        rising(20, 10), rising(80, 10), denied=rising(10_000, 10),
    ), (Fired(BURN_1H, in_an_hour(20)),)),
    Case(BURN_1H, "the policy engine fails, so that there are no invocations", 10, {
        **calls(flat(0, 10), rising(75, 10)), grants("error"): rising(25, 10),
    }, (Fired(BURN_1H, in_an_hour(25)),)),
    Case(BURN_1H, "the process starts anew every ten minutes", 3 * 11 - 1, calls(
        then(*[rising(20, 10)] * 3), then(*[rising(80, 10)] * 3),
    ), (Fired(BURN_1H, in_an_hour(20)), Fired(BURN_6H, in_six_hours(20)))),
    burn(BURN_6H, "7 % fail for six hours", (7, 380), says=in_six_hours(7)),
    burn(BURN_6H, "5.5 % fail, which is just under it", (5.5, 380)),
    burn(BURN_6H, "8 % failed for six hours, and 5.5 % in the last minutes", (8, 360), (5.5, 35)),
    burn(BURN_6H, "9 % fail since 40 minutes, and 5 % did before", (5, 360), (9, 40)),
    few(BURN_6H, "all of the few calls fail, and these are eleven", 0.0315, 360, in_six_hours(100)),
    few(BURN_6H, "all of the few calls fail, and these are nine", 0.025, 380),
    few(BURN_3D, "all of the few calls fail, and these are eleven", 0.0195, 600, in_three_days(100)),
    few(BURN_3D, "all of the few calls fail, and these are nine", 0.015, 600),
    burn(BURN_3D, "1.2 % fail, for ever", (1.2, 480), good=0,
         says=in_three_days(1.2)),
    burn(BURN_3D, "0.9 % fail, which the objective allows", (0.9, 480), good=0),
    burn(BURN_3D, "2 % failed for hours, and 0.9 % in the last six", (2, 480), (0.9, 365), good=0),
    burn(BURN_3D, "1.6 % fail since four hours, and 0.7 % did before", (0.7, 1200), (1.6, 240), good=0),
    _HIDDEN,
    _HIDDEN.silently("4.9 % of them fail, which is just under it", {
        invocations("error", "orders.rare"): rising(4.9, HOUR),
        invocations("success", "orders.rare"): rising(95.1, HOUR),
    }),
    _HIDDEN.silently("all of them fail, and these are nine", {
        invocations("error", "orders.rare"): rising(0.3, HOUR),
        invocations("success", "orders.rare"): flat(0, HOUR),
    }),
)  # fmt: skip
