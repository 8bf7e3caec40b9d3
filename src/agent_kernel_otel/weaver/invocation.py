# SPDX-License-Identifier: Apache-2.0
"""Invocations, plain, dry and streamed: what is known while one runs, and told at its end."""

from __future__ import annotations

from time import monotonic, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.counts import Cell, count, process
from agent_kernel_otel.faults import faults
from agent_kernel_otel.scrub import identifier, scrub_content
from agent_kernel_otel.telemetry import SUCCESS, Attributes, Decision, Outcome
from agent_kernel_otel.weaver.attempts import AttemptingCall
from agent_kernel_otel.weaver.outcomes import classify, error_type_of, is_failure, token_reason_of
from agent_kernel_otel.weaver.reading import (
    mode_of,
    read,
    read_id,
    redactions_in,
)
from agent_kernel_otel.weaver.series import exhaustion_series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span

    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


_MODES: Final = frozenset(semconv.ATTRIBUTES[semconv.RESPONSE_MODE].known)


class InvokeCall(AttemptingCall):
    """``Kernel.invoke``, and the whole of a ``Kernel.invoke_stream``.

    Attributes:
        stream: Whether it is a stream.
        firewall_done: Whether a stream's failure came after the firewall's part, or from outside.
        token_accepted: Whether the token is known to have been accepted.
        reached_drivers: Whether the kernel got as far as looking up drivers.
    """

    __slots__ = (
        "_active", "_args", "_asked_mode", "_began", "_budget_downgraded", "_dry_run", "_facts",
        "_firewall_began", "_last_frame", "_mode", "_quiet", "_redactions", "_rows",
        "_suggested", "_token", "firewall_done", "reached_drivers", "token_accepted",
    )  # fmt: skip

    name = semconv.INVOKE

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        telling: bool,
        stream: bool = False,
    ) -> None:
        self._began = perf_counter_ns()
        self.stream = stream
        self.attempts = self._facts = self._rows = self._redactions = 0
        self.driver_id = self.open_attempt = self.late_attempt = None
        self.driver_failed = self.firewall_done = self.token_accepted = False
        self.reached_drivers = self._budget_downgraded = self._quiet = False
        self._active: Cell | None = None
        self._last_frame: Any = None
        self._mode: str | None = None
        self._suggested: str | None = None
        self._firewall_began: int | None = None
        self._token = token = args[0] if args else kwargs.get("token")
        self._args = kwargs.get("args")
        mode = kwargs.get("response_mode", "summary")
        self._asked_mode = mode if mode.__class__ is str and mode in _MODES else mode_of(mode)
        self._dry_run = bool(kwargs.get("dry_run"))
        super().__init__(instrumentation, kernel, token, kwargs.get("principal"))
        if stream:
            self.views_after = instrumentation.views_after_streams
        if telling:
            self.open()
        if self._dry_run:
            return
        quiet = instrumentation.quiet_views
        if (
            quiet is not None
            and not (self.recording or self.debug or stream)
            and not (telling and instrumentation.senders)
            and self.facts.is_plain(kernel)
        ):
            self.views = quiet
            self._quiet = True
        self._active = active = self.described.counts.active
        with process.lock:
            active.number += 1

    def start_attributes(self) -> Attributes:
        """Add the token, where it was granted, and what is asked for."""
        described, dry_run = self.described, self._dry_run
        attributes = self._with_principal(
            described.attributes if dry_run else described.tool_attributes
        )
        attributes[semconv.DRY_RUN] = dry_run
        attributes[semconv.STREAM] = self.stream
        if self._asked_mode is not None:
            attributes[semconv.REQUESTED_RESPONSE_MODE] = self._asked_mode
        session = self.instrumentation.kernels.session_of(self.kernel)
        if session is not None:
            attributes[semconv.SESSION] = session
        token_id = read_id(self._token, "token_id")
        if token_id is not None:
            attributes[semconv.TOKEN_ID] = token_id
        grant = self.instrumentation.grants.find(token_id)
        if grant is not None:
            self.links = grant.links()
            attributes[semconv.GRANT_AGE] = monotonic() - grant.granted_at
            if grant.rule is not None:
                attributes[semconv.GRANT_RULE] = grant.rule
        config = self.telemetry.config
        if config.span_naming == "gen_ai" and not dry_run:
            # The GenAI convention's name, in the place of the founding request's.
            title = attributes.get(semconv.CAPABILITY_ID, semconv.OTHER)
            self.span_name = f"{semconv.EXECUTE_TOOL} {title}"
        if "arguments" in config.capture_content and self._args is not None:
            self.late[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] = scrub_content(
                self._args, self.telemetry.redact
            )
        return attributes

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
            self.decided(decision, started=started, span=span)
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

    def refuse(self, error: BaseException, outcome: Outcome) -> None:
        """Tell of a refusal that no view has seen: of a token that was not looked at, or later."""
        if self.token_accepted:
            super().refuse(error, outcome)
            return
        expected = {
            "expected_principal_id": read(self._principal, "principal_id"),
            "expected_capability_id": self._capability_id,
        }
        self.enforced(error, vars(self.kernel).get("_token_provider"), expected, 0, None)

    def suggested(self, requested: object, suggestion: object) -> None:
        """Take note of the response mode that the budget suggests."""
        self._suggested = self._mode = mode_of(suggestion)
        if self._mode != mode_of(requested):
            self._budget_downgraded = True

    def measure_firewall(self, frame: Any, began: int) -> None:
        """Take the time that the firewall took, where that is wanted.

        Args:
            frame: What it made, if it did.
            began: When it began, in nanoseconds of the performance counter.
        """
        measure = self.instrumentation.measured.firewall
        if measure is not None:
            elapsed = perf_counter_ns() - began
            measure(mode_of(read(frame, "response_mode")), elapsed, self.exemplar)

    def firewall_began(self) -> None:
        """Take note that a stream's frames come from the firewall from now on."""
        self._firewall_began = time_ns()

    def _tell_stream_firewall(self, began: int, error: BaseException | None) -> None:
        """Make the one span of a stream's firewall; an error is its own unless a driver's."""
        attributes: Attributes = {semconv.REDACTIONS: self._redactions}
        if self._mode is not None:
            attributes[semconv.RESPONSE_MODE] = self._mode
        blamed = not (self.driver_failed or self.firewall_done)
        failed = blamed and is_failure(error)
        if error is not None and failed:
            attributes[semconv.ERROR_TYPE] = error_type_of(error)
        self.tell_child(semconv.FIREWALL, began, attributes, failed=failed)

    # Told by the result ---------------------------------------------------------------------

    def add_frame(self, frame: Any) -> None:
        """Count a frame: the only one, or the next one of a stream."""
        self._last_frame = frame
        if frame.warnings:
            self._redactions += redactions_in(frame)
        if self.recording:
            if self.action_id is None:
                self.acts_as(frame.action_id)
            self._facts += len(frame.facts)
            self._rows += len(frame.table_preview)

    def first_frame(self) -> None:
        """Take note of how long a stream took to give its first frame."""
        elapsed = (perf_counter_ns() - self._began) / 1e6
        self.late[semconv.TIME_TO_FIRST_CHUNK] = elapsed
        measured = self.instrumentation.measured
        if measured.first_chunk is not None:
            measured.first_chunk(self.counts().first_chunk_labels, elapsed, self.exemplar)

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """End the invocation; what its result tells is counted whether or not it is recorded."""
        if self._quiet and error is None and self.late_attempt is None:
            try:
                self._mode = result.response_mode
                if result.warnings:
                    self._redactions = redactions_in(result)
                self.count_end(SUCCESS, result)
            except Exception:
                faults.swallow("counting an invocation")
            if self._shown:
                self.end()
            else:
                self.kernel = None
            return
        try:
            if self.open_attempt is not None or self.late_attempt is not None:
                cause = self.before_audit(error)
                self.settle_attempts(cancelled=classify(cause).status == "cancelled")
            if error is None and not self.stream and not self._dry_run:
                self.add_frame(result)
            if self._last_frame is not None:
                mode = self._last_frame.response_mode
                self._mode = mode if mode.__class__ is str and mode in _MODES else mode_of(mode)
        except Exception:
            faults.swallow("reading what an invocation came to")
        super().finish(result, error)

    def count_end(self, outcome: Outcome, result: Any) -> None:
        """Count the invocation, once, with all that it came to, and how long it took."""
        described = self.described
        cells = self.counts() if described.capability is None else described.counts
        counted, status = self.counted, outcome.status
        if self._dry_run:
            counted.append(cells.dry_run)
            super().count_end(outcome, result)
            return
        counted.append(cells.invocations[status])
        if self.attempts > 1:
            counted.append(cells.fallback)
        if self._redactions:
            counted.append(cells.redaction)
        if self._mode != self._asked_mode:
            reason = self._downgrade_reason()
            if reason is not None:
                counted.append(cells.downgrades[reason])
        if outcome.error_type == "BudgetExhausted" and not self.reached_drivers:
            session = self.instrumentation.kernels.session_of(self.kernel)
            if session is not None:
                counted.append(self.facts.counts.cell(exhaustion_series(session)))
        if self.unsampled:
            counted.append(self.facts.cells.unsampled)
        if not count(counted, self.generation, self._active):
            return
        measured = self.instrumentation.measured
        if measured.invocation is not None:
            elapsed = (perf_counter_ns() - self._began) / 1e6
            context = self.exemplar if self.recording else None
            measured.invocation(elapsed, cells.labels[status], context)
            if measured.tool is not None:
                measured.tool(cells, outcome, elapsed, context)

    def describe(self, result: Any) -> None:
        """Add what the frame tells, or what the dry run would do."""
        if self._firewall_began is not None:
            self._tell_stream_firewall(self._firewall_began, None)
        late = self.late
        if self._dry_run:
            late[semconv.RESPONSE_MODE] = mode_of(result.response_mode) or ""
            return
        if result is not None:
            if result.handle is not None:
                late[semconv.HANDLE_ID] = identifier(result.handle.handle_id) or ""
            if self.telemetry.config.capture_content:
                self._capture_result(result)
        if self._mode is not None:
            late[semconv.RESPONSE_MODE] = self._mode
        late[semconv.RESULT_FACTS] = self._facts
        late[semconv.RESULT_ROWS] = self._rows
        late[semconv.REDACTIONS] = self._redactions
        self._describe_course()

    def describe_failure(self, error: BaseException, outcome: Outcome) -> None:
        """Add what came to pass before the exception, and the exception."""
        if self.recording and not self._dry_run:
            if self._firewall_began is not None:
                self._tell_stream_firewall(self._firewall_began, self.before_audit(error))
            self._describe_course()
        super().describe_failure(error, outcome)

    def _describe_course(self) -> None:
        """Add drivers, fallback, downgrade and ids, which a failure has as well."""
        late = self.late
        late[semconv.FALLBACK] = self.attempts > 1
        if self.driver_id is not None:
            late[semconv.DRIVER_ID] = self.driver_id
        if self.action_id is not None:
            late[semconv.GEN_AI_TOOL_CALL_ID] = self.action_id
        reason = None if self._mode == self._asked_mode else self._downgrade_reason()
        late[semconv.DOWNGRADED] = reason is not None
        if reason is not None:
            late[semconv.DOWNGRADE_REASON] = reason
        if self.described.capability is None:
            self.describe_deferred()

    def _downgrade_reason(self) -> str | None:
        """What made the response mode stricter, the last cause of several."""
        if not self.reached_drivers:
            return None  # refused before a response mode came to matter
        asked, got = self._asked_mode, self._mode
        if got == asked or (got is None and asked != "raw"):
            return None
        gated = asked == "raw" and "admin" not in (read(self._principal, "roles") or ())
        gated_by_kernel = gated and "_budget_manager" in vars(self.kernel)
        given = self._suggested or ("summary" if gated_by_kernel else asked)
        if got is not None and got != given:
            # Older kernels leave the admin gate to the firewall (weaver-kernel 0.3 to 0.5).
            return "admin_gate" if given == "raw" and gated else "firewall"
        if self._budget_downgraded:
            return "budget"
        return "admin_gate" if gated_by_kernel else None

    def _capture_result(self, frame: Any) -> None:
        if "results" not in self.telemetry.config.capture_content:
            return
        content = {"facts": frame.facts, "rows": frame.table_preview, "raw": frame.raw_data}
        shown = {name: part for name, part in content.items() if part}
        self.late[semconv.GEN_AI_TOOL_CALL_RESULT] = scrub_content(shown, self.telemetry.redact)
