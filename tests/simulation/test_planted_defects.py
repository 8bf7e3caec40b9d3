# SPDX-License-Identifier: Apache-2.0
"""Each defect that is planted into the product is found, and by the check whose business it is."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.simulation.defects import DEFECTS

SEED, OPERATIONS = 1, 1_000
ROOT = Path(__file__).parents[2]
FOUND_BY = {
    "missed_decrement": "active_is_what_runs",
    "double_count": "exports_are_true",
    "swallowed_exception": "app_sees_the_same",
    "leaked_attachment": "nothing_stays_attached",
    "boundary_off_by_one": "histograms_are_true",
    "exclusive_upper_bounds": "histograms_are_true",
    "unended_span": "every_span_ends_once",
    "wall_clock_durations": "histograms_are_true",
    "kernels_mixed_up": "each_kernel_counts_its_own",
    "reset_that_lowers": "totals_never_fall",
    "redactions_of_the_last_frame": "each_round_is_counted_at_once",
}
"""By defect, the check that must find it; others may find it as well."""


def play(defect: str | None) -> subprocess.CompletedProcess[str]:
    command = ["-m", "tests.simulation", "--seed", str(SEED), "--count", str(OPERATIONS)]
    if defect is not None:
        command += ["--plant", defect]
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> dict[str | None, subprocess.CompletedProcess[str]]:
    cases = [None, *DEFECTS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(play, cases), strict=True))


def test_without_a_defect_nothing_is_found(
    outcomes: dict[str | None, subprocess.CompletedProcess[str]],
) -> None:
    assert outcomes[None].returncode == 0, outcomes[None].stdout + outcomes[None].stderr


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found_by_the_check_for_it(
    defect: str, outcomes: dict[str | None, subprocess.CompletedProcess[str]]
) -> None:
    outcome = outcomes[defect]
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    checks = [line.strip().partition(":")[0] for line in outcome.stdout.splitlines()
              if line.startswith("  ") and not line.startswith("   ")]  # fmt: skip
    assert FOUND_BY[defect] in checks
    again = f"python -m tests.simulation --seed {SEED} --count {OPERATIONS}"
    assert f"seed {SEED} failed; again: {again}" in outcome.stdout
