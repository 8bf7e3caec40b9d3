# SPDX-License-Identifier: Apache-2.0
"""The command line: ``agent-kernel-otel COMMAND``.

Each command is a module with ``SUMMARY``, ``add_arguments(parser)``,
``check_arguments(parser, arguments)``, which calls ``parser.error`` where they do not fit together,
and ``run(arguments, rest) -> exit code``; ``rest`` is what followed ``--``. A module is imported only
when its command is asked for, and imports nothing heavy before it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

COMMANDS: Final[dict[str, str]] = {
    "console": "agent_kernel_otel.console.command",
    "dashboards": "agent_kernel_otel.dashboards.command",
    "doctor": "agent_kernel_otel.doctor.command",
    "export": "agent_kernel_otel.export.command",
}
"""Module of each command."""

_HINTS: Final = {
    "console": "a program to run goes after --",
    "dashboards": "where to write goes after --output",
    "doctor": "a program to run goes after --",
}
"""What is said of arguments that a command does not know."""

_NEEDED: Final = {
    "opentelemetry.trace": "opentelemetry-api",
    "opentelemetry.sdk.trace": "opentelemetry-sdk",
    "opentelemetry.exporter.otlp.proto.grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry.instrumentation.distro": "opentelemetry-instrumentation",
}
"""Package of each module without which no command can run but those named next."""
_NEED_NOTHING: Final = frozenset({"dashboards"})

_PROGRAM: Final = "agent-kernel-otel"
_USAGE_ERROR: Final = 2
_STDERR: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; those of the process if None.

    Returns:
        The exit code: the command's own, or 2 if the arguments are wrong.
    """
    _open_what_is_closed()
    arguments = list(sys.argv[1:] if argv is None else argv)
    rest: list[str] = []
    if "--" in arguments:
        # argparse would swallow the dashes, and read options of the command as ours.
        position = arguments.index("--")
        arguments, rest = arguments[:position], arguments[position + 1 :]
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[arguments[0]])
        parser = argparse.ArgumentParser(prog=f"{_PROGRAM} {arguments[0]}")
        module.add_arguments(parser)
        options, unknown = parser.parse_known_args(arguments[1:])
        if unknown:
            hint = f" ({_HINTS[arguments[0]]})" if arguments[0] in _HINTS else ""
            parser.error(f"unknown: {' '.join(unknown)}{hint}")
        module.check_arguments(parser, options)
        missing = [] if arguments[0] in _NEED_NOTHING else _missing_packages()
        if missing:
            return fail(f"{arguments[0]} needs {', '.join(missing)}: pip install {_PROGRAM}")
        exit_code: int = module.run(options, tuple(rest))
        return exit_code
    return _main_help(arguments)


def fail(text: str, exit_code: int = _USAGE_ERROR) -> int:
    """Writes one line about what is wrong to stderr, and gives the exit code for it."""
    say(sys.stderr, f"{_PROGRAM}: {text}\n")
    return exit_code


def say(stream: TextIO, text: str) -> bool:
    """Writes at once to where perhaps nobody listens, or nothing fits; whether that succeeded."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        # What has not been written would be tried again at exit, with an exit code of its own.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def _open_what_is_closed() -> None:
    """Sees to it that stdout and stderr are there, and that no file gets their numbers."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(descriptor)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end


def _missing_packages() -> list[str]:
    return [package for module, package in _NEEDED.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of what the module is in
        return False


def _main_help(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="OpenTelemetry distro for agent kernels."
    )
    from agent_kernel_otel._version import __version__  # noqa: PLC0415 - only for the help

    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        commands.add_parser(name, help=importlib.import_module(module).SUMMARY, add_help=False)
    parser.parse_args(arguments)
    return _USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
