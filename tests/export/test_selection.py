# SPDX-License-Identifier: Apache-2.0
"""Which records the filters select, and which none of them does."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent_kernel_otel.audit.records import SPAN_NAMES
from agent_kernel_otel.export.selection import EVENTS, Moment, Selection
from tests.export.harness import (
    Jsonl,
    Receiver,
    Shell,
    action_ids,
    actions,
    denial,
    failure,
    record,
)

SECOND = 1_000_000_000

RECORDS = [
    record(0),
    failure(1, principal_id="bob"),
    denial(2, principal_id="bob", capability_id="tasks.delete"),
    record(3, event_type="expand", handle_id="h", token_id="", principal_id="carol"),
    record(4, capability_id="tasks.delete"),
    failure(5, error="invocation cancelled"),
]


@pytest.mark.parametrize(
    ("options", "selected"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("--since 2026-01-01T00:00:03", [3, 4, 5]),
        ("--since 2026-01-01T01:00:03+01:00", [3, 4, 5]),
        ("--until 2026-01-01T00:00:03Z", [0, 1, 2]),
        ("--since 2026-01-01T00:00:01Z --until 2026-01-01T00:00:04Z", [1, 2, 3]),
        ("--event deny", [2]),
        ("--event deny --event expand", [2, 3]),
        ("--failed", [1, 2, 5]),
        ("--principal bob --principal carol", [1, 2, 3]),
        ("--capability tasks.delete", [2, 4]),
        ("--capability tasks.delete --failed --principal bob", [2]),
        ("--principal nobody", []),
    ],
)
def test_what_is_selected_is_exported_and_the_rest_is_counted_as_skipped(
    shell: Shell, receiver: Receiver, options: str, selected: list[int]
) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(*RECORDS)
    summary = shell.summary("audit.jsonl", *options.split())
    assert action_ids(receiver.spans()) == actions(selected)
    assert (summary["exported"], summary["skipped"]) == (len(selected), 6 - len(selected))
    assert summary["exit_code"] == 0


def test_an_age_is_counted_from_now(shell: Shell, receiver: Receiver) -> None:
    now = datetime.now(timezone.utc)
    Jsonl(shell.directory / "audit.jsonl").add(
        record(0, invoked_at=(now - timedelta(hours=3)).isoformat()),
        record(1, invoked_at=(now - timedelta(hours=1)).isoformat()),
    )
    shell.export("audit.jsonl", "--since", "2h")
    shell.export("audit.jsonl", "--until", "120m")
    assert action_ids(receiver.spans()) == actions([1, 0])


def test_principals_are_selected_by_their_recorded_ids_in_whatever_form_they_leave(
    shell: Shell, receiver: Receiver
) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(*RECORDS)
    for form in ("off", "hash"):
        shell.export("audit.jsonl", "--principal", "carol", OTEL_AGENT_KERNEL_PRINCIPAL_ID=form)
    assert action_ids(receiver.spans()) == actions([3, 3])
    assert b"carol" not in receiver.raw_bytes()


def test_what_cannot_be_read_fails_under_every_filter(shell: Shell) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(*RECORDS).add_text("no record\n")
    summary = shell.summary("audit.jsonl", "--principal", "nobody")
    assert (summary["failed"], summary["skipped"], summary["exit_code"]) == (1, 6, 1)


def test_the_kinds_of_records_are_those_that_can_be_read() -> None:
    assert set(EVENTS) == set(SPAN_NAMES)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-01T00:00:01", 1),
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01T02:00+02:00", 0),
        ("1969-12-31T23:59:59Z", -1),
    ],
)
def test_times_are_iso_8601_and_in_utc_unless_they_say(text: str, seconds: int) -> None:
    moment = Moment.read(text)
    assert (moment.at(5), moment.is_age) == (seconds * SECOND, False)


def test_a_time_keeps_its_microseconds() -> None:
    assert Moment.read("1970-01-01T00:00:00.000001Z").at(0) == 1_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("2m", 120), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600), ("0d", 0)],
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert Moment.read(text).at(10**18) == 10**18 - seconds * SECOND


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "-7d", "1.5h", "yesterday", "2026-13-01"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        Moment.read(text)


def test_a_checkpoint_is_told_of_the_filters_as_they_were_written() -> None:
    selection = Selection(
        since=Moment.read("7d"), events=frozenset({"deny", "expand"}), only_failed=True
    )
    assert selection.filters() == {
        "--since": "7d",
        "--event": ["deny", "expand"],
        "--failed": True,
    }
    assert Selection().filters() == {}
    assert Selection().matcher(0) is None


def test_an_id_that_is_cut_where_it_is_read_is_selected_by_all_of_it(
    shell: Shell, receiver: Receiver, tmp_path: Path
) -> None:
    long = "p" * 300
    Jsonl(tmp_path / "audit.jsonl").add(record(0, principal_id=long), record(1))
    shell.export("audit.jsonl", "--principal", long)
    assert action_ids(receiver.spans()) == actions([0])
