# SPDX-License-Identifier: Apache-2.0
"""What holds for every denial and for every failure, whatever refused or failed."""

from __future__ import annotations

from typing import Any

from agent_kernel_otel import semconv
from tests.support.capture import Capture, Event, Node


def check_context(event: Event, node: Node) -> None:
    """The event is in the context of that span."""
    assert node.span.context is not None
    assert event.trace_id == node.span.context.trace_id
    assert event.span_id == node.span.context.span_id


def check_denied(
    capture: Capture,
    operation: str,
    *,
    error: BaseException,
    phase: str,
    engine: str,
    code: str | None,
    category: str | None,
) -> Node:
    """The one operation was denied, and says so once: by its spans and by one decision event."""
    root = capture.root(operation)
    assert root.status == "ERROR"
    assert root.span.status.description is None
    assert root[semconv.STATUS] == "denied"
    assert root[semconv.ERROR_TYPE] == type(error).__qualname__
    assert root.get(semconv.REASON_CODE) == code
    assert type(root.get(semconv.REASON_CODE)) in {str, type(None)}
    where = root
    if phase != "expand":
        where = policy = root.only(semconv.POLICY)
        assert policy.status == "UNSET"
        assert policy.span.status.description is None
        assert policy[semconv.POLICY_OUTCOME] == "denied"
        assert policy[semconv.POLICY_PHASE] == phase
        assert policy[semconv.POLICY_ENGINE] == engine
        assert policy.get(semconv.REASON_CODE) == code
        assert policy.get(semconv.REASON_CATEGORY) == category
        assert policy.get(semconv.ERROR_TYPE) is None
        assert policy.get(semconv.POLICY_ENFORCED) is None
    check_decision(capture, where, phase=phase, engine=engine, code=code, category=category)
    return root


def check_decision(
    capture: Capture,
    where: Node,
    *,
    phase: str,
    engine: str,
    code: str | None,
    category: str | None,
) -> dict[str, Any]:
    """The only event is the decision, and its body says nothing that its attributes do not."""
    (event,) = capture.events()
    assert event.name == semconv.POLICY_DECISION
    assert event.severity == "WARN"
    assert event.attributes[semconv.POLICY_OUTCOME] == "denied"
    assert event.attributes[semconv.POLICY_PHASE] == phase
    assert event.attributes[semconv.POLICY_ENGINE] == engine
    assert event.attributes.get(semconv.REASON_CODE) == code
    assert type(event.attributes.get(semconv.REASON_CODE)) in {str, type(None)}
    assert event.attributes.get(semconv.REASON_CATEGORY) == category
    capability = event.attributes[semconv.CAPABILITY_ID]
    reason = f" ({code})" if code else ""
    assert event.body == f"denied at {phase}: {capability}{reason}"
    check_context(event, where)
    return event.attributes


def check_failed(capture: Capture, operation: str, error: BaseException) -> Node:
    """The one operation failed, and says so by its span and by one exception event."""
    root = capture.root(operation)
    assert root.status == "ERROR"
    assert root.span.status.description is None
    assert root[semconv.STATUS] == "error"
    assert root[semconv.ERROR_TYPE] == type(error).__qualname__
    assert root.get(semconv.REASON_CODE) is None
    (event,) = capture.events()
    kind = type(error)
    assert event.name == semconv.EXCEPTION_EVENTS[operation]
    assert event.severity == "WARN"
    assert event.attributes[semconv.EXCEPTION_TYPE] == f"{kind.__module__}.{kind.__qualname__}"
    assert event.attributes[semconv.STATUS] == "error"
    assert semconv.EXCEPTION_MESSAGE not in event.attributes
    assert not {"exception.message", "exception.stacktrace"} & event.attributes.keys()
    assert event.body == f"{operation} raised {kind.__qualname__}"
    check_context(event, root)
    if str(error):
        assert str(error) not in capture.exported_text()
    return root


def check_cancelled(capture: Capture, operation: str) -> Node:
    """The one operation was cancelled, which is no error and gives no event."""
    root = capture.root(operation)
    assert root.status == "UNSET"
    assert root[semconv.STATUS] == "cancelled"
    assert root[semconv.ERROR_TYPE] == "CancelledError"
    assert not capture.events()
    return root
