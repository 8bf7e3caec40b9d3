# SPDX-License-Identifier: Apache-2.0
"""What each alert is shown, and whether it then fires."""

from tests.alerts.cases import calls, collector, denials, guards, telemetry

CASES = (*calls.CASES, *denials.CASES, *guards.CASES, *telemetry.CASES, *collector.CASES)
"""All of them, by the groups of the rule file."""
