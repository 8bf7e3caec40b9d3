# SPDX-License-Identifier: Apache-2.0
"""One call of a kernel: a span, its children and events, and the marker that its views go by.

An adapter makes an :class:`Operation` for each call: it is entered (made current), told what
happened inside it, left, and ended exactly once.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextvars import Token
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.current import come_back, set_current
from agent_kernel_otel.faults import faults
from agent_kernel_otel.opentelemetry_api import (
    Context,
    Link,
    NonRecordingSpan,
    SeverityNumber,
    Span,
    StatusCode,
    attach,
    detach,
    get_current,
    set_span_in_context,
)
from agent_kernel_otel.scrub import identifier, scrub_text
from agent_kernel_otel.span_level import span_level_switch
from agent_kernel_otel.telemetry import Attributes, Decision, Outcome, Telemetry

NO_VIEWS: Final[Mapping[str, Any]] = {}


class Operation:
    """One call of a kernel: its span, what is known of it so far, and how it ended.

    The adapter's subclass sets all of this as it is made, in as few steps as there can be, and
    calls :meth:`open` where it may give spans and events.

    Attributes:
        telemetry: Where it is told.
        kernel: The kernel called. Kept only until the operation ends, so that tasks which
            outlive it meet the kernel's raw collaborators; then ``None``.
        name: The kind of span, a name of :data:`semconv.SPANS`.
        views: By attribute name of the kernel, what makes the view of the collaborator there that
            the kernel's own code gets to see.
        span_name: The name of its span.
        links: Spans that it is related to.
        views_after: The same once it has ended, for what the kernel does only then.
        late: Attributes that came to be known after the start.
        telling: Whether it gives spans and events; if not, it is counted only.
        recording: Whether its span is sampled.
        unsampled: Whether its span was wanted, and sampling did without it.
        debug: Whether inner steps are wanted.
    """

    # A dict for each call, with as many names as these, would cost more than anything else.
    __slots__ = (
        "__weakref__", "_attached", "_base", "_children", "_ended_on", "_marker", "_shown",
        "_start", "context", "debug", "kernel", "late", "links", "recording", "span",
        "span_name", "telemetry", "telling", "unsampled", "views", "views_after",
    )  # fmt: skip

    name: str

    telemetry: Telemetry
    kernel: Any
    views: Mapping[str, Any]
    views_after: Mapping[str, Any]
    late: Attributes
    links: list[Link] | None
    span_name: str
    span: Span
    telling: bool
    recording: bool
    unsampled: bool
    debug: bool
    _shown: bool
    _ended_on: weakref.ref[Any] | None
    _start: Attributes | None
    _marker: Token[Operation | None] | None

    def open(self) -> None:
        """Have it give events from now on, and begin its span where that is wanted."""
        self.telling = True
        self._base = self.context = get_current()
        level = span_level_switch.level or self.telemetry.span_level
        if level != "off":
            self.debug = level == "debug"
            try:
                self._start_span()
            except Exception:
                faults.swallow(f"starting {self.name}")

    def _start_span(self) -> None:
        base = self._base
        self._start = attributes = self.start_attributes()
        self.span = span = self.telemetry.start_span(
            self.span_name, base, attributes=attributes, links=self.links
        )
        if span.is_recording():
            self.recording = True
            self._children: list[Span] = []
        else:
            self.unsampled = self.telemetry.samples
            if not span.get_span_context().is_valid:
                return
        # An unsampled span is made current too: what the tools call must see the same decision.
        self._shown = True
        self.context = set_span_in_context(span, base)

    @property
    def start(self) -> Attributes:
        """The attributes known at the start; worked out where something is to carry them."""
        if self._start is None:
            self._start = self.start_attributes()
        return self._start

    def start_attributes(self) -> Attributes:
        """Work out what is known at the start, and with it the span's name and links."""
        return {}

    @property
    def exemplar(self) -> Context | None:
        """The context that links a measured value to the span; none where that is not recorded.

        It is kept until the value is recorded, and so must not keep all that the span holds.
        """
        if not self.recording:
            return None
        return set_span_in_context(NonRecordingSpan(self.span.get_span_context()), self._base)

    # Being current --------------------------------------------------------------------------

    def enter(self) -> None:
        """Make the operation and its span current. Never to be held across a ``yield``."""
        self._marker = set_current(self)
        if self._shown:
            current = get_current()
            # At a later step of a stream its caller has other things in its context.
            same = current is self._base
            self._attached = attach(
                self.context if same else set_span_in_context(self.span, current)
            )

    def leave(self) -> None:
        """Undo :meth:`enter`."""
        marker = self._marker
        if marker is None:
            return
        self._marker = None
        # In another context detaching would only log an error.
        if come_back(marker) and self._shown:
            detach(self._attached)

    # Child spans ----------------------------------------------------------------------------

    def open_child(
        self, name: str, attributes: Attributes, started: int | None = None
    ) -> Span | None:
        """Start a child span; ``None`` where the operation is not sampled.

        Args:
            name: The span's name.
            attributes: What is known already.
            started: When it began, in nanoseconds since the epoch; now by default.
        """
        if not self.recording:
            return None
        try:
            attributes[semconv.SYSTEM] = self.telemetry.system
            span = self.telemetry.start_span(
                name, self.context, attributes=attributes, start_time=started
            )
        except Exception:
            faults.swallow(f"starting {name}")
            return None
        self._children.append(span)
        return span

    def close_child(
        self,
        span: Span | None,
        attributes: Attributes,
        *,
        failed: bool = False,
        end_time: int | None = None,
    ) -> None:
        """End a child span, if there is one.

        Args:
            span: The child, from :meth:`open_child`.
            attributes: What came to be known after its start.
            failed: Whether it ends as an error.
            end_time: When it ended, in nanoseconds since the epoch; now by default.
        """
        if span is None:
            return
        try:
            self._children.remove(span)
        except ValueError:
            return  # ended already, with its operation
        try:
            if attributes:
                span.set_attributes(attributes)
            if failed:
                span.set_status(StatusCode.ERROR)
            span.end(end_time)
        except Exception:
            faults.swallow("ending a child span")

    def tell_child(
        self, name: str, started: int, attributes: Attributes, *, failed: bool = False
    ) -> None:
        """Make a child span of something that is over, all attributes at once.

        Args:
            name: The span's name.
            started: When it began, in nanoseconds since the epoch; it ends now.
            attributes: All of its attributes.
            failed: Whether it ended as an error.
        """
        if not self.recording:
            return
        try:
            attributes[semconv.SYSTEM] = self.telemetry.system
            span = self.telemetry.start_span(
                name, self.context, attributes=attributes, start_time=started
            )
            if failed:
                span.set_status(StatusCode.ERROR)
            span.end()
        except Exception:
            faults.swallow(f"telling {name}")

    @property
    def about(self) -> Attributes:
        """Whom and what the operation is about: what its events say."""
        return {}

    def decided(self, decision: Decision, *, started: int = 0, span: Span | None = None) -> None:
        """Tell what a policy decided: as a child span, and a denial as a log event too.

        Args:
            decision: The decision.
            started: When the evaluation began, in nanoseconds since the epoch; 0 where it has no
                stage of its own, such as the refusal to expand a handle, which gets no span.
            span: The child span, where it was opened before.
        """
        if not self.telling:
            return
        try:
            self._decided(decision, started, span)
        except Exception:
            faults.swallow("telling a policy decision")

    def _decided(self, decision: Decision, started: int, span: Span | None) -> None:
        attributes = _decision_attributes(decision)
        attributes[semconv.SYSTEM] = self.telemetry.system
        if span is not None:
            span.set_attributes(attributes)
        elif started:
            span = self.open_child(semconv.POLICY, attributes, started)
        error = decision.error_type
        try:
            self._emit_decision(decision, attributes, span)
        finally:
            # A denial is the policy at work, a crash is not.
            self.close_child(
                span,
                {} if error is None else {semconv.ERROR_TYPE: error},
                failed=decision.outcome == "error",
            )

    def _emit_decision(self, decision: Decision, said: Attributes, span: Span | None) -> None:
        denied = decision.outcome == "denied"
        if not denied and not (self.debug and decision.outcome == "allowed"):
            return
        attributes = {**self.about, **said}
        reason = f" ({decision.reason_code})" if denied and decision.reason_code else ""
        self.telemetry.emit(
            semconv.POLICY_DECISION,
            SeverityNumber.WARN if denied else SeverityNumber.DEBUG,
            f"{decision.outcome} at {decision.phase}: "
            f"{attributes.get(semconv.CAPABILITY_ID, 'a capability')}{reason}",
            attributes,
            self.context if span is None else set_span_in_context(span, self.context),
        )

    # The end --------------------------------------------------------------------------------

    def failed(self, error: BaseException, outcome: Outcome) -> None:
        """Tell that the operation raised, just before it ends.

        Args:
            error: What its caller sees.
            outcome: What that means.
        """
        if not self.telling:
            return
        late = self.late
        late[semconv.STATUS] = outcome.status
        if outcome.error_type is not None:
            late[semconv.ERROR_TYPE] = outcome.error_type
        if outcome.reason_code is not None:
            late[semconv.REASON_CODE] = outcome.reason_code
        if outcome.status == "cancelled":
            return
        try:
            self.span.set_status(StatusCode.ERROR)
            if outcome.status == "error":
                self._emit_exception(error, outcome)
        except Exception:
            faults.swallow("telling an exception")

    def _emit_exception(self, error: BaseException, outcome: Outcome) -> None:
        kind = type(error)
        error_type = outcome.error_type or "_OTHER"
        attributes: Attributes = {
            **self.about,
            semconv.SYSTEM: self.telemetry.system,
            semconv.STATUS: outcome.status,
            semconv.EXCEPTION_TYPE: identifier(f"{kind.__module__}.{kind.__qualname__}") or "",
            semconv.ERROR_TYPE: error_type,
        }
        attributes.pop(semconv.PRINCIPAL_ID, None)
        if self.telemetry.config.capture_exception_text:
            attributes[semconv.EXCEPTION_MESSAGE] = self._text_of(error)
        self.telemetry.emit(
            semconv.EXCEPTION_EVENTS[self.name],
            SeverityNumber.WARN,
            f"{self.name} raised {error_type}",
            attributes,
            self.context,
        )

    def _text_of(self, error: BaseException) -> str:
        try:
            text = str(error)
        except Exception:  # the exception's class is the app's, and so is its fault
            return ""
        return scrub_text(text, self.telemetry.redact)

    def has_ended_on(self, kernel: object) -> bool:
        """Whether it was a call of this kernel, which may still have something to do for it."""
        return self._ended_on is not None and self._ended_on() is kernel

    def end(self) -> None:
        """End the span with what came to be known, and let go of the kernel. Again: no effect."""
        if self.kernel is None:
            return
        if self.views_after:
            self._ended_on = weakref.ref(self.kernel)
        self.kernel = None
        self.views = self.views_after
        if not self._shown:
            return
        span = self.span
        try:
            if self.recording:
                for child in self._children:
                    child.end()
                span.set_attributes(self.late)
        except Exception:
            faults.swallow("completing a span")
        try:
            span.end()
        except Exception:
            faults.swallow("ending a span")


def _decision_attributes(decision: Decision) -> Attributes:
    attributes: Attributes = {
        semconv.POLICY_ENGINE: decision.engine,
        semconv.POLICY_PHASE: decision.phase,
        semconv.POLICY_OUTCOME: decision.outcome,
    }
    if decision.reason_code is not None:
        attributes[semconv.REASON_CODE] = decision.reason_code
    if decision.reason_category is not None:
        attributes[semconv.REASON_CATEGORY] = decision.reason_category
    if decision.rule is not None:
        attributes[semconv.SECURITY_RULE_NAME] = decision.rule
    if not decision.enforced:
        attributes[semconv.POLICY_ENFORCED] = False
    return attributes
