# SPDX-License-Identifier: Apache-2.0
"""What is read of an audit record, whatever release wrote it and whatever stands in it."""

from __future__ import annotations

import secrets
import traceback
from dataclasses import asdict
from datetime import datetime, timedelta, timezone, tzinfo
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_kernel_otel.audit.records import AuditRecord, UnreadableRecordError, read_record
from agent_kernel_otel.scrub import IDENTIFIER_LIMIT
from tests.audit.traces import FORMS, NANOSECONDS, SHAPES, WHEN, exported, of_shape, trace, values
from tests.support.hostile import HostileObject, HostileText, Refusing, odd_ids

ADDED_LATER = {"facts": 10, "rows": 10, "warnings": 10, "sensitivity": 11}
"""Facts that a record has only where it has more fields than so many."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", SHAPES)
def test_a_record_of_any_release_and_form_tells_what_it_holds(fields: int, form: str) -> None:
    said = values()
    complete = asdict(read_record(said))
    assert complete == {
        "action_id": said["action_id"], "event_type": "invoke", "time": NANOSECONDS,
        "status": "success", "capability_id": "tasks.list", "principal_id": "alice",
        "token_id": "token-1", "response_mode": "table", "driver_id": "memory",
        "handle_id": "handle-1", "sensitivity": "PII", "reason_code": None,
        "facts": 1, "rows": 2, "warnings": 3,
    }  # fmt: skip
    known = {
        name: None if fields <= ADDED_LATER.get(name, 0) else value
        for name, value in complete.items()
    }
    assert asdict(read_record(FORMS[form](of_shape(fields, said)))) == known


def test_what_the_kernel_exports_of_a_record_reads_like_the_record() -> None:
    from weaver_kernel.trace import export_action_trace

    for changed in (
        {},
        {"error": "boom"},
        {"error": "invocation cancelled"},
        {"event_type": "expand", "token_id": "", "driver_id": ""},
        {"event_type": "deny", "error": "no", "reason_code": "missing_role"},
    ):
        record = trace(action_id="a", **changed)
        assert read_record(export_action_trace(record)) == read_record(record)
        assert exported(action_id="a", **changed) == export_action_trace(record)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, "success"),
        ({"event_type": None}, "success"),
        ({"event_type": "expand"}, "success"),
        ({"error": "boom"}, "error"),
        ({"error": ""}, "error"),
        ({"error": 7}, "error"),
        ({"error": "invocation cancelled"}, "cancelled"),
        ({"error": "invocation cancelled: no"}, "error"),
        # In a release that has no kinds yet the words are a driver's.
        ({"event_type": None, "error": "invocation cancelled"}, "error"),
        ({"event_type": "expand", "error": "boom"}, "error"),
        ({"error": "no", "reason_code": "rate_limited"}, "denied"),
        ({"event_type": "deny", "error": "no"}, "denied"),
        ({"event_type": "deny", "error": None}, "denied"),
        ({"event_type": "deny", "error": "invocation cancelled"}, "denied"),
        ({"status": "failed"}, "error"),
        ({"status": "failed", "reason_code": "rate_limited"}, "denied"),
        ({"status": "succeeded"}, "success"),
        ({"status": "a status to come"}, "success"),
    ],
)
def test_a_records_status(changed: dict[str, Any], status: str) -> None:
    record = read_record(values(**changed))
    assert record.status == status
    assert record.failed is (status != "success")


def test_a_failure_has_no_result_and_a_denial_neither_token_nor_driver() -> None:
    failed = read_record(values(error="boom"))
    assert (failed.facts, failed.rows, failed.warnings, failed.response_mode) == (None,) * 4
    assert (failed.token_id, failed.driver_id, failed.handle_id) == (
        "token-1", "memory", "handle-1",
    )  # fmt: skip
    denied = read_record(values(event_type="deny", error="no", reason_code="missing_role"))
    told = {name for name, value in asdict(denied).items() if value is not None}
    assert told == {
        "action_id", "event_type", "time", "status", "capability_id", "principal_id", "reason_code",
    }  # fmt: skip


def test_empty_ids_are_none() -> None:
    record = read_record(values(token_id="", driver_id="", handle_id="", principal_id=""))
    assert (record.token_id, record.driver_id, record.handle_id, record.principal_id) == (None,) * 4


EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("when", "nanoseconds"),
    [
        (WHEN, NANOSECONDS),
        (WHEN.replace(tzinfo=None), NANOSECONDS),
        (WHEN.astimezone(timezone(timedelta(hours=-9, minutes=-30))), NANOSECONDS),
        (WHEN.astimezone(timezone(timedelta(microseconds=1))), NANOSECONDS),
        ("2026-03-01T12:30:15.123457+00:00", NANOSECONDS),
        ("2026-03-01T12:30:15.123457Z", NANOSECONDS),
        ("2026-03-01T12:30:15.123457z", NANOSECONDS),
        ("2026-03-01T12:30:15.123457", NANOSECONDS),
        ("2026-03-01 14:30:15.123457+02:00", NANOSECONDS),
        (EPOCH, 0),
        ("1970-01-01T00:00:00.000001+00:00", 1_000),
        ("2262-04-11T23:47:16.854775+00:00", 9_223_372_036_854_775_000),
        (HostileText("2026-03-01T12:30:15.123457Z"), NANOSECONDS),
    ],
)
def test_a_records_time_is_exact(when: object, nanoseconds: int) -> None:
    assert read_record(values(invoked_at=when)).time == nanoseconds


@given(
    st.datetimes(
        min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - the zones come with the other strategy
        max_value=datetime(2262, 4, 10),  # noqa: DTZ001
        # Python 3.11.2 itself misreads an offset of microseconds, which no zone has.
        timezones=st.integers(-23 * 60, 23 * 60).map(lambda at: timezone(timedelta(minutes=at))),
    )
)
def test_no_microsecond_of_any_time_is_lost(when: datetime) -> None:
    expected = (when - EPOCH) // timedelta(microseconds=1) * 1_000
    assert read_record(values(invoked_at=when)).time == expected
    assert read_record(values(invoked_at=when.isoformat())).time == expected


class Nowhere(tzinfo):
    """A zone that has no offset, which Python takes for none."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    dst = utcoffset

    def tzname(self, _: datetime | None) -> None:
        return None


class Raising(Nowhere):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise Refusing


@pytest.mark.parametrize(
    "when",
    [
        None, "", "yesterday", 1772368215, 1772368215.5, b"2026-03-01", [WHEN], {}, object(),
        datetime(1, 1, 1), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),  # noqa: DTZ001
        datetime(9999, 12, 31, tzinfo=timezone.utc), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc),
        datetime(2262, 4, 11, 23, 47, 16, 854776, tzinfo=timezone.utc),
        "1969-12-31T23:59:59.999999Z", "2262-04-11T23:47:16.854776Z", "9999-12-31T23:59:59Z",
        "2026-03-01T12:30:15.123457\ud800", "2026-03-01T12:30:15Z" * 5_000, "Z",
        WHEN.replace(tzinfo=Raising()),
    ],
    ids=lambda when: type(when).__name__,
)  # fmt: skip
def test_a_record_without_a_usable_time_is_unreadable(when: object) -> None:
    with pytest.raises(UnreadableRecordError, match=r"invoked_at|looking at it"):
        read_record(values(invoked_at=when))


def test_a_time_whose_zone_has_no_offset_is_taken_for_one_without_a_zone() -> None:
    assert read_record(values(invoked_at=WHEN.replace(tzinfo=Nowhere()))).time == NANOSECONDS


@pytest.mark.parametrize(
    "changed",
    [
        {"action_id": None}, {"action_id": ""}, {"action_id": 7}, {"action_id": ["a"]},
        {"capability_id": None}, {"capability_id": ""}, {"capability_id": b"x"},
        {"event_type": "revoke"}, {"event_type": ""}, {"event_type": 3}, {"event_type": ["invoke"]},
        {"event_type": {}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_a_record_without_what_its_span_needs_is_unreadable(
    changed: dict[str, Any], form: str
) -> None:
    name = next(iter(changed))
    with pytest.raises(UnreadableRecordError, match=name):
        read_record(FORMS[form](values(**changed)))


class HostileMapping(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise Refusing


class HostileClass:
    @property
    def __class__(self) -> Any:
        raise Refusing

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class HostileEquality(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise Refusing

    def __hash__(self) -> int:
        raise Refusing


NO_RECORDS: dict[str, Any] = {
    "None": None,
    "int": 7,
    "text": "text",
    "bytes": b"bytes",
    "list": [],
    "tuple": (),
    "empty mapping": {},
    "object": object(),
    "class": AuditRecord,
    "function": values,
    "mock": MagicMock(),
    "hostile object": HostileObject(),
    "hostile mapping": HostileMapping(),
    "hostile class": HostileClass(),
    "empty namespace": SimpleNamespace(),
    "hostile event type": values(event_type=HostileEquality("invoke")),
    "hostile time": values(invoked_at=HostileObject()),
    "hostile error": values(error=HostileEquality("no")),
}


@pytest.mark.parametrize("name", NO_RECORDS)
def test_whatever_is_no_record_is_unreadable_and_nothing_else_is_raised(name: str) -> None:
    with pytest.raises(UnreadableRecordError):
        read_record(NO_RECORDS[name])


@pytest.mark.parametrize("name", odd_ids())
@pytest.mark.parametrize(
    "field", ["principal_id", "token_id", "driver_id", "handle_id", "sensitivity", "response_mode"]
)
def test_odd_ids_become_text_that_can_be_exported_or_are_left_out(field: str, name: str) -> None:
    value = getattr(read_record(values(**{field: odd_ids()[name]})), field)
    if value is not None:
        assert type(value) is str
        assert 0 < len(value) <= IDENTIFIER_LIMIT
        value.encode()


def test_an_id_of_100_kb_is_cut() -> None:
    record = read_record(values(action_id="a" * 100_000, capability_id="\ud800" * 100_000))
    assert record.action_id == "a" * IDENTIFIER_LIMIT
    assert record.capability_id == "?" * IDENTIFIER_LIMIT


@pytest.mark.parametrize(
    ("count", "known"),
    [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, None), (10**400, None), (-1, None), (True, None),
     (False, None), (1.0, None), ("1", None), (None, None), ([1], None)],
)  # fmt: skip
def test_a_count_is_a_whole_number_that_otlp_can_hold(count: object, known: int | None) -> None:
    summary = {"fact_count": count, "row_count": count, "warning_count": count}
    record = read_record(values(result_summary=summary))
    assert (record.facts, record.rows, record.warnings) == (known, known, known)


@pytest.mark.parametrize("summary", [None, "text", 7, ["fact_count"], {}, {7: 1}, object()])
def test_a_summary_of_any_other_shape_says_nothing(summary: object) -> None:
    record = read_record(values(result_summary=summary))
    assert (record.facts, record.rows, record.warnings) == (None, None, None)


@pytest.mark.parametrize(
    ("mode", "handle", "known"),
    [("table", "handle-1", 2), ("table", None, None), ("raw", None, 2), ("raw", "handle-1", 2)],
)
def test_a_streams_last_frame_is_not_taken_for_all_of_them(
    mode: str, handle: str | None, known: int | None
) -> None:
    record = read_record(values(response_mode=mode, handle_id=handle))
    assert record.rows == known
    assert (record.facts is None) is (record.warnings is None) is (known is None)


CANARY = "canary" + secrets.token_hex(8)
_texts = st.text(st.characters()).map(lambda text: f"{text[:3]}{CANARY}{text[3:]}")
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | _texts
    | _texts.map(HostileText)
    | st.sampled_from(["invoke", "expand", "deny", "failed", "invocation cancelled"])
    | st.datetimes()
    | st.sampled_from(["2026-03-01T12:30:15.123457Z", "1969-01-01", "0001-01-01T00:00:00"])
    | st.builds(HostileObject),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_texts, inner, max_size=2),
    max_leaves=3,
)


@given(
    st.dictionaries(
        st.sampled_from([*values(), "status", "correction", "unknown"]), _anything, min_size=1
    ),
    st.sampled_from(["mapping", "object of any other class"]),
)
def test_any_record_at_all_is_read_or_unreadable_and_never_repeated(
    changed: dict[str, Any], form: str
) -> None:
    unreadable, record = _read(FORMS[form]({**values(), **changed}))
    if unreadable is not None:
        assert CANARY not in "".join(
            traceback.format_exception(type(unreadable), unreadable, unreadable.__traceback__)
        )
        assert "\n" not in str(unreadable)
    if record is not None:
        assert record.event_type in {"invoke", "expand", "deny"}
        assert 0 <= record.time < 2**63
        for text in asdict(record).values():
            if isinstance(text, str):
                assert type(text) is str
                assert len(text.encode()) <= 4 * IDENTIFIER_LIMIT


def _read(source: object) -> tuple[UnreadableRecordError | None, AuditRecord | None]:
    try:
        return None, read_record(source)
    except UnreadableRecordError as error:
        return error, None


@given(_anything)
def test_arguments_error_text_and_whatever_is_not_known_are_not_kept(content: Any) -> None:
    said = values(args=content, error=CANARY, correction=content, unknown=content)
    said["result_summary"] = {"fact_count": CANARY, CANARY: content}
    assert CANARY not in str(asdict(read_record(said)))
    del said["error"]
    assert CANARY not in str(asdict(read_record(said)))
