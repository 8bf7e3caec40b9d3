# SPDX-License-Identifier: Apache-2.0
"""A seed in a process of its own, whose telemetry goes to a collector that is well, slow or down."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.distro.zero_code import LAUNCHER, environment
from tests.simulation.exporting import seen_in
from tests.simulation.model import Model
from tests.simulation.process import play_bare
from tests.simulation.seed import plan_of
from tests.simulation.told import Told
from tests.support.faulty_collector import FaultyCollector
from tests.support.otlp_records import Received, attributes

SEED = 8
OPERATIONS = 1_500
BEHAVIOURS = ("healthy", "slow", "refused", "flapping")
APP = Path(__file__).parent / "exporting.py"
ROOT = Path(__file__).parents[2]


@dataclass
class Played:
    """What came of one process.

    Attributes:
        said: What it printed.
        books: Of each signal, what ended, was sent, refused and dropped.
        received: Names of the spans that the collector kept.
        totals: The last value of each counter that it got, and of each histogram's count.
    """

    said: dict[str, Any]
    books: dict[str, Any]
    received: Counter[str]
    totals: Counter[tuple[Any, ...]]


def play(behaviour: str, folder: Path) -> Played:
    folder.mkdir()
    with FaultyCollector(behaviour) as collector:
        variables = {
            **collector.environment(),
            "PYTHONPATH": str(ROOT),
            "AGENT_KERNEL_OTEL_REPORT": str(folder / "report"),
        }
        done = subprocess.run(
            [LAUNCHER, sys.executable, str(APP), str(SEED), str(OPERATIONS)],
            env=environment(**variables), capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        received = Counter(span.name for span in collector.spans())
        totals = last_totals(collector)
    (report,) = [json.loads(path.read_text())["telemetry"] for path in folder.iterdir()]
    return Played(json.loads(done.stdout), report, received, totals)


def last_totals(collector: Received) -> Counter[tuple[Any, ...]]:
    """The last value of each counter that was received, and of each histogram's count."""
    totals: Counter[tuple[Any, ...]] = Counter()
    for metric in collector.metrics():
        for point in metric.points:
            key = (metric.name, *sorted(attributes(point).items()))
            if "asInt" in point or "count" in point:
                totals[key] = int(point.get("asInt", point.get("count", 0)))
    return totals


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    folder = tmp_path_factory.mktemp("exporting")
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda behaviour: play(behaviour, folder / behaviour), BEHAVIOURS)
        return dict(zip(BEHAVIOURS, runs, strict=True))


@pytest.fixture(scope="module")
def bare() -> tuple[str, list[Told]]:
    """What the application sees without us, and what must be told of it."""
    plan = plan_of(SEED, OPERATIONS)
    world = play_bare(plan)
    model = Model(plan.kernels, debug=False, refusing=False)
    return seen_in(world), [model.told(run) for run in world.runs.values()]


def expected_counts(told: list[Told]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for each in told:
        for series, number in each.counts.items():
            # The application names no sessions here, and the product makes up names.
            counts[series[:1] if series[0] == "agent_kernel.budget_exhaustions" else series] += (
                number
            )
    return counts


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_app_sees_what_it_sees_without_us(
    behaviour: str, played: dict[str, Played], bare: tuple[str, list[Told]]
) -> None:
    assert played[behaviour].said["seen"] == bare[0]


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_all_is_counted_whatever_becomes_of_it(
    behaviour: str, played: dict[str, Played], bare: tuple[str, list[Told]]
) -> None:
    counted: Counter[Any] = Counter()
    for *series, number in played[behaviour].said["counted"]:
        exhausted = series[0] == "agent_kernel.budget_exhaustions"
        counted[tuple(series[:1] if exhausted else series)] += number
    assert counted == expected_counts(bare[1])


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_span_is_in_the_books(
    behaviour: str, played: dict[str, Played], bare: tuple[str, list[Told]]
) -> None:
    spans = sum(1 + len(each.children) for each in bare[1] if each.root is not None)
    for signal in ("traces", "logs", "metrics"):
        entry = played[behaviour].books[signal]
        gone = entry["sent"] + entry["refused"] + sum(entry["dropped"].values())
        assert entry["ended"] == gone, signal
    assert played[behaviour].books["traces"]["ended"] == spans


def test_a_healthy_collector_has_each_span_and_each_total(
    played: dict[str, Played], bare: tuple[str, list[Told]]
) -> None:
    healthy, spans = played["healthy"], Counter[str]()
    for each in bare[1]:
        if each.root is not None:
            spans.update([each.root.name, *(child.name for child in each.children)])
    assert healthy.received == spans
    expected = expected_counts(bare[1])
    for metric in ("invocations", "grants", "driver_attempts", "policy_denials", "audit_records"):
        name = f"agent_kernel.{metric}"
        received = sum(number for key, number in healthy.totals.items() if key[0] == name)
        assert received == sum(number for key, number in expected.items() if key[0] == name), name
    durations = sum(
        number
        for key, number in healthy.totals.items()
        if key[0] == "agent_kernel.invocation_duration"
    )
    assert durations == sum(
        number for key, number in expected.items() if key[0] == "agent_kernel.invocations"
    )
