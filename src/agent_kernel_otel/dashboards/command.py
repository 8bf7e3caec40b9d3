# SPDX-License-Identifier: Apache-2.0
"""The command line of ``agent-kernel-otel dashboards``."""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path
from typing import Final

from agent_kernel_otel.cli import fail

SUMMARY: Final = "write the Grafana dashboards"
"""One line for the list of commands."""

USAGE: Final = "agent-kernel-otel dashboards [--output DIR]"

DESCRIPTION: Final = """\
Writes the Grafana dashboards, a JSON file each, and their names to stdout. Grafana 10.1 or later
takes them as they are: by file provisioning, or by Dashboards, New, Import. Each asks which
Prometheus data source to use.
"""

EPILOG: Final = """\
Files of the same names are overwritten. Exit codes: 0 written; 2 an option is wrong, or DIR cannot
be written to.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options to the parser."""
    parser.usage = USAGE
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("dashboards"),
        metavar="DIR",
        help="where to; made if it is not there (default: %(default)s)",
    )


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses nothing: there is one option."""


def run(arguments: argparse.Namespace, rest: tuple[str, ...]) -> int:
    """Writes the dashboards.

    Args:
        arguments: The parsed options.
        rest: What followed ``--``; there must be nothing.

    Returns:
        The exit code.
    """
    if rest:
        return fail("dashboards runs no command")
    folder: Path = arguments.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in packaged().items():
            file = folder / name
            file.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{file}\n")
    except OSError as error:
        return fail(f"cannot write to {folder}: {error.strerror}; choose another --output")
    return 0


def packaged() -> dict[str, str]:
    """The dashboards of this release, by the names of their files."""
    files = resources.files("agent_kernel_otel.dashboards").joinpath("json")
    return {
        file.name: file.read_text(encoding="utf-8")
        for file in sorted(files.iterdir(), key=lambda file: file.name)
    }
