# SPDX-License-Identifier: Apache-2.0
"""How long things took, as values of the histograms that the metrics level asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.telemetry import Outcome
from agent_kernel_otel.weaver.series import (
    CapabilityCounts,
    driver_label,
    engine_label,
    error_label,
    mode_label,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from agent_kernel_otel.metrics import Metrics

_NANOS_PER_MILLI = 1e6
Labels = dict[str, str]


class Measured:
    """Takes what was measured; ``None`` in the place of what is not wanted.

    Args:
        metrics: The instruments; ``None`` where there are none.

    Attributes:
        invocation: Is given the milliseconds, the attributes and the exemplar's context.
        tool: The same as the GenAI convention has it; is given the capability's counts, the
            outcome, the milliseconds and the exemplar's context.
        first_chunk: Is given the attributes, the milliseconds and the exemplar's context.
        driver: Is given the driver's id, its status, nanoseconds and the exemplar's context.
        policy: Is given the engine's name, the phase, the outcome, nanoseconds and the exemplar's
            context.
        firewall: Is given the response mode, nanoseconds and the exemplar's context.
    """

    invocation: Callable[[float, Labels, Context | None], None] | None = None
    tool: Callable[[CapabilityCounts, Outcome, float, Context | None], None] | None = None
    first_chunk: Callable[[Labels, float, Context | None], None] | None = None
    driver: Callable[[str, str, int, Context | None], None] | None = None
    policy: Callable[[str, str, str, int, Context | None], None] | None = None
    firewall: Callable[[str | None, int, Context | None], None] | None = None

    def __init__(self, metrics: Metrics | None) -> None:
        if metrics is None or metrics.invocation_duration is None:
            return
        self._metrics = metrics
        self.invocation = metrics.invocation_duration.record
        self.first_chunk = self._first_chunk
        if metrics.execute_tool_duration is not None:
            self.tool = self._tool
        if metrics.driver_duration is not None:
            self.driver, self.policy, self.firewall = self._driver, self._policy, self._firewall

    def _tool(
        self, counts: CapabilityCounts, outcome: Outcome, elapsed: float, context: Context | None
    ) -> None:
        attributes: Labels = {
            semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
            semconv.GEN_AI_TOOL_NAME: counts.capability,
            semconv.GEN_AI_TOOL_TYPE: "function",
        }
        _add(attributes, semconv.ERROR_TYPE, error_label(outcome.error_type))
        self._record("execute_tool_duration", elapsed / 1000, attributes, context)

    def _first_chunk(self, attributes: Labels, elapsed: float, context: Context | None) -> None:
        self._record("time_to_first_chunk", elapsed, attributes, context)

    def _driver(self, driver_id: str, status: str, nanos: int, context: Context | None) -> None:
        attributes: Labels = {
            semconv.SYSTEM: semconv.SYSTEM_WEAVER,
            semconv.DRIVER_ID: driver_label(driver_id) or "",
            semconv.STATUS: status,
        }
        self._record("driver_duration", nanos / _NANOS_PER_MILLI, attributes, context)

    def _policy(
        self, engine: str, phase: str, outcome: str, nanos: int, context: Context | None
    ) -> None:
        attributes: Labels = {
            semconv.SYSTEM: semconv.SYSTEM_WEAVER,
            semconv.POLICY_ENGINE: engine_label(engine) or "",
            semconv.POLICY_PHASE: phase,
            semconv.POLICY_OUTCOME: outcome,
        }
        self._record("policy_duration", nanos / _NANOS_PER_MILLI, attributes, context)

    def _firewall(self, mode: str | None, nanos: int, context: Context | None) -> None:
        attributes: Labels = {semconv.SYSTEM: semconv.SYSTEM_WEAVER}
        _add(attributes, semconv.RESPONSE_MODE, mode_label(mode))
        self._record("firewall_duration", nanos / _NANOS_PER_MILLI, attributes, context)

    def _record(self, name: str, value: float, attributes: Labels, context: Context | None) -> None:
        histogram: Any = getattr(self._metrics, name)
        histogram.record(value, attributes, context)


def _add(attributes: Labels, key: str, value: str | None) -> None:
    if value is not None:
        attributes[key] = value
