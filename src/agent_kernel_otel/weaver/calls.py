# SPDX-License-Identifier: Apache-2.0
"""Grants and expansions: what is known of a call while it runs, and what is told at its end.

A call collects facts from its views (:mod:`agent_kernel_otel.weaver.views`) and from the result;
:mod:`agent_kernel_otel.weaver.operations` opens and ends it. Invocations have a module of their
own (:mod:`agent_kernel_otel.weaver.invocation`).
"""

from __future__ import annotations

from datetime import datetime
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.counts import Cell, count, process
from agent_kernel_otel.faults import faults
from agent_kernel_otel.operation import Operation
from agent_kernel_otel.scrub import identifier, scrub_text
from agent_kernel_otel.telemetry import Attributes, Decision, Outcome
from agent_kernel_otel.weaver.outcomes import category_of, classify
from agent_kernel_otel.weaver.reading import (
    argument,
    describe_capability,
    mode_of,
    read,
    read_id,
    registered,
)
from agent_kernel_otel.weaver.series import denial_series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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

    action_id: str | None = None
    refusal_told = False
    audit_error: BaseException | None = None

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
        self.late = {}
        self.counted: list[Cell] = []
        self.generation = process.generation
        self.facts = facts = instrumentation.kernels.of(kernel)
        self._principal = principal
        self._capability_id = capability_id = read(subject, "capability_id")
        self.described = facts.about(capability_id, registered(kernel, capability_id))

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
            known = registered(self.kernel, self._capability_id)
            if known is not None:
                self.described = self.facts.about(self._capability_id, known)

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
        if self.action_id is None and action_id:
            self.action_id = identifier(action_id)

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
        outcome = classify(error)
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


class GrantCall(KernelCall):
    """``Kernel.grant_capability``."""

    name = semconv.GRANT

    rule: str | None = None

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        telling: bool,
    ) -> None:
        request = argument(args, kwargs, 0, "request")
        principal = argument(args, kwargs, 1, "principal")
        super().__init__(instrumentation, kernel, request, principal)
        content = self.telemetry.config.capture_content
        if content and telling:
            if "goals" in content:
                self._capture(semconv.GOAL, read(request, "goal"))
            if "justifications" in content:
                self._capture(semconv.JUSTIFICATION, kwargs.get("justification"))
        if telling:
            self.open()

    def _capture(self, key: str, text: object) -> None:
        if isinstance(text, str):
            self.late[key] = scrub_text(text, self.telemetry.redact)

    def evaluated(self, decision: Any, engine: Any, span: Span | None) -> None:
        """Tell the decision that the policy engine returned; the engine may return anything."""
        try:
            allowed = bool(getattr(decision, "allowed", True))
            self.rule = _allowing_rule(decision)
            code = getattr(decision, "reason_code", None)
            code = identifier(code) if isinstance(code, str) and code else None
        except Exception:
            faults.swallow("reading a policy decision")
            return
        self.decided(
            Decision(
                engine=type(engine).__name__,
                phase="grant",
                outcome="allowed" if allowed else "denied",
                reason_code=code,
                reason_category=None if allowed else category_of(code),
                rule=self.rule,
                enforced=allowed,
            ),
            span=span,
        )

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """End the grant, and remember it for the invocations to come, sampled or not."""
        try:
            wanted = self.telling and error is None
            token_id = read_id(result.token, "token_id") if wanted else None
            if token_id is not None:
                context = self.span.get_span_context()
                self.instrumentation.grants.remember(token_id, context, self.rule)
                self.late[semconv.TOKEN_ID] = token_id
        except Exception:
            faults.swallow("remembering a grant")
        super().finish(result, error)

    def count_end(self, outcome: Outcome, result: Any) -> None:
        """Count the grant by how it ended."""
        self.counted.append(self.counts().grants[outcome.status])
        super().count_end(outcome, result)

    def describe(self, result: Any) -> None:
        """Add how long the token is valid."""
        token = result.token
        expires_at, issued_at = read(token, "expires_at"), read(token, "issued_at")
        if isinstance(expires_at, datetime) and isinstance(issued_at, datetime):
            self.late[semconv.TOKEN_TTL] = (expires_at - issued_at).total_seconds()
        self.describe_deferred()


class ExpandCall(KernelCall):
    """``Kernel.expand``."""

    name = semconv.EXPAND

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        telling: bool,
    ) -> None:
        self._handle = handle = argument(args, kwargs, 0, "handle")
        super().__init__(instrumentation, kernel, handle, kwargs.get("principal"))
        if telling:
            self.open()

    def start_attributes(self) -> Attributes:
        """Add the handle."""
        attributes = super().start_attributes()
        handle_id = read_id(self._handle, "handle_id")
        if handle_id is not None:
            attributes[semconv.HANDLE_ID] = handle_id
        return attributes

    def count_end(self, outcome: Outcome, result: Any) -> None:
        """Count the expansion by how it ended."""
        self.counted.append(self.facts.cells.expanded[outcome.status])
        super().count_end(outcome, result)

    def describe(self, result: Any) -> None:
        """Add what the frame tells."""
        self.acts_as(result.action_id)
        self.late[semconv.RESULT_ROWS] = len(result.table_preview)
        mode = mode_of(result.response_mode)
        if mode is not None:
            self.late[semconv.RESPONSE_MODE] = mode

    def refuser(self) -> str:
        """The handle store, which holds an expansion against what the grant allows."""
        return type(vars(self.kernel).get("_handle_store")).__name__


class DiscoverCall(KernelCall):
    """``Kernel.discover_peers``: counts, and no address and no remote id."""

    name = semconv.DISCOVER

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],  # noqa: ARG002 - all calls are made alike
        kwargs: Mapping[str, Any],  # noqa: ARG002
        *,
        telling: bool,
    ) -> None:
        super().__init__(instrumentation, kernel)
        if telling:
            self.open()

    def describe(self, result: Any) -> None:
        """Add how much was found."""
        self.late[semconv.FEDERATION_PEERS] = len(result)
        found = sum(len(manifest.capabilities) for manifest in result)
        self.late[semconv.FEDERATION_CAPABILITIES] = found


class ImportCall(KernelCall):
    """``Kernel.import_remote``: counts and the trust policy, and no remote id."""

    name = semconv.IMPORT

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],  # noqa: ARG002 - all calls are made alike
        kwargs: Mapping[str, Any],
        *,
        telling: bool,
    ) -> None:
        self._trust_policy = kwargs.get("trust_policy", "most_restrictive")
        super().__init__(instrumentation, kernel)
        if telling:
            self.open()

    def start_attributes(self) -> Attributes:
        """Add the trust policy."""
        trust_policy = identifier(self._trust_policy) or ""
        return {**super().start_attributes(), semconv.FEDERATION_TRUST_POLICY: trust_policy}

    def describe(self, result: Any) -> None:
        """Add how much was imported."""
        self.late[semconv.FEDERATION_CAPABILITIES] = len(result)


def _allowing_rule(decision: Any) -> str | None:
    """Name of the rule that allowed, from the decision's own trace (weaver-kernel 0.7 on)."""
    steps = getattr(getattr(decision, "trace", None), "steps", None)
    if not isinstance(steps, list):
        return None
    for step in reversed(steps):
        name = getattr(step, "name", None)
        if getattr(step, "outcome", None) == "allowed" and isinstance(name, str):
            return identifier(name[5:]) if name.startswith("rule:") else None
    return None
