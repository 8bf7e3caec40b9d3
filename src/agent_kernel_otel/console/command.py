# SPDX-License-Identifier: Apache-2.0
"""The command line of ``agent-kernel-otel console``; imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
from typing import Final

from agent_kernel_otel.console.options import ConsoleOptions

_EXTRA: Final = "rich, starlette and uvicorn"
_IMPORTED_FROM_EXTRA: Final = frozenset({"rich", "starlette", "uvicorn", "anyio", "h11"})
_DEFAULT_MAX_SPANS: Final = 100_000

SUMMARY: Final = "receive OTLP on this machine and show every trace as a tree"
"""One line for the list of commands."""

USAGE: Final = "agent-kernel-otel console [options] [-- COMMAND ARG...]"

DESCRIPTION: Final = """\
Receives OTLP over gRPC and HTTP on this machine and shows every trace as a tree once it is
finished, then what was counted and measured.

Without a COMMAND it runs until Ctrl-C. Send to it with
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 opentelemetry-instrument python app.py

With a COMMAND it runs that, told by OTEL_EXPORTER_OTLP_ENDPOINT to send here, shows what arrives
and exits with the COMMAND's exit code:
  agent-kernel-otel console -- opentelemetry-instrument python app.py
"""

EPILOG: Final = """\
--json writes OTLP JSON, one object a line, and nothing else on stdout:
  {"resourceSpans": ...}    one trace, once it is finished; spans that come later have a line of
                            their own with the same traceId, so every span is there exactly once
  {"resourceLogs": ...}     one export request, as received; traceId and spanId name its span
  {"resourceMetrics": ...}  one export request, as received; the last one of a process has its
                            final values (cumulative temporality)
Notices, and the stdout of COMMAND, go to stderr.

Symbols always come with a word: + success, x error, ! denied, - cancelled, ~ fallback,
# redactions, or their Unicode kin where the stream can encode them.

Exit codes: the COMMAND's; 0 after Ctrl-C; 2 if a port is in use, FILE is no console database, an
option is wrong or a package is missing; 126 or 127 if COMMAND cannot be run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the console to its parser."""
    parser.usage = USAGE
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--grpc-port",
        type=_port,
        default=4317,
        metavar="PORT",
        help="OTLP over gRPC (default: %(default)s; 0: any free port)",
    )
    parser.add_argument(
        "--http-port",
        type=_port,
        default=4318,
        metavar="PORT",
        help="OTLP over HTTP (default: %(default)s; 0: any free port)",
    )
    parser.add_argument("--db", metavar="FILE", help="keep the telemetry in an SQLite file")
    parser.add_argument(
        "--history", action="store_true", help="with --db: begin with what FILE holds"
    )
    parser.add_argument(
        "--max-spans",
        type=_positive,
        default=_DEFAULT_MAX_SPANS,
        metavar="N",
        help="spans kept, and likewise log records; the oldest go first (default: 100,000)",
    )
    parser.add_argument(
        "--attributes", action="store_true", help="show every attribute of every span"
    )
    parser.add_argument(
        "--json", action="store_true", help="write OTLP JSON, one object a line (see below)"
    )
    parser.add_argument("--no-color", action="store_true", help="no colour, as with NO_COLOR=1")


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses options that mean nothing together."""
    if arguments.history and arguments.db is None:
        parser.error("--history needs --db FILE")


def run(arguments: argparse.Namespace, command: tuple[str, ...]) -> int:
    """Runs the console.

    Args:
        arguments: The parsed options.
        command: What followed ``--``.

    Returns:
        The exit code.
    """
    options = ConsoleOptions(
        host=arguments.host,
        grpc_port=arguments.grpc_port,
        http_port=arguments.http_port,
        database=arguments.db,
        max_spans=arguments.max_spans,
        history=arguments.history,
        json=arguments.json,
        color=False if arguments.no_color else None,
        attributes=arguments.attributes,
        command=command,
    )
    try:
        from agent_kernel_otel.console.app import run_console
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _IMPORTED_FROM_EXTRA:
            raise
        from agent_kernel_otel.cli import fail

        return fail(
            f"the console needs {_EXTRA}, and not all is here: "
            "pip install 'agent-kernel-otel[console]'"
        )
    return run_console(options)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (0 to 65535)")
    return int(text)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
