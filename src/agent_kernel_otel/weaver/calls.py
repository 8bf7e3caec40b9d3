# SPDX-License-Identifier: Apache-2.0
"""Grants and expansions: what is known of a call while it runs, and what is told at its end.

A call collects facts from its views (:mod:`agent_kernel_otel.weaver.views`) and from the result;
:mod:`agent_kernel_otel.weaver.operations` opens and ends it. Invocations have a module of their
own (:mod:`agent_kernel_otel.weaver.invocation`).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Link, Span

from agent_kernel_otel import semconv
from agent_kernel_otel.faults import faults
from agent_kernel_otel.operation import Operation
from agent_kernel_otel.scrub import identifier, scrub_text
from agent_kernel_otel.telemetry import Attributes, Decision
from agent_kernel_otel.weaver.outcomes import category_of, classify
from agent_kernel_otel.weaver.reading import (
    argument,
    describe_capability,
    mode_of,
    read,
    read_id,
    registered,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


_PHASES: Final = {semconv.GRANT: "grant", semconv.EXPAND: "expand"}


class KernelCall(Operation):
    """One call of a Weaver kernel.

    Attributes:
        instrumentation: The adapter under whose configuration it runs.
        action_id: The kernel's audit id of it, once known.
        refusal_told: Whether a policy's decision to refuse it has been told.
    """

    action_id: str | None = None
    refusal_told = False

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        name: str,
        attributes: Attributes,
        span_name: str | None = None,
        links: list[Link] | None = None,
    ) -> None:
        self.instrumentation = instrumentation
        views = instrumentation.views[name]
        super().__init__(
            instrumentation.telemetry, kernel, name, attributes, views, span_name, links
        )

    @property
    def about(self) -> Attributes:
        """Whom and what the call is about: what its events say."""
        keys = (semconv.CAPABILITY_ID, semconv.PRINCIPAL_ID)
        return {key: self.start[key] for key in keys if key in self.start}

    def describe_deferred(self, capability_id: object) -> None:
        """Add a capability that the registry did not hold at the start.

        The kernel's own call loads it, where it is of a deferred namespace.
        """
        if semconv.SAFETY_CLASS not in self.start:
            describe_capability(registered(self.kernel, capability_id), self.late)

    def acts_as(self, action_id: object) -> None:
        """Take note of the kernel's audit id of this call; the first one counts."""
        if self.action_id is None and action_id:
            self.action_id = identifier(action_id)

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """End the call with what its caller gets: a result or an exception."""
        try:
            if error is None:
                self.late[semconv.STATUS] = "success"
                if self.recording:
                    self.describe(result)
            else:
                self.describe_failure(error)
            if self.action_id is not None:
                self.late[semconv.ACTION_ID] = self.action_id
        except Exception:
            faults.swallow(f"describing how {self.name} ended")
        self.end()

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
        decision = Decision(
            engine,
            phase,
            "denied" if denied else "error",
            reason_code=code,
            reason_category=category_of(code),
            rule=rule,
            error_type=None if denied else outcome.error_type,
        )
        self.decided(decision, self.about, started=started, span=span)

    def describe_failure(self, error: BaseException) -> None:
        """Add what the exception tells, and emit it where it is a failure."""
        outcome = classify(error)
        if outcome.status == "denied" and not self.refusal_told:
            phase = _PHASES.get(self.name, "enforce")
            self.refused(error, self.refuser(), phase, outcome.reason_code)
        about = self.about
        about.pop(semconv.PRINCIPAL_ID, None)
        self.failed(error, outcome, about)

    def refuser(self) -> str:
        """Who refuses where no policy engine and no token provider did."""
        return type(self.kernel).__name__


class GrantCall(KernelCall):
    """``Kernel.grant_capability``."""

    rule: str | None = None

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        request = argument(args, kwargs, 0, "request")
        principal = argument(args, kwargs, 1, "principal")
        attributes = instrumentation.start_attributes(kernel, request, principal)
        super().__init__(instrumentation, kernel, semconv.GRANT, attributes)
        content = self.telemetry.config.capture_content
        if "goals" in content:
            self._capture(semconv.GOAL, read(request, "goal"))
        if "justifications" in content:
            self._capture(semconv.JUSTIFICATION, kwargs.get("justification"))

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
            self.about,
            span=span,
        )

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """End the grant, and remember it for the invocations to come, sampled or not."""
        try:
            token_id = None if error is not None else read_id(result.token, "token_id")
            if token_id is not None:
                context = self.span.get_span_context()
                self.instrumentation.grants.remember(token_id, context, self.rule)
                self.late[semconv.TOKEN_ID] = token_id
        except Exception:
            faults.swallow("remembering a grant")
        super().finish(result, error)

    def describe(self, result: Any) -> None:
        """Add how long the token is valid."""
        token = result.token
        expires_at, issued_at = read(token, "expires_at"), read(token, "issued_at")
        if isinstance(expires_at, datetime) and isinstance(issued_at, datetime):
            self.late[semconv.TOKEN_TTL] = (expires_at - issued_at).total_seconds()
        self.describe_deferred(read(token, "capability_id"))


class ExpandCall(KernelCall):
    """``Kernel.expand``."""

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        handle = argument(args, kwargs, 0, "handle")
        attributes = instrumentation.start_attributes(kernel, handle, kwargs.get("principal"))
        handle_id = read_id(handle, "handle_id")
        if handle_id is not None:
            attributes[semconv.HANDLE_ID] = handle_id
        super().__init__(instrumentation, kernel, semconv.EXPAND, attributes)

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

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],  # noqa: ARG002 - all calls are made alike
        kwargs: Mapping[str, Any],  # noqa: ARG002
    ) -> None:
        attributes = dict(instrumentation.kernels.of(kernel).attributes)
        super().__init__(instrumentation, kernel, semconv.DISCOVER, attributes)

    def describe(self, result: Any) -> None:
        """Add how much was found."""
        self.late[semconv.FEDERATION_PEERS] = len(result)
        found = sum(len(manifest.capabilities) for manifest in result)
        self.late[semconv.FEDERATION_CAPABILITIES] = found


class ImportCall(KernelCall):
    """``Kernel.import_remote``: counts and the trust policy, and no remote id."""

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],  # noqa: ARG002 - all calls are made alike
        kwargs: Mapping[str, Any],
    ) -> None:
        attributes = dict(instrumentation.kernels.of(kernel).attributes)
        policy = identifier(kwargs.get("trust_policy", "most_restrictive"))
        attributes[semconv.FEDERATION_TRUST_POLICY] = policy or ""
        super().__init__(instrumentation, kernel, semconv.IMPORT, attributes)

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
