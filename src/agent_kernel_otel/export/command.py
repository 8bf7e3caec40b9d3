# SPDX-License-Identifier: Apache-2.0
"""The command line of ``agent-kernel-otel export``; imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent_kernel_otel.export.claim import lock_of
from agent_kernel_otel.export.options import ExportOptions
from agent_kernel_otel.export.selection import EVENTS, Moment, Selection
from agent_kernel_otel.export.stopping import Stopped, Stopping
from agent_kernel_otel.export.summary import FAULT, fault, refuse

SUMMARY: Final = "turn audit files into spans, and send them over OTLP"
"""One line for the list of commands."""

USAGE: Final = "agent-kernel-otel export [options] FILE..."

DESCRIPTION: Final = """\
Turns the records of the kernel's audit files into spans, each with the time of its record and with
ids that are the same each time, and sends them over OTLP. FILE is a JSONL or SQLite trace store, an
export envelope, or one bare record a line; - is standard input. It is never changed.

  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 agent-kernel-otel export audit.jsonl
  agent-kernel-otel export audit.db --failed --since 7d --dry-run
  agent-kernel-otel export audit.jsonl --checkpoint audit.checkpoint    (each night what is new)
  agent-kernel-otel export audit.jsonl --links agent-kernel-links.jsonl
  zcat audit.jsonl.gz | agent-kernel-otel export -
"""

EPILOG: Final = """\
Interrupted? Run the same command again: it goes on where it stopped, after kill -9 too. A record
counts as exported once the receiver has confirmed it. What was on its way may be sent twice, with
the same ids. Arguments, results and error texts never leave, nor does what cannot be read.

Variables:
  OTEL_EXPORTER_OTLP_*               where to send, and how: ENDPOINT, PROTOCOL (grpc or
                                     http/protobuf), HEADERS, CERTIFICATE, COMPRESSION and so on
  OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
                                     whose spans these are (default: agent-kernel-audit); give the
                                     app's own name to find both in one place
  OTEL_AGENT_KERNEL_PRINCIPAL_ID, OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY, OTEL_AGENT_KERNEL_SPAN_NAMING
                                     as for the app
  WEAVER_KERNEL_SECRET               the key of the hash chain, for --verify-chain
  XDG_STATE_HOME                     where it is kept how far an export has come while it is not
                                     finished (default: ~/.local/state)

Exit codes:
  0    everything that was selected is exported
  1    some records could not be read, or were rejected; the rest is exported
  2    nothing done: an option or a setting is wrong, a file is none, a checkpoint does not fit
  3    the receiver did not answer, or refused, or how far it has come could not be kept: run the
       same command again
  4    a hash chain does not hold; nothing is exported
  70   a fault of this command: please report it
  130  Ctrl-C, 143 SIGTERM: run the same command again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the export to its parser."""
    parser.usage = USAGE
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    # None is an error that run() reports: the files may all follow "--".
    parser.add_argument("files", nargs="*", metavar="FILE", help="audit file, or - (see above)")
    parser.add_argument(
        "--format",
        choices=("auto", "jsonl", "sqlite", "envelope"),
        default="auto",
        help="format of the files (default: look)",
    )
    _add_destination(parser.add_argument_group("where to"))
    _add_filters(parser.add_argument_group("which records (all of these together)"))
    _add_course(parser.add_argument_group("how"))


def _add_destination(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--endpoint", metavar="URL", help="OTLP receiver, in place of the variables")
    group.add_argument(
        "--output", metavar="FILE", help="write OTLP JSON lines, as the Collector does, not send"
    )
    group.add_argument("--service-name", metavar="NAME", help="in place of the variables")


def _add_filters(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="written then or later: ISO 8601 (UTC unless it says), or an age: 30m, 24h, 7d",
    )
    group.add_argument("--until", type=_moment, metavar="TIME", help="written before then")
    group.add_argument(
        "--event", action="append", choices=EVENTS, default=[], help="of that kind (repeatable)"
    )
    group.add_argument("--failed", action="store_true", help="of what did not succeed")
    group.add_argument(
        "--principal",
        action="append",
        default=[],
        metavar="ID",
        help="of that principal, as recorded (repeatable)",
    )
    group.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="ID",
        help="of that capability (repeatable)",
    )


def _add_course(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--verify-chain",
        action="store_true",
        help="verify the hash chain first; several files in order can be one chain",
    )
    group.add_argument(
        "--chain-key-file", metavar="FILE", help="the chain's key, in place of the variable"
    )
    group.add_argument(
        "--links",
        action="append",
        default=[],
        metavar="FILE",
        help="link to the live spans that the app's exporter agent_kernel_links has written down "
        "(repeatable)",
    )
    group.add_argument("--dry-run", action="store_true", help="count, and send nothing")
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="keep for good how far it has come: each run exports what is new since the last one",
    )
    group.add_argument("--restart", action="store_true", help="begin anew, whatever was kept")
    group.add_argument(
        "--patience",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for a receiver that does not answer (default: 60); up to ten times "
        "that for one that says how long to wait",
    )
    group.add_argument("--json", action="store_true", help="the summary as JSON, on stdout")
    group.add_argument("--no-progress", action="store_true", help="do not show how far it is")


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses options that mean nothing together."""
    since, until = arguments.since, arguments.until
    if arguments.endpoint is not None and arguments.output is not None:
        parser.error("--endpoint and --output are two destinations; give one")
    if arguments.chain_key_file is not None and not arguments.verify_chain:
        parser.error("--chain-key-file needs --verify-chain")
    if since and until and since.is_age == until.is_age and since.at(0) >= until.at(0):
        parser.error("--since is not before --until: that selects nothing")
    if until and until.is_age and arguments.checkpoint is not None:
        parser.error(
            "--until with an age does not go with --checkpoint: what is too young in one run would "
            "be behind the checkpoint in the next"
        )


def run(arguments: argparse.Namespace, rest: tuple[str, ...]) -> int:
    """Runs the export.

    Args:
        arguments: The parsed options.
        rest: What followed ``--``: files, whatever their names begin with.

    Returns:
        The exit code.
    """
    files = (*arguments.files, *rest)
    problem = _problem(files, arguments)
    if problem is not None:
        return refuse(problem, as_json=arguments.json, is_dry_run=arguments.dry_run)
    # Ctrl-C is to be understood from here on, which is before everything that takes long.
    with Stopping() as stopping:
        try:
            from agent_kernel_otel.export.run import run_export  # noqa: PLC0415 - heavy

            return run_export(_options(files, arguments), stopping)
        except Stopped:
            return stopping.exit_code
        except Exception as error:
            return refuse(fault(error), as_json=arguments.json, exit_code=FAULT)


def _options(files: tuple[str, ...], arguments: argparse.Namespace) -> ExportOptions:
    return ExportOptions(
        files=files,
        format=None if arguments.format == "auto" else arguments.format,
        selection=Selection(
            since=arguments.since,
            until=arguments.until,
            events=frozenset(arguments.event),
            only_failed=arguments.failed,
            principals=frozenset(arguments.principal),
            capabilities=frozenset(arguments.capability),
        ),
        endpoint=arguments.endpoint,
        output=arguments.output,
        service_name=arguments.service_name,
        links=tuple(arguments.links),
        verify_chain=arguments.verify_chain,
        chain_key_file=arguments.chain_key_file,
        dry_run=arguments.dry_run,
        checkpoint=arguments.checkpoint,
        restart=arguments.restart,
        patience=arguments.patience,
        json=arguments.json,
        progress=not arguments.no_progress,
    )


def _problem(files: tuple[str, ...], arguments: argparse.Namespace) -> str | None:
    """What is wrong with the files that are named."""
    if not files:
        return "export needs a FILE: agent-kernel-otel export audit.jsonl"
    written = [path for path in (arguments.output, arguments.checkpoint) if path is not None]
    if arguments.checkpoint is not None:
        written.append(str(lock_of(Path(arguments.checkpoint).resolve())))
    for number, path in enumerate(written):
        if any(_is_same(path, other) for other in (*files, *arguments.links, *written[:number])):
            return f"{path}: is to be written, and is named as another file too"
    return None


def _is_same(one: str, other: str) -> bool:
    with suppress(OSError):
        return Path(one).samefile(other)
    return Path(one).absolute() == Path(other).absolute()


def _moment(text: str) -> Moment:
    try:
        return Moment.read(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: 2026-01-31, 2026-01-31T12:00:00Z, or an age such as 30m, 24h, 7d"
        ) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, from 0 to 86400")
    return seconds
