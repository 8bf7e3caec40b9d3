# SPDX-License-Identifier: Apache-2.0
"""The one place that states the version; the build and the telemetry scopes read it."""

__version__ = "0.1.0"
