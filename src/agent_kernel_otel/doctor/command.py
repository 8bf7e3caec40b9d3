# SPDX-License-Identifier: Apache-2.0
"""The command line of ``agent-kernel-otel doctor``; imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agent_kernel_otel.doctor.diagnosis import Diagnosis

SUMMARY: Final = "say why nothing shows up, and what to do about it"
"""One line for the list of commands."""

USAGE: Final = "agent-kernel-otel doctor [options] [-- COMMAND ARG...]"

DESCRIPTION: Final = """\
Looks at what is installed and switched on, at the configuration in force, and asks each endpoint
with a real OTLP request that makes no data. Says what is wrong, and how to put it right. Secrets
are masked.

With a COMMAND it runs that first, in the environment as it is, and shows what its processes
report at their end: who configured, what was patched, and what was sent, dropped and refused:
  agent-kernel-otel doctor -- opentelemetry-instrument python app.py
"""

EPILOG: Final = """\
Exit codes: 0 no problem; 1 problems; 2 an option is wrong or COMMAND cannot be started. Notes do
not count. The exit code of COMMAND is shown, and in --json it is command.exit_code; it is not the
doctor's: an app that fails can have healthy telemetry.

--json writes one object, and nothing else on stdout; the stdout of COMMAND goes to stderr.
"""

_HEALTHY: Final = 0
_PROBLEMS: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the doctor to its parser."""
    parser.usage = USAGE
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.add_argument(
        "--offline", action="store_true", help="ask no endpoint: nothing goes over the network"
    )


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses nothing: every option goes with every other."""


def run(arguments: argparse.Namespace, command: tuple[str, ...]) -> int:
    """Runs the doctor.

    Args:
        arguments: The parsed options.
        command: What followed ``--``.

    Returns:
        The exit code.
    """
    from agent_kernel_otel.console.child import CommandFailed
    from agent_kernel_otel.doctor.json_output import json_of
    from agent_kernel_otel.doctor.rendering import text_of

    try:
        diagnosis = _examine(command, offline=arguments.offline, as_json=arguments.json)
    except CommandFailed as error:
        from agent_kernel_otel.cli import fail

        return fail(str(error))
    if arguments.json:
        sys.stdout.write(json.dumps(json_of(diagnosis), indent=2) + "\n")
    else:
        sys.stdout.write(text_of(diagnosis, sys.stdout))
    return _PROBLEMS if diagnosis.problems else _HEALTHY


def _examine(command: tuple[str, ...], *, offline: bool, as_json: bool) -> Diagnosis:
    from agent_kernel_otel.doctor.diagnosis import diagnose
    from agent_kernel_otel.doctor.facts import gather
    from agent_kernel_otel.doctor.observation import observe, python_command
    from agent_kernel_otel.doctor.probing import ask_all

    environ = dict(os.environ)
    facts = gather(environ, python_command(command))
    seen = observe(command, environ, stdout_to_stderr=as_json) if command else None
    answers = (
        None if offline else ask_all(facts.destinations, facts.effective, ours=facts.selection.ours)
    )
    return diagnose(facts, answers, seen)
