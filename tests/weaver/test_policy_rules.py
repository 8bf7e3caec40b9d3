# SPDX-License-Identifier: Apache-2.0
"""Names of the rules that decided, and engines that are asked exactly as often as without us."""

from __future__ import annotations

from typing import Any

import pytest
from weaver_kernel import (
    CapabilityRequest,
    DeclarativePolicyEngine,
    DefaultPolicyEngine,
    PolicyDecision,
    PolicyDenied,
    Principal,
    SafetyClass,
)

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.kernels import ALICE, DESTROY, READ, WRITE, grant, make_kernel


def declarative() -> DeclarativePolicyEngine:
    rules = [
        {"name": "no-purging", "match": {"safety_class": ["DESTRUCTIVE"]}, "action": "deny"},
        {"name": "readers", "match": {"roles": ["reader"]}, "action": "allow"},
    ]
    return DeclarativePolicyEngine.from_dict({"rules": rules})


async def test_the_rule_that_allowed_is_named_at_the_grant_and_at_its_invocations(
    capture: Capture,
) -> None:
    kernel = make_kernel(policy=declarative())
    token = grant(kernel).token
    await kernel.invoke(token, principal=ALICE, args={})
    assert capture.root(semconv.GRANT).only(semconv.POLICY)["security_rule.name"] == "readers"
    assert capture.root(semconv.INVOKE)[semconv.GRANT_RULE] == "readers"


def test_the_rule_that_denied_is_named(capture: Capture) -> None:
    with pytest.raises(PolicyDenied):
        grant(make_kernel(policy=declarative()), DESTROY)
    policy = capture.root(semconv.GRANT).only(semconv.POLICY)
    assert policy[semconv.SECURITY_RULE_NAME] == "no-purging"
    (event,) = capture.events()
    assert event.attributes[semconv.SECURITY_RULE_NAME] == "no-purging"


def test_no_rule_is_named_where_none_matched(capture: Capture) -> None:
    nobody = Principal("nobody", roles=[])
    with pytest.raises(PolicyDenied):
        grant(make_kernel(policy=declarative()), READ, nobody)
    assert capture.root(semconv.GRANT).only(semconv.POLICY).get(semconv.SECURITY_RULE_NAME) is None


@pytest.mark.parametrize(("capability", "allowed"), [(READ, True), (DESTROY, False)])
def test_an_engine_derived_from_the_kernels_is_asked_exactly_once(
    capture: Capture, capability: str, allowed: bool
) -> None:
    asked = []

    class Counting(DeclarativePolicyEngine):
        def evaluate(self, request: CapabilityRequest, *args: Any, **kwargs: Any) -> PolicyDecision:
            asked.append(request.capability_id)
            return super().evaluate(request, *args, **kwargs)

        def explain(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("nobody asked for an explanation")

    rules, kind = declarative()._rules, Counting
    if allowed:
        grant(make_kernel(policy=kind(rules)), capability)
    else:
        with pytest.raises(PolicyDenied):
            grant(make_kernel(policy=kind(rules)), capability)
    assert asked == [capability]


def test_an_engine_whose_evaluate_was_replaced_is_asked_exactly_once(capture: Capture) -> None:
    engine = declarative()
    asked = []
    original = engine.evaluate

    def evaluate(*args: Any, **kwargs: Any) -> PolicyDecision:
        asked.append(args)
        return original(*args, **kwargs)

    engine.evaluate = evaluate  # type: ignore[method-assign]
    with pytest.raises(PolicyDenied):
        grant(make_kernel(policy=engine), DESTROY)
    assert len(asked) == 1


def test_a_rate_limit_is_used_up_only_by_the_grants_themselves(capture: Capture) -> None:
    kernel = make_kernel(policy=DefaultPolicyEngine(rate_limits={SafetyClass.READ: (2, 60.0)}))
    grant(kernel)
    grant(kernel)
    with pytest.raises(PolicyDenied):
        grant(kernel)


def test_an_explanation_is_no_decision(capture: Capture) -> None:
    explanation = make_kernel().explain_denial(
        CapabilityRequest(WRITE, goal="g"), ALICE, justification=""
    )
    assert explanation.denied
    assert not capture.spans()
    assert not capture.events()
