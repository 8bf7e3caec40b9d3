# SPDX-License-Identifier: Apache-2.0
"""Records of real kernels, replayed and compared; ``make matrix`` does so for every release."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import StatusCode

from agent_kernel_otel import semconv as s
from agent_kernel_otel.correlation import correlations
from tests.matrix import replay_comparison
from tests.matrix.replay_comparison import Call, Comparison
from tests.matrix.replay_differences import (
    CANCELLED,
    DRIVERS_FAILED,
    SERVED,
    SITUATIONS,
    TOKEN_REFUSED,
    Difference,
    Releases,
    Situation,
    Unrecorded,
)
from tests.matrix.replay_scenes import AUDITED
from tests.matrix.replayed import Replayed
from tests.matrix.spans import ABSENT

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000_000_000_000
LATENESS = 2_000_000


def test_the_installed_release_writes_what_its_records_are_known_to_hold() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.matrix.replay"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == []


def test_each_scene_is_of_one_situation() -> None:
    named = [scene for situation in SITUATIONS for scene in situation.scenes]
    assert sorted(named) == sorted(AUDITED)


@pytest.fixture(autouse=True)
def only_what_a_test_declares(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    correlations.forget()
    monkeypatch.setattr(replay_comparison, "UNRECORDED", (Unrecorded(TOKEN_REFUSED),))
    monkeypatch.setattr(
        replay_comparison,
        "DIFFERENCES",
        (
            Difference({s.SAFETY_CLASS: ABSENT}, "each", (SERVED, DRIVERS_FAILED)),
            Difference({s.DRIVER_ID: ABSENT}, "each", (SERVED,), Releases(3, 11)),
            Difference({s.ERROR_TYPE: s.OTHER}, "failures", (DRIVERS_FAILED,)),
        ),
    )
    yield
    correlations.forget()


def call(situation: Situation = SERVED) -> Call:
    """A call, with a live span."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    failed = situation is DRIVERS_FAILED
    span = tracer.start_span(
        s.INVOKE,
        attributes={
            s.CAPABILITY_ID: "items.list",
            s.SAFETY_CLASS: "READ",
            s.ACTION_ID: "action",
            **({s.ERROR_TYPE: "DriverError"} if failed else {}),
        },
        start_time=NOW,
    )
    if failed:
        span.set_status(StatusCode.ERROR)
    span.end(NOW + LATENESS)
    assert isinstance(span, ReadableSpan)
    if situation is not TOKEN_REFUSED:
        correlations.remember("action", span.get_span_context())
    return Call("a_scene", situation, span, NOW + 2 * LATENESS)


def replayed(made: Call) -> Replayed:
    """The span of its record, as it is to be."""
    context = made.live.get_span_context()
    assert context is not None
    failed = made.situation is DRIVERS_FAILED
    return Replayed(
        s.INVOKE,
        1,
        2,
        NOW + LATENESS,
        NOW + LATENESS + 1,
        "ERROR" if failed else "UNSET",
        {
            s.CAPABILITY_ID: "items.list",
            s.ACTION_ID: "action",
            s.REPLAYED: True,
            **({s.ERROR_TYPE: s.OTHER} if failed else {}),
        },
        ((context.trace_id, context.span_id),),
    )


def problems(*pairs: tuple[Call, Replayed | None], release: str = "0.12.0") -> list[str]:
    comparison = Comparison(release)
    for made, span in pairs:
        comparison.compare([made], [span] if span else [])
    return comparison.problems


@pytest.mark.parametrize("situation", [SERVED, DRIVERS_FAILED])
def test_only_what_is_declared_differs(situation: Situation) -> None:
    made = call(situation)
    assert problems((made, replayed(made))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": s.EXPAND},
        {"status": "ERROR"},
        {"links": ()},
        {"links": ((7, 7),)},
        {"start": NOW - 1_000, "end": NOW - 999},
        {"start": NOW + LATENESS + 1, "end": NOW + LATENESS + 2},
        {"end": NOW + LATENESS},
    ],
    ids=str,
)
def test_what_differs_undeclared_is_a_problem(wrong: dict[str, object]) -> None:
    made = call()
    assert problems((made, replace(replayed(made), **wrong)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {s.CAPABILITY_ID: "items.write"},  # another value
        {s.RESPONSE_MODE: "table"},  # more than the live span has
        {s.SAFETY_CLASS: "READ"},  # the same, which is declared as absent
        {s.REPLAYED: False},
    ],
    ids=str,
)
def test_an_attribute_that_differs_undeclared_is_a_problem(wrong: dict[str, object]) -> None:
    made = call()
    span = replayed(made)
    found = problems((made, replace(span, attributes={**span.attributes, **wrong})))
    assert len(found) == 1


def test_an_attribute_that_is_not_replayed_undeclared_is_a_problem() -> None:
    made = call()
    span = replayed(made)
    del span.attributes[s.CAPABILITY_ID]
    assert len(problems((made, span))) == 1


def test_a_call_without_a_record_is_declared() -> None:
    assert problems((call(TOKEN_REFUSED), None)) == []
    assert problems((call(CANCELLED), None)) == [
        "a_scene: a cancelled invocation: it has no record"
    ]


def test_a_record_without_a_call_is_a_problem() -> None:
    comparison = Comparison("0.12.0")
    comparison.compare([], [replayed(call())])
    assert comparison.problems == ["the record of action has no live span"]


def test_what_is_declared_and_does_not_occur_is_a_problem() -> None:
    comparison = Comparison("0.12.0")
    made = call()
    comparison.compare([made], [replayed(made)])
    never = comparison.never_occurred()
    assert [line.partition(": ")[2] for line in never] == [
        "an invocation whose token was refused has a record",
        "error.type is never '_OTHER' on failures",
    ]


def test_each_release_has_its_own_differences() -> None:
    never = Comparison("0.11.0").never_occurred()
    assert any(s.DRIVER_ID in line for line in never)
    assert not any(s.DRIVER_ID in line for line in Comparison("0.12.0").never_occurred())


@pytest.mark.parametrize(
    ("releases", "text", "has", "has_not"),
    [
        (Releases(), "all", ["0.3.0", "0.12.0", "0.13.1"], []),
        (Releases(9), "0.9 on", ["0.9.0", "0.10.0"], ["0.8.0"]),
        (Releases(3, 11), "0.3 to 0.11", ["0.3.0", "0.11.0"], ["0.12.0"]),
        (Releases(9, 9), "0.9", ["0.9.0"], ["0.8.0", "0.10.0"]),
    ],
)
def test_releases_are_told_as_the_pages_say_them(
    releases: Releases, text: str, has: list[str], has_not: list[str]
) -> None:
    assert str(releases) == text
    assert all(releases.have(release) for release in has)
    assert not any(releases.have(release) for release in has_not)
