# SPDX-License-Identifier: Apache-2.0
"""The examples run as a user runs them, and what arrives in another process is what they did."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_kernel_otel import InstrumentationConfig
from agent_kernel_otel import semconv as s
from tests.support.otlp_sink import Item, OtlpSink

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# Not resolved: the scripts are beside the environment's own link to its interpreter.
SCRIPTS = Path(sys.executable).parent
INSTRUMENT = str(SCRIPTS / "opentelemetry-instrument")
CONSOLE = [str(SCRIPTS / "agent-kernel-otel"), "console", "--grpc-port", "0", "--http-port", "0"]

TOLD_BY_THE_TOUR = """\
allowed     40 orders
expanded    5 more rows by the handle
denied      missing_role
redacted    {'id': 7, 'plan': 'gold', 'note': 'prefers mail to [REDACTED]'}
fell back   the first mail server was down, the second served
dry run     would use crm, at low cost
streamed    4 pieces
refused     the token was revoked
downgraded  asked for a table, got a summary: the budget is low
"""


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def example(name: str) -> str:
    return str(EXAMPLES / name)


def only(items: list[Item], **attributes: Any) -> Item:
    """The one item that has these attributes, named by the constants of ``semconv``."""
    wanted = {getattr(s, name): value for name, value in attributes.items()}
    found = [item for item in items if wanted.items() <= item.attributes.items()]
    assert len(found) == 1, f"{len(found)} of {wanted} among {items}"
    return found[0]


def named(items: list[Item], name: str) -> list[Item]:
    return [item for item in items if item.name == name]


def children(spans: list[Item], parent: Item) -> list[str]:
    return [span.name for span in spans if span.parent_span_id == parent.span_id]


def test_tour_knows_nothing_of_telemetry_and_tells_its_story() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse((EXAMPLES / "tour.py").read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"__future__", "asyncio", "collections", "typing", "weaver_kernel"}
    assert run(sys.executable, example("tour.py")).stdout == TOLD_BY_THE_TOUR


def test_tour_becomes_traces_with_no_change_to_it(sink: OtlpSink) -> None:
    done = run(
        INSTRUMENT,
        sys.executable,
        example("tour.py"),
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_SERVICE_NAME="tour",
    )
    assert done.stdout == TOLD_BY_THE_TOUR

    spans = [span for span in sink.spans() if span.scope == s.SCOPE_WEAVER]
    assert Counter(span.name for span in spans) == {
        s.GRANT: 6,
        s.INVOKE: 8,
        s.EXPAND: 1,
        s.POLICY: 14,
        s.DRIVER: 7,
        s.FIREWALL: 6,
    }
    assert {span.resource["service.name"] for span in spans} == {"tour"}

    grants, invokes = named(spans, s.GRANT), named(spans, s.INVOKE)
    denied = only(grants, STATUS="denied", REASON_CODE="missing_role")
    assert denied.attributes[s.CAPABILITY_ID] == "customers.delete"
    only(invokes, STATUS="denied", REASON_CODE="token_revoked")
    only(invokes, REDACTIONS=2, CAPABILITY_ID="customers.get")
    only(invokes, DRY_RUN=True, STATUS="success")
    only(invokes, DOWNGRADE_REASON="budget", REQUESTED_RESPONSE_MODE="table")
    only(named(spans, s.EXPAND), STATUS="success", RESULT_ROWS=5)
    fallback = only(invokes, FALLBACK=True, DRIVER_ID="mail-2")
    assert children(spans, fallback).count(s.DRIVER) == 2
    stream = only(invokes, STREAM=True, STREAM_END="exhausted")
    assert sorted(children(spans, stream)) == [s.DRIVER, s.FIREWALL, s.POLICY]

    decisions = named(sink.logs(), s.POLICY_DECISION)
    only(decisions, POLICY_PHASE="grant", REASON_CODE="missing_role")
    only(decisions, POLICY_PHASE="enforce", REASON_CODE="token_revoked")
    for secret in (b"alice@example.com", b"ticket 4711", b"connection refused", b"Dear customer"):
        assert secret not in sink.raw_bytes()


def test_demo_draws_the_whole_tour_and_ends_by_itself() -> None:
    shown = run(*CONSOLE, "--", "opentelemetry-instrument", "python", example("tour.py")).stdout
    assert all(line in shown for line in TOLD_BY_THE_TOUR.splitlines())
    steps = [name.removeprefix("agent_kernel.") for name in (s.POLICY, s.DRIVER, s.FIREWALL)]
    stories = ["missing_role", "token_revoked", "DriverError", "fallback", "redactions", "dry run"]
    details = ["customers.delete", "stream exhausted", "mail-1", "mail-2", "budget"]
    for drawn in (s.GRANT, s.INVOKE, s.EXPAND, *steps, *stories, *details):
        assert drawn in shown


def test_programmatic_example_sends_by_the_providers_it_was_given(sink: OtlpSink) -> None:
    done = run(
        sys.executable,
        example("programmatic.py"),
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
    )
    assert done.stdout == TOLD_BY_THE_TOUR

    spans = sink.spans()
    assert {s.ROUTE, s.BUDGET, s.HANDLE, s.AUDIT} < {span.name for span in spans}
    assert {span.resource["service.name"] for span in spans} == {"programmatic-example"}
    principals = {span.attributes.get(s.PRINCIPAL_ID, "") for span in named(spans, s.INVOKE)}
    assert len(principals) == 1
    assert re.fullmatch("[0-9a-f]{16}", principals.pop())
    assert b"support-agent" not in sink.raw_bytes()
    assert named(sink.logs(), s.POLICY_DECISION)


def test_one_kernel_example_traces_that_kernel_only(sink: OtlpSink) -> None:
    done = run(
        sys.executable,
        example("one_kernel.py"),
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
    )
    assert done.stdout.split() == ["traced:", "5", "facts", "quiet:", "5", "facts"]

    spans = sink.spans()
    assert Counter(span.name for span in spans) == {
        s.GRANT: 1,
        s.INVOKE: 1,
        s.POLICY: 2,
        s.DRIVER: 1,
        s.FIREWALL: 1,
    }
    only(named(spans, s.INVOKE), KERNEL_ID="traced")


def test_audit_trail_finds_the_trace_of_each_record(sink: OtlpSink, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    done = run(
        INSTRUMENT,
        sys.executable,
        example("audit_trail.py"),
        str(audit),
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
    )
    told = re.findall(
        r"action (\S+)\n +live +\S+/trace/(\w+)\n +replayed +\S+/trace/(\w+)", done.stdout
    )
    assert len(told) == 3

    live = {span.attributes.get(s.ACTION_ID): span.trace_id for span in sink.spans()}
    assert {action: trace for action, trace, _ in told}.items() <= live.items()

    run(str(SCRIPTS / "agent-kernel-otel"), "export", str(audit), "--endpoint", sink.endpoint)
    replayed = {
        span.attributes[s.ACTION_ID]: span.trace_id
        for span in sink.spans()
        if span.attributes.get(s.REPLAYED)
    }
    assert replayed == {action: trace for action, _, trace in told}


def test_what_examples_write_into_a_clone_is_none_of_its_changes() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"audit.jsonl", InstrumentationConfig().links_file} <= set(ignored)
    (written,) = re.findall(
        r'"(\w+\.jsonl)"', (EXAMPLES / "audit_trail.py").read_text(encoding="utf-8")
    )
    assert written in ignored


def test_the_help_of_make_says_from_which_python_on() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    needed = re.findall(r"## .*needs Python (.*)", text)
    assert needed
    assert all(version.endswith(" or newer") for version in needed)
