# SPDX-License-Identifier: Apache-2.0
"""An audit record of any release of the Weaver kernel, as far as it may leave the process.

A record is an ``ActionTrace`` (10 to 14 fields, by release) or what the kernel exports of one: a
mapping with the same keys. Its arguments and the text of its error are not even read: the records
of old kernels hold both as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.weaver.reading import read

SPAN_NAMES: Final = {
    "invoke": semconv.INVOKE,
    "expand": semconv.EXPAND,
    "deny": semconv.GRANT,
}
"""The span that a record of each kind was, by its ``event_type``."""

_CANCELLED: Final = "invocation cancelled"
"""What the kernel writes as the error of a cancelled invocation (weaver-kernel 0.12 on)."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LARGEST: Final = 2**63 - 1
"""The largest number that OTLP can hold; as a time, in nanoseconds since the epoch, in 2262."""


class UnreadableRecordError(ValueError):
    """A record lacks what its span needs; the message says what, and repeats nothing of it."""


@dataclass(slots=True)
class AuditRecord:
    """What one audit record tells.

    Attributes:
        action_id: The kernel's id of the action.
        event_type: ``invoke``, ``expand`` or ``deny``.
        time: When it was written, which is when the action ended, in nanoseconds since the epoch.
        status: ``success``, ``error``, ``denied`` or ``cancelled``.
        capability_id: The capability asked for.
        principal_id: Who asked, as recorded.
        token_id: The token used; ``None`` on a denial and an expansion, which have none.
        response_mode: The mode of what the caller got; ``None`` where it got nothing.
        driver_id: The driver that served, or was tried last.
        handle_id: The handle under which the full result is kept, or that was expanded.
        sensitivity: The capability's tag, of an invocation (weaver-kernel 0.11 on).
        reason_code: Why it was denied.
        facts: Facts in the frame; ``None`` for a stream of several.
        rows: Rows in the frame, likewise.
        warnings: Warnings in the frame, likewise.
    """

    action_id: str
    event_type: str
    time: int
    status: str
    capability_id: str
    principal_id: str | None = None
    token_id: str | None = None
    response_mode: str | None = None
    driver_id: str | None = None
    handle_id: str | None = None
    sensitivity: str | None = None
    reason_code: str | None = None
    facts: int | None = None
    rows: int | None = None
    warnings: int | None = None

    @property
    def failed(self) -> bool:
        """Whether the record tells of a failure, as the kernel's own tools count: of any kind."""
        return self.status != "success"


def read_record(source: object) -> AuditRecord:
    """Read a record.

    Args:
        source: An ``ActionTrace``, or a mapping with its fields as keys. Fields that are not
            known here are ignored, as the kernel's export contract asks of its readers.

    Raises:
        UnreadableRecordError: It lacks its action id, capability or time, or its kind is not
            known to this version; or looking at it fails.
    """
    try:
        return _read(source)
    except UnreadableRecordError:
        raise
    except Exception:  # it can be any object
        raise UnreadableRecordError("looking at it fails") from None


def _read(source: object) -> AuditRecord:
    get: Callable[[str], Any]
    get = source.get if isinstance(source, Mapping) else partial(read, source)
    event_type = get("event_type")
    event_type = "invoke" if event_type is None else event_type
    if not isinstance(event_type, str) or event_type not in SPAN_NAMES:
        raise UnreadableRecordError(
            f"its event_type is none of {', '.join(SPAN_NAMES)}; a newer agent-kernel-otel may "
            "know it"
        )
    record = AuditRecord(
        action_id=_required(get, "action_id"),
        event_type=event_type,
        time=_time(get("invoked_at")),
        status="success",
        capability_id=_required(get, "capability_id"),
        principal_id=_optional(get, "principal_id"),
    )
    error, reason_code = get("error"), get("reason_code")
    if isinstance(reason_code, str) and reason_code:
        record.reason_code = identifier(reason_code)
    # Where the text of the error was taken out, what the export says of it is still there.
    if error is not None or get("status") == "failed" or event_type == "deny":
        denied = event_type == "deny" or record.reason_code is not None
        # In older records, which have no kind, the words can only be a driver's.
        cancelled = error == _CANCELLED and get("event_type") is not None
        record.status = "denied" if denied else "cancelled" if cancelled else "error"
    if event_type == "deny":
        return record  # the rest is the same on each, and says nothing
    record.handle_id = _optional(get, "handle_id")
    if event_type == "invoke":
        record.token_id = _optional(get, "token_id")
        record.driver_id = _optional(get, "driver_id")
        record.sensitivity = _optional(get, "sensitivity")
    if record.status == "success":
        record.response_mode = _optional(get, "response_mode")
        _add_summary(record, get("result_summary"))
    return record


def _required(get: Callable[[str], Any], name: str) -> str:
    value = get(name)
    if value is None:
        raise UnreadableRecordError(f"it has no {name}")
    text = identifier(value) if isinstance(value, str) else None
    if not text:
        raise UnreadableRecordError(f"its {name} is {'empty' if value == '' else 'no text'}")
    return text


def _optional(get: Callable[[str], Any], name: str) -> str | None:
    value = get(name)
    return None if value is None else identifier(value) or None


def _time(value: object) -> int:
    if isinstance(value, str):
        # Python 3.10 does not know the letter.
        text = f"{value[:-1]}+00:00" if value.endswith(("Z", "z")) else value
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise UnreadableRecordError("its invoked_at is no ISO 8601 time") from None
    if not isinstance(value, datetime):
        raise UnreadableRecordError("it has no invoked_at that is a time")
    if value.utcoffset() is None:
        value = value.replace(tzinfo=timezone.utc)  # as the kernel's own stores do
    since = value - _EPOCH
    # Exact, where seconds as a float would lose microseconds.
    nanoseconds = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    if not 0 <= nanoseconds <= _LARGEST:
        raise UnreadableRecordError("its invoked_at is not between 1970 and 2262")
    return nanoseconds


def _add_summary(record: AuditRecord, summary: object) -> None:
    if not isinstance(summary, Mapping):
        return
    if record.handle_id is None and record.response_mode != "raw":
        return  # a stream, and a summary of its last frame alone
    record.facts = _count(summary.get("fact_count"))
    record.rows = _count(summary.get("row_count"))
    record.warnings = _count(summary.get("warning_count"))


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _LARGEST else None
