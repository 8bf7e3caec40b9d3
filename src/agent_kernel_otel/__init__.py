# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry distro for agent kernels."""

from __future__ import annotations

from agent_kernel_otel._version import __version__
from agent_kernel_otel.config import ConfigurationError, InstrumentationConfig

__all__ = ["ConfigurationError", "InstrumentationConfig", "__version__"]
