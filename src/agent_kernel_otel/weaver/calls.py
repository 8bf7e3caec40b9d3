# SPDX-License-Identifier: Apache-2.0
"""One call of the kernel: what is known of it while it runs, and told and counted at its end.

A call collects facts from its views (:mod:`agent_kernel_otel.weaver.views`) and from the result;
:mod:`agent_kernel_otel.weaver.operations` opens and ends it. Each kind of call has a module of
its own.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.correlation import correlations
from agent_kernel_otel.counts import Cell, count, process
from agent_kernel_otel.faults import faults
from agent_kernel_otel.opentelemetry_api import INVALID_SPAN
from agent_kernel_otel.operation import NO_VIEWS, Operation
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import SUCCESS, Attributes, Decision, Outcome
from agent_kernel_otel.weaver.outcomes import category_of, classify
from agent_kernel_otel.weaver.reading import describe_capability, read
from agent_kernel_otel.weaver.series import denial_series

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation
    from agent_kernel_otel.weaver.series import CapabilityCounts


_PHASES: Final = {semconv.GRANT: "grant", semconv.EXPAND: "expand"}


class KernelCall(Operation):
    """One call of a Weaver kernel.

    Args:
        instrumentation: The adapter under whose configuration it runs.
        kernel: The kernel called.
        subject: What names the capability: a request, a token or a handle, if anything does.
        principal: Who calls.

    Attributes:
        facts: What is known of the kernel.
        described: What is known of the capability.
        counted: Where it is to be counted when it ends.
        generation: In which process it began.
        action_id: The kernel's audit id of it, once known.
        refusal_told: Whether a policy's decision to refuse it has been told.
        audit_error: What the trace store raised.
    """

    __slots__ = (
        "_capability_id", "_principal", "action_id", "audit_error", "counted", "described",
        "facts", "generation", "instrumentation", "refusal_told",
    )  # fmt: skip

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        subject: Any = None,
        principal: Any = None,
    ) -> None:
        self.instrumentation = instrumentation
        self.telemetry = instrumentation.telemetry
        self.kernel = kernel
        self.views = instrumentation.views[self.name]
        self.views_after = NO_VIEWS
        self.late = {}
        self.links = self._ended_on = self._start = self._marker = None
        self.span_name = self.name
        self.span = INVALID_SPAN
        self.telling = self.recording = self.unsampled = self.debug = self._shown = False
        self.action_id: str | None = None
        self.audit_error: BaseException | None = None
        self.refusal_told = False
        self.counted: list[Cell] = []
        self.generation = process.generation
        kernels = instrumentation.kernels
        self.facts = facts = kernels.facts.get(id(kernel)) or kernels.of(kernel)
        self._principal = principal
        try:
            capability_id = subject.capability_id
        except Exception:  # anything can be passed
            capability_id = None
        self._capability_id = capability_id
        self.described = facts.about(kernel, capability_id)

    def start_attributes(self) -> Attributes:
        """What is said of the kernel and of the capability, and who calls."""
        return self._with_principal(self.described.attributes)

    def _with_principal(self, attributes: Attributes) -> Attributes:
        attributes = dict(attributes)
        who = self.telemetry.principal(read(self._principal, "principal_id"))
        if who is not None:
            attributes[semconv.PRINCIPAL_ID] = who
        return attributes

    @property
    def about(self) -> Attributes:
        """Whom and what the call is about: what its events say."""
        keys = (semconv.CAPABILITY_ID, semconv.PRINCIPAL_ID)
        return {key: self.start[key] for key in keys if key in self.start}

    def counts(self) -> CapabilityCounts:
        """Where calls of its capability are counted."""
        if self.described.capability is None:
            self._look_again()
        return self.described.counts

    def describe_deferred(self) -> None:
        """Add a capability that the registry did not hold at the start."""
        if self.described.capability is None:
            self._look_again()
            describe_capability(self.described.capability, self.late)

    def _look_again(self) -> None:
        # The kernel's own call loads a capability of a deferred namespace.
        if self.kernel is not None:
            self.described = self.facts.about(self.kernel, self._capability_id)

    def count(self, cell: Cell, number: int = 1) -> None:
        """Count something that came to pass.

        What comes after the end, such as the audit record of a closed stream, is counted too.
        """
        if self.kernel is None:
            count([cell] * number, self.generation)
        elif number == 1:
            self.counted.append(cell)
        else:
            self.counted.extend([cell] * number)

    def acts_as(self, action_id: object) -> None:
        """Take note of the kernel's audit id of this call; the first one counts."""
        if self.action_id is not None or not isinstance(action_id, str):
            return
        self.action_id = known = identifier(action_id) or None
        if known is None:
            return
        if self.span.get_span_context().trace_flags.sampled:
            correlations.remember(known, self.span.get_span_context())

    def before_audit(self, error: BaseException | None) -> BaseException | None:
        """What went wrong first, where the record of that could not be written either."""
        if error is None or error is not self.audit_error:
            return error
        return error.__context__ or error

    def measure_policy(
        self,
        engine: Any,
        phase: str,
        began: int,
        error: BaseException | None = None,
        *,
        allowed: bool = True,
    ) -> None:
        """Take the time that a decision took, where that is wanted.

        Args:
            engine: Who decided.
            phase: ``grant`` or ``enforce``.
            began: When it began, in nanoseconds of the performance counter.
            error: What it raised.
            allowed: What it decided, if it did.
        """
        measure = self.instrumentation.measured.policy
        if measure is None:
            return
        try:
            elapsed = perf_counter_ns() - began
            denied = not allowed or classify(error).status == "denied"
            outcome = "denied" if denied else "allowed" if error is None else "error"
            measure(type(engine).__name__, phase, outcome, elapsed, self.exemplar)
        except Exception:
            faults.swallow("measuring a decision")

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """End the call with what its caller gets: a result or an exception."""
        outcome = SUCCESS if error is None else classify(error)
        try:
            if error is not None:
                self.describe_failure(error, outcome)
            elif self.recording:
                self.late[semconv.STATUS] = "success"
                self.describe(result)
            if self.recording and self.action_id is not None:
                self.late[semconv.ACTION_ID] = self.action_id
        except Exception:
            faults.swallow(f"describing how {self.name} ended")
        try:
            if self.kernel is not None:
                self.count_end(outcome, result)
        except Exception:
            faults.swallow(f"counting how {self.name} ended")
        self.end()

    def count_end(self, outcome: Outcome, result: Any) -> None:  # noqa: ARG002 - for subclasses
        """Count the call, once, with all that it came to."""
        if self.unsampled:
            self.counted.append(self.facts.cells.unsampled)
        count(self.counted, self.generation)

    def describe(self, result: Any) -> None:
        """Add what the result tells."""

    def refused(
        self,
        error: BaseException,
        engine: str,
        phase: str,
        reason_code: str | None,
        *,
        rule: str | None = None,
        started: int = 0,
        span: Span | None = None,
    ) -> None:
        """Tell that who decides raised: a denial, or a crash.

        Args:
            error: What it raised.
            engine: Class name of who decides.
            phase: Where: ``grant``, ``enforce`` or ``expand``.
            reason_code: Why, for a denial.
            rule: Name of the rule that denied, where known.
            started: As for :meth:`decided`.
            span: As for :meth:`decided`.
        """
        outcome = classify(error)
        self.refusal_told = denied = outcome.status == "denied"
        code = reason_code if denied else None
        category = category_of(code)
        if denied:
            series = denial_series(self.counts().capability, category, code, phase, rule)
            self.count(self.facts.counts.cell(series))
        decision = Decision(
            engine,
            phase,
            "denied" if denied else "error",
            reason_code=code,
            reason_category=category,
            rule=rule,
            error_type=None if denied else outcome.error_type,
        )
        self.decided(decision, started=started, span=span)

    def describe_failure(self, error: BaseException, outcome: Outcome) -> None:
        """Add what the exception tells, and emit it where it is a failure."""
        if outcome.status == "denied" and not self.refusal_told:
            self.refuse(error, outcome)
        self.failed(error, outcome)

    def refuse(self, error: BaseException, outcome: Outcome) -> None:
        """Tell of a refusal that no view has seen."""
        phase = _PHASES.get(self.name, "enforce")
        self.refused(error, self.refuser(), phase, outcome.reason_code)

    def refuser(self) -> str:
        """Who refuses where no policy engine and no token provider did."""
        return type(self.kernel).__name__
