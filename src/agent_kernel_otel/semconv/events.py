# SPDX-License-Identifier: Apache-2.0
"""The log events."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.semconv.definitions import EventDefinition
from agent_kernel_otel.semconv.spans import (
    DISCOVER,
    EXPAND,
    GRANT,
    IMPORT,
    INVOKE,
)

EVENTS: Final[dict[str, EventDefinition]] = {}


def _event(name: str, severity: str, description: str) -> str:
    EVENTS[name] = EventDefinition(name, severity, description)
    return name


POLICY_DECISION: Final = _event(
    "agent_kernel.policy.decision",
    "WARN for a denial, DEBUG for an allow",
    "Each denial, at grant, enforcement or handle expansion, and each decision that an engine "
    "returned as not allowed without raising; allows only at span level `debug`.",
)
_EXCEPTION = "The operation raised to its caller, and it was neither a denial nor a cancellation."
GRANT_EXCEPTION: Final = _event("agent_kernel.grant.exception", "WARN", _EXCEPTION)
INVOKE_EXCEPTION: Final = _event("agent_kernel.invoke.exception", "WARN", _EXCEPTION)
EXPAND_EXCEPTION: Final = _event("agent_kernel.expand.exception", "WARN", _EXCEPTION)
DISCOVER_EXCEPTION: Final = _event("agent_kernel.federation.discover.exception", "WARN", _EXCEPTION)
IMPORT_EXCEPTION: Final = _event("agent_kernel.federation.import.exception", "WARN", _EXCEPTION)

EXCEPTION_EVENTS: Final = {
    GRANT: GRANT_EXCEPTION,
    INVOKE: INVOKE_EXCEPTION,
    EXPAND: EXPAND_EXCEPTION,
    DISCOVER: DISCOVER_EXCEPTION,
    IMPORT: IMPORT_EXCEPTION,
}
"""Which event reports the exception of which operation span."""
