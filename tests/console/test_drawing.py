# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.console import otlp_json, wire
from agent_kernel_otel.console.feed import Feed
from agent_kernel_otel.console.glyphs import ASCII, UNICODE, glyphs_for
from agent_kernel_otel.console.notices import Notices
from agent_kernel_otel.console.store import Store
from agent_kernel_otel.console.terminal import Terminal
from tests.console.harness import Span, attributes_field, logs_json, span, traces_json

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u200b[bold red]x[/nope]\x9b31m\x00\ud7ff"


class ScreenOfMemory(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Drawing:
    """A store whose traces are drawn into memory by the real feed and terminal."""

    def __init__(
        self,
        encoding: str = "utf-8",
        stream: type[io.TextIOWrapper] = io.TextIOWrapper,
        **terminal: Any,
    ) -> None:
        self.now = 0.0
        self.store = Store()
        self._bytes = io.BytesIO()
        self._stream = stream(self._bytes, encoding=encoding, newline="\n")
        self.terminal = Terminal(self._stream, **terminal)
        self.notices: list[str] = []
        notices = Notices(self.notices.append)
        self.feed = Feed(self.store, self.terminal, notices, clock=lambda: self.now)

    def send(self, *spans: Span, **more: Any) -> None:
        self._add(wire.TRACES, traces_json(*spans, **more))

    def send_logs(self, *records: dict[str, Any], **more: Any) -> None:
        self._add(wire.LOGS, logs_json(*records, **more))

    def send_metrics(self, *metrics: dict[str, Any], service: str = "shop") -> None:
        resource = {"attributes": attributes_field({"service.name": service})}
        fields = {"resource": resource, "scopeMetrics": [{"metrics": list(metrics)}]}
        self._add(wire.METRICS, {"resourceMetrics": [fields]})

    def _add(self, signal: wire.Signal, fields: dict[str, Any]) -> None:
        request = otlp_json.decode(signal.request, json.dumps(fields).encode())
        self.store.add(signal, request, wire.serialize(request))

    def taken(self) -> str:
        """What was drawn since the last time."""
        self._stream.flush()
        text = self._bytes.getvalue().decode(self._stream.encoding)
        self._bytes.seek(0)
        self._bytes.truncate()
        return text

    def drawn(self) -> str:
        self.feed.finish()
        return self.taken()

    def lines(self) -> list[str]:
        return self.drawn().splitlines()


@pytest.fixture
def drawing() -> Iterator[Drawing]:
    made = Drawing()
    yield made
    made.store.close()


def kernel_span(name: str, number: int, parent: int = 0, **more: Any) -> Span:
    status = more.pop("status", 0)
    links = more.pop("links", ())
    return span(
        name,
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        start=1_000_000_000 + number * 1_000,
        end=1_000_000_000 + number * 1_000 + 12_300_000,
        status=status,
        links=links,
        attributes={getattr(semconv, key): value for key, value in more.items()},
    )


# Trees ----------------------------------------------------------------------------------------


def test_an_invocation_tells_its_whole_story(drawing: Drawing) -> None:
    drawing.send(
        kernel_span(
            semconv.INVOKE,
            1,
            CAPABILITY_ID="billing.list",
            PRINCIPAL_ID="alice",
            STATUS="success",
            FALLBACK=True,
            REDACTIONS=2,
            DOWNGRADED=True,
            DOWNGRADE_REASON="budget",
            REQUESTED_RESPONSE_MODE="table",
            RESPONSE_MODE="summary",
            RESULT_FACTS=3,
            RESULT_ROWS=1,
            links=(("ab" * 16, "cd" * 8),),
        ),
        kernel_span(semconv.POLICY, 2, 1, POLICY_PHASE="enforce", POLICY_OUTCOME="allowed"),
        kernel_span(
            semconv.DRIVER, 3, 1, DRIVER_ID="primary", STATUS="error", ERROR_TYPE="DriverError",
            status=2,
        ),
        kernel_span(semconv.DRIVER, 4, 1, DRIVER_ID="replica", STATUS="success"),
        kernel_span(semconv.FIREWALL, 5, 1, RESPONSE_MODE="summary", REDACTIONS=1),
    )  # fmt: skip
    heading, *tree = drawing.lines()
    assert heading.startswith(f"trace {'11' * 16}  ")
    assert heading.endswith("  shop  5 spans  12.3 ms")
    assert tree == [
        (
            "✓ agent_kernel.invoke  billing.list  12.3 ms  success  by alice  ↻ fallback"
            "  ▒ 2 redactions  downgraded table→summary (budget)  3 facts  1 row"
            "  granted in trace abababab"
        ),
        "├─ ✓ policy.evaluate  enforce  12.3 ms  allowed",
        "├─ ✗ driver.execute  primary  12.3 ms  error DriverError",
        "├─ ✓ driver.execute  replica  12.3 ms  success",
        "└─ ✓ firewall.apply  summary  12.3 ms  ▒ 1 redaction",
        "",
    ]


def test_a_denial_is_told_with_its_reason_and_rule(drawing: Drawing) -> None:
    drawing.send(
        kernel_span(
            semconv.GRANT, 1, CAPABILITY_ID="x", STATUS="denied", REASON_CODE="role", status=2
        ),
        kernel_span(
            semconv.POLICY, 2, 1, POLICY_PHASE="grant", POLICY_OUTCOME="denied",
            REASON_CODE="role", REASON_CATEGORY="identity", SECURITY_RULE_NAME="writers",
        ),
    )  # fmt: skip
    assert drawing.lines()[1:3] == [
        "⊘ agent_kernel.grant  x  12.3 ms  denied: role",
        "└─ ⊘ policy.evaluate  grant  12.3 ms  denied: role (identity)  rule writers",
    ]


def test_a_replayed_audit_record_is_told_apart_and_leads_to_the_live_trace(
    drawing: Drawing,
) -> None:
    drawing.send(
        kernel_span(
            semconv.INVOKE, 1, CAPABILITY_ID="x", STATUS="success", REPLAYED=True,
            links=(("ab" * 16, "cd" * 8),),
        )
    )  # fmt: skip
    assert (
        "✓ agent_kernel.invoke  x  replayed  success  live in trace abababab\n" in drawing.drawn()
    )


def test_an_unenforced_refusal_says_so(drawing: Drawing) -> None:
    drawing.send(
        kernel_span(
            semconv.POLICY, 1, POLICY_PHASE="grant", POLICY_OUTCOME="denied", POLICY_ENFORCED=False
        )
    )
    assert "denied  not enforced" in drawing.drawn()


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"STATUS": "cancelled"}, "◌ agent_kernel.invoke  x  12.3 ms  cancelled"),
        ({"STATUS": "success", "DRY_RUN": True}, "success  dry run"),
        (
            {"STATUS": "success", "STREAM": True, "STREAM_END": "abandoned"},
            "success  stream abandoned",
        ),
    ],
)
def test_ways_to_end_are_told(drawing: Drawing, attributes: dict[str, Any], told: str) -> None:
    drawing.send(kernel_span(semconv.INVOKE, 1, CAPABILITY_ID="x", **attributes))
    assert told in drawing.drawn()


def test_an_invocation_under_the_gen_ai_name_is_told_as_one(drawing: Drawing) -> None:
    drawing.send(
        kernel_span(
            "execute_tool x", 1, CAPABILITY_ID="x", GEN_AI_OPERATION_NAME="execute_tool",
            STATUS="success", FALLBACK=True,
        )
    )  # fmt: skip
    assert "✓ execute_tool x  12.3 ms  success  ↻ fallback\n" in drawing.drawn()


def test_any_trace_shows_error_text_attributes_and_events(drawing: Drawing) -> None:
    drawing.send(
        span(
            "GET /orders",
            status=2,
            message="upstream is gone",
            attributes={f"key{n}": n for n in range(6)},
            events=(("exception", {"exception.type": "KeyError", "exception.message": "no"}),),
        )
    )
    _, root, event, _ = drawing.lines()
    assert root.startswith("✗ GET /orders  1.00 ms  error: upstream is gone  key0=0  key1=1")
    assert root.endswith("…2 more attributes")
    assert event.startswith("└─ ≡ event ")
    assert event.endswith("  exception  KeyError: no")


def test_every_attribute_is_shown_on_request() -> None:
    drawing = Drawing(attributes=True)
    drawing.send(span("work", attributes={f"key{n}": [n, "text"] for n in range(6)}))
    lines = drawing.lines()
    assert lines[2] == '├─ key0=[0, "text"]'
    assert lines[7] == '└─ key5=[5, "text"]'
    drawing.store.close()


def test_services_are_named_where_they_change(drawing: Drawing) -> None:
    drawing.send(span("ask"), service="front")
    drawing.send(span("answer", span_id="02" * 8, parent_id="01" * 8), service="back")
    drawing.send(span("inner", span_id="03" * 8, parent_id="02" * 8), service="back")
    _, *tree = drawing.lines()
    assert tree[:3] == [
        "• ask  1.00 ms  [front]",
        "└─ • answer  1.00 ms  [back]",
        "   └─ • inner  1.00 ms",
    ]


def test_an_orphan_is_drawn_and_said_to_be_one(drawing: Drawing) -> None:
    drawing.send(span("lost child", parent_id="99" * 8))
    assert f"• lost child  1.00 ms  (parent {'99' * 8} not received)" in drawing.drawn()


def test_spans_that_are_each_others_parents_are_drawn(drawing: Drawing) -> None:
    drawing.send(
        span("a", span_id="0a" * 8, parent_id="0b" * 8),
        span("b", span_id="0b" * 8, parent_id="0a" * 8),
        span("self", span_id="0c" * 8, parent_id="0c" * 8),
    )
    text = drawing.drawn()
    assert text.count("its parents form a ring") == 2
    assert all(f"• {name}  1.00 ms" in text for name in ("a", "b", "self"))


def test_a_chain_deeper_than_the_stack_is_drawn(drawing: Drawing) -> None:
    drawing.send(*(kernel_span("deep", n, n - 1) for n in range(1, 3001)))
    lines = drawing.lines()
    assert max(map(len, lines)) < 200
    assert "(level 500)" in "\n".join(lines)
    assert "… 2,000 more spans are not drawn; --json has them all" in lines


def test_a_huge_trace_is_cut_with_a_count_of_what_matters(drawing: Drawing) -> None:
    drawing.send(
        kernel_span("root", 1),
        *(kernel_span("child", n, 1) for n in range(2, 1_500)),
        kernel_span(semconv.GRANT, 5_000, 1, CAPABILITY_ID="x", STATUS="denied"),
    )
    lines = drawing.lines()
    assert len(lines) < 1_010
    assert any("500 more spans are not drawn, among them 1 denied" in line for line in lines)


def test_odd_times_are_told_not_hidden(drawing: Drawing) -> None:
    drawing.send(
        span("backwards", span_id="01" * 8, start=2_000, end=1_000),
        span("unfinished", span_id="02" * 8, start=5, end=0),
        span("far", span_id="03" * 8, start=2**64 - 1, end=2**64 - 1),
    )
    text = drawing.drawn()
    assert "ends before it starts" in text
    assert "unfinished  no end" in text
    assert "far  0 ns" in text


# Logs -----------------------------------------------------------------------------------------


def test_log_records_stand_under_their_span_in_order_of_time(drawing: Drawing) -> None:
    drawing.send(
        span("root", start=1_000_000_000),
        span("child", span_id="02" * 8, parent_id="01" * 8, start=1_000_500_000),
    )
    place = {"traceId": "11" * 16, "spanId": "01" * 8}
    drawing.send_logs(
        {**place, "timeUnixNano": "1000900000", "severityNumber": 13, "body": {"stringValue": "b"}},
        {**place, "timeUnixNano": "1000100000", "severityText": "INFO", "body": {"intValue": 5}},
    )
    _, _, first, child, second, _ = drawing.lines()
    assert first.startswith("├─ ≡ INFO ")
    assert first.endswith("  5")
    assert child.startswith("├─ • child")
    assert second.startswith("└─ ≡ WARN ")
    assert second.endswith("  b")


def test_a_decision_event_tells_reason_and_rule(drawing: Drawing) -> None:
    drawing.send(span("root"))
    drawing.send_logs(
        {
            "traceId": "11" * 16,
            "spanId": "01" * 8,
            "severityText": "WARN",
            "eventName": semconv.POLICY_DECISION,
            "attributes": attributes_field(
                {
                    semconv.POLICY_OUTCOME: "denied",
                    semconv.REASON_CODE: "role",
                    semconv.REASON_CATEGORY: "identity",
                    semconv.SECURITY_RULE_NAME: "writers",
                }
            ),
        }
    )
    assert "policy.decision  denied: role (identity)  rule writers" in drawing.drawn()


def test_log_records_of_a_missing_span_are_listed_under_the_trace(drawing: Drawing) -> None:
    drawing.send(span("root"))
    drawing.send_logs(
        {"traceId": "11" * 16, "spanId": "77" * 8, "body": {"stringValue": "of nobody"}}
    )
    lines = drawing.lines()
    assert "log records of spans that were not received" in lines
    assert "of nobody" in lines[3]


def test_log_records_without_a_span_have_a_list_of_their_own(drawing: Drawing) -> None:
    drawing.send_logs({"body": {"stringValue": "one"}}, {"body": {"stringValue": "two"}})
    heading, one, two, _ = drawing.lines()
    assert heading == "log records without a span"
    assert one.startswith("├─ ≡ LOG ")
    assert one.endswith("  one  [shop]")
    assert two.startswith("└─ ")


def test_log_records_of_a_trace_without_spans_are_drawn(drawing: Drawing) -> None:
    drawing.send_logs(
        {"traceId": "11" * 16, "spanId": "01" * 8, "body": {"stringValue": "unsampled"}}
    )
    text = drawing.drawn()
    assert "no span received" in text
    assert "unsampled" in text


# When a trace is finished ---------------------------------------------------------------------


def test_a_trace_is_drawn_once_its_root_is_there_and_it_is_quiet(drawing: Drawing) -> None:
    drawing.send(span("child", span_id="02" * 8, parent_id="01" * 8))
    drawing.feed.step(0)
    drawing.now = 2.0
    drawing.feed.step(0)
    assert drawing.taken() == ""
    drawing.send(span("root"))
    drawing.feed.step(0)
    assert drawing.taken() == ""
    drawing.now = 2.4
    drawing.feed.step(0)
    assert "└─ • child" in drawing.taken()
    drawing.now = 60.0
    drawing.feed.step(0)
    assert drawing.taken() == ""


def test_traces_that_are_finished_together_are_drawn_in_order_of_time(drawing: Drawing) -> None:
    drawing.send_logs({"traceId": "33" * 16, "spanId": "01" * 8})
    drawing.send(span("third", trace_id="33" * 16, start=3))
    drawing.send(span("second", trace_id="22" * 16, start=2), span("first", start=1))
    text = drawing.drawn()
    assert text.index("first") < text.index("second") < text.index("third")


def test_a_trace_whose_root_never_comes_is_drawn_after_a_while(drawing: Drawing) -> None:
    drawing.send(span("child", parent_id="99" * 8))
    drawing.feed.step(0)
    drawing.now = 6.1
    drawing.feed.step(0)
    assert "• child" in drawing.taken()


def test_a_trace_that_never_goes_quiet_is_drawn_all_the_same(drawing: Drawing) -> None:
    drawing.send(span("root"))
    for tick in range(12):
        drawing.now = tick * 0.2
        drawing.send(span("child", span_id=f"{tick + 2:016x}", parent_id="01" * 8))
        drawing.feed.step(0)
    assert "• root" in drawing.taken()


def test_late_spans_are_drawn_in_their_place_and_marked(drawing: Drawing) -> None:
    drawing.send(span("root"), span("early", span_id="02" * 8, parent_id="01" * 8))
    assert "• early" in drawing.drawn()
    drawing.send(span("late", span_id="03" * 8, parent_id="01" * 8))
    drawing.send_logs({"traceId": "11" * 16, "spanId": "01" * 8, "body": {"stringValue": "x"}})
    heading, root, _, late, _ = drawing.lines()
    assert heading.endswith("updated: 1 late span, 1 late log record")
    assert root.endswith("(shown before)")
    assert late == "└─ • late  1.00 ms"


def test_a_repeated_request_draws_nothing_again(drawing: Drawing) -> None:
    drawing.send(span("root"))
    assert drawing.drawn()
    drawing.send(span("root"))
    assert drawing.drawn() == ""


def test_a_trace_evicted_before_it_was_drawn_is_told(drawing: Drawing) -> None:
    drawing.store._max_items = 1
    drawing.send(span("child", parent_id="99" * 8))
    drawing.feed.step(0)
    drawing.send(span("other", trace_id="22" * 16))
    assert "other" in drawing.drawn()
    assert drawing.notices == [
        "a trace was evicted before it could be shown; --max-spans keeps more"
    ]


# Hostile text ---------------------------------------------------------------------------------


def everything_hostile(drawing: Drawing, text: str) -> str:
    drawing.send(
        span(
            text,
            attributes={text: text, "list": [text], semconv.ERROR_TYPE: text},
            status=2,
            message=text,
            events=((text, {text: text, "exception.type": text}),),
        ),
        span(
            semconv.INVOKE,
            span_id="02" * 8,
            attributes=dict.fromkeys(
                (
                    semconv.CAPABILITY_ID, semconv.PRINCIPAL_ID, semconv.STATUS,
                    semconv.REASON_CODE, semconv.STREAM_END, semconv.STREAM, semconv.DOWNGRADED,
                    semconv.DOWNGRADE_REASON, semconv.RESPONSE_MODE, semconv.RESULT_FACTS,
                    semconv.REQUESTED_RESPONSE_MODE, semconv.REDACTIONS,
                ),
                text,
            ),
        ),
        span(
            semconv.POLICY,
            span_id="03" * 8,
            attributes={
                semconv.POLICY_OUTCOME: "denied",
                semconv.REASON_CODE: text,
                semconv.REASON_CATEGORY: text,
                semconv.SECURITY_RULE_NAME: text,
                semconv.POLICY_PHASE: text,
            },
        ),
        service=text,
    )  # fmt: skip
    drawing.send(span("peer", span_id="04" * 8), service="other")
    record = {"severityText": text, "eventName": text, "body": {"stringValue": text}}
    drawing.send_logs(
        {**record, "traceId": "11" * 16, "spanId": "01" * 8}, record, service=text
    )  # fmt: skip
    drawing.send_metrics(
        {
            "name": text,
            "unit": text,
            "gauge": {"dataPoints": [{"asInt": "1", "attributes": attributes_field({text: text})}]},
        },
        service=text,
    )
    drawing.send_metrics({"name": "m", "gauge": {"dataPoints": [{"asInt": "1"}]}}, service="other")
    drawing.feed.finish()
    drawing.terminal.metrics(drawing.store)
    drawing.terminal.line(text)
    return drawing.taken()


def test_hostile_text_reaches_the_terminal_only_as_visible_characters(drawing: Drawing) -> None:
    text = everything_hostile(drawing, HOSTILE)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "[bold red]x[/nope]" in text
    assert text.count("owned") >= 20


def test_hostile_text_on_a_colour_terminal_adds_no_control_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    drawing = Drawing()
    text = everything_hostile(drawing, HOSTILE)
    assert "\x1b[" in text
    without_colour = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(character.isprintable() or character == "\n" for character in without_colour)
    drawing.store.close()


def test_long_text_is_cut(drawing: Drawing) -> None:
    text = everything_hostile(drawing, "x" * 100_000)
    assert max(map(len, text.splitlines())) < 3_000


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_streams_that_cannot_encode_symbols_get_ascii_and_codes(encoding: str) -> None:
    drawing = Drawing(encoding)
    drawing.send(
        kernel_span(
            semconv.INVOKE, 1, CAPABILITY_ID="数据", STATUS="denied", FALLBACK=True, REDACTIONS=1,
            DOWNGRADED=True, REQUESTED_RESPONSE_MODE="raw", RESPONSE_MODE="table",
        ),
        kernel_span(semconv.DRIVER, 2, 1, STATUS="error"),
        kernel_span("\x1b[2J", 3, 1, STATUS="success"),
    )  # fmt: skip
    _, *tree = drawing.lines()
    assert tree[0].startswith("! agent_kernel.invoke  \\u6570\\u636e  12.3 ms  denied  ~ fallback")
    assert "# 1 redaction  downgraded raw->table" in tree[0]
    assert tree[1].startswith("|- x driver.execute")
    assert tree[2].startswith("`- + ?[2J  12.3 ms  success")
    assert glyphs_for(encoding) is ASCII
    drawing.store.close()


def test_utf8_streams_get_symbols() -> None:
    assert glyphs_for("utf-8") is UNICODE
    assert glyphs_for(None) is ASCII


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_500, "1.50 µs"),
        (12_345, "12.3 µs"),
        (123_456, "123 µs"),
        (12_300_000, "12.3 ms"),
        (1_234_000_000, "1.23 s"),
        (59_000_000_000, "59.0 s"),
        (125_000_000_000, "2 min 05 s"),
    ],
)
def test_durations_read_well(nanoseconds: int, text: str) -> None:
    assert UNICODE.duration(nanoseconds) == text


# Metrics --------------------------------------------------------------------------------------


def test_sums_gauges_and_histograms_are_told_below_the_name_of_their_metric(
    drawing: Drawing,
) -> None:
    labels = attributes_field({semconv.CAPABILITY_ID: "x", semconv.SYSTEM: "weaver_kernel"})
    drawing.send_metrics(
        {
            "name": "agent_kernel.invocations",
            "unit": "{invocation}",
            "sum": {
                "isMonotonic": True,
                "aggregationTemporality": 2,
                "dataPoints": [{"asInt": "1234567", "attributes": labels}],
            },
        },
        {"name": "load", "gauge": {"dataPoints": [{"asDouble": 0.25}]}},
        {
            "name": "wait",
            "unit": "ms",
            "histogram": {
                "aggregationTemporality": 2,
                "dataPoints": [
                    {
                        "count": "4",
                        "sum": 40.0,
                        "min": 5.0,
                        "max": 15.0,
                        "bucketCounts": ["2", "2", "0"],
                        "explicitBounds": [10.0, 100.0],
                    }
                ],
            },
        },
        {
            "name": "idle",
            "sum": {"isMonotonic": True, "dataPoints": [{"asInt": "0"}]},
        },
        {
            "name": "exponential",
            "exponentialHistogram": {"dataPoints": [{"count": "2", "sum": 3.0, "max": 2.5}]},
        },
        {
            "name": "quantiles",
            "summary": {
                "dataPoints": [
                    {"count": "2", "sum": 3.0, "quantileValues": [{"quantile": 0.5, "value": 1.5}]}
                ]
            },
        },
    )
    drawing.terminal.metrics(drawing.store)
    assert drawing.taken().splitlines() == [
        "agent_kernel.invocations (invocation)",
        "  1,234,567  capability_id=x",
        "exponential",
        "  n=2 mean=1.5 max=2.5",
        "load",
        "  0.25",
        "quantiles",
        "  n=2 p50=1.5",
        "wait (ms)",
        "  n=4 p50~10 p95~14.5 max=15",
        "not shown: 1 counter still at 0",
        "",
    ]


def a_counter(name: str, *points: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "unit": "{denial}",
        "sum": {
            "isMonotonic": True,
            "aggregationTemporality": 2,
            "dataPoints": [
                {"asInt": str(count), "attributes": attributes_field(attributes)}
                for count, attributes in points
            ],
        },
    }


def a_histogram(name: str, attributes: dict[str, Any], longest: float) -> dict[str, Any]:
    point = {
        "count": "1234",
        "sum": 40.0,
        "min": 5.0,
        "max": longest,
        "bucketCounts": ["600", "634", "0"],
        "explicitBounds": [10.0, 100.0],
        "attributes": attributes_field(attributes),
    }
    return {"name": name, "unit": "ms", "histogram": {"dataPoints": [point]}}


@pytest.mark.parametrize("width", [50, 80, 100, 125])
def test_what_tells_series_apart_is_there_in_full_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    drawing = Drawing(stream=ScreenOfMemory, color=False)
    denied = {
        semconv.CAPABILITY_ID: "customers.of-a-capability-with-a-rather-long-name.delete-"
        + "x" * 40,
        semconv.POLICY_PHASE: "grant",
        semconv.REASON_CATEGORY: "identity",
    }
    codes = ("missing_role", "insufficient_justification")
    drawing.send_metrics(
        a_counter(
            "agent_kernel.policy_denials",
            *(
                (count, {**denied, semconv.REASON_CODE: code})
                for count, code in enumerate(codes, 9)
            ),
        ),
        a_histogram(
            "agent_kernel.invocation_duration", {**denied, semconv.STATUS: "denied"}, 12.25
        ),
    )
    drawing.terminal.metrics(drawing.store)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", drawing.taken()).splitlines()
    assert max(map(len, lines)) <= width
    assert "agent_kernel.policy_denials (denial)" in lines
    assert "agent_kernel.invocation_duration (ms)" in lines
    unwrapped = "".join(line.strip() for line in lines)
    for told in (
        f"capability_id={denied[semconv.CAPABILITY_ID]},",
        *(f"reason_code={c}" for c in codes),
    ):
        assert told in unwrapped
    assert unwrapped.count(denied[semconv.CAPABILITY_ID]) == 3
    assert [line.split()[0] for line in lines if line[2:4] in ("10", " 9")] == ["10", "9"]
    assert any(line.startswith("  n=1,234 p50~10.06 p95~12.03 max=12.25") for line in lines)
    drawing.store.close()


def test_series_are_in_the_order_of_what_they_are_of_whoever_sent_them(drawing: Drawing) -> None:
    for service in ("b", "a"):
        drawing.send_metrics(
            a_counter("m", (1, {"x": "2"}), (30, {"x": "1"})),
            a_counter("k", (1, {})),
            service=service,
        )
    drawing.terminal.metrics(drawing.store)
    assert drawing.taken().splitlines() == [
        "k (denial)",
        "  1  service=a",
        "  1  service=b",
        "m (denial)",
        "  30  service=a, x=1",
        "   1  service=a, x=2",
        "  30  service=b, x=1",
        "   1  service=b, x=2",
        "",
    ]


def test_hostile_histograms_do_not_stop_the_table(drawing: Drawing) -> None:
    point = {"count": "9", "sum": "NaN", "bucketCounts": ["1"], "explicitBounds": [1.0, 2.0]}
    infinite = {"count": "1", "sum": "Infinity", "bucketCounts": ["1", "0"], "explicitBounds": [1]}
    drawing.send_metrics(
        {"name": "a", "histogram": {"dataPoints": [point]}},
        {"name": "b", "histogram": {"dataPoints": [{**infinite, "max": "-Infinity"}]}},
        {"name": "c", "gauge": {"dataPoints": [{"asDouble": "NaN"}]}},
        {"name": "d", "gauge": {"dataPoints": [{}]}},
    )
    drawing.terminal.metrics(drawing.store)
    assert [line for line in drawing.taken().splitlines() if line.startswith(" ")] == [
        "  n=9",
        "  n=1 p50~-inf p95~-inf max=-inf",
        "  nan",
        "  0",
    ]


def test_a_list_of_very_many_series_is_cut_and_says_so(drawing: Drawing) -> None:
    points = [
        {"asInt": "1", "attributes": attributes_field({"n": number})} for number in range(700)
    ]
    drawing.send_metrics({"name": "many", "gauge": {"dataPoints": points}})
    drawing.terminal.metrics(drawing.store)
    assert "not shown: 200 more series" in drawing.taken()


@pytest.mark.parametrize(
    ("instances", "shown"),
    [
        (("aaaa1111bbbb", "cccc2222dddd"), ("aaaa1111…", "cccc2222…")),
        (("pod-of-shop-1", "pod-of-shop-2"), ("pod-of-shop-1", "pod-of-shop-2")),
    ],
)
def test_processes_of_one_service_are_told_apart(
    instances: tuple[str, ...], shown: tuple[str, ...], drawing: Drawing
) -> None:
    for instance in instances:
        resource = {"attributes": attributes_field({"service.instance.id": instance})}
        metric = {"name": "m", "gauge": {"dataPoints": [{"asInt": "1"}]}}
        fields = {"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}
        drawing._add(wire.METRICS, {"resourceMetrics": [fields]})
    drawing.terminal.metrics(drawing.store)
    lines = drawing.taken().splitlines()
    assert lines[1:3] == [f"  1  instance={text}" for text in shown]
