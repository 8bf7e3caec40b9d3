# SPDX-License-Identifier: Apache-2.0
"""Everything that the doctor has to say, before it is put into words or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_kernel_otel.doctor.answer_findings import answers as answer_findings
from agent_kernel_otel.doctor.answers import Answer
from agent_kernel_otel.doctor.facts import Facts
from agent_kernel_otel.doctor.findings import FINDERS, NOTE, PROBLEM, Finding
from agent_kernel_otel.doctor.observation import Observation
from agent_kernel_otel.doctor.process_findings import observed
from agent_kernel_otel.doctor.values import VALUE_FINDERS


@dataclass(frozen=True)
class Diagnosis:
    """What is so, and what is wrong with it.

    Attributes:
        facts: What is so.
        findings: What is wrong, or might be.
        answers: What the endpoints answered; None where they were not asked.
        observation: What was seen of a command, if one was run.
    """

    facts: Facts
    findings: tuple[Finding, ...]
    answers: tuple[Answer, ...] | None = None
    observation: Observation | None = None

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(one for one in self.findings if one.severity == PROBLEM)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What may be meant so."""
        return tuple(one for one in self.findings if one.severity == NOTE)


def diagnose(
    facts: Facts,
    answers: Sequence[Answer] | None = None,
    observation: Observation | None = None,
) -> Diagnosis:
    """All findings, those that explain the most first.

    Args:
        facts: What is so.
        answers: What the endpoints answered, if they were asked.
        observation: What was seen of a command, if one was run.
    """
    found = [finding for finder in (*FINDERS, *VALUE_FINDERS) for finding in finder(facts)]
    found += answer_findings(answers or ())
    if observation is not None:
        found += observed(observation, facts)
    return Diagnosis(
        facts,
        tuple(dict.fromkeys(found)),
        None if answers is None else tuple(answers),
        observation,
    )
