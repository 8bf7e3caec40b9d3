# SPDX-License-Identifier: Apache-2.0
"""Where an adapter's spans and log events go; which kernel they are about, this module ignores."""

from __future__ import annotations

from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING, Final

from opentelemetry._logs import get_logger
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import INVALID_SPAN, Link, Span, get_tracer

from agent_kernel_otel._version import __version__
from agent_kernel_otel.scrub import PrincipalRedactor, Redact

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider, SeverityNumber
    from opentelemetry.trace import TracerProvider

    from agent_kernel_otel.config import InstrumentationConfig

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
    """The tracer and the logger of one adapter, under one configuration.

    Args:
        scope: Name of the instrumentation scope.
        system: Value of ``agent_kernel.system`` on all that it emits.
        config: The configuration.
        tracer_provider: Where spans go; the global provider by default.
        logger_provider: Where log events go; the global provider by default.
        redact: The kernel's own redaction of a text.
    """

    def __init__(
        self,
        scope: str,
        system: str,
        config: InstrumentationConfig,
        *,
        tracer_provider: TracerProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        redact: Redact | None = None,
    ) -> None:
        self.config = config
        self.system = system
        self.redact = redact
        self.principal = PrincipalRedactor(config)
        self.debug = config.span_level == "debug"
        self._spans = config.span_level != "off"
        self._start_span = get_tracer(scope, __version__, tracer_provider).start_span
        self._logger = get_logger(scope, __version__, logger_provider)

    def start_span(
        self,
        name: str,
        attributes: Attributes,
        context: Context,
        *,
        links: list[Link] | None = None,
        start_time: int | None = None,
    ) -> Span:
        """Start a span; with spans switched off, one that records nothing.

        Args:
            name: The span's name.
            attributes: What is known already, so that samplers see it.
            context: Holds the parent.
            links: Spans that this one is related to.
            start_time: When it began, in nanoseconds since the epoch; now by default.
        """
        if not self._spans:
            return INVALID_SPAN
        return self._start_span(
            name, context=context, attributes=attributes, links=links, start_time=start_time
        )

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
        now = time_ns()
        self._logger.emit(
            timestamp=now,
            observed_timestamp=now,
            context=context,
            severity_number=severity,
            severity_text=severity.name,
            body=body,
            event_name=name,
            attributes=attributes,
        )


def is_suppressed(context: Context) -> bool:
    """Whether the caller asked instrumentations to be silent (``suppress_instrumentation``)."""
    # An empty context, the usual one, asks for nothing; the look-up is dearer than this test.
    return bool(context) and not is_instrumentation_enabled()
