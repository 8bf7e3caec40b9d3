# SPDX-License-Identifier: Apache-2.0
"""The instrumentor that OpenTelemetry looks for: it switches the tracing of all kernels."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Final

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
)
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined] # fmt: skip

from agent_kernel_otel.config import ConfigurationError, is_enabled
from agent_kernel_otel.config_file import BLOCK, Declared, config_file
from agent_kernel_otel.faults import faults
from agent_kernel_otel.weaver.activation import activation
from agent_kernel_otel.weaver.switching import configured, switch

_AUTOMATIC: Final = frozenset({"skip_dep_check", "declared"})
"""What the loader, and the configuration file, pass and nobody else."""


class KernelInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Traces every Weaver kernel of the process, made before or after.

    Keywords of ``instrument()``: ``tracer_provider``, ``logger_provider`` and ``meter_provider``
    (the global ones by default), ``config`` (an :class:`InstrumentationConfig`), or its settings
    one by one, which win over the configuration file and ``OTEL_AGENT_KERNEL_*``. An unknown
    keyword or a value that cannot be read raises :class:`agent_kernel_otel.ConfigurationError`.
    """

    configuration = Declared

    def instrumentation_dependencies(self) -> Collection[str]:
        """The distribution of both import names, ``weaver_kernel`` and ``agent_kernel``."""
        return ("weaver-kernel >=0.3.0",)

    def instrument(self, **kwargs: Any) -> None:
        """Trace all kernels; for the keywords see the class.

        Where OpenTelemetry's loader or configuration file does it, one of them is enough, either
        can be told not to, and a fault of ours does not stop what they do next.
        """
        if not _AUTOMATIC & kwargs.keys():
            super().instrument(**kwargs)
        elif _is_wanted(kwargs) and not self.is_instrumented_by_opentelemetry:
            try:
                super().instrument(**kwargs)
            except (ConfigurationError, DependencyConflictError):
                raise
            except Exception:
                faults.swallow("switching the instrumentation on")

    def _instrument(self, **kwargs: Any) -> None:
        instrumentation = configured(kwargs)
        with switch.lock:
            activation.everywhere = instrumentation
            try:
                switch.update()
            except BaseException:
                # The base class would refuse to uninstrument what it takes for not instrumented.
                self._uninstrument()
                raise

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base class's signature
        with switch.lock:
            activation.everywhere = None
            activation.forget_opt_outs()
            switch.update()


def _is_wanted(kwargs: Mapping[str, Any]) -> bool:
    """Whether what is not said to the one that switches us on does not forbid it."""
    if "declared" in kwargs:
        disabled = os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")
        return not {BLOCK, "*"} & {name.strip() for name in disabled}
    file = config_file()
    return file is None or file.block is None or is_enabled(file.block)
