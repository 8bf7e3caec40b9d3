# SPDX-License-Identifier: Apache-2.0
"""Some seeds of the simulation, each in a process of its own; ``make soak`` plays many."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SEEDS = (1, 2, 3)
"""Of the first two a thread reads the numbers meanwhile; the third has all spans, and forks."""
ROOT = Path(__file__).parents[2]


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> dict[int, subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(2) as pool:
        played = pool.map(lambda seed: simulation("--seed", str(seed)), SEEDS)
        return dict(zip(SEEDS, played, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_thousand_operations_are_told_as_they_came_to_pass(
    seed: int, outcomes: dict[int, subprocess.CompletedProcess[str]]
) -> None:
    played = outcomes[seed]
    assert played.returncode == 0, played.stdout + played.stderr
    assert f"seed {seed} passed: 10000 operations" in played.stdout


def test_the_same_seed_gives_the_same_telemetry_to_the_byte() -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second, other = pool.map(
            lambda seed: simulation("--seed", seed, "--count", "2000", "--telemetry"),
            ("4", "4", "5"),
        )
    assert first.returncode == 0, first.stderr
    spans = first.stdout.count('"agent_kernel.invoke"')
    assert spans > 500
    assert '"agent_kernel.policy.decision"' in first.stdout
    assert "agent_kernel.invocation_duration" in first.stdout
    assert first.stdout == second.stdout
    assert first.stdout != other.stdout
