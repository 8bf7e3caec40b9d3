# SPDX-License-Identifier: Apache-2.0
"""What an exception of the Weaver kernel means: its status, its reason code, its category.

Classes are known by name and module, never by import: the kernel may not be imported yet, has
two import names, and its older releases lack some of the classes.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from functools import lru_cache
from typing import Final, cast

from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import SUCCESS, Outcome

IMPORT_NAMES: Final = ("weaver_kernel", "agent_kernel")
CANCELLED: Final = Outcome("cancelled", "CancelledError")
_OWN_MODULES: Final = tuple(f"{name}." for name in IMPORT_NAMES)

_DENIALS: Final = frozenset(
    {
        "PolicyDenied",
        "TokenExpired",
        "TokenRevoked",
        "TokenInvalid",
        "TokenScopeError",
        "HandleConstraintViolation",
    }
)
_TOKEN_REASONS: Final = {
    "TokenExpired": "token_expired",
    "TokenRevoked": "token_revoked",
    "TokenInvalid": "token_invalid",
}
_CATEGORIES: Final = {
    "missing_role": "identity",
    "missing_tenant_attribute": "identity",
    "missing_attribute": "identity",
    "insufficient_justification": "justification",
    "invalid_constraint": "constraint",
    "rate_limited": "rate_limit",
    "no_matching_rule": "rule",
    "explicit_deny_rule": "rule",
    "intent_not_allowed": "scope",
    "scope_not_allowed": "scope",
    "handle_constraint_violation": "handle",
    "handle_principal_mismatch": "handle",
    "memory_write_requires_writer": "memory",
    "memory_sensitive_read_denied": "memory",
    "token_expired": "token",
    "token_revoked": "token",
    "token_invalid": "token",
    "token_principal_mismatch": "token",
    "token_capability_mismatch": "token",
}


def _is_foreign(kind: type) -> bool:
    return not str(kind.__module__).startswith(_OWN_MODULES)


is_foreign = cast("Callable[[type], bool]", lru_cache(maxsize=256)(_is_foreign))
"""Whether a collaborator's class is the user's, and not the kernel's own.

Remembered for the last classes only, because mocks have one each.
"""


def classify(error: BaseException | None) -> Outcome:
    """How a call ended that raised ``error``, or none.

    Args:
        error: What its caller sees.

    Returns:
        The outcome; the reason code only where the exception itself holds one.
    """
    if error is None:
        return SUCCESS
    # A coroutine that is closed rather than cancelled ends with GeneratorExit.
    if isinstance(error, (CancelledError, GeneratorExit)):
        return CANCELLED
    kind = error_type_of(error)
    code = reason_code_of(error)
    if code is not None or _kernel_class(error) in _DENIALS:
        return Outcome("denied", kind, code)
    return Outcome("error", kind)


def is_failure(error: BaseException | None) -> bool:
    """Whether a stage that ended so is to be shown as failed: raised, and not by cancellation."""
    return classify(error).status in {"error", "denied"}


def error_type_of(error: BaseException) -> str:
    """Value of ``error.type`` for an exception: its class's qualified name."""
    return identifier(type(error).__qualname__) or "_OTHER"


def reason_code_of(error: BaseException) -> str | None:
    """The reason code that an exception holds, as plain text; ``None`` where it holds none."""
    try:
        code = getattr(error, "reason_code", None)
    except Exception:  # the exception's class is the app's, and so is its fault
        return None
    return identifier(code) if isinstance(code, str) and code else None


def token_reason_of(
    error: BaseException,
    token_principal: object,
    token_capability: object,
    expected_principal: object,
    expected_capability: object,
) -> str | None:
    """Why a token was refused. The kernel has no codes for this; ids tell, never texts.

    Args:
        error: What ``TokenProvider.verify`` raised.
        token_principal: Whom the token was issued to.
        token_capability: What the token was issued for.
        expected_principal: Who presented it.
        expected_capability: What it was presented for.
    """
    code = reason_code_of(error)
    if code is not None:
        return code
    kind = _kernel_class(error)
    if kind == "TokenScopeError":
        if not _same_id(token_principal, expected_principal):
            return "token_principal_mismatch"
        if not _same_id(token_capability, expected_capability):
            return "token_capability_mismatch"
    return _TOKEN_REASONS.get(kind or "")


def _same_id(one: object, other: object) -> bool:
    """Whether two ids are the same text; other objects could run the app's code to compare."""
    if isinstance(one, str) and isinstance(other, str):
        return str.__eq__(one, other) is True
    return one is other


def category_of(reason_code: str | None) -> str | None:
    """The family of a denial's reason code; ``None`` where there is no code."""
    return None if reason_code is None else _CATEGORIES.get(reason_code, "other")


def _kernel_class(error: BaseException) -> str | None:
    """Name of the most specific kernel class of an exception that tells a denial, if any."""
    for kind in type(error).__mro__:
        if kind.__name__ in _DENIALS and kind.__module__.startswith(_OWN_MODULES):
            return kind.__name__
    return None
