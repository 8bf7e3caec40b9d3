# SPDX-License-Identifier: Apache-2.0
"""Export envelopes: any layout, order and size, and what is reported of one that is not whole."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from weaver_kernel.trace import export_action_trace, export_action_traces

from agent_kernel_otel.audit.files import (
    AuditFileError,
    ChangedFileError,
    json_text,
    open_audit_file,
)
from agent_kernel_otel.audit.files.parsing import LARGEST
from tests.audit.files.written import (
    action_ids,
    envelope,
    ids,
    problems,
    read,
    read_to_the_error,
    traces,
)

SCHEMA = "weaver_kernel.action_trace_export"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.json"


@pytest.fixture(params=[None, 1, 7])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at a time: as usual, and so little that every value is in several pieces."""
    if request.param is not None:
        monkeypatch.setattr(json_text, "_CHUNK", request.param)


def write(path: Path, *records: str, **members: object) -> None:
    """Write an envelope of records that need not be JSON."""
    members = {"schema": SCHEMA, "version": "1", **members}
    head = "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in members.items())
    path.write_bytes(
        f'{{{head}"traces": [{", ".join(records)}]}}'.encode("utf-8", "surrogateescape")
    )


def record(at: int) -> str:
    return json.dumps(export_action_trace(traces(1, first=at)[0]))


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"indent": 2},
        {"indent": "\t", "ensure_ascii": False},
        {"sort_keys": True},
        {"separators": (",", ":")},
    ],
)
@pytest.mark.parametrize("number", [0, 1, 3, 1500])
@pytest.mark.usefixtures("_chunks")
def test_any_layout_is_read(path: Path, layout: dict[str, Any], number: int) -> None:
    envelope(path, traces(number), **layout)
    file = open_audit_file(path)
    assert file.format == "envelope"
    entries = list(file.entries())
    assert [entry.payload for entry in entries] == export_action_traces(traces(number))["traces"]
    assert [entry.place for entry in entries] == [f"record {n}" for n in range(1, number + 1)]
    assert file.done == file.size == path.stat().st_size


@pytest.mark.parametrize(
    "names", [("traces", "version", "schema"), ("version", "traces", "schema")]
)
def test_its_members_come_in_any_order_and_others_are_ignored(
    path: Path, names: tuple[str, ...]
) -> None:
    whole = export_action_traces(traces(3))
    whole["made_by"] = {"traces": [{"action_id": "no record"}]}
    path.write_text(json.dumps({name: whole[name] for name in ("made_by", *names)}))
    assert action_ids(read(path)) == ids(3)


def test_a_byte_order_mark_and_space_around_it_are_no_matter(path: Path) -> None:
    envelope(path, traces(2))
    path.write_bytes(b"\xef\xbb\xbf\r\n " + path.read_bytes() + b"\r\n\r\n")
    assert action_ids(read(path)) == ids(2)


@pytest.mark.parametrize("names", [("version", "traces"), ("traces", "version")])
def test_another_version_is_refused_before_any_record_is_read(
    path: Path, names: tuple[str, ...]
) -> None:
    whole = {**export_action_traces(traces(3)), "version": "2"}
    path.write_text(json.dumps({name: whole[name] for name in ("schema", *names)}))
    with pytest.raises(AuditFileError, match=r"audit.json: it was written by a newer kernel"):
        open_audit_file(path)


def test_another_version_without_records_of_this_one_is_refused_as_such(path: Path) -> None:
    path.write_text(json.dumps({"schema": SCHEMA, "version": "2", "events": []}))
    with pytest.raises(AuditFileError, match="it was written by a newer kernel"):
        open_audit_file(path)


def test_the_version_is_looked_at_in_a_stream_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_sorted in (False, True):
        whole = {**export_action_traces(traces(1)), "version": "2"}
        data = json.dumps(whole, sort_keys=is_sorted).encode()
        stdin = io.BufferedReader(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        file = open_audit_file(Path("-"))
        with pytest.raises(AuditFileError, match="standard input: it was written by a newer"):
            list(file.entries())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"schema": "other"}, f"its schema is not {SCHEMA}"),
        ({"schema": 1}, f"its schema is not {SCHEMA}"),
        ({"version": 1}, "it was written by a newer kernel"),
    ],
)
def test_another_schema_is_refused(path: Path, members: dict[str, Any], problem: str) -> None:
    write(path, record(0), **members)
    with pytest.raises(AuditFileError, match=problem):
        open_audit_file(path)


@pytest.mark.parametrize("missing", ["schema", "version"])
def test_an_envelope_that_does_not_say_what_it_is_is_refused(path: Path, missing: str) -> None:
    whole = export_action_traces(traces(1))
    del whole[missing]
    path.write_text(json.dumps(whole))
    with pytest.raises(AuditFileError, match=f'it has no "{missing}"'):
        open_audit_file(path)


@pytest.mark.parametrize(
    ("corrupt", "problem"),
    [
        ('{"action_id": "canary" "x": [1, {"y": "]}"}]}', "it is not valid JSON (column 24)"),
        ("{'canary': 1}", "it is not valid JSON (column 2)"),
        ("canary", "it is not valid JSON (column 1)"),
        ("1.5", "it is no JSON object"),
        ('"a, ]} text"', "it is no JSON object"),
        ("null", "it is no JSON object"),
        ('{"action_id": "canary-\udcff"}', "it is not UTF-8 text"),
        ("[" * 50_000 + "]" * 50_000, "it is nested too deeply"),
    ],
)
@pytest.mark.usefixtures("_chunks")
def test_a_corrupt_record_is_reported_with_its_number_and_the_rest_is_read(
    path: Path, corrupt: str, problem: str
) -> None:
    write(path, record(0), corrupt, record(1))
    entries = read(path)
    assert action_ids(entries) == ids(2)
    assert problems(entries) == [("record 2", problem)]


def test_a_corrupt_record_among_many_is_one_of_them_at_any_place(path: Path) -> None:
    records = [record(at) for at in range(2000)]
    for place in (0, 411, 823, 1999):
        write(path, *records[:place], '{"action_id": "canary}\\" ]", oops}', *records[place + 1 :])
        entries = read(path)
        assert [each for each, _ in problems(entries)] == [f"record {place + 1}"]
        assert len(entries) == 2000


@pytest.mark.parametrize(
    "corrupt",
    ['{"action_id": "x", "y": {"z": 1, ', '{"action_id": "x, "y": 1}', '{"action_id": "x"]'],
)
def test_where_a_record_has_no_end_it_is_said_that_nothing_after_it_is_read(
    path: Path, corrupt: str
) -> None:
    write(path, record(0), corrupt, record(1), record(2))
    entries, error = read_to_the_error(path)
    assert action_ids(entries) == ids(1)
    assert "audit.json: record 2 is not valid JSON" in error


def test_records_that_nothing_separates_are_not_guessed_at(path: Path) -> None:
    write(path, record(0), record(1) + record(2))
    entries, error = read_to_the_error(path)
    assert action_ids(entries) == ids(2)
    assert "record 3" in error


def test_a_record_too_long_is_skipped_in_little_memory(path: Path) -> None:
    first, second = record(0), record(1)
    long = '{"action_id": "' + (r"x\"]}\\" + "x" * 200) * (256 * 1024) + '", "y": [{}]}'
    write(path, first, long, second)
    del long
    file = open_audit_file(path)
    tracemalloc.start()
    try:
        entries = list(file.entries())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert action_ids(entries) == ids(2)
    assert problems(entries) == [("record 2", "it is longer than 16 MiB")]
    assert peak < 5 * LARGEST


def test_memory_does_not_grow_with_the_file(path: Path) -> None:
    write(path, *([record(0)] * 20_000))
    file = open_audit_file(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in file.entries()) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", [{}, {"indent": 2}])
@pytest.mark.usefixtures("_chunks")
def test_wherever_it_is_cut_off_that_is_said_and_all_before_it_is_read(
    path: Path, layout: dict[str, Any]
) -> None:
    envelope(path, traces(3), ensure_ascii=False, **layout)
    whole = path.read_bytes().rstrip()
    begin = whole.index(b'"traces"')
    first = begin + len('"traces": [')
    for length in [*range(first, len(whole), 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        entries = read(path)
        assert entries[-1].is_cut_off, length
        assert len(problems(entries)) == 1, length
        assert action_ids(entries) == ids(len(entries) - 1), length
    assert len(entries) == 4


def test_one_that_is_cut_off_before_its_records_is_refused(path: Path) -> None:
    envelope(path, traces(1))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(AuditFileError, match="it is cut off before its first record"):
        open_audit_file(path)


def test_more_after_its_end_is_refused_when_all_of_it_was_read(path: Path) -> None:
    envelope(path, traces(2))
    path.write_bytes(path.read_bytes() * 2)
    entries, error = read_to_the_error(path)
    assert action_ids(entries) == ids(2)
    assert "give each export as a file of its own" in error


@pytest.mark.parametrize("layout", [{}, {"indent": 2, "ensure_ascii": False}, {"sort_keys": True}])
@pytest.mark.parametrize("read_before", [0, 1, 4, 5])
def test_reading_goes_on_after_the_last_record(
    path: Path, layout: dict[str, Any], read_before: int
) -> None:
    file = open_audit_file(envelope(path, traces(5), **layout))
    entries = file.entries()
    first = [next(entries) for _ in range(read_before)]
    rest = read(path, json.loads(json.dumps(file.position())))
    assert action_ids([*first, *rest]) == ids(5)
    assert [entry.place for entry in rest] == [f"record {n}" for n in range(read_before + 1, 6)]


def test_what_was_cut_off_is_read_next_time(path: Path) -> None:
    whole = envelope(path, traces(3)).read_bytes()
    path.write_bytes(whole[:-100])
    file = open_audit_file(path)
    assert action_ids(file.entries()) == ids(2)
    path.write_bytes(whole)
    assert action_ids(read(path, file.position())) == ids(1, first=2)


def test_a_file_reads_the_same_from_its_beginning_as_often_as_it_is_asked(path: Path) -> None:
    file = open_audit_file(envelope(path, traces(3)))
    assert list(file.entries()) == list(file.entries())


def test_reading_stops_where_it_is_told_to(path: Path) -> None:
    entries = (file := open_audit_file(envelope(path, traces(5)))).entries()
    next(entries)
    next(entries)
    end = file.position()
    assert action_ids(file.entries(until=end)) == ids(2)
    assert list(file.entries(end, until=end)) == []


def test_a_file_that_was_written_anew_is_found_out(path: Path) -> None:
    file = open_audit_file(envelope(path, traces(3)))
    list(file.entries())
    envelope(path, traces(9, first=1))
    with pytest.raises(ChangedFileError, match="no longer holds"):
        read(path, file.position())
    envelope(path, traces(1))
    with pytest.raises(ChangedFileError, match="shorter"):
        read(path, file.position())
