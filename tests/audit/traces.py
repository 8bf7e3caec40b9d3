# SPDX-License-Identifier: Apache-2.0
"""Audit records in the shapes that the releases of the kernel give them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import make_dataclass
from datetime import datetime, timezone
from types import MappingProxyType, SimpleNamespace
from typing import Any

from weaver_kernel import SensitivityTag
from weaver_kernel.models import ActionTrace

WHEN = datetime(2026, 3, 1, 12, 30, 15, 123457, tzinfo=timezone.utc)
NANOSECONDS = 1772368215_123457_000
"""The same time."""

_FIELDS = (
    "action_id", "capability_id", "principal_id", "token_id", "invoked_at", "args",
    "response_mode", "driver_id", "handle_id", "error",
    "result_summary",  # from 0.10 on
    "sensitivity",  # from 0.11 on
    "event_type", "reason_code",  # from 0.12 on
)  # fmt: skip
SHAPES = {
    number: make_dataclass(f"ActionTrace{number}", _FIELDS[:number], slots=True)
    for number in (10, 11, 12, 14)
}
"""The classes of 0.3 to 0.9, 0.10, 0.11 and 0.12, by the number of their fields."""


def values(**changed: Any) -> dict[str, Any]:
    """The fields of a record, of a successful invocation by default."""
    return {
        "action_id": str(uuid.uuid4()),
        "capability_id": "tasks.list",
        "principal_id": "alice",
        "token_id": "token-1",
        "invoked_at": WHEN,
        "args": {"q": 1},
        "response_mode": "table",
        "driver_id": "memory",
        "handle_id": "handle-1",
        "error": None,
        "result_summary": {"fact_count": 1, "row_count": 2, "warning_count": 3, "has_handle": True},
        "sensitivity": SensitivityTag.PII,
        "event_type": "invoke",
        "reason_code": None,
        **changed,
    }


def trace(**changed: Any) -> ActionTrace:
    """A record of the newest release."""
    return ActionTrace(**values(**changed))


def exported(**changed: Any) -> dict[str, Any]:
    """What the kernel exports of a record, with its two further keys."""
    said = values(**changed)
    failed = said["error"] is not None
    return {
        **said,
        "invoked_at": said["invoked_at"].isoformat(),
        "sensitivity": getattr(said["sensitivity"], "value", said["sensitivity"]),
        "status": "failed" if failed else "succeeded",
        "correction": None,
    }


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "object": lambda said: SHAPES[len(said)](**said),
    "mapping": dict,
    "read-only mapping": MappingProxyType,
    "object of any other class": lambda said: SimpleNamespace(**said),
}


def of_shape(number: int, said: dict[str, Any]) -> dict[str, Any]:
    """The fields that a release with so many of them had."""
    return {name: said[name] for name in _FIELDS[:number]}
