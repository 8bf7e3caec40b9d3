# SPDX-License-Identifier: Apache-2.0
"""What does not arrive, and what is counted together."""

from __future__ import annotations

from agent_kernel_otel import semconv
from agent_kernel_otel.semconv.definitions import MetricDefinition
from tests.alerts.cases.calls import invocations
from tests.alerts.cases.case import HOUR, TARGET, Case, Fired, absent, flat, rising, series, then

NOTHING = "AgentKernelNothingArriving page"
SILENT = "AgentKernelServiceSilent page"
LOST = "AgentKernelTelemetryLost ticket"
OTHER = "AgentKernelOtherInUse ticket"

_INFO = series(semconv.INFO)
_NEIGHBOUR = series(semconv.INFO, {**TARGET, "job": "mail"})
_SENT = series(semconv.TELEMETRY_SENT, {semconv.SIGNAL: "traces"})
_DROPPED = series(
    semconv.TELEMETRY_DROPPED, {semconv.SIGNAL: "traces", semconv.DROP_REASON: "queue_full"}
)
_NOTHING_DESCRIPTION = (
    "There has been no agent_kernel_info of any process for ten minutes; "
    "every other alert on kernels is blind."
)


def _there(minutes: int, gone: int) -> dict[str, str]:
    return {_INFO: then(flat(1, minutes), absent(gone)), _NEIGHBOUR: flat(1, minutes + gone)}


_SILENT = Case(
    SILENT,
    "a service that ran for 14 hours is gone for 25 minutes",
    14 * HOUR + 25,
    _there(14 * HOUR, 25),
    (
        Fired(
            SILENT,
            "None of its processes sends metrics, though it did in 170 of the 288 five-minute steps of the last day.",
        ),
    ),
    evaluated=5,
)
_LOST = Case(
    LOST,
    "1.2 % of the spans, eleven of them",
    30,
    {_DROPPED: rising(0.75, 30), _SENT: rising(61.75, 30)},
    (
        Fired(
            LOST,
            "1.2% was lost on its way to the receiver in the last 15 minutes.",
            {"job": "shop", "agent_kernel_signal": "traces"},
        ),
    ),
)


def _other(
    attribute: str, metric: MetricDefinition, labels: dict[str, str]
) -> tuple[Case, Case, Case]:
    """1.2 %, 0.9 %, and a single one."""
    some, known = series(metric, {**labels, attribute: "_OTHER"}), series(metric, labels)
    label = attribute.removeprefix("agent_kernel.").replace(".", "_")
    fires = Case(
        OTHER,
        f"1.2 % have another {label}",
        140,
        {some: rising(1.2, 140), known: rising(98.8, 140)},
        (
            Fired(
                OTHER,
                "1.2% of what was counted in the last hour is under _OTHER.",
                {"job": "shop", "attribute": label},
            ),
        ),
    )
    return (
        fires,
        fires.silently(
            f"0.9 % have another {label}",
            {some: rising(0.9, 140), known: rising(99.1, 140)},
        ),
        fires.silently(
            f"a single one in a quiet service has another {label}",
            {some: then(flat(0, 79), flat(1, 60)), known: rising(0.1, 140)},
        ),
    )


_CALL = {
    semconv.CAPABILITY_ID: "orders.list",
    semconv.SAFETY_CLASS: "READ",
    semconv.STATUS: "success",
}
_ATTEMPT = {semconv.DRIVER_ID: "memory", semconv.STATUS: "error", semconv.ERROR_TYPE: "OSError"}
_DENIAL = {semconv.REASON_CODE: "no_matching_rule", semconv.SECURITY_RULE_NAME: "readers"}

CASES = (
    Case(NOTHING, "nothing was ever heard", 10, {"up": flat(1, 10)}, (
        Fired(NOTHING, _NOTHING_DESCRIPTION, {}),
    )),
    Case(NOTHING, "the last process is gone for 15 minutes", 30, {
        _INFO: then(flat(1, 9), absent(20)),
    }, (
        Fired(NOTHING, _NOTHING_DESCRIPTION, {}),
    )),
    Case(NOTHING, "there was nothing for nine minutes", 24, {
        _INFO: then(flat(1, 9), absent(14), flat(1, 9)),
    }),
    Case(NOTHING, "one of two is gone", 30, _there(9, 20)),
    Case(NOTHING, "a process that does nothing", 30, {_INFO: flat(1, 30)}),
    _SILENT,
    _SILENT.silently("it is gone for as long as a deployment takes", _there(14 * HOUR + 12, 13)),
    _SILENT.silently("it runs on under another instance", {
        **_there(14 * HOUR, 25),
        series(semconv.INFO, {"instance": "shop-2"}): then(absent(14 * HOUR), flat(1, 25)),
    }),
    _SILENT.silently("a job of eleven hours is over", {
        _INFO: then(absent(3 * HOUR), flat(1, 11 * HOUR - 1), absent(25)),
        _NEIGHBOUR: flat(1, 15 * HOUR),
    }),
    _LOST,
    _LOST.silently("0.9 %, which is just under it", {_DROPPED: rising(9, 30), _SENT: rising(991, 30)}),
    _LOST.silently("all, and these are nine", {_DROPPED: rising(0.59, 30), _SENT: flat(0, 30)}),
    *_other(semconv.CAPABILITY_ID, semconv.INVOCATIONS, _CALL),
    *_other(semconv.DRIVER_ID, semconv.DRIVER_ATTEMPTS, _ATTEMPT),
    *_other(semconv.ERROR_TYPE, semconv.DRIVER_ATTEMPTS, _ATTEMPT),
    *_other(semconv.REASON_CODE, semconv.POLICY_DENIALS, _DENIAL),
    *_other(semconv.SECURITY_RULE_NAME, semconv.POLICY_DENIALS, _DENIAL),
    Case(OTHER, "a process has more sessions than are kept apart", 70, {
        series(semconv.BUDGET_LIMIT, {semconv.SESSION: "_OTHER"}): flat(9, 70),
        series(semconv.BUDGET_LIMIT, {semconv.SESSION: "nightly"}): flat(9, 70),
        series(semconv.BUDGET_LIMIT, {"instance": "shop-2"}): flat(9, 70),
    }, (
        Fired(
            OTHER,
            "50% of what was counted in the last hour is under _OTHER.",
            {"job": "shop", "attribute": "session"},
        ),
    )),
    Case(OTHER, "agents ask for what is not registered", 140, {
        invocations("success"): rising(1, 140),
        invocations("error", "_OTHER").replace("READ", "_OTHER"): rising(50, 140),
    }),
)  # fmt: skip
