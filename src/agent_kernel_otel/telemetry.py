# SPDX-License-Identifier: Apache-2.0
"""Where an adapter's spans, log events and metrics go; which kernel they are about it ignores."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel._version import __version__
from agent_kernel_otel.counts import group_of
from agent_kernel_otel.faults import faults
from agent_kernel_otel.opentelemetry_api import (
    Context,
    NoOpTracer,
    Span,
    get_logger_provider,
    get_tracer_provider,
    is_instrumentation_enabled,
    logs_internal,
    missing,
    trace,
)
from agent_kernel_otel.scrub import PrincipalRedactor, Redact

if missing is None:
    from agent_kernel_otel.metrics import metrics_for

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider, SeverityNumber
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from agent_kernel_otel.config import InstrumentationConfig
    from agent_kernel_otel.metrics import Metrics

Value = str | bool | int | float
Attributes = dict[str, Value]


@dataclass(slots=True)
class Outcome:
    """How an operation or a stage of it ended.

    Attributes:
        status: ``success``, ``error``, ``denied`` or ``cancelled``.
        error_type: Qualified name of the exception's class, if it raised.
        reason_code: The denial's code, if it has one.
    """

    status: str
    error_type: str | None = None
    reason_code: str | None = None


SUCCESS: Final = Outcome("success")


@dataclass(slots=True)
class Decision:
    """What a policy decided.

    Attributes:
        engine: Class name of whoever decided.
        phase: ``grant``, ``enforce`` or ``expand``.
        outcome: ``allowed``, ``denied`` or ``error``.
        reason_code: The decision's code, if it has one.
        reason_category: The family of a denial's code.
        rule: Name of the rule that decided, where the engine names it.
        enforced: False where the kernel goes on in spite of a denial.
        error_type: Qualified name of the exception's class, if the engine raised.
    """

    engine: str
    phase: str
    outcome: str
    reason_code: str | None = None
    reason_category: str | None = None
    rule: str | None = None
    enforced: bool = True
    error_type: str | None = None


class Telemetry:
    """The tracer, the logger and the counts of one adapter, under one configuration.

    Args:
        scope: Name of the instrumentation scope.
        system: Value of ``agent_kernel.system`` on all that it emits.
        config: The configuration.
        tracer_provider: Where spans go; the global provider by default.
        logger_provider: Where log events go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        redact: The kernel's own redaction of a text.

    Attributes:
        counts: What is counted, whether or not anything listens.
        metrics: Where values are measured and counts exported; ``None`` where none are wanted.
        samples: Whether spans have a sampler, which can do without some.
        principal: Principal ids in the form in which they may leave.
        span_level: Which spans are wanted, unless another level is set at run time.
        start_span: The tracer's own ``start_span``.
    """

    def __init__(
        self,
        scope: str,
        system: str,
        config: InstrumentationConfig,
        *,
        tracer_provider: TracerProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        redact: Redact | None = None,
    ) -> None:
        self.config = config
        self.system = system
        self.redact = redact
        self.principal = PrincipalRedactor(config.principal_id, config.principal_hash_key)
        self.span_level = config.span_level
        self._scope = scope
        self._tracer_provider = tracer_provider
        self._logger_provider = logger_provider
        self._providers: tuple[Any, Any] = (None, None)
        self.start_span: Callable[..., Span] = NoOpTracer().start_span
        self._emit: Callable[..., None] | None = None
        self._settled = self._listening = self.samples = False
        self._look()
        self.counts = group_of(system, meter_provider)
        self.metrics: Metrics | None = None
        if missing is None:
            self.metrics = metrics_for(
                scope, system, meter_provider, config.metrics_level, gen_ai=config.gen_ai_metrics
            )

    def is_listening(self) -> bool:
        """Whether spans and events go anywhere."""
        if self._settled:
            return True
        # The public getters read the environment each time, which costs more than the rest of
        # what an operation does while nothing listens; they decide where these names are gone.
        if (
            self._listening
            or getattr(trace, "_TRACER_PROVIDER", trace) is not None
            or getattr(logs_internal, "_LOGGER_PROVIDER", trace) is not None
        ):
            self._look()
        return self._listening

    def _look(self) -> None:
        """Find out where spans and events go; an app may set its providers up late, or never."""
        if missing is not None:
            return
        try:
            providers = (
                self._tracer_provider or get_tracer_provider(),
                self._logger_provider or get_logger_provider(),
            )
            if all(map(operator.is_, providers, self._providers)):
                return
            tracer_provider, logger_provider = self._providers = providers
            self.start_span = tracer_provider.get_tracer(self._scope, __version__).start_span
            self._emit = logger_provider.get_logger(self._scope, __version__).emit
            # Without an SDK a context from outside is still to be handed on, where that is wanted.
            self.samples = _is_real(tracer_provider)
            self._listening = any(map(_is_real, providers)) or bool(self.config.propagate_context)
            self._settled = all(map(_is_real, providers))
        except Exception:
            faults.swallow("asking the providers for a tracer and a logger")

    def emit(
        self,
        name: str,
        severity: SeverityNumber,
        body: str,
        attributes: Attributes,
        context: Context,
    ) -> None:
        """Emit a log event.

        Args:
            name: The event's name.
            severity: Its severity.
            body: The line that a person reads.
            attributes: Its attributes.
            context: Holds the span that it belongs to.
        """
        if self._emit is None:
            return
        now = time_ns()
        self._emit(
            timestamp=now,
            observed_timestamp=now,
            context=context,
            severity_number=severity,
            severity_text=severity.name,
            body=body,
            event_name=name,
            attributes=attributes,
        )


def _is_real(provider: object) -> bool:
    """Whether a provider is more than the API's own stand-in for none."""
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry._logs"))


def is_suppressed(context: Context) -> bool:
    """Whether the caller asked instrumentations to be silent (``suppress_instrumentation``)."""
    # An empty context, the usual one, asks for nothing; the look-up is dearer than this test.
    return bool(context) and not is_instrumentation_enabled()
