# SPDX-License-Identifier: Apache-2.0
"""The distro: defaults where the user has set nothing, and instrumentors that fail alone."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]

from agent_kernel_otel.distro.defaults import apply_defaults, other_configurator
from agent_kernel_otel.distro.handlers import attend_exporting_handlers

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_logger = logging.getLogger(__name__)


class AgentKernelDistro(BaseDistro):  # type: ignore[misc]
    """What ``opentelemetry-instrument`` starts with; it is never used by hand."""

    def _configure(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base class's signature
        # Defaults go with our configurator: another one has its own.
        if other_configurator(os.environ) is None:
            apply_defaults(os.environ)

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Activate one instrumentor; where that fails, say so, and let the others go on."""
        try:
            super().load_instrumentor(entry_point, **kwargs)
        except (ModuleNotFoundError, DependencyConflictError):
            raise  # the library is not there: the loader knows what to say
        except Exception:
            _logger.exception(
                "instrumentor %s failed and is skipped; the others are not affected",
                entry_point.name,
            )
        attend_exporting_handlers()
