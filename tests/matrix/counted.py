# SPDX-License-Identifier: Apache-2.0
"""What each scene of ``scenes.py`` must be counted as, told by what the release can do."""

from __future__ import annotations

from typing import Any

Numbers = dict[str, Any]

_GRANTED: Numbers = {"grants": 1}
_INVOKED: Numbers = {**_GRANTED, "invocations": 1, "driver_attempts": 1}
_SERVED: Numbers = {**_INVOKED, "handle_stores": 1}
_REFUSED: Numbers = {"invocations": 1, "invocations_denied": 1}
_FAILED: Numbers = {"invocations": 1, "invocation_failures": 1}

_BY_SCENE: dict[str, Numbers] = {
    "not instrumented": {},
    "uninstrumented": {},
    "instrumented again, at level debug": _SERVED,
    "one kernel of two": _SERVED,
    "grant_allowed": _GRANTED,
    "grant_denied": {"denials": 1},
    "grant_of_unknown_capability": {},
    "get_token": _GRANTED,
    "grant_by_slotted_policy": _GRANTED,
    "invoke_success": _SERVED,
    "invoke_on_early_kernel": _SERVED,
    "invoke_slotted_driver": _SERVED,
    "invoke_fallback": {**_SERVED, "driver_attempts": 2, "fallback_activations": 1},
    "invoke_all_drivers_fail": {
        **_GRANTED,
        **_FAILED,
        "driver_attempts": 2,
        "fallback_activations": 1,
    },
    "invoke_redacted": {**_SERVED, "redaction_events": 1},
    "invoke_raw_by_non_admin": {**_SERVED, "budget_downgrades": 1},
    "invoke_revoked_token": {**_GRANTED, **_REFUSED},
    "invoke_expired_token": _REFUSED,
    "invoke_forged_token": {**_GRANTED, **_REFUSED},
    "invoke_token_of_another_principal": {**_GRANTED, **_REFUSED},
    "invoke_unknown_capability": _FAILED,
    "invoke_cancelled": {**_INVOKED, "invocations_cancelled": 1},
    "dry_run": {**_GRANTED, "dry_runs": 1},
    "dry_run_refused": {**_GRANTED, "dry_runs": 1},
    "budget_downgrade": {**_SERVED, "budget_downgrades": 1},
    "budget_exhausted": {**_GRANTED, **_FAILED, "budget_exhaustions": 1},
    "expand": {**_SERVED, "expansions": 1},
    "expand_gone": _SERVED,
    "expand_by_another_principal": _SERVED,
    "stream_exhausted": _INVOKED,
    "stream_closed_early": _INVOKED,
    "stream_failed": {**_INVOKED, "invocation_failures": 1},
    "stream_refused": {**_GRANTED, **_REFUSED},
    "stream_of_plain_driver": _SERVED,
    "federation_import": {},
    "federation_discover": {},
}


def expected(scene: str, features: set[str], seen: Numbers, audited: int) -> Numbers:
    """What a scene is counted as, without what is 0.

    Args:
        scene: Its name.
        features: What the release can do.
        seen: What the app saw in the scene.
        audited: How many records the trace stores of the scene's instrumented kernels got.
    """
    numbers = {**_BY_SCENE[scene], "audit_records": audited}
    if numbers.get("denials"):
        code = "missing_role" if "reason_codes" in features else "unknown"
        numbers["denials_by_reason"] = {code: numbers["denials"]}
    if scene == "invoke_raw_by_non_admin" and seen["handle"] is None:
        del numbers["handle_stores"]  # a release that leaves this gate to the firewall
    return {name: number for name, number in numbers.items() if number}
