# SPDX-License-Identifier: Apache-2.0
"""The doctor's report as one JSON object for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agent_kernel_otel.doctor.diagnosis import Diagnosis
from agent_kernel_otel.doctor.facts import Package
from agent_kernel_otel.doctor.findings import Finding
from agent_kernel_otel.doctor.masking import shown_choice
from agent_kernel_otel.doctor.sampling import sampling_in_words


def json_of(diagnosis: Diagnosis) -> dict[str, Any]:
    """The report; its keys stay, and keys may be added."""
    facts, seen = diagnosis.facts, diagnosis.observation
    sampler, meaning = sampling_in_words(facts)
    return {
        "problems": _findings(diagnosis.problems),
        "notes": _findings(diagnosis.notes),
        "python": {"version": facts.python, "required": facts.python_required},
        "packages": [_package(package) for package in facts.packages],
        "kernels": [_package(package) for package in facts.kernels],
        "wrapt_c_extension": facts.wrapt_is_compiled,
        "selection": {
            "configures": facts.selection.configures,
            "reason": shown_choice(facts.selection.reason),
            "ours": facts.selection.ours,
        },
        "sampling": {"sampler": sampler, "meaning": meaning},
        "configuration": [asdict(setting) for setting in facts.settings],
        "signals": _signals(diagnosis),
        "command": None if seen is None else {"program": seen.program, "exit_code": seen.exit_code},
        "processes": [] if seen is None else list(seen.reports),
    }


def _signals(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    answers = {answer.destination: answer for answer in diagnosis.answers or ()}
    signals = []
    for one in diagnosis.facts.destinations:
        answer = answers.get(one)
        signals.append(
            {
                "signal": one.signal,
                "exporter": shown_choice(one.exporter),
                "protocol": shown_choice(one.protocol) or None,
                "endpoint": one.endpoint or None,
                "tls": one.tls,
                "proxy": one.proxy,
                "outcome": None if answer is None else answer.outcome.value,
                "status": None if answer is None else answer.status or None,
                "seconds": None if answer is None else round(answer.seconds, 4),
            }
        )
    return signals


def _findings(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"code": one.code, "problem": one.problem, "fix": one.fix} for one in findings]


def _package(package: Package) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "required": package.required or None,
        "in_range": package.in_range if package.version or not package.optional else None,
    }
