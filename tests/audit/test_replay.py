# SPDX-License-Identifier: Apache-2.0
"""Which span a record becomes: by the contract's names, and the same one each time."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import uuid
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import SpanContext, TraceFlags, format_span_id, format_trace_id

from agent_kernel_otel import InstrumentationConfig, replayed_context, semconv
from agent_kernel_otel.audit.records import read_record
from agent_kernel_otel.audit.replay import Replay, ReplayedSpan
from agent_kernel_otel.correlation import correlations
from agent_kernel_otel.scrub import PrincipalRedactor
from tests.audit.traces import NANOSECONDS, values

ACTION = "b2f5ff47-4366-4bb0-b4d1-2f3bcf0bb5c7"
TRACE_ID = "30132b37053cfc2915d994f443d55964"
SPAN_ID = "70ec92b9fc60513b"
_PYTHON_TYPES: dict[str, type] = {"string": str, "boolean": bool, "int": int, "double": float}

COMMON = {
    "agent_kernel.system": "weaver_kernel",
    "agent_kernel.replayed": True,
    "agent_kernel.capability_id": "tasks.list",
    "agent_kernel.action_id": ACTION,
    "agent_kernel.principal_id": "alice",
}
CALL = {
    "agent_kernel.dry_run": False,
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "tasks.list",
    "gen_ai.tool.type": "function",
    "gen_ai.tool.call.id": ACTION,
}
USED = {
    "agent_kernel.token_id": "token-1",
    "agent_kernel.driver_id": "memory",
    "agent_kernel.handle_id": "handle-1",
    "agent_kernel.sensitivity": "PII",
}
GOT = {
    "agent_kernel.response_mode": "table",
    "agent_kernel.result.rows": 2,
    "agent_kernel.result.warnings": 3,
}


def replayed(settings: dict[str, Any] | None = None, **changed: Any) -> ReplayedSpan:
    said = values(**{"action_id": ACTION, **changed})
    return Replay(InstrumentationConfig(**(settings or {}))).span_of(read_record(said))


CASES: dict[str, tuple[dict[str, Any], str, bool, dict[str, Any]]] = {
    "a success": (
        {},
        "agent_kernel.invoke",
        False,
        {**CALL, **USED, **GOT, "agent_kernel.result.facts": 1, "agent_kernel.status": "success"},
    ),
    "a failure": (
        {"error": "boom"},
        "agent_kernel.invoke",
        True,
        {**CALL, **USED, "agent_kernel.status": "error", "error.type": "_OTHER"},
    ),
    "a cancellation": (
        {"error": "invocation cancelled"},
        "agent_kernel.invoke",
        False,
        {**CALL, **USED, "agent_kernel.status": "cancelled", "error.type": "_OTHER"},
    ),
    "an invocation that is refused": (
        {"error": "no", "reason_code": "rate_limited"},
        "agent_kernel.invoke",
        True,
        {
            **CALL,
            **USED,
            "agent_kernel.status": "denied",
            "agent_kernel.reason_code": "rate_limited",
            "error.type": "_OTHER",
        },
    ),
    "an expansion": (
        {"event_type": "expand", "token_id": "", "driver_id": "", "sensitivity": "NONE"},
        "agent_kernel.expand",
        False,
        {**GOT, "agent_kernel.handle_id": "handle-1", "agent_kernel.status": "success"},
    ),
    "a denial": (
        {"event_type": "deny", "error": "no", "reason_code": "missing_role", "token_id": ""},
        "agent_kernel.grant",
        True,
        {
            "agent_kernel.status": "denied",
            "agent_kernel.reason_code": "missing_role",
            "error.type": "_OTHER",
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_record_becomes_the_span_that_the_contract_names(case: str) -> None:
    changed, name, failed, attributes = CASES[case]
    span = replayed(**changed)
    assert span.name == name
    assert span.attributes == {**COMMON, **attributes}
    assert span.failed is failed
    assert span.time == NANOSECONDS
    assert span.live is None


@pytest.mark.parametrize("case", CASES)
def test_every_attribute_is_declared_for_its_span_and_of_its_type(case: str) -> None:
    span = replayed(**CASES[case][0])
    for key, value in span.attributes.items():
        definition = semconv.ATTRIBUTES[key]
        assert span.name in definition.on, key
        assert type(value) is _PYTHON_TYPES[definition.type], key
        assert not definition.values or value in definition.values, key


def test_by_the_genai_convention_only_the_name_of_an_invocation_is_another() -> None:
    for case, (changed, name, _, _) in CASES.items():
        plain, named = replayed(**changed), replayed({"span_naming": "gen_ai"}, **changed)
        is_call = name == "agent_kernel.invoke"
        assert named.name == ("execute_tool tasks.list" if is_call else name), case
        assert named.attributes == plain.attributes
        assert (named.trace_id, named.span_id) == (plain.trace_id, plain.span_id)


def test_a_principal_leaves_in_the_form_that_is_configured() -> None:
    hashed = replayed({"principal_id": "hash", "principal_hash_key": "k"})
    shown = hashed.attributes["agent_kernel.principal_id"]
    assert re.fullmatch("[0-9a-f]{16}", str(shown))
    assert shown == PrincipalRedactor("hash", "k")("alice")  # as that of a live span
    other = replayed({"principal_id": "hash", "principal_hash_key": "l"})
    assert other.attributes["agent_kernel.principal_id"] != shown
    for form in ("off", "raw"):
        missing = replayed({"principal_id": form}, principal_id="")
        assert "agent_kernel.principal_id" not in missing.attributes
    assert "agent_kernel.principal_id" not in replayed({"principal_id": "off"}).attributes


@pytest.mark.parametrize("variable", ["OTEL_AGENT_KERNEL_SPAN_NAMING"])
def test_without_a_configuration_the_environments_is_used(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "gen_ai")
    assert Replay().span_of(read_record(values())).name == "execute_tool tasks.list"


def test_ids_come_from_the_action_id_alone_in_every_process() -> None:
    expected = (TRACE_ID, SPAN_ID)
    for changed, _, _, _ in CASES.values():
        span = replayed(**changed)
        assert (span.trace_id.hex(), span.span_id.hex()) == expected
    context = replayed_context(ACTION)
    assert (format_trace_id(context.trace_id), format_span_id(context.span_id)) == expected
    assert context.is_valid
    assert context.trace_flags.sampled
    program = (
        "from agent_kernel_otel import replayed_context\n"
        f"c = replayed_context({ACTION!r})\n"
        "print(f'{c.trace_id:032x} {c.span_id:016x}')"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert tuple(said.stdout.split()) == expected


@pytest.mark.parametrize("action", ["a" * 100_000, "lone \ud800 surrogate", "naïve", "\0", "x"])
def test_the_place_of_a_replayed_span_is_known_for_any_action_id(action: str) -> None:
    span, context = replayed(action_id=action), replayed_context(action)
    assert (int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big")) == (
        context.trace_id,
        context.span_id,
    )


def _contexts(count: int) -> list[SpanContext]:
    numbers = random.Random(6)
    return [
        replayed_context(str(uuid.UUID(int=numbers.getrandbits(128), version=4)))
        for _ in range(count)
    ]


def test_no_bit_of_the_ids_of_random_actions_is_fixed() -> None:
    contexts = _contexts(10_000)
    for name, width in (("trace_id", 128), ("span_id", 64)):
        ids = [getattr(context, name) for context in contexts]
        assert len(set(ids)) == len(ids)
        for bit in range(width):
            ones = sum(number >> bit & 1 for number in ids)
            assert 4_700 < ones < 5_300, f"bit {bit} of {name} is set in {ones} of 10,000"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_a_sampler_of_a_share_takes_that_share_of_replayed_traces(share: float) -> None:
    sampler = TraceIdRatioBased(share)
    taken = sum(
        sampler.should_sample(None, context.trace_id, "n").decision is Decision.RECORD_AND_SAMPLE
        for context in _contexts(10_000)
    )
    assert abs(taken / 10_000 - share) < 0.02


def test_a_replayed_span_links_to_the_live_span_of_its_action() -> None:
    correlations.forget()
    live = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    correlations.remember(ACTION, live)
    try:
        assert replayed().live is live
        assert replayed(action_id="another").live is None
    finally:
        correlations.forget()
