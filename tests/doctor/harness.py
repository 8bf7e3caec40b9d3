# SPDX-License-Identifier: Apache-2.0
"""Runs the doctor as a user does, and asks endpoints as it does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent_kernel_otel.doctor.diagnosis import Diagnosis, diagnose
from agent_kernel_otel.doctor.facts import gather
from agent_kernel_otel.doctor.probing import ask_all
from tests.distro.zero_code import environment

BIN: Final = Path(sys.executable).parent
INSTRUMENT: Final = str(BIN / "opentelemetry-instrument")


def doctor(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``agent-kernel-otel doctor`` with these arguments and variables."""
    return subprocess.run(
        [str(BIN / "agent-kernel-otel"), "doctor", *arguments],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def report(*arguments: str, env: Mapping[str, str]) -> dict[str, Any]:
    """What ``--json`` writes."""
    done = doctor("--json", *arguments, env=env)
    assert done.returncode in {0, 1}, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def diagnosis(variables: Mapping[str, str], *, ask: bool = False, ours: bool = True) -> Diagnosis:
    """What the doctor finds for an environment that has these variables only."""
    facts = gather(dict(variables))
    return diagnose(
        facts,
        ask_all(facts.destinations, facts.effective, ours=ours) if ask else None,
    )


def codes(found: Diagnosis) -> set[str]:
    """The codes of the problems."""
    return {finding.code for finding in found.problems}


def codes_of(found: Mapping[str, Any]) -> set[str]:
    """The codes of the problems in what ``--json`` wrote."""
    return {finding["code"] for finding in found["problems"]}
