# SPDX-License-Identifier: Apache-2.0
"""Invocations, plain, dry and streamed: what is known while one runs, and told at its end."""

from __future__ import annotations

from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span

from agent_kernel_otel import semconv
from agent_kernel_otel.scrub import identifier, scrub_content
from agent_kernel_otel.telemetry import Attributes, Decision
from agent_kernel_otel.weaver.calls import KernelCall
from agent_kernel_otel.weaver.outcomes import classify, error_type_of, is_failure, token_reason_of
from agent_kernel_otel.weaver.reading import (
    mode_of,
    read,
    read_id,
    redactions_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


class InvokeCall(KernelCall):
    """``Kernel.invoke``, and the whole of a ``Kernel.invoke_stream``.

    Attributes:
        stream: Whether it is a stream.
        firewall_done: Whether a stream's failure came after the firewall's part, or from outside.
        reached_drivers: Whether the kernel got as far as looking up drivers.
    """

    firewall_done = False
    reached_drivers = False
    _attempts = 0
    _open_attempt: Span | None = None
    _driver_id: str | None = None
    _driver_failed = False
    _late_attempt: tuple[Span, int] | None = None
    _downgrade: str | None = None
    _mode: str | None = None
    _firewall_mode: str | None = None
    _firewall_began: int | None = None
    _facts = 0
    _rows = 0
    _redactions = 0

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        stream: bool = False,
    ) -> None:
        telemetry = instrumentation.telemetry
        self.stream = stream
        self._token = token = args[0] if args else kwargs.get("token")
        self._principal: Any = kwargs.get("principal")
        self._asked_mode = mode_of(kwargs.get("response_mode", "summary"))
        self._dry_run = dry_run = bool(kwargs.get("dry_run"))

        attributes = instrumentation.start_attributes(
            kernel, token, self._principal, as_tool=not dry_run
        )
        attributes[semconv.DRY_RUN] = dry_run
        attributes[semconv.STREAM] = stream
        if self._asked_mode is not None:
            attributes[semconv.REQUESTED_RESPONSE_MODE] = self._asked_mode
        session = instrumentation.kernels.session_of(kernel)
        if session is not None:
            attributes[semconv.SESSION] = session
        token_id = read_id(token, "token_id")
        grant = instrumentation.grants.find(token_id)
        if token_id is not None:
            attributes[semconv.TOKEN_ID] = token_id
        if grant is not None:
            attributes[semconv.GRANT_AGE] = monotonic() - grant.granted_at
            if grant.rule is not None:
                attributes[semconv.GRANT_RULE] = grant.rule
        span_name = None
        if telemetry.config.span_naming == "gen_ai" and not dry_run:
            span_name = f"{semconv.EXECUTE_TOOL} {attributes.get(semconv.CAPABILITY_ID, '_OTHER')}"
        super().__init__(
            instrumentation,
            kernel,
            semconv.INVOKE,
            attributes,
            span_name,
            None if grant is None else grant.links(),
        )
        if "arguments" in telemetry.config.capture_content and "args" in kwargs:
            self.late[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] = scrub_content(
                kwargs["args"], telemetry.redact
            )

    # Told by the views ----------------------------------------------------------------------

    def enforced(
        self,
        error: BaseException | None,
        provider: Any,
        kwargs: Mapping[str, Any],
        started: int,
        span: Span | None,
    ) -> None:
        """Tell how the token provider's check of the signed decision ended."""
        engine = type(provider).__name__
        if error is None and span is None and not self.debug:
            # The usual case, in as few steps as possible.
            allowed: Attributes = {
                semconv.POLICY_ENGINE: engine,
                semconv.POLICY_PHASE: "enforce",
                semconv.POLICY_OUTCOME: "allowed",
            }
            self.tell_child(semconv.POLICY, started, allowed)
            return
        if error is None:
            decision = Decision(engine, "enforce", "allowed")
            self.decided(decision, self.about, started=started, span=span)
            return
        code = token_reason_of(
            error,
            read(self._token, "principal_id"),
            read(self._token, "capability_id"),
            kwargs.get("expected_principal_id"),
            kwargs.get("expected_capability_id"),
        )
        self.refused(error, engine, "enforce", code, started=started, span=span)
        if self.refusal_told and code is not None:
            self.late[semconv.REASON_CODE] = code

    def attempting(self, driver_id: object) -> Span | None:
        """Open the span of a driver attempt."""
        if self._late_attempt is not None:
            self._settle_attempts(cancelled=False)
        self._attempts += 1
        self._driver_id = identifier(driver_id) or ""
        self._open_attempt = self.open_child(semconv.DRIVER, {semconv.DRIVER_ID: self._driver_id})
        return self._open_attempt

    def attempted(self, span: Span | None, error: BaseException | None) -> None:
        """End the span of a driver attempt.

        The kernel's deadline cancels an attempt just as a cancelled invocation does. Which of
        the two it was shows in what the kernel does next, so the span waits for that.
        """
        if span is None:
            return
        self._open_attempt = None
        if error is None:
            self.close_child(span, {semconv.STATUS: "success"})
            return
        outcome = classify(error)
        if outcome.status == "cancelled":
            self._late_attempt = (span, time_ns())
            return
        self._driver_failed = True
        late: Attributes = {semconv.STATUS: "error"}
        if outcome.error_type is not None:
            late[semconv.ERROR_TYPE] = outcome.error_type
        self.close_child(span, late, failed=True)

    def _settle_attempts(self, *, cancelled: bool) -> None:
        """End the attempts that wait for the invocation to go on or to end.

        Args:
            cancelled: Whether the invocation ends as cancelled, and took the attempt along;
                otherwise it was the kernel's deadline that cancelled the attempt.
        """
        if self._late_attempt is not None:
            span, ended = self._late_attempt
            self._late_attempt = None
            self._driver_failed = not cancelled
            late: Attributes = {
                semconv.STATUS: "cancelled" if cancelled else "error",
                semconv.ERROR_TYPE: "CancelledError" if cancelled else "TimeoutError",
            }
            self.close_child(span, late, failed=not cancelled, end_time=ended)
        if self._open_attempt is None:
            return
        span, self._open_attempt = self._open_attempt, None
        if cancelled and not self.stream:
            # Torn down with the invocation, which came first.
            late = {semconv.STATUS: "cancelled", semconv.ERROR_TYPE: "CancelledError"}
        else:
            # A stream's driver that the kernel leaves open; the event loop closes it later, or
            # never does. It did what it was asked to.
            late = {semconv.STATUS: "success"}
        self.close_child(span, late)

    def suggested(self, requested: object, suggestion: object) -> None:
        """Take note of the response mode that the budget suggests."""
        self._mode = mode_of(suggestion)
        if self._mode != mode_of(requested):
            self._downgrade = "budget"

    def transforming(self, mode: object) -> None:
        """Take note of the response mode that the firewall was asked for."""
        self._firewall_mode = mode_of(mode)

    def firewall_began(self) -> None:
        """Take note that a stream's frames come from the firewall from now on."""
        self._firewall_began = time_ns()

    def _tell_stream_firewall(self, began: int, error: BaseException | None) -> None:
        """Make the one span of a stream's firewall; an error is its own unless a driver's."""
        attributes: Attributes = {semconv.REDACTIONS: self._redactions}
        if self._mode is not None:
            attributes[semconv.RESPONSE_MODE] = self._mode
        blamed = not (self._driver_failed or self.firewall_done)
        failed = blamed and is_failure(error)
        if error is not None and failed:
            attributes[semconv.ERROR_TYPE] = error_type_of(error)
        self.tell_child(semconv.FIREWALL, began, attributes, failed=failed)

    # Told by the result ---------------------------------------------------------------------

    def add_frame(self, frame: Any) -> None:
        """Count a frame: the only one, or the next one of a stream."""
        if self.action_id is None:
            self.acts_as(frame.action_id)
        self._mode = mode_of(frame.response_mode)
        self._facts += len(frame.facts)
        self._rows += len(frame.table_preview)
        if frame.warnings:
            self._redactions += redactions_in(frame)

    def describe(self, result: Any) -> None:
        """Add what the frame tells, or what the dry run would do."""
        self._settle_attempts(cancelled=False)
        if self._firewall_began is not None:
            self._tell_stream_firewall(self._firewall_began, None)
        late = self.late
        if self._dry_run:
            late[semconv.RESPONSE_MODE] = mode_of(result.response_mode) or ""
            return
        if result is not None:
            if not self.stream:
                self.add_frame(result)
            if result.handle is not None:
                late[semconv.HANDLE_ID] = identifier(result.handle.handle_id) or ""
            self._capture_result(result)
        if self._mode is not None:
            late[semconv.RESPONSE_MODE] = self._mode
        late[semconv.RESULT_FACTS] = self._facts
        late[semconv.RESULT_ROWS] = self._rows
        late[semconv.REDACTIONS] = self._redactions
        self._describe_course()

    def describe_failure(self, error: BaseException) -> None:
        """Add what came to pass before the exception, and the exception."""
        self._settle_attempts(cancelled=classify(error).status == "cancelled")
        if self.recording and not self._dry_run:
            if self._firewall_began is not None:
                self._tell_stream_firewall(self._firewall_began, error)
            self._describe_course()
        super().describe_failure(error)

    def _describe_course(self) -> None:
        """Add drivers, fallback, downgrade and ids, which a failure has as well."""
        late = self.late
        late[semconv.FALLBACK] = self._attempts > 1
        if self._driver_id is not None:
            late[semconv.DRIVER_ID] = self._driver_id
        if self.action_id is not None:
            late[semconv.GEN_AI_TOOL_CALL_ID] = self.action_id
        reason = self._downgrade_reason()
        late[semconv.DOWNGRADED] = reason is not None
        if reason is not None:
            late[semconv.DOWNGRADE_REASON] = reason
        self.describe_deferred(read(self._token, "capability_id"))

    def _downgrade_reason(self) -> str | None:
        if not self.reached_drivers:
            return None  # refused before a response mode came to matter
        got, given = self._mode, self._firewall_mode
        if got == given == self._asked_mode and self._downgrade is None:
            return None
        gated = self._asked_mode == "raw" and "admin" not in self._principal.roles
        if given is not None and got is not None and got != given:
            # Older kernels leave the admin gate to the firewall (weaver-kernel 0.3 to 0.5).
            return "admin_gate" if given == "raw" and gated else "firewall"
        if self._downgrade is not None:
            return self._downgrade
        gate_is_in_kernel = "_budget_manager" in vars(self.kernel)
        return "admin_gate" if gated and gate_is_in_kernel else None

    def _capture_result(self, frame: Any) -> None:
        if "results" not in self.telemetry.config.capture_content:
            return
        content = {"facts": frame.facts, "rows": frame.table_preview, "raw": frame.raw_data}
        shown = {name: part for name, part in content.items() if part}
        self.late[semconv.GEN_AI_TOOL_CALL_RESULT] = scrub_content(shown, self.telemetry.redact)
