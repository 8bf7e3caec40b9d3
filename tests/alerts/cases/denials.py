# SPDX-License-Identifier: Apache-2.0
"""Refusals, and what agents ask for in vain."""

from __future__ import annotations

from agent_kernel_otel import semconv
from tests.alerts.cases.calls import grants, invocations
from tests.alerts.cases.case import DAY, HOUR, Case, Fired, absent, flat, rising, series, then

SPIKE = "AgentKernelDenialSpike ticket"
STORM = "AgentKernelDenialStorm ticket"
UNKNOWN = "AgentKernelUnknownCapability ticket"


def denials(reason: str = "missing_role", category: str = "identity") -> str:
    return series(
        semconv.POLICY_DENIALS,
        {
            semconv.CAPABILITY_ID: "orders.purge",
            semconv.REASON_CATEGORY: category,
            semconv.REASON_CODE: reason,
            semconv.POLICY_PHASE: "grant",
        },
    )


_INFO = series(semconv.INFO, {semconv.VERSION: "0.12.0"})


def _day_and_hour(*samples: str) -> dict[str, str]:
    return {_INFO: flat(1, DAY + HOUR), denials(): then(*samples)}


_SPIKE = Case(
    SPIKE,
    "five times as many as an hour before",
    DAY + HOUR,
    _day_and_hour(rising(1, DAY), rising(5.2, HOUR - 1, DAY + 5.2)),
    (
        Fired(
            SPIKE,
            "312 refusals for this reason in the last hour, over four times the average of the day.",
            {
                "job": "shop",
                "agent_kernel_reason_code": "missing_role",
                "agent_kernel_reason_category": "identity",
            },
        ),
    ),
    evaluated=5,
)
_STORM = Case(
    STORM,
    "a refusal every 14 seconds, and one in eleven calls goes through",
    25,
    {
        denials(): rising(4.4, 25, 1),
        invocations("success", "orders.purge"): rising(0.44, 25),
    },
    (
        Fired(
            STORM,
            "66 refusals in 15 minutes for missing_role, on shop-1; not one in ten calls goes through.",
            {
                "job": "shop",
                "instance": "shop-1",
                "agent_kernel_capability_id": "orders.purge",
                "agent_kernel_reason_code": "missing_role",
            },
        ),
    ),
)
_UNKNOWN = Case(
    UNKNOWN,
    "6 % of the grants asked for, 22 in an hour, are of nothing registered",
    70,
    {grants("error", "_OTHER", "_OTHER"): rising(0.375, 70), grants("success"): rising(5.875, 70)},
    (Fired(UNKNOWN, "6% of what was asked for in the last hour is not registered."),),
)

CASES = (
    _SPIKE,
    Case(SPIKE, "a reason that there never was", DAY + HOUR, _day_and_hour(
        absent(DAY), rising(0.55, HOUR, 1),
    ), (
        Fired(
            SPIKE,
            "33 refusals for this reason in the last hour, over four times the average of the day.",
            {
                "job": "shop",
                "agent_kernel_reason_code": "missing_role",
                "agent_kernel_reason_category": "identity",
            },
        ),
    ), evaluated=5),
    _SPIKE.silently("29 in an hour, of a reason that there never was", _day_and_hour(
        absent(DAY), rising(0.48, HOUR),
    )),
    _SPIKE.silently("four times as many as an hour before", _day_and_hour(
        rising(1, DAY), rising(4, HOUR - 1, DAY + 4),
    )),
    _SPIKE.silently("a nightly job that is refused as often as the night before", _day_and_hour(
        flat(0, 20), rising(3, 30), flat(90, DAY - 1 - 20 - 31), rising(3, 30, 93), flat(183, 30),
    )),
    _SPIKE.silently("as many as every hour", _day_and_hour(rising(2, DAY + HOUR))),
    _SPIKE.silently("the first day of a service", {
        _INFO: then(absent(HOUR), flat(1, DAY)), denials(): then(absent(DAY), rising(2, HOUR)),
    }),
    Case(STORM, "every token is refused, though each is granted", 25, {
        denials("token_principal_mismatch", "token"): rising(4.4, 25),
        grants("success", "orders.purge", "DESTRUCTIVE"): rising(4.4, 25),
        grants("denied", "orders.purge", "DESTRUCTIVE"): rising(1, 25),
    }, (
        Fired(
            STORM,
            "66 refusals in 15 minutes for token_principal_mismatch, on shop-1; not one in ten calls goes through.",
            {
                "job": "shop",
                "instance": "shop-1",
                "agent_kernel_capability_id": "orders.purge",
                "agent_kernel_reason_code": "token_principal_mismatch",
            },
        ),
    )),
    _STORM,
    _STORM.silently("one every 16 seconds, which is just under it", {denials(): rising(3.75, 25)}),
    _STORM.silently("as many, of a capability of which one in nine calls goes through", {
        denials(): rising(6, 25), invocations("success", "orders.purge"): rising(0.78, 25),
    }),
    _STORM.silently("as many, in a process that only grants, one in nine", {
        denials(): rising(6, 25),
        grants("denied", "orders.purge", "DESTRUCTIVE"): rising(6, 25),
        grants("success", "orders.purge", "DESTRUCTIVE"): rising(0.78, 25),
    }),
    _STORM.silently("a hundred refusals long ago, and the process that counted them", {
        denials(): flat(100, 25),
    }),
    _UNKNOWN,
    _UNKNOWN.silently("4.9 %, which is just under it", {
        grants("error", "_OTHER", "_OTHER"): rising(4.9, 70), grants("success"): rising(95.1, 70),
    }),
    _UNKNOWN.silently("all, and these are 19 in an hour", {
        grants("error", "_OTHER", "_OTHER"): rising(0.31, 70), grants("success"): flat(0, 70),
    }),
    _UNKNOWN.silently("the policy engine fails for what is registered", {
        grants("error", "_OTHER", "_OTHER"): flat(0, 70), grants("error"): rising(9, 70),
    }),
)  # fmt: skip
