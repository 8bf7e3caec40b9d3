# SPDX-License-Identifier: Apache-2.0
"""What must be told of an operation, by what truly came to pass in it.

This is the contract of the telemetry written a second time, from the documentation, and shares no
code with the product. Its input is the journal of a run in which the product had no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.simulation.collaborators import DENYING_RULE
from tests.simulation.journal import Entry, Failure, Run
from tests.simulation.plan import CAPABILITIES, KernelPlan
from tests.simulation.told import SpanTold, Told
from tests.simulation.world import SAFETY

OTHER: Final = "_OTHER"
_CATEGORIES: Final = {
    "missing_role": "identity", "missing_tenant_attribute": "identity",
    "missing_attribute": "identity", "insufficient_justification": "justification",
    "invalid_constraint": "constraint", "rate_limited": "rate_limit",
    "no_matching_rule": "rule", "explicit_deny_rule": "rule",
    "handle_constraint_violation": "handle", "handle_principal_mismatch": "handle",
    "token_expired": "token", "token_revoked": "token", "token_invalid": "token",
    "token_principal_mismatch": "token",
}  # fmt: skip
_TOKEN_CODES: Final = {
    "TokenExpired": "token_expired",
    "TokenRevoked": "token_revoked",
    "TokenInvalid": "token_invalid",
    "TokenScopeError": "token_principal_mismatch",
}
_ENGINES: Final = {
    "default": "DefaultPolicyEngine",
    "declarative": "DeclarativePolicyEngine",
    "own": "ScriptedEngine",
}
_OPERATIONS: Final = {
    "grant": "agent_kernel.grant", "invoke": "agent_kernel.invoke",
    "dry_run": "agent_kernel.invoke", "stream": "agent_kernel.invoke",
    "expand": "agent_kernel.expand",
}  # fmt: skip


class Model:
    """Tells what must be told.

    Args:
        kernels: How the kernels are put together.
        debug: Whether spans are at level debug.
        refusing: Whether there is a span processor that fails where the plan says.
    """

    def __init__(self, kernels: list[KernelPlan], *, debug: bool, refusing: bool = True) -> None:
        self._kernels = kernels
        self._debug = debug
        self._refusing = refusing

    def told(self, run: Run) -> Told:
        """What one operation must be told by."""
        refused = self._refusing and "processor_refuses" in run.op.chances
        kernel = self._kernels[run.op.kernel]
        return _Telling(run, kernel, debug=self._debug, refused=refused).told


class _Telling:
    def __init__(self, run: Run, kernel: KernelPlan, *, debug: bool, refused: bool) -> None:
        self.refused = refused
        self.run, self.kernel, self.debug = run, kernel, debug
        self.told = Told(run.kernel)
        self.kind = run.op.kind
        self.began, self.ended = run.began, run.ended
        self.stream_end: str | None = None
        self.failure = run.failure
        if self.kind not in _OPERATIONS or not self._started():
            return
        self.status = self.failure.status if self.failure else "success"
        capability = str(run.facts.get("capability", ""))
        known = capability in CAPABILITIES
        self.capability = capability if known else OTHER
        place = CAPABILITIES.index(capability) if known else 0
        self.safety = SAFETY[place % len(SAFETY)].value if known else None
        self.denial_told = False
        self.reason = self.failure.reason_code if self.failure else None
        self.about: dict[str, Any] = {}
        self._tell()

    def _started(self) -> bool:
        """Whether the kernel was called at all; of a stream, also when that was and how it ended."""
        if self.kind != "stream":
            return True
        steps = self.run.of("step")
        if not steps:
            return False
        self.began = steps[0].at
        for end in self.run.entries:
            if end.what in {"exhausted", "broke", "closed", "dropped"}:
                self.ended = end.at
                self.failure = end.failure
                cancelled = end.failure is not None and end.failure.status == "cancelled"
                self.stream_end = {
                    "exhausted": "exhausted",
                    "broke": "cancelled" if cancelled else "failed",
                    "closed": "closed",
                    "dropped": "abandoned",
                }[end.what]
                return True
        raise AssertionError(f"a stream has no end: {self.run}")

    def _tell(self) -> None:
        told, op = self.told, self.run.op
        getattr(self, f"_{self.kind}")()
        self._steps()
        if self.status == "denied" and not self.denial_told:
            phase = {"grant": "grant", "expand": "expand"}.get(self.kind, "enforce")
            self._denied(self.reason, phase, None)
        if self.status == "error":
            told.events[f"{_OPERATIONS[self.kind]}.exception", "WARN"] += 1
        if "suppressed" in op.chances:
            told.children.clear()
            told.events.clear()
        elif "unsampled" in op.chances and "rootless" not in op.chances:
            told.children.clear()
            told.count("unsampled_operations")
        elif self.refused:
            told.children.clear()
        else:
            told.root = self._root()

    def _root(self) -> SpanTold:
        failure = self.failure
        attributes = {
            "status": self.status,
            "capability_id": self.run.facts.get("capability"),
            "safety_class": self.safety,
            "reason_code": self.reason if self.status == "denied" else None,
            "kernel_id": self.kernel.name,
            **self.about,
        }
        root = {f"agent_kernel.{key}": value for key, value in attributes.items()}
        root["error.type"] = _error_type(failure)
        return SpanTold(_OPERATIONS[self.kind], self.status in {"error", "denied"}, root)

    def _child(self, name: str, *, failed: bool = False, error: Any = None, **said: Any) -> None:
        attributes = {f"agent_kernel.{key.replace('__', '.')}": said[key] for key in said}
        attributes["error.type"] = error
        self.told.children.append(SpanTold(f"agent_kernel.{name}", failed, attributes))

    # Operations -----------------------------------------------------------------------------

    def _grant(self) -> None:
        told = self.told
        told.count("grants", self.capability, self.safety or OTHER, self.status)
        for entry in self.run.of("policy"):
            rule = None
            if entry.failure is None:
                allowed, code, rule = entry.said
                outcome = "allowed" if allowed else "denied"
            else:
                outcome = "denied" if entry.failure.status == "denied" else "error"
                code = entry.failure.reason_code if outcome == "denied" else None
                allowed = True
                if self.kernel.engine == "declarative" and code == "explicit_deny_rule":
                    rule = DENYING_RULE
            engine = _ENGINES[self.kernel.engine]
            self._decided(entry, engine, "grant", outcome, code, rule, enforced=allowed)

    def _decided(
        self, entry: Entry, engine: str, phase: str, outcome: str, code: str | None,
        rule: str | None, *, enforced: bool = True,
    ) -> None:  # fmt: skip
        self.told.observe("policy_duration", entry.took, engine, phase, outcome)
        denied = outcome == "denied"
        error = entry.failure.kind if entry.failure and not denied else None
        self._child(
            "policy.evaluate", failed=outcome == "error", error=error, policy__engine=engine,
            policy__phase=phase, policy__outcome=outcome, reason_code=code,
            reason_category=_category(code) if denied else None,
            policy__enforced=None if enforced else False,
        )  # fmt: skip
        self.told.children[-1].attributes["security_rule.name"] = rule
        if denied and enforced:
            self._denied(code, phase, rule)
        elif denied or (self.debug and outcome == "allowed"):
            self.told.events["agent_kernel.policy.decision", "WARN" if denied else "DEBUG"] += 1

    def _denied(self, code: str | None, phase: str, rule: str | None) -> None:
        self.denial_told = True
        self.told.events["agent_kernel.policy.decision", "WARN"] += 1
        self.told.count(
            "policy_denials", self.capability, _category(code) or "other", code or "unknown",
            phase, rule,
        )  # fmt: skip

    def _expand(self) -> None:
        self.told.count("handles_expanded", self.status)

    def _dry_run(self) -> None:
        self._enforced()
        self.about.update(dry_run=True)
        self.told.count("dry_runs", self.capability)

    def _invoke(self) -> None:
        told = self.told
        self._enforced()
        told.count("invocations", self.capability, self.safety or OTHER, self.status)
        labels = (self.capability, self.safety or OTHER, self.status)
        told.observe("invocation_duration", self.ended - self.began, *labels)
        tool = (self.capability, "execute_tool", "function", _error_type(self.failure))
        seconds = (self.ended - self.began) / 1e6 / 1000
        told.observations.append(("gen_ai.execute_tool.duration", tool, seconds))
        attempts = list(self._attempts())
        for driver_id, status, error, lasted in attempts:
            told.count("driver_attempts", driver_id, status, error)
            told.observe("driver_duration", lasted, driver_id, status)
            failed = status == "error"
            self._child("driver.execute", failed=failed, error=error, driver_id=driver_id,
                        status=status)  # fmt: skip
        if len(attempts) > 1:
            told.count("fallbacks", self.capability)
        downgrade = self._downgrade()
        if downgrade is not None:
            told.count("downgrades", self.capability, downgrade)
        if any(redactions for _, redactions in self._frames()):
            told.count("redactions", self.capability)
        for entry in self.run.of("allocate"):
            if entry.failure and entry.failure.kind == "BudgetExhausted":
                told.count("budget_exhaustions", session_of(self.kernel.name))
        self._firewall()
        self.about.update(
            dry_run=False, downgrade_reason=downgrade, stream=self.kind == "stream",
            driver_id=attempts[-1][0] if attempts else None,
        )  # fmt: skip
        if self.failure is None or attempts:
            self.about["fallback"] = len(attempts) > 1

    def _stream(self) -> None:
        self._invoke()
        self.about["stream_end"] = self.stream_end
        first = self.run.of("frame")[:1]
        for entry in first:
            self.told.observe("time_to_first_chunk", entry.at - self.began, self.capability)
            self.about["time_to_first_chunk"] = (entry.at - self.began) / 1e6
        if not first:
            self.about["time_to_first_chunk"] = None

    # Parts of operations --------------------------------------------------------------------

    def _enforced(self) -> None:
        for entry in self.run.of("verify"):
            provider = "HMACTokenProvider" if self.kernel.own_classes else "AppTokenProvider"
            outcome, code = "allowed", None
            if entry.failure is not None:
                outcome = "denied" if entry.failure.status == "denied" else "error"
                code = entry.failure.reason_code or _TOKEN_CODES.get(entry.failure.kind)
                self.reason = code
            code = code if outcome == "denied" else None
            self._decided(entry, provider, "enforce", outcome, code, None)

    def _attempts(self) -> Iterator[tuple[str, str, str | None, int]]:
        """Driver, status, error and nanoseconds of each attempt."""
        begun = self.run.of("attempt")
        over = {entry.said[1]: entry for entry in self.run.of("attempt over")}
        for entry in begun:
            driver_id, number = entry.said
            end = over.get(number)
            failure = end.failure if end else None
            lasted = min(end.at if end else self.ended, self.ended) - entry.at
            left = failure is not None and failure.kind == "GeneratorExit"
            if failure is None or (
                left and self.stream_end != "cancelled" and self.kind == "stream"
            ):
                yield driver_id, "success", None, lasted
            elif failure.status != "cancelled":
                yield driver_id, "error", failure.kind, lasted
            elif entry is begun[-1] and not self._timed_out():
                yield driver_id, "cancelled", "CancelledError", lasted
            else:
                yield driver_id, "error", "TimeoutError", lasted

    def _timed_out(self) -> bool:
        """Whether the kernel's deadline fired, and not somebody's cancellation."""
        failure = self.failure
        texts = [] if failure is None else [failure.text, *(text for _, text in failure.cause)]
        return any(" timed out " in text for text in texts)

    def _reached_drivers(self) -> bool:
        run = self.run
        refused = [*run.of("verify"), *run.of("route"), *run.of("suggest"), *run.of("allocate")]
        return bool(
            self.safety is not None
            and run.facts.get("token") != "bad deadline"
            and run.of("route")
            and not any(entry.failure for entry in refused)
        )

    def _downgrade(self) -> str | None:
        """Why the response mode is stricter than asked; the last cause, if there are several."""
        if not self._reached_drivers():
            return None
        made = [entry for entry in self.run.of("transform") if not entry.failure]
        if self._frames() and made[-1].said[0] != self._frames()[-1][0]:
            return "firewall"
        if any(asked != suggested for asked, suggested in self._suggestions()):
            return "budget"
        gated = self.run.op.choices["mode"] == "raw" and not self.run.facts["admin"]
        return "admin_gate" if gated else None

    def _frames(self) -> list[tuple[str, int]]:
        """Response mode and redactions of the frames that the caller got."""
        if self.kind == "stream":
            return [(entry.said[0], entry.said[1]) for entry in self.run.of("frame")]
        frame = self.run.facts.get("frame")
        return [] if frame is None else [frame]

    def _suggestions(self) -> list[tuple[str, str]]:
        return [(entry.said[0], entry.said[1]) for entry in self.run.of("suggest") if entry.said]

    def _firewall(self) -> None:
        entries = self.run.of("transform")
        streamed = any(entry.said[0].startswith("streaming") for entry in self.run.of("attempt"))
        if self.kind == "stream" and streamed:
            errors = [entry.failure.kind for entry in entries if entry.failure]
            self._child("firewall.apply", failed=bool(errors), error=next(iter(errors), None))
            return
        for entry in entries:
            error = entry.failure.kind if entry.failure else None
            self._child("firewall.apply", failed=error is not None, error=error)
            mode = None if entry.failure else entry.said[1]
            self.told.observe("firewall_duration", entry.took, mode)

    def _steps(self) -> None:
        """Collaborators whose spans are for level debug, and what they count."""
        run, told = self.run, self.told
        for entry in run.entries:
            failed = entry.failure is not None
            if entry.what == "store" and not failed:
                told.count("handles_stored")
            elif entry.what == "evicted":
                told.count("handles_evicted", entry.said[0])
            elif entry.what == "record":
                told.count("audit_failures" if failed else "audit_records", entry.said[0])
                if entry.said[1]:
                    told.count("audit_evictions", times=entry.said[1])
            name = {"route": "route", "allocate": "budget.allocate", "store": "handle.store",
                    "record": "audit.record"}.get(entry.what)  # fmt: skip
            if self.debug and name is not None:
                self._step(name, entry.failure)

    def _step(self, name: str, failure: Failure | None) -> None:
        failed = failure is not None and failure.status != "cancelled"
        self._child(name, failed=failed, error=failure.kind if failure else None)


def _error_type(failure: Failure | None) -> str | None:
    if failure is None:
        return None
    # A task that is destroyed and not cancelled ends with GeneratorExit.
    return "CancelledError" if failure.status == "cancelled" else failure.kind


def session_of(kernel_id: str) -> str:
    """The name of a kernel's budget session, as the application tells it to the product."""
    return f"session of {kernel_id}"


def _category(code: str | None) -> str | None:
    return None if code is None else _CATEGORIES.get(code, "other")
