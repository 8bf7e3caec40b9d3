# SPDX-License-Identifier: Apache-2.0
"""The distro: defaults where the user has set nothing, and instrumentors that fail alone."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import get_logger_provider
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_CONFIGURATOR
from opentelemetry.util._importlib_metadata import entry_points

from agent_kernel_otel import config_file
from agent_kernel_otel.distro.checks import repair
from agent_kernel_otel.distro.declarative import scrub_kernel_records
from agent_kernel_otel.distro.defaults import ENTRY_POINT, apply_defaults, is_set
from agent_kernel_otel.distro.handlers import attend_exporting_handlers, process_config
from agent_kernel_otel.distro.hints import announce, leave_a_missing_configurator_to_us
from agent_kernel_otel.distro.selection import is_ours, select
from agent_kernel_otel.faults import faults

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_logger = logging.getLogger(__name__)


def distro() -> AgentKernelDistro | None:
    """The entry point: our distro, or ``None`` where another one is to be used.

    The loader skips what is not a distro and goes on to the next one.
    """
    return AgentKernelDistro() if select(os.environ).our_distro else None


def before_instrumentors() -> None:
    """The entry point that is called whoever configures, when the SDK has been set up."""
    try:
        selection = select(os.environ)
        announce(selection, os.environ)
        if selection.configures is not None and not selection.ours:
            # The kernel's raw records leave by no vendor's pipeline.
            scrub_kernel_records(get_logger_provider())
    except Exception:
        faults.swallow("looking who configures OpenTelemetry")


class AgentKernelDistro(BaseDistro):  # type: ignore[misc]
    """What ``opentelemetry-instrument`` starts with; it is never used by hand."""

    def _configure(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base class's signature
        # What is wrong with the settings is said now: later there is a handler that only exports.
        process_config()
        selection = select(os.environ)
        if selection.configures is None and selection.notice is not None:
            leave_a_missing_configurator_to_us()
        if not selection.ours:
            return
        if not all(map(is_ours, entry_points(group="opentelemetry_configurator"))):
            # Another one may be found before ours, and would be taken although ours is asked for.
            os.environ.setdefault(OTEL_PYTHON_CONFIGURATOR, ENTRY_POINT)
        if not is_set(os.environ, config_file.VARIABLE):
            apply_defaults(os.environ)
            # Now, because the SDK reads some variables when it is imported.
            repair(os.environ)

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Activate one instrumentor; where that fails, say so, and let the others go on."""
        try:
            super().load_instrumentor(entry_point, **kwargs)
        except (ModuleNotFoundError, DependencyConflictError, KeyboardInterrupt):
            raise  # the library is not there: the loader knows what to say
        except BaseException:  # SystemExit too: an app must not end because of an instrumentor
            _logger.exception(
                "instrumentor %s failed and is skipped; the others are not affected",
                entry_point.name,
            )
        attend_exporting_handlers()
