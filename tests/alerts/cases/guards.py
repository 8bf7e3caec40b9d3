# SPDX-License-Identifier: Apache-2.0
"""Budgets, the firewall, handles and the audit trail."""

from __future__ import annotations

from agent_kernel_otel import semconv
from tests.alerts.cases.calls import invocations
from tests.alerts.cases.case import DAY, HOUR, Case, Fired, flat, rising, series, then

NEARLY = "AgentKernelBudgetNearlySpent ticket"
EXHAUSTED = "AgentKernelBudgetExhausted ticket"
SILENT = "AgentKernelFirewallSilent ticket"
EVICTED = "AgentKernelHandlesEvicted ticket"
UNPROVEN = "AgentKernelAuditFailing page 15m"
UNPROVEN_1D = "AgentKernelAuditFailing ticket 1d"

_SESSION = {semconv.SESSION: "nightly"}
_CONSUMED = series(semconv.BUDGET_CONSUMED, _SESSION)
_LIMIT = series(semconv.BUDGET_LIMIT, _SESSION)
_EXHAUSTIONS = series(semconv.BUDGET_EXHAUSTIONS, _SESSION)
_OF_SESSION = {"job": "shop", "instance": "shop-1", "agent_kernel_session": "nightly"}
_REDACTIONS = series(semconv.METRIC_REDACTIONS, {semconv.CAPABILITY_ID: "orders.list"})
_STORED = series(semconv.HANDLES_STORED)
_FAILURES = series(semconv.AUDIT_FAILURES, {semconv.EVENT_TYPE: "deny"})
_DENY = {"job": "shop", "agent_kernel_event_type": "deny"}


def _evicted(reason: str) -> str:
    return series(semconv.HANDLES_EVICTED, {semconv.EVICTION_REASON: reason})


_NEARLY = Case(
    NEARLY,
    "three tokens a minute, past four fifths of them",
    60,
    {_CONSUMED: rising(3, 60, 670), _LIMIT: flat(1000, 60)},
    (Fired(NEARLY, "85% of it is used, in shop on shop-1.", _OF_SESSION),),
)
_EXHAUSTED = Case(
    EXHAUSTED,
    "five invocations fail for it, after the first",
    15,
    {_EXHAUSTIONS: then(flat(1, 4), rising(1, 4, 2), flat(6, 5))},
    (
        Fired(
            EXHAUSTED, "5 invocations failed for it in 15 minutes, in shop on shop-1.", _OF_SESSION
        ),
    ),
)
_SILENT = Case(
    SILENT,
    "it redacted half of the results of a day, and none of the few of the next seven hours",
    DAY + 7 * HOUR,
    {
        _REDACTIONS: then(rising(0.5, DAY), flat(DAY / 2, 7 * HOUR)),
        invocations("success"): then(rising(1, DAY), rising(0.13, 7 * HOUR, DAY)),
    },
    (
        Fired(
            SILENT,
            "In six hours it redacted 0% of what the last three days lead to expect, in shop.",
            {"job": "shop", "agent_kernel_capability_id": "orders.list"},
        ),
    ),
    evaluated=10,
)
_EVICTED = Case(
    EVICTED,
    "one result in nine makes room for another, eleven in an hour",
    80,
    {
        _STORED: rising(1.7, 80),
        _evicted("capacity"): rising(0.1875, 80),
        _evicted("expired"): rising(1, 80),
    },
    (
        Fired(
            EVICTED,
            "11.03% as many results as were stored in the last hour had to go before their time (capacity), on shop-1.",
            {"job": "shop", "instance": "shop-1", "agent_kernel_eviction_reason": "capacity"},
        ),
    ),
)
_UNPROVEN = Case(
    UNPROVEN,
    "three records of one minute",
    20,
    {_FAILURES: then(flat(0, 9), flat(3, 10))},
    (
        Fired(
            UNPROVEN,
            "3 records of the kind deny could not be written in 15 minutes.",
            _DENY,
        ),
        Fired(
            UNPROVEN_1D,
            "3 records of the kind deny could not be written in the last day.",
            _DENY,
        ),
    ),
)
_UNPROVEN_1D = Case(
    UNPROVEN_1D,
    "three records, hours apart",
    DAY,
    {_FAILURES: then(flat(0, 99), flat(1, 399), flat(2, 399), flat(3, 540))},
    (
        Fired(
            UNPROVEN_1D,
            "3 records of the kind deny could not be written in the last day.",
            _DENY,
        ),
    ),
    evaluated=5,
)

CASES = (
    _NEARLY,
    _NEARLY.silently("79 % is used, which is just under it", {
        _CONSUMED: rising(1, 60, 730), _LIMIT: flat(1000, 60),
    }),
    _NEARLY.silently("it is nearly spent, and nobody uses it any more", {
        _CONSUMED: flat(900, 60), _LIMIT: flat(1000, 60),
    }),
    _NEARLY.silently("it is new again, with a new process", {
        _CONSUMED: then(rising(3, 30, 820), flat(0, 28)), _LIMIT: flat(1000, 60),
    }),
    _NEARLY.silently("there is none to spend", {_CONSUMED: flat(0, 60), _LIMIT: flat(0, 60)}),
    _EXHAUSTED,
    _EXHAUSTED.silently("four, after the first", {_EXHAUSTIONS: then(flat(1, 4), rising(1, 3, 2), flat(5, 6))}),
    _EXHAUSTED.silently("the first", {_EXHAUSTIONS: "_x10 1x6"}),
    _SILENT,
    Case(SILENT, "of half of the results it redacts one in fourteen", DAY + 7 * HOUR, {
        _REDACTIONS: then(rising(0.5, DAY), rising(0.0348, 7 * HOUR, DAY / 2)),
        invocations("success"): rising(1, DAY + 7 * HOUR),
    }, (
        Fired(
            SILENT,
            "In six hours it redacted 8.812% of what the last three days lead to expect, in shop.",
            {"job": "shop", "agent_kernel_capability_id": "orders.list"},
        ),
    ), evaluated=10),
    _SILENT.silently("of half of the results it still redacts one in eleven", {
        _REDACTIONS: then(rising(0.5, DAY), rising(0.0445, 7 * HOUR, DAY / 2)),
        invocations("success"): rising(1, DAY + 7 * HOUR),
    }),
    _SILENT.silently("there are too few results to tell", {
        _REDACTIONS: then(rising(0.5, DAY), flat(DAY / 2, 7 * HOUR)),
        invocations("success"): then(rising(1, DAY), rising(0.1, 7 * HOUR, DAY)),
    }),
    _SILENT.silently("nobody calls any more", {
        _REDACTIONS: then(rising(0.5, DAY), flat(DAY / 2, 7 * HOUR)),
        invocations("success"): then(rising(1, DAY), flat(DAY, 7 * HOUR)),
    }),
    _SILENT.silently("it never had anything to redact", {
        _REDACTIONS: flat(0, DAY + 7 * HOUR), invocations("success"): rising(1, DAY + 7 * HOUR),
    }),
    _SILENT.silently("it redacts on, in a process that starts anew", {
        _REDACTIONS: then(rising(0.5, DAY), rising(0.5, 7 * HOUR)),
        invocations("success"): then(rising(1, DAY), rising(1, 7 * HOUR)),
    }),
    _EVICTED,
    _EVICTED.silently("nine of a hundred, which is just under it", {
        _STORED: rising(100, 80), _evicted("bytes"): rising(9, 80),
    }),
    _EVICTED.silently("all, and these are nine in an hour", {
        _STORED: rising(0.15, 80), _evicted("bytes"): rising(0.15, 80),
    }),
    _EVICTED.silently("their time is over", {_STORED: rising(2, 80), _evicted("expired"): rising(2, 80)}),
    _UNPROVEN,
    _UNPROVEN.silently("two records", {_FAILURES: then(flat(0, 9), flat(2, 10))}),
    _UNPROVEN_1D,
    _UNPROVEN_1D.silently("two records, hours apart", {
        _FAILURES: then(flat(0, 99), flat(1, 399), flat(2, 940)),
    }),
)  # fmt: skip
