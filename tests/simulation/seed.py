# SPDX-License-Identifier: Apache-2.0
"""One seed: played without and with the instrumentation, and all checks made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

from agent_kernel_otel import histograms, semconv
from tests.simulation import check_counts
from tests.simulation.canonical import canonical
from tests.simulation.checks import CHECKS, Evidence
from tests.simulation.model import Model
from tests.simulation.plan import Plan
from tests.simulation.process import play_bare
from tests.simulation.traced import Traced

OPERATIONS = 10_000
_ = check_counts  # registers its checks


def plan_of(seed: int, count: int = OPERATIONS) -> Plan:
    """The plan of a seed; every third one has all spans."""
    calls = semconv.INVOCATION_DURATION.bounds + semconv.DRIVER_DURATION.bounds
    stages = semconv.POLICY_DURATION.bounds + semconv.FIREWALL_DURATION.bounds
    return Plan(
        seed,
        count,
        edges=sorted({milliseconds / 1e3 for milliseconds in calls}),
        stage_edges=sorted({round(milliseconds * 1e6) for milliseconds in stages}),
        span_level="debug" if seed % 3 == 0 else "info",
    )


def evidence_of(plan: Plan) -> Evidence:
    """Play a plan twice, and work out what must have been told."""
    bare = play_bare(plan)
    model = Model(plan.kernels, debug=plan.span_level == "debug")
    told = {number: model.told(run) for number, run in bare.runs.items()}
    # Every other seed forks, and the others are read by a thread meanwhile.
    return Evidence(bare, Traced(plan, read_meanwhile=plan.seed % 4 < 2), told)


def problems_of(evidence: Evidence) -> dict[str, list[str]]:
    """By check, what it found wrong; checks that found nothing are left out."""
    found = {name: list(check(evidence)) for name, check in CHECKS.items()}
    return {name: problems for name, problems in found.items() if problems}


def telemetry_of(plan: Plan) -> str:
    """All telemetry of a plan, as text.

    The product's own thread is kept from starting: when it gets its turn is up to the machine, and
    shows in when the SDK met a series first.
    """

    def no_thread(*_args: Any) -> None:
        raise RuntimeError("can't start new thread")

    with mock.patch.object(histograms, "_thread", SimpleNamespace(start_new_thread=no_thread)):
        traced = Traced(plan, read_meanwhile=False)
    return canonical(traced.capture, traced.exported)
