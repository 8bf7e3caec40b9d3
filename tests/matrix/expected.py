# SPDX-License-Identifier: Apache-2.0
"""What each scene of ``scenes.py`` must emit, told by what the release can do."""

from __future__ import annotations

from typing import Any

from agent_kernel_otel import semconv as s
from tests.matrix.spans import (
    ABSENT,
    PRESENT,
    Attributes,
    Span,
    attempt,
    enforce,
    evaluate,
    event,
    firewall,
    of,
)

_TABLE = {s.REQUESTED_RESPONSE_MODE: "table"}
_BEFORE_ANY_ACTION = {s.ACTION_ID: ABSENT, s.GEN_AI_TOOL_CALL_ID: ABSENT, s.DRIVER_ID: ABSENT}
_NOT_GRANTED_HERE: Attributes = {s.GRANT_AGE: ABSENT, s.GRANT_RULE: ABSENT}
_UNKNOWN = {s.SAFETY_CLASS: ABSENT, s.SENSITIVITY: ABSENT}
_DRY = {
    **_BEFORE_ANY_ACTION,
    s.DRY_RUN: True,
    s.DOWNGRADED: ABSENT,
    s.RESULT_FACTS: ABSENT,
    s.RESULT_ROWS: ABSENT,
    s.REDACTIONS: ABSENT,
    s.GEN_AI_OPERATION_NAME: ABSENT,
    s.GEN_AI_TOOL_NAME: ABSENT,
    s.GEN_AI_TOOL_TYPE: ABSENT,
    s.GEN_AI_TOOL_DESCRIPTION: ABSENT,
}


class Release:
    """The expectations of one release.

    Args:
        features: What the release can do.
        seen: What the app saw in each scene.
    """

    def __init__(self, features: set[str], seen: dict[str, Attributes]) -> None:
        self.features = features
        self.seen = seen
        self.about = {
            s.SYSTEM: s.SYSTEM_WEAVER,
            s.PRINCIPAL_ID: "agent-1",
            s.CAPABILITY_ID: "items.list",
            s.SAFETY_CLASS: "READ",
            s.SENSITIVITY: "NONE",
            s.KERNEL_ID: self._where("kernel_id", "agent-kernel"),
            s.ERROR_TYPE: ABSENT,
        }

    def expected(self) -> dict[str, list[Span]]:
        """The trees of every scene that this release can play."""
        trees = {
            "not instrumented": [],
            "uninstrumented": [],
            **self._lifecycle(),
            **self._grants(),
            **self._invocations(),
            **self._refusals(),
            **self._expansions(),
        }
        for feature, scenes in {
            "budget": self._budgets,
            "dry_run": self._dry_runs,
            "federation": self._federation,
            "streams": self._streams,
        }.items():
            if feature in self.features:
                trees |= scenes()
        return trees

    def _where(self, feature: str, value: Any) -> Any:
        return value if feature in self.features else ABSENT

    # Building blocks --------------------------------------------------------------------------

    def _grant(self, attributes: Attributes | None = None, policy: Span | None = None) -> Span:
        return Span(
            s.GRANT,
            {
                **self.about,
                s.STATUS: "success",
                s.TOKEN_ID: "<token>",
                s.TOKEN_TTL: "<float>",
                s.ACTION_ID: ABSENT,
                **(attributes or {}),
            },
            [policy or evaluate()],
        )

    def _invoke(self, scene: str, children: list[Span], attributes: Attributes) -> Span:
        app = self.seen[scene]
        return Span(
            s.INVOKE,
            {
                **self.about,
                s.STATUS: "success",
                s.REQUESTED_RESPONSE_MODE: "summary",
                s.RESPONSE_MODE: app.get("mode", ABSENT),
                s.DRY_RUN: False,
                s.STREAM: False,
                s.STREAM_END: ABSENT,
                s.TIME_TO_FIRST_CHUNK: ABSENT,
                s.TOKEN_ID: "<token>" if "token" in app else "<id>",
                s.GRANT_AGE: "<float>",
                s.SESSION: ABSENT,
                s.HANDLE_ID: "<handle>" if app.get("handle") else ABSENT,
                s.RESULT_FACTS: app.get("facts", ABSENT),
                s.RESULT_ROWS: app.get("rows", ABSENT),
                s.REDACTIONS: app.get("warnings", ABSENT),
                s.GEN_AI_OPERATION_NAME: "execute_tool",
                s.GEN_AI_TOOL_NAME: "items.list",
                s.GEN_AI_TOOL_TYPE: "function",
                s.GEN_AI_TOOL_DESCRIPTION: "The capability items.list.",
                **attributes,
            },
            [enforce(), *children],
            links=[s.GRANT],
        )

    def _served(
        self,
        scene: str,
        *children: Span,
        driver: str = "memory",
        attributes: Attributes | None = None,
    ) -> dict[str, list[Span]]:
        """An invocation that gives its caller a frame."""
        usual = {
            s.ACTION_ID: "<action>",
            s.GEN_AI_TOOL_CALL_ID: "<action>",
            s.DRIVER_ID: driver,
            s.FALLBACK: False,
            s.DOWNGRADED: False,
            s.DOWNGRADE_REASON: ABSENT,
        }
        children = children or (attempt(driver), firewall())
        return {scene: [self._invoke(scene, [*children], {**usual, **(attributes or {})})]}

    def _failed(
        self, scene: str, *children: Span, attributes: Attributes | None = None
    ) -> dict[str, list[Span]]:
        """An invocation that gives its caller an exception."""
        usual = {
            s.STATUS: "error",
            s.ERROR_TYPE: self.seen[scene]["raised"],
            s.ACTION_ID: "<id>",
            s.GEN_AI_TOOL_CALL_ID: "<id>",
        }
        span = self._invoke(scene, [*children], {**usual, **(attributes or {})})
        span.status, span.events = "ERROR", event(s.INVOKE_EXCEPTION)
        return {scene: [span]}

    def _refused(
        self, scene: str, reason_code: str, attributes: Attributes | None = None
    ) -> dict[str, list[Span]]:
        """An invocation whose token is refused, so that nothing but its check happens."""
        usual = {**_BEFORE_ANY_ACTION, s.STATUS: "denied", s.REASON_CODE: reason_code}
        tree = self._failed(scene, attributes={**usual, **(attributes or {})})
        tree[scene][0].children, tree[scene][0].events = [enforce(reason_code)], []
        return tree

    # Scenes -----------------------------------------------------------------------------------

    def _lifecycle(self) -> dict[str, list[Span]]:
        debug, one = "instrumented again, at level debug", "one kernel of two"
        session = {s.SESSION: self._where("budget", PRESENT)}
        invoke = self._served(debug, attributes=session)[debug][0]
        grant = self._grant()
        system = {s.SYSTEM: s.SYSTEM_WEAVER}
        allocate = Span(s.BUDGET, {**system, s.BUDGET_GRANTED: 4000})
        check, run, filtered = invoke.children
        invoke.children = [
            check,
            Span(s.ROUTE, {**system, s.ROUTE_DRIVERS: 1}),
            *([allocate] if "budget" in self.features else []),
            run,
            Span(s.HANDLE, system),
            filtered,
            Span(s.AUDIT, {**system, s.EVENT_TYPE: "invoke"}),
        ]
        for policy in (grant.children[0], check):
            policy.events = event(s.POLICY_DECISION, "DEBUG")
        return {
            debug: [grant, invoke],
            one: [self._grant(), *self._served(one)[one]],
        }

    def _grants(self) -> dict[str, list[Span]]:
        nothing_granted = {s.TOKEN_ID: ABSENT, s.TOKEN_TTL: ABSENT}
        write = {s.CAPABILITY_ID: "items.write", s.SAFETY_CLASS: "WRITE"}
        missing_role = {s.REASON_CODE: self._where("reason_codes", "missing_role")}
        category = {s.REASON_CATEGORY: self._where("reason_codes", "identity")}
        denied = self._grant(
            {
                **write,
                **nothing_granted,
                **missing_role,
                s.STATUS: "denied",
                s.ERROR_TYPE: "PolicyDenied",
                s.ACTION_ID: self._where("deny_trace", "<id>"),
            },
            evaluate({**missing_role, **category}, "denied"),
        )
        denied.status = "ERROR"
        denied.children[0].events = event(s.POLICY_DECISION)
        unknown = self._grant(
            {
                **_UNKNOWN,
                **nothing_granted,
                s.STATUS: "error",
                s.CAPABILITY_ID: "no.such",
                s.ERROR_TYPE: "CapabilityNotFound",
            }
        )
        unknown.status, unknown.events, unknown.children = "ERROR", event(s.GRANT_EXCEPTION), []
        allow = {s.REASON_CODE: self._where("reason_codes", "default_policy_allow")}
        slotted = {s.POLICY_ENGINE: "SlottedPolicy", s.REASON_CODE: ABSENT}
        return {
            "grant_allowed": [self._grant(policy=evaluate(allow))],
            "get_token": [self._grant()],
            "grant_by_slotted_policy": [self._grant(write, evaluate(slotted))],
            "grant_denied": [denied],
            "grant_of_unknown_capability": [unknown],
        }

    def _invocations(self) -> dict[str, list[Span]]:
        memory = attempt("memory")
        broken = attempt("broken", "error", "DriverError")
        broken_too = attempt("broken-too", "error", "DriverError")
        slow = attempt("slow", "cancelled", "CancelledError")
        redactions = self.seen["invoke_redacted"]["warnings"]
        scene = "invoke_cancelled"
        cancelled = self._failed(scene, slow, attributes=of("slow.run", {s.STATUS: "cancelled"}))
        cancelled[scene][0].status, cancelled[scene][0].events = "UNSET", []
        return {
            **cancelled,
            **self._served("invoke_success", memory, firewall("table"), attributes=_TABLE),
            **self._served("invoke_on_early_kernel"),
            **self._served("invoke_slotted_driver", driver="slotted", attributes=of("slotted.run")),
            **self._served(
                "invoke_fallback",
                broken,
                memory,
                firewall(),
                attributes=of("mail.send", {s.FALLBACK: True}),
            ),
            **self._served(
                "invoke_redacted",
                memory,
                firewall("table", redactions),
                attributes={**_TABLE, **of("people.list", {s.SENSITIVITY: "PII"})},
            ),
            **self._served(
                "invoke_raw_by_non_admin",
                attributes={
                    s.REQUESTED_RESPONSE_MODE: "raw",
                    s.RESPONSE_MODE: "summary",
                    s.DOWNGRADED: True,
                    s.DOWNGRADE_REASON: "admin_gate",
                },
            ),
            **self._failed(
                "invoke_all_drivers_fail",
                broken,
                broken_too,
                attributes=of("doomed.run", {s.FALLBACK: True, s.DRIVER_ID: "broken-too"}),
            ),
        }

    def _refusals(self) -> dict[str, list[Span]]:
        expired = self._refused("invoke_expired_token", "token_expired", _NOT_GRANTED_HERE)
        unknown = self._failed(
            "invoke_unknown_capability",
            attributes={
                **of("no.such", {s.GEN_AI_TOOL_DESCRIPTION: ABSENT}),
                **_UNKNOWN,
                **_BEFORE_ANY_ACTION,
                **_NOT_GRANTED_HERE,
            },
        )
        for tree in (*expired.values(), *unknown.values()):
            tree[0].links = []
        return {
            **expired,
            **unknown,
            **self._refused("invoke_revoked_token", "token_revoked"),
            **self._refused("invoke_forged_token", "token_invalid"),
            **self._refused(
                "invoke_token_of_another_principal",
                "token_principal_mismatch",
                {s.PRINCIPAL_ID: "agent-2"},
            ),
        }

    def _dry_runs(self) -> dict[str, list[Span]]:
        dry = self._invoke("dry_run", [], {**_DRY, s.RESPONSE_MODE: "summary"})
        return {"dry_run": [dry], **self._refused("dry_run_refused", "token_revoked", _DRY)}

    def _budgets(self) -> dict[str, list[Span]]:
        session = {s.SESSION: PRESENT}
        return {
            **self._failed("budget_exhausted", attributes={**_BEFORE_ANY_ACTION, **session}),
            **self._served(
                "budget_downgrade",
                attributes={
                    **_TABLE,
                    **session,
                    s.RESPONSE_MODE: "summary",
                    s.DOWNGRADED: True,
                    s.DOWNGRADE_REASON: "budget",
                },
            ),
        }

    def _expansions(self) -> dict[str, list[Span]]:
        def expansion(status: str, attributes: Attributes) -> Span:
            about = {
                **self.about,
                s.PRINCIPAL_ID: self._where("expand_principal", "agent-1"),
                s.HANDLE_ID: "<handle>",
                s.ACTION_ID: "<id>" if self.seen["expand"]["action"] else ABSENT,
                s.STATUS: status,
            }
            return Span(
                s.EXPAND,
                {**about, **attributes},
                status="UNSET" if status == "success" else "ERROR",
            )

        action = "<action>" if self.seen["expand"]["action"] else ABSENT
        served = expansion("success", {s.ACTION_ID: action, s.RESULT_ROWS: 5})
        gone = expansion("error", {s.ERROR_TYPE: "HandleNotFound"})
        gone.events = event(s.EXPAND_EXCEPTION)
        trees = {"expand": [served], "expand_gone": [gone]}
        if "handle_constraints" in self.features:
            denied = expansion(
                "denied",
                {
                    s.PRINCIPAL_ID: "agent-2",
                    s.ERROR_TYPE: "HandleConstraintViolation",
                    s.REASON_CODE: "handle_principal_mismatch",
                },
            )
            denied.events = event(s.POLICY_DECISION)
            trees["expand_by_another_principal"] = [denied]
        return trees

    def _streams(self) -> dict[str, list[Span]]:
        begun = {s.STREAM: True, s.TIME_TO_FIRST_CHUNK: "<float>"}
        framed = {
            **begun,
            s.RESPONSE_MODE: "summary",
            s.RESULT_FACTS: PRESENT,
            s.RESULT_ROWS: 0,
            s.REDACTIONS: 0,
        }
        served = (firewall(), attempt("streamer"))
        cut_off = Span(s.FIREWALL, {s.SYSTEM: s.SYSTEM_WEAVER}, status=None)
        facts = {s.RESULT_FACTS: self.seen["stream_exhausted"]["facts"]}
        return {
            **self._served(
                "stream_exhausted",
                *served,
                driver="streamer",
                attributes=of("stream.run", {**framed, **facts, s.STREAM_END: "exhausted"}),
            ),
            **self._served(
                "stream_closed_early",
                *served,
                driver="streamer",
                attributes=of("stream.run", {**framed, s.STREAM_END: "closed"}),
            ),
            **self._served(
                "stream_of_plain_driver", attributes={**framed, s.STREAM_END: "exhausted"}
            ),
            **self._failed(
                "stream_failed",
                cut_off,
                attempt("streamer", "error", "DriverError"),
                attributes=of(
                    "stream.fail",
                    {
                        **begun,
                        s.STREAM_END: "failed",
                        s.ACTION_ID: "<action>",
                        s.GEN_AI_TOOL_CALL_ID: "<action>",
                    },
                ),
            ),
            **self._refused(
                "stream_refused",
                "token_revoked",
                of("stream.run", {s.STREAM: True, s.STREAM_END: "failed"}),
            ),
        }

    def _federation(self) -> dict[str, list[Span]]:
        near = {s.SYSTEM: s.SYSTEM_WEAVER, s.KERNEL_ID: "near", s.STATUS: "success"}
        imported, found = self.seen["federation_import"], self.seen["federation_discover"]
        importing = {
            s.FEDERATION_TRUST_POLICY: "most_restrictive",
            s.FEDERATION_CAPABILITIES: imported["capabilities"],
        }
        discovery = {
            s.FEDERATION_PEERS: found["peers"],
            s.FEDERATION_CAPABILITIES: found["capabilities"],
        }
        return {
            "federation_import": [Span(s.IMPORT, {**near, **importing})],
            "federation_discover": [Span(s.DISCOVER, {**near, **discovery})],
        }
