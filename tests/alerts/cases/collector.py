# SPDX-License-Identifier: Apache-2.0
"""The Collector's own metrics."""

from __future__ import annotations

from tests.alerts.cases.case import Case, Fired, flat, rising, series, then

REFUSING = "AgentKernelCollectorRefusing ticket"
SENDING = "AgentKernelCollectorSendFailing page"
FILLING = "AgentKernelCollectorQueueFilling ticket"
FULL = "AgentKernelCollectorQueueFilling page"
OVERFLOWING = "AgentKernelCollectorOverflowing page"
EVICTING = "AgentKernelSamplerEvicting ticket"
FAILING = "AgentKernelSamplerFailing ticket"

_GATEWAY = {"job": "gateway", "instance": "gateway-1"}
_RECEIVER = {**_GATEWAY, "receiver": "otlp", "transport": "grpc"}
_EXPORTER = {**_GATEWAY, "exporter": "otlp/jaeger"}
_QUEUE = {**_EXPORTER, "data_type": "traces"}
_SIZE = series("otelcol_exporter_queue_size", _QUEUE)
_CAPACITY = series("otelcol_exporter_queue_capacity", _QUEUE)
_SAMPLER = "otelcol_processor_tail_sampling"
_TRACES = series(f"{_SAMPLER}_new_trace_id_received", _GATEWAY)
_EVICTED = series(f"{_SAMPLER}_sampling_trace_dropped_too_early", _GATEWAY)
_ERRORS = series(f"{_SAMPLER}_sampling_policy_evaluation_error", _GATEWAY)


def _receiver(item: str, suffix: str = "", *, refused: str, accepted: str) -> dict[str, str]:
    return {
        series(f"otelcol_receiver_refused_{item}{suffix}", _RECEIVER): refused,
        series(f"otelcol_receiver_accepted_{item}{suffix}", _RECEIVER): accepted,
    }


def _exporter(item: str, suffix: str = "", *, failed: str, sent: str) -> dict[str, str]:
    return {
        series(f"otelcol_exporter_send_failed_{item}{suffix}", _EXPORTER): failed,
        series(f"otelcol_exporter_sent_{item}{suffix}", _EXPORTER): sent,
    }


def _refusing(signal: str, item: str, suffix: str = "") -> Case:
    return Case(
        REFUSING,
        f"it refuses 1.2 % of the {item}{suffix}",
        20,
        _receiver(item, suffix, refused=rising(1.2, 20), accepted=rising(98.8, 20)),
        (
            Fired(
                REFUSING,
                "1.2% of what came to otlp on gateway-1 was refused in the last five minutes.",
                {**_GATEWAY, "receiver": "otlp", "signal": signal},
            ),
        ),
    )


def _giving_up(signal: str, item: str, suffix: str = "") -> Case:
    return Case(
        SENDING,
        f"it gives 1.2 % of the {item}{suffix} up",
        20,
        # The series comes with the first failure.
        _exporter(item, suffix, failed=then("_x3", rising(1.2, 17, 1)), sent=rising(98.8, 20)),
        (
            Fired(
                SENDING,
                "1.2% of what otlp/jaeger on gateway-1 had to send was given up in the last five minutes.",
                {**_EXPORTER, "signal": signal},
            ),
        ),
    )


def _queue(alert: str, title: str, size: float, filled: str) -> Case:
    fired = Fired(alert, f"The queue of otlp/jaeger on gateway-1 is filled to {filled}.", _QUEUE)
    return Case(alert, title, 20, {_SIZE: flat(size, 20), _CAPACITY: flat(1000, 20)}, (fired,))


def _overflowing(data_type: str, item: str, suffix: str = "") -> Case:
    return Case(
        OVERFLOWING,
        f"there is no room for {item}{suffix}, and none was ever sent",
        20,
        # The series comes with the first failure.
        {
            series(f"otelcol_exporter_enqueue_failed_{item}{suffix}", _EXPORTER): then(
                "_x3", rising(30, 17, 30)
            )
        },
        (
            Fired(
                OVERFLOWING,
                "0.5 a second found the queue of otlp/jaeger on gateway-1 full.",
                {**_EXPORTER, "data_type": data_type},
            ),
        ),
    )


_SPANS_REFUSED = _refusing("traces", "spans")
_SPANS_GIVEN_UP = _giving_up("traces", "spans")
_FILLING = _queue(FILLING, "a queue is filled to three fifths", 600, "60%")
_FULL = _queue(FULL, "a queue is full", 1000, "100%")
_EVICTING = Case(
    EVICTING,
    "it drops 1.2 % of the traces too early",
    20,
    {_EVICTED: rising(1.2, 20), _TRACES: rising(100, 20)},
    (
        Fired(
            EVICTING,
            "1.2% of the traces that came to gateway-1 in the last five minutes, whatever was in them.",
            _GATEWAY,
        ),
    ),
)
_FAILING = Case(
    FAILING,
    "a policy fails on 1.2 % of the traces",
    20,
    {_ERRORS: rising(1.2, 20), _TRACES: rising(100, 20)},
    (
        Fired(
            FAILING,
            "1.2% as many errors as traces, on gateway-1 in the last five minutes.",
            _GATEWAY,
        ),
    ),
)

CASES = (
    _SPANS_REFUSED,
    _refusing("metrics", "metric_points"),
    _refusing("logs", "log_records"),
    _refusing("traces", "spans", "_total"),
    _SPANS_REFUSED.silently("it refuses 0.9 %, which is just under it", _receiver(
        "spans", refused=rising(0.9, 20), accepted=rising(99.1, 20),
    )),
    _SPANS_REFUSED.silently("it refused a request, and takes on", _receiver(
        "spans", refused=then(flat(0, 9), flat(50, 10)), accepted=rising(10, 20),
    )),
    _SPANS_GIVEN_UP,
    _giving_up("metrics", "metric_points"),
    _giving_up("logs", "log_records"),
    _giving_up("traces", "spans", "_total"),
    _SPANS_GIVEN_UP.silently("it gives 0.9 % up, which is just under it", _exporter(
        "spans", failed=rising(0.9, 20), sent=rising(99.1, 20),
    )),
    _SPANS_GIVEN_UP.silently("it gave a request up, and sends on", _exporter(
        "spans", failed=then(flat(0, 9), flat(50, 10)), sent=rising(10, 20),
    )),
    _SPANS_GIVEN_UP.silently("it never failed", {
        series("otelcol_exporter_sent_spans", _EXPORTER): rising(10, 20),
    }),
    _FILLING,
    _FILLING.silently("a queue is half full", {_SIZE: flat(500, 20), _CAPACITY: flat(1000, 20)}),
    _FILLING.silently("a queue is empty", {_SIZE: flat(0, 20), _CAPACITY: flat(1000, 20)}),
    _FILLING.silently("a queue is full for a moment", {
        _SIZE: then(flat(0, 9), flat(999, 3), flat(0, 6)), _CAPACITY: flat(1000, 20),
    }),
    Case(FULL, "a queue has just become full", 14, _FULL.series, _FULL.fires),
    Case(FULL, "a queue is full for long", 20, _FULL.series, (
        *_FULL.fires, *_queue(FILLING, "", 1000, "100%").fires,
    )),
    Case(FULL, "a queue is nearly full", 14, {_SIZE: flat(950, 20), _CAPACITY: flat(1000, 20)}),
    Case(FULL, "a queue is empty", 14, {_SIZE: flat(0, 20), _CAPACITY: flat(1000, 20)}),
    _overflowing("traces", "spans"),
    _overflowing("metrics", "metric_points"),
    _overflowing("logs", "log_records"),
    _overflowing("traces", "spans", "_total"),
    _overflowing("traces", "spans").silently("there was none for a moment", {
        series("otelcol_exporter_enqueue_failed_spans", _EXPORTER): then("_x3", flat(30, 7), flat(90, 9)),
    }),
    _overflowing("traces", "spans").silently("there is room", {
        series("otelcol_exporter_sent_spans", _EXPORTER): rising(10, 20),
    }),
    _EVICTING,
    _EVICTING.silently("0.9 % are dropped, which is just under it", {
        _EVICTED: rising(0.9, 20), _TRACES: rising(100, 20),
    }),
    _FAILING,
    _FAILING.silently("0.9 % have an error, which is just under it", {
        _ERRORS: rising(0.9, 20), _TRACES: rising(100, 20),
    }),
)  # fmt: skip
