# SPDX-License-Identifier: Apache-2.0
"""Runs the command, and reads what its processes reported of themselves."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent_kernel_otel.console.child import exit_code_of, start
from agent_kernel_otel.distro.report import REPORT_VARIABLE

LAUNCHER: Final = "opentelemetry-instrument"
_PYTHON: Final = re.compile(r"python[\d.]*(\.exe)?")


@dataclass(frozen=True)
class Observation:
    """What was seen of a command.

    Attributes:
        command: Program and arguments. Never shown beyond the program: they may hold secrets.
        exit_code: The command's, as a shell has it.
        reports: What its processes reported, by process id, the first one first.
    """

    command: tuple[str, ...]
    exit_code: int
    reports: tuple[Mapping[str, Any], ...]

    @property
    def program(self) -> str:
        """The program's name."""
        return Path(self.command[0]).name

    @property
    def is_instrumented(self) -> bool:
        """Whether the command says that it wants to be instrumented."""
        return any(Path(word).name == LAUNCHER for word in self.command)


def python_command(command: Sequence[str]) -> tuple[str, ...]:
    """The part of a command that is the interpreter's; empty where there is none to be seen."""
    for position, word in enumerate(command):
        if _PYTHON.fullmatch(Path(word).name):
            return tuple(command[position:])
    return ()


def observe(
    command: Sequence[str], environ: Mapping[str, str], *, stdout_to_stderr: bool
) -> Observation:
    """Run a command to its end and read its reports.

    Args:
        command: Program and arguments.
        environ: The environment as the user has it.
        stdout_to_stderr: Whether its stdout goes to our stderr.

    Raises:
        agent_kernel_otel.console.child.CommandFailed: It cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="agent-kernel-otel-doctor-") as folder:
        target = Path(folder) / "report"
        child = start(
            command, {**environ, REPORT_VARIABLE: str(target)}, stdout_to_stderr=stdout_to_stderr
        )
        while True:
            try:
                exit_code = exit_code_of(child)
                break
            except KeyboardInterrupt:
                continue  # the terminal interrupts the command, too: its end is what is waited for
        return Observation(tuple(command), exit_code, _reports(Path(folder)))


def _reports(folder: Path) -> tuple[Mapping[str, Any], ...]:
    reports = []
    for path in folder.glob("report.*"):
        if path.suffix[1:].isdigit():
            try:
                report = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(report, dict):
                reports.append(report)
    return tuple(sorted(reports, key=lambda report: (report.get("started", 0), report["pid"])))
