# SPDX-License-Identifier: Apache-2.0
"""Refused grants: every engine, every reason, and decisions that are not obeyed."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from weaver_kernel import (
    AllowReason,
    Capability,
    CapabilityNotFound,
    CapabilityRegistry,
    DeclarativePolicyEngine,
    DefaultPolicyEngine,
    DenialReason,
    HMACTokenProvider,
    Kernel,
    PolicyDecision,
    PolicyDenied,
    Principal,
    SafetyClass,
    SensitivityTag,
)
from weaver_kernel.coding_agent import CodingAgentPolicyEngine

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.instrumented import drain, open_stream
from tests.support.kernels import ALICE, READ, WRITE, StreamingDriver, grant, make_kernel, token_of
from tests.support.refusals import check_decision, check_denied, check_failed

LONG = "needed for the weekly report"
KINDS = [
    ("read", SafetyClass.READ, SensitivityTag.NONE),
    ("write", SafetyClass.WRITE, SensitivityTag.NONE),
    ("purge", SafetyClass.DESTRUCTIVE, SensitivityTag.NONE),
    ("people", SafetyClass.READ, SensitivityTag.PII),
    ("cards", SafetyClass.READ, SensitivityTag.PCI),
    ("keys", SafetyClass.READ, SensitivityTag.SECRETS),
    ("memory.read", SafetyClass.READ, SensitivityTag.MEMORY),
    ("memory.write", SafetyClass.WRITE, SensitivityTag.MEMORY),
    ("repo.read.files", SafetyClass.READ, SensitivityTag.NONE),
    ("repo.write.files", SafetyClass.WRITE, SensitivityTag.NONE),
    ("github.create_pr", SafetyClass.WRITE, SensitivityTag.NONE),
]


def kernel_with(policy: Any) -> Kernel:
    registry = CapabilityRegistry()
    for capability_id, safety, sensitivity in KINDS:
        registry.register(
            Capability(capability_id, capability_id, capability_id, safety, sensitivity)
        )
    return Kernel(registry, policy, HMACTokenProvider(secret="test-signing-key"))


@dataclass(frozen=True)
class Refusal:
    code: str
    category: str
    engine: Callable[[], Any]
    capability: str
    roles: tuple[str, ...] = ()
    justification: str = LONG
    request: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    grants_before: int = 0

    def __str__(self) -> str:
        return f"{self.engine().__class__.__name__}-{self.code}-{self.capability}"


def default() -> DefaultPolicyEngine:
    return DefaultPolicyEngine(rate_limits={SafetyClass.READ: (2, 60.0)})


def declarative() -> DeclarativePolicyEngine:
    rules = [
        {"name": "no-purging", "match": {"safety_class": ["DESTRUCTIVE"]}, "action": "deny"},
        {"name": "readers", "match": {"roles": ["reader"]}, "action": "allow"},
    ]
    return DeclarativePolicyEngine.from_dict({"rules": rules})


REFUSALS = [
    Refusal("missing_role", "identity", default, "write"),
    Refusal("missing_role", "identity", default, "purge", ("writer",)),
    Refusal("missing_role", "identity", default, "keys"),
    Refusal("insufficient_justification", "justification", default, "write", ("writer",), "short"),
    Refusal("insufficient_justification", "justification", default, "purge", ("admin",), "  "),
    Refusal("insufficient_justification", "justification", default, "keys", ("admin",), ""),
    Refusal("missing_tenant_attribute", "identity", default, "people"),
    Refusal("missing_tenant_attribute", "identity", default, "cards"),
    Refusal("memory_sensitive_read_denied", "memory", default, "memory.read",
            request={"scope": {"memory_scope": "sensitive"}}),
    Refusal("memory_write_requires_writer", "memory", default, "memory.write", ("writer",)),
    Refusal("invalid_constraint", "constraint", default, "read",
            request={"constraints": {"max_rows": "many"}}),
    Refusal("rate_limited", "rate_limit", default, "read", grants_before=2),
    Refusal("no_matching_rule", "rule", declarative, "read"),
    Refusal("explicit_deny_rule", "rule", declarative, "purge", ("reader",)),
    Refusal("no_matching_rule", "rule", CodingAgentPolicyEngine, "read"),
    Refusal("scope_not_allowed", "scope", CodingAgentPolicyEngine, "repo.read.files"),
    Refusal("explicit_deny_rule", "rule", CodingAgentPolicyEngine, "repo.read.files",
            request={"scope": {"path": ".env"}}),
    Refusal("missing_role", "identity", CodingAgentPolicyEngine, "repo.write.files"),
    Refusal("missing_attribute", "identity", CodingAgentPolicyEngine, "github.create_pr",
            request={"scope": {"task_id": "T-1"}}),
    Refusal("insufficient_justification", "justification", CodingAgentPolicyEngine,
            "github.create_pr", justification="short", request={"scope": {"task_id": "T-1"}},
            attributes={"approved_task_id": "T-1"}),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=str)
def test_each_reason_of_the_kernels_engines_is_told(capture: Capture, case: Refusal) -> None:
    kernel = kernel_with(case.engine())
    principal = Principal("dave", roles=list(case.roles), attributes=case.attributes)

    def ask() -> None:
        grant(kernel, case.capability, principal, case.justification, **case.request)

    for _ in range(case.grants_before):
        ask()
    capture.clear()
    with pytest.raises(PolicyDenied) as raised:
        ask()
    assert raised.value.reason_code == case.code
    root = check_denied(
        capture,
        semconv.GRANT,
        error=raised.value,
        phase="grant",
        engine=type(case.engine()).__name__,
        code=case.code,
        category=case.category,
    )
    assert root[semconv.CAPABILITY_ID] == case.capability
    assert root[semconv.PRINCIPAL_ID] == "dave"
    assert root.get(semconv.TOKEN_ID) is None
    (record,) = [trace for trace in kernel.list_traces() if trace.event_type == "deny"]
    assert root[semconv.ACTION_ID] == record.action_id
    assert str(raised.value) not in capture.exported_text()


def test_the_table_above_has_every_reason_that_a_grant_can_be_refused_for() -> None:
    only_at_expansion = {"handle_constraint_violation", "handle_principal_mismatch"}
    only_in_explanations = {"intent_not_allowed"}
    told = {case.code for case in REFUSALS}
    assert told == {str(code) for code in DenialReason} - only_at_expansion - only_in_explanations


class Code(str, Enum):
    QUOTA = "quota.exceeded"


class Bare(Enum):
    QUOTA = "quota.exceeded"


class RefusedError(Exception):
    """No class of the kernel's, yet coded like one."""

    def __init__(self, reason_code: object) -> None:
        super().__init__("refused")
        self.reason_code = reason_code


class Engine:
    """A policy engine of the app's own that does one thing, and counts how often."""

    def __init__(self, does: Callable[[], Any]) -> None:
        self.does = does
        self.asked = 0

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return self.does()


def raising(error: BaseException) -> Engine:
    def does() -> None:
        raise error

    return Engine(does)


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (PolicyDenied("no", reason_code="quota.exceeded"), "quota.exceeded", "other"),
        (PolicyDenied("no", reason_code=Code.QUOTA), "quota.exceeded", "other"),
        (PolicyDenied("no", reason_code=DenialReason.RATE_LIMITED), "rate_limited", "rate_limit"),
        (PolicyDenied("no"), None, None),
        (PolicyDenied("no", reason_code=""), None, None),
        (PolicyDenied("no", reason_code=7), None, None),  # type: ignore[arg-type]
        (PolicyDenied("no", reason_code=Bare.QUOTA), None, None),  # type: ignore[arg-type]
        (PolicyDenied("no", reason_code="x" * 5000), "x" * 256, "other"),
        (RefusedError("after_hours"), "after_hours", "other"),
        (RefusedError(Code.QUOTA), "quota.exceeded", "other"),
    ],
    ids=repr,
)
def test_an_engine_of_the_apps_own_may_use_any_code(
    capture: Capture, error: Exception, code: str | None, category: str | None
) -> None:
    cause = KeyError("the cause")
    error.__cause__ = cause
    engine = raising(error)
    with pytest.raises(type(error)) as raised:
        grant(make_kernel(policy=engine))
    assert raised.value is error
    assert error.__cause__ is cause
    assert traceback.extract_tb(error.__traceback__)[-1].name == "does"
    assert engine.asked == 1
    check_denied(
        capture, semconv.GRANT,
        error=error, phase="grant", engine="Engine", code=code, category=category,
    )  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("a bug"),
        RefusedError(None),
        RefusedError(3),
        KeyboardInterrupt("stop"),
        SystemExit(3),
    ],
    ids=repr,
)
def test_an_engine_that_crashes_has_decided_nothing(capture: Capture, error: BaseException) -> None:
    engine = raising(error)
    with pytest.raises(type(error)) as raised:
        grant(make_kernel(policy=engine))
    assert raised.value is error
    assert engine.asked == 1
    root = capture.root(semconv.GRANT)
    assert root[semconv.STATUS] == "error"
    assert root.status == "ERROR"
    policy = root.only(semconv.POLICY)
    assert policy[semconv.POLICY_OUTCOME] == "error"
    assert policy[semconv.ERROR_TYPE] == type(error).__qualname__
    assert policy.status == "ERROR"
    assert policy.get(semconv.REASON_CODE) is None
    (event,) = capture.events()
    assert event.name == semconv.GRANT_EXCEPTION


def test_an_exception_whose_code_cannot_be_read_is_passed_on_as_it_is(capture: Capture) -> None:
    class HostileError(Exception):
        @property
        def reason_code(self) -> str:
            raise RuntimeError("not yours")

    error = HostileError()
    with pytest.raises(HostileError) as raised:
        grant(make_kernel(policy=raising(error)))
    assert raised.value is error
    check_failed(capture, semconv.GRANT, error)


def test_an_unknown_capability_is_an_error_without_a_decision(capture: Capture) -> None:
    kernel = make_kernel()
    with pytest.raises(CapabilityNotFound, match="nowhere") as raised:
        grant(kernel, "nowhere")
    root = check_failed(capture, semconv.GRANT, raised.value)
    assert not root.children
    assert root.get(semconv.SAFETY_CLASS) is None


# Decisions that are returned ------------------------------------------------------------------


def test_a_denial_that_is_returned_and_not_raised_is_told_as_not_enforced(
    capture: Capture,
) -> None:
    engine = Engine(
        lambda: PolicyDecision(
            allowed=False, reason="no", reason_code=DenialReason.EXPLICIT_DENY_RULE
        )
    )
    kernel = make_kernel(policy=engine)
    granted = grant(kernel)  # the kernel issues the token all the same
    root = capture.root(semconv.GRANT)
    assert root[semconv.STATUS] == "success"
    assert root.status == "UNSET"
    assert root[semconv.TOKEN_ID] == granted.token.token_id
    assert root.get(semconv.REASON_CODE) is None
    policy = root.only(semconv.POLICY)
    assert policy.status == "UNSET"
    assert policy[semconv.POLICY_OUTCOME] == "denied"
    assert policy[semconv.POLICY_ENFORCED] is False
    assert policy[semconv.REASON_CODE] == "explicit_deny_rule"
    assert type(policy[semconv.REASON_CODE]) is str
    event = check_decision(
        capture, policy, phase="grant", engine="Engine", code="explicit_deny_rule", category="rule"
    )
    assert event[semconv.POLICY_ENFORCED] is False
    assert engine.asked == 1


def test_an_allow_says_why_and_gives_no_event(capture: Capture) -> None:
    grant(make_kernel())
    policy = capture.root(semconv.GRANT).only(semconv.POLICY)
    assert policy[semconv.POLICY_OUTCOME] == "allowed"
    assert policy[semconv.REASON_CODE] == str(AllowReason.DEFAULT_POLICY_ALLOW)
    assert policy.get(semconv.REASON_CATEGORY) is None
    assert policy.get(semconv.POLICY_ENFORCED) is None
    assert not capture.events()


def test_an_allow_gives_an_event_at_level_debug(debug_capture: Capture) -> None:
    grant(make_kernel())
    (event,) = debug_capture.events()
    assert event.name == semconv.POLICY_DECISION
    assert event.severity == "DEBUG"
    assert event.attributes[semconv.POLICY_OUTCOME] == "allowed"


# What goes wrong around a decision ------------------------------------------------------------


def test_a_trace_store_that_fails_does_not_mask_the_denial(capture: Capture) -> None:
    class Full:
        def record(self, _: object) -> None:
            raise OSError("disk full")

    with pytest.raises(PolicyDenied) as raised:
        grant(make_kernel(trace_store=Full()), WRITE)
    check_denied(
        capture, semconv.GRANT, error=raised.value, phase="grant",
        engine="DefaultPolicyEngine", code="missing_role", category="identity",
    )  # fmt: skip


def test_a_token_provider_that_cannot_issue_fails_an_allowed_grant(capture: Capture) -> None:
    class Provider(HMACTokenProvider):
        def issue(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError("no entropy")

    with pytest.raises(OSError, match="no entropy") as raised:
        grant(make_kernel(token_provider=Provider(secret="test-signing-key")))
    root = check_failed(capture, semconv.GRANT, raised.value)
    assert root.only(semconv.POLICY)[semconv.POLICY_OUTCOME] == "allowed"


async def test_a_token_without_a_grant_has_no_link_and_no_age(capture: Capture) -> None:
    kernel = make_kernel()
    await kernel.invoke(token_of(kernel, READ), principal=ALICE, args={})
    invoke = capture.root(semconv.INVOKE)
    assert not invoke.span.links
    assert invoke.get(semconv.GRANT_AGE) is None


# Refusals that no policy engine and no token provider made -------------------------------------


def test_a_grant_refused_while_the_token_is_issued_is_told_once(capture: Capture) -> None:
    error = PolicyDenied("too many tokens", reason_code="token_quota")

    class Provider(HMACTokenProvider):
        def issue(self, *args: Any, **kwargs: Any) -> Any:
            raise error

    with pytest.raises(PolicyDenied):
        grant(make_kernel(token_provider=Provider(secret="test-signing-key")))
    root = capture.root(semconv.GRANT)
    assert root[semconv.STATUS] == "denied"
    assert root[semconv.REASON_CODE] == "token_quota"
    assert root.only(semconv.POLICY)[semconv.POLICY_OUTCOME] == "allowed"
    check_decision(
        capture, root, phase="grant", engine="Kernel", code="token_quota", category="other"
    )


async def test_an_invocation_refused_after_its_token_was_accepted_is_told_once(
    capture: Capture,
) -> None:
    class Limited:
        def route(self, _: str) -> Any:
            raise PolicyDenied("slow down", reason_code=DenialReason.RATE_LIMITED)

    kernel = make_kernel(router=Limited())
    with pytest.raises(PolicyDenied):
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    root = capture.root(semconv.INVOKE)
    assert root[semconv.STATUS] == "denied"
    assert root.status == "ERROR"
    assert root.only(semconv.POLICY)[semconv.POLICY_OUTCOME] == "allowed"
    check_decision(
        capture, root, phase="enforce", engine="Kernel", code="rate_limited",
        category="rate_limit",
    )  # fmt: skip


async def test_a_stream_refused_by_its_driver_is_told_once(capture: Capture) -> None:
    def before_chunk(_: int) -> None:
        raise PolicyDenied("not these rows", reason_code="row_level")

    with pytest.raises(PolicyDenied):
        await drain(open_stream(make_kernel(StreamingDriver(before_chunk=before_chunk))))
    root = capture.root(semconv.INVOKE)
    assert root[semconv.STATUS] == "denied"
    assert root.only(semconv.DRIVER)[semconv.STATUS] == "error"
    check_decision(
        capture, root, phase="enforce", engine="Kernel", code="row_level", category="other"
    )
