# SPDX-License-Identifier: Apache-2.0
"""What a user is told about who configures OpenTelemetry: each thing once, where it is seen."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Final

from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_CONFIGURATOR

from agent_kernel_otel.distro.defaults import ENTRY_POINT
from agent_kernel_otel.distro.handlers import is_printed
from agent_kernel_otel.distro.selection import Selection

_logger = logging.getLogger(__name__)

ANNOUNCED: Final = "AGENT_KERNEL_OTEL_ANNOUNCED"
"""Tells child processes what has been said already."""

_LOADER: Final = "opentelemetry.instrumentation.auto_instrumentation._load"
_PROVIDERS_ARE_SET_BY: Final = (
    "opentelemetry.trace",
    "opentelemetry.metrics._internal",
    "opentelemetry._logs._internal",
)


def announce(selection: Selection, environ: MutableMapping[str, str]) -> None:
    """Tell the user who configures, where it is not their own choice.

    It is a warning, because at the start of a process nothing less is seen: no app has set up
    logging yet. A child process that inherits the environment does not repeat it.

    Args:
        selection: Who configures.
        environ: The process's environment, where it is noted that it has been said.
    """
    if selection.notice is None or environ.get(ANNOUNCED) == str(selection.configures):
        return
    environ[ANNOUNCED] = str(selection.configures)
    warn(selection.notice)


def warn(text: str) -> None:
    """Log a warning that is seen although there may be no handler yet that prints."""
    record = _logger.makeRecord(
        _logger.name, logging.WARNING, __file__, 0, "%s", (text,), exc_info=None
    )
    _logger.handle(record)
    # Without any handler logging prints it by itself.
    if logging.lastResort is not None and _logger.hasHandlers() and not is_printed(_logger.name):
        logging.lastResort.handle(record)


def do_not_claim_to_have_configured() -> None:
    """Keep the loader from saying that another configurator is not loaded because ours is.

    It says so when ours is found first, although the other one is then called by ours.
    """

    def is_true(record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not (
            "not loaded" in str(record.msg) and len(arguments) == 2 and arguments[1] == ENTRY_POINT
        )

    logging.getLogger(_LOADER).addFilter(is_true)


def leave_a_missing_configurator_to_us() -> None:
    """Keep the loader from a line about ours where the hint says that the one asked for is missing."""
    logging.getLogger(_LOADER).addFilter(
        lambda record: not str(record.msg).startswith("Configuration of %s not loaded because")
    )


def explain_refused_providers() -> None:
    """Add to OpenTelemetry's warning, that a second provider is refused, what to do about it.

    OpenTelemetry keeps the first global providers, which under ``opentelemetry-instrument`` are
    those of the distro. It warns and names no way out; the hint is added once in a process.
    """
    hint = _Hint()
    for name in _PROVIDERS_ARE_SET_BY:
        logging.getLogger(name).addFilter(hint)


class _Hint(logging.Filter):
    """Adds the hint to the first warning of its kind."""

    given = False

    def filter(self, record: logging.LogRecord) -> bool:
        if not self.given and str(record.msg).startswith("Overriding of current "):
            self.given = True
            record.msg = (
                f"{record.msg}: opentelemetry-instrument has set it up before the app. For the "
                f"app's own set {OTEL_PYTHON_CONFIGURATOR}=none; instrumentations are loaded all "
                "the same"
            )
        return True
