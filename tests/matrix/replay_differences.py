# SPDX-License-Identifier: Apache-2.0
"""All in which a replayed span differs from its live span, since the audit record does.

The one table of it: ``replay.py`` holds real kernels of each release to it, and the page
``docs/audit-records.md`` is made of it. A difference that is not here fails the matrix, and so
does one that is here and does not occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_kernel_otel import semconv as s
from tests.matrix.spans import ABSENT, PRESENT

SPAN_STATUS = "span status"
"""Stands among the attributes for OpenTelemetry's own status of the span."""

ONLY_REPLAYED = {s.REPLAYED, s.RESULT_WARNINGS}
"""Attributes that live spans never have."""


@dataclass(frozen=True)
class Situation:
    """What came to pass in a call, as far as audit records tell it in the same way.

    Attributes:
        text: What the pages call it.
        scenes: The scenes whose last call it is.
    """

    text: str
    scenes: tuple[str, ...]


@dataclass(frozen=True)
class Releases:
    """Some consecutive releases of weaver-kernel.

    Attributes:
        first: The first one's minor version.
        last: The last one's; ``None`` where it is so to this day.
    """

    first: int = 3
    last: int | None = None

    def have(self, release: str) -> bool:
        """Whether a release, such as ``0.12.0``, is among them."""
        minor = int(release.split(".")[1])
        return self.first <= minor and (self.last is None or minor <= self.last)

    def __str__(self) -> str:
        if self.last is None:
            return "all" if self == Releases() else f"0.{self.first} on"
        return f"0.{self.first}" if self.first == self.last else f"0.{self.first} to 0.{self.last}"


@dataclass(frozen=True)
class Unrecorded:
    """Calls that leave no audit record, though they have a live span.

    Attributes:
        situation: What comes to pass in them.
        releases: Of which kernels.
    """

    situation: Situation
    releases: Releases = Releases()


@dataclass(frozen=True)
class Difference:
    """What an audit record does not hold, or holds wrongly.

    Attributes:
        replayed: What the replayed span has, by attribute of the live span; or whether it has it.
        records: What the pages call the records.
        situations: What came to pass in the calls that left them.
        releases: Of which kernels.
        why: What the record has instead; the pages put "the record" before it.
    """

    replayed: dict[str, Any]
    records: str
    situations: tuple[Situation, ...]
    releases: Releases = Releases()
    why: str = ""


def _lacking(*attributes: str) -> dict[str, Any]:
    return dict.fromkeys(attributes, ABSENT)


# What comes to pass ---------------------------------------------------------------------------

GRANTED = Situation("an allowed grant", ("grant_allowed", "get_token", "grant_by_slotted_policy"))
DENIED = Situation("a denied grant", ("grant_denied",))
GRANT_FAILED = Situation("a grant of an unknown capability", ("grant_of_unknown_capability",))
SERVED = Situation(
    "an invocation that gave a frame",
    (
        "invoke_success", "invoke_summary", "invoke_handle_only", "invoke_raw_by_admin",
        "invoke_raw_by_non_admin", "invoke_redacted", "invoke_fallback", "invoke_slotted_driver",
        "invoke_granted_by_rule", "budget_downgrade",
    ),
)  # fmt: skip
DRIVERS_FAILED = Situation(
    "an invocation whose drivers all failed",
    ("invoke_all_drivers_fail", "invoke_driver_speaks_of_cancellation"),
)
DRIVER_CRASHED = Situation(
    "an invocation whose driver raised something else than a `DriverError`",
    ("invoke_driver_crashes",),
)
FIREWALL_FAILED = Situation(
    "an invocation whose firewall failed, after its driver ran", ("invoke_firewall_fails",)
)
FIREWALL_REFUSED = Situation(
    "an invocation that was denied after its driver ran", ("invoke_firewall_refuses",)
)
CANCELLED = Situation("a cancelled invocation", ("invoke_cancelled",))
TOKEN_REFUSED = Situation(
    "an invocation whose token was refused",
    (
        "invoke_revoked_token", "invoke_expired_token", "invoke_forged_token",
        "invoke_token_of_another_principal", "stream_refused",
    ),
)  # fmt: skip
NOT_BEGUN = Situation(
    "an invocation of an unknown capability, or with no budget left",
    ("invoke_unknown_capability", "budget_exhausted"),
)
DRY_RUN = Situation("a dry run", ("dry_run", "dry_run_refused"))
EXPANDED = Situation("an expansion", ("expand",))
EXPANSION_REFUSED = Situation(
    "an expansion that was refused, or of a handle that is gone",
    ("expand_gone", "expand_by_another_principal"),
)
FEDERATED = Situation(
    "discovery and import of other kernels", ("federation_import", "federation_discover")
)
STREAM_OF_CHUNKS = Situation(
    "a stream, exhausted or closed early", ("stream_exhausted", "stream_closed_early")
)
STREAM_IN_RAW_MODE = Situation("a stream in raw mode", ("stream_raw_by_admin",))
STREAM_OF_ONE = Situation("a stream of a driver that does not stream", ("stream_of_plain_driver",))
STREAM_OF_ONE_UNFILTERED = Situation(
    "a stream of a driver that does not stream, whose firewall failed",
    ("stream_of_plain_driver_whose_firewall_fails",),
)
STREAM_FAILED = Situation("a stream that failed after its first chunk", ("stream_failed",))
STREAM_FAILED_AT_ONCE = Situation(
    "a stream that failed before its first chunk", ("stream_failed_at_once",)
)
STREAM_CANCELLED = Situation(
    "a stream that was cancelled after its first chunk", ("stream_cancelled",)
)
STREAM_CANCELLED_AT_ONCE = Situation(
    "a stream that was cancelled before its first chunk", ("stream_cancelled_at_once",)
)
UNWRITTEN = Situation("an invocation whose record could not be written", ("invoke_unwritten",))
STREAM_ABANDONED = Situation(
    "a stream abandoned in an event loop that is closed without `shutdown_asyncgens`",
    ("stream_abandoned_in_a_loop_that_dies",),
)

SITUATIONS = tuple(value for value in list(globals().values()) if isinstance(value, Situation))


def situation_of(scene: str) -> Situation:
    """What came to pass in the last call of a scene."""
    (found,) = (situation for situation in SITUATIONS if scene in situation.scenes)
    return found


# What has no record ---------------------------------------------------------------------------

_BEFORE_0_12 = Releases(3, 11)

UNRECORDED = (
    Unrecorded(GRANTED),
    Unrecorded(GRANT_FAILED),
    Unrecorded(DENIED, _BEFORE_0_12),
    Unrecorded(TOKEN_REFUSED),
    Unrecorded(NOT_BEGUN),
    Unrecorded(DRY_RUN, Releases(6)),
    Unrecorded(DRIVER_CRASHED, _BEFORE_0_12),
    Unrecorded(FIREWALL_FAILED, _BEFORE_0_12),
    Unrecorded(FIREWALL_REFUSED, _BEFORE_0_12),
    Unrecorded(CANCELLED, _BEFORE_0_12),
    Unrecorded(UNWRITTEN),
    Unrecorded(EXPANDED, _BEFORE_0_12),
    Unrecorded(EXPANSION_REFUSED),
    Unrecorded(STREAM_ABANDONED, Releases(9)),
    Unrecorded(FEDERATED, Releases(9)),
)

# What records do not hold, or hold wrongly ----------------------------------------------------

_STREAMS_SERVED = (STREAM_OF_CHUNKS, STREAM_IN_RAW_MODE, STREAM_OF_ONE)
_STREAMS_UNSERVED = (
    STREAM_OF_ONE_UNFILTERED,
    STREAM_FAILED, STREAM_FAILED_AT_ONCE, STREAM_CANCELLED, STREAM_CANCELLED_AT_ONCE,
)  # fmt: skip
_STREAMS = (*_STREAMS_SERVED, *_STREAMS_UNSERVED)
_UNSERVED = (DRIVERS_FAILED, DRIVER_CRASHED, FIREWALL_FAILED, FIREWALL_REFUSED, CANCELLED)
_INVOCATIONS = (SERVED, *_UNSERVED, *_STREAMS)

_EACH = "each call"
_EACH_INVOCATION = "each invocation"
_NO_DRIVER = "names no driver"
_NO_CLASS = "has no class of the exception"

DIFFERENCES = (
    Difference(_lacking(s.SAFETY_CLASS), _EACH, (*_INVOCATIONS, DENIED, EXPANDED)),
    Difference(_lacking(s.KERNEL_ID), _EACH, (*_INVOCATIONS, DENIED, EXPANDED), Releases(9)),
    Difference(_lacking(s.SENSITIVITY), _EACH_INVOCATION, _INVOCATIONS, Releases(3, 10)),
    Difference(
        _lacking(s.SENSITIVITY),
        "a denied grant, an expansion",
        (DENIED, EXPANDED),
        Releases(12),
        "says `NONE` on each, which is not replayed",
    ),
    Difference(
        _lacking(s.REQUESTED_RESPONSE_MODE, s.DOWNGRADED, s.DOWNGRADE_REASON),
        _EACH_INVOCATION,
        _INVOCATIONS,
        why="has the mode that the caller got, not the one asked for",
    ),
    Difference(
        _lacking(s.FALLBACK), _EACH_INVOCATION, _INVOCATIONS, why="has the last driver only"
    ),
    Difference(_lacking(s.GRANT_AGE, s.GEN_AI_TOOL_DESCRIPTION), _EACH_INVOCATION, _INVOCATIONS),
    Difference(_lacking(s.SESSION), _EACH_INVOCATION, _INVOCATIONS, Releases(6)),
    Difference(_lacking(s.GRANT_RULE), _EACH_INVOCATION, _INVOCATIONS, Releases(7)),
    Difference(
        _lacking(s.STREAM),
        _EACH_INVOCATION,
        _INVOCATIONS,
        why="looks like that of any other invocation",
    ),
    Difference(_lacking(s.STREAM_END, s.TIME_TO_FIRST_CHUNK), "each stream", _STREAMS, Releases(9)),
    Difference(
        _lacking(s.RESULT_FACTS, s.RESULT_ROWS),
        "each invocation that gave a frame",
        (SERVED, *_STREAMS_SERVED),
        Releases(3, 9),
    ),
    Difference(
        _lacking(s.RESULT_FACTS, s.RESULT_ROWS),
        "a stream of several frames, unless in raw mode",
        (STREAM_OF_CHUNKS,),
        Releases(10),
        "counts those of the last frame, which is not replayed",
    ),
    Difference(
        _lacking(s.REDACTIONS),
        "each invocation that gave a frame",
        (SERVED, *_STREAMS_SERVED),
        why=f"counts all warnings, from 0.10 on: `{s.RESULT_WARNINGS}`",
    ),
    Difference(
        _lacking(s.DRIVER_ID), DRIVERS_FAILED.text, (DRIVERS_FAILED,), Releases(3, 11), _NO_DRIVER
    ),
    Difference(_lacking(s.DRIVER_ID), CANCELLED.text, (CANCELLED,), Releases(12), _NO_DRIVER),
    Difference(
        {s.ERROR_TYPE: s.OTHER},
        "each failure and each denial that is recorded as one",
        (
            DENIED,
            *_UNSERVED,
            STREAM_FAILED_AT_ONCE,
            STREAM_CANCELLED_AT_ONCE,
            STREAM_OF_ONE_UNFILTERED,
        ),
        why=_NO_CLASS,
    ),
    Difference(
        {s.ERROR_TYPE: s.OTHER}, STREAM_FAILED.text, (STREAM_FAILED,), Releases(12), _NO_CLASS
    ),
    Difference(
        {
            s.STATUS: "success",
            SPAN_STATUS: "UNSET",
            s.RESPONSE_MODE: "summary",
            **_lacking(s.ERROR_TYPE),
        },
        STREAM_FAILED.text,
        (STREAM_FAILED,),
        Releases(9, 11),
        "tells of a success",
    ),
    Difference(
        {s.STATUS: "success", s.RESPONSE_MODE: "summary", **_lacking(s.ERROR_TYPE)},
        STREAM_CANCELLED.text,
        (STREAM_CANCELLED,),
        Releases(9),
        "tells of a success",
    ),
    Difference(
        {s.STATUS: "error", SPAN_STATUS: "ERROR"},
        STREAM_CANCELLED_AT_ONCE.text,
        (STREAM_CANCELLED_AT_ONCE,),
        Releases(9),
        "tells of a failure",
    ),
    Difference(
        {s.STATUS: "error", **_lacking(s.REASON_CODE)},
        FIREWALL_REFUSED.text,
        (FIREWALL_REFUSED,),
        Releases(12),
        "tells of a failure",
    ),
    Difference(
        {s.HANDLE_ID: PRESENT},
        STREAM_OF_ONE_UNFILTERED.text,
        (STREAM_OF_ONE_UNFILTERED,),
        Releases(9),
        "names the handle of the result, which the caller did not get",
    ),
)
