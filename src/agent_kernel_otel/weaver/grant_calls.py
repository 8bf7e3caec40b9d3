# SPDX-License-Identifier: Apache-2.0
"""Grants and expansions: what is known of them while they run, and told at their end."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.faults import faults
from agent_kernel_otel.scrub import identifier, scrub_text
from agent_kernel_otel.telemetry import Attributes, Decision, Outcome
from agent_kernel_otel.weaver.calls import KernelCall
from agent_kernel_otel.weaver.outcomes import category_of
from agent_kernel_otel.weaver.reading import argument, mode_of, read, read_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span

    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


class GrantCall(KernelCall):
    """``Kernel.grant_capability``."""

    __slots__ = ("rule",)

    name = semconv.GRANT

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
        self.rule: str | None = None
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

    __slots__ = ("_handle",)

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
