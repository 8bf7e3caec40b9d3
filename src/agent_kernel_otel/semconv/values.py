# SPDX-License-Identifier: Apache-2.0
"""Values that the code needs by name, and how many of each open set metrics keep apart."""

from __future__ import annotations

from typing import Final

SCOPE_WEAVER: Final = "agent_kernel_otel.weaver"
"""Instrumentation scope of everything that the Weaver kernel's adapter emits."""
SYSTEM_WEAVER: Final = "weaver_kernel"
"""Value of ``agent_kernel.system`` for the Weaver kernel, under both of its import names."""
OTHER: Final = "_OTHER"
"""On metrics, all values of an open set past its limit, and ids that the kernel does not know."""
ABSENT_REASON: Final = "unknown"
"""On metrics, ``agent_kernel.reason_code`` of a denial that gives none."""
CAPABILITY_ID_LIMIT: Final = 100
"""The default of the ``capability_id_limit`` setting."""
DRIVER_ID_LIMIT: Final = 50
ERROR_TYPE_LIMIT: Final = 50
POLICY_ENGINE_LIMIT: Final = 50
REASON_CODE_LIMIT: Final = 100
"""Reason codes besides :data:`KNOWN_REASON_CODES`."""
RULE_NAME_LIMIT: Final = 100
SESSION_LIMIT: Final = 50
KNOWN_REASON_CODES: Final = (
    "missing_role", "missing_tenant_attribute", "missing_attribute", "insufficient_justification",
    "invalid_constraint", "rate_limited", "no_matching_rule", "explicit_deny_rule",
    "intent_not_allowed", "scope_not_allowed", "handle_constraint_violation",
    "handle_principal_mismatch", "memory_write_requires_writer", "memory_sensitive_read_denied",
    "token_expired", "token_revoked", "token_invalid", "token_principal_mismatch",
    "token_capability_mismatch", ABSENT_REASON,
)  # fmt: skip
"""Values of ``agent_kernel.reason_code`` that metrics always keep apart."""
