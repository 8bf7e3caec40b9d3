# SPDX-License-Identifier: Apache-2.0
"""JSON lines: what is read of them, what is reported, and from where reading goes on."""

from __future__ import annotations

import io
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from weaver_kernel.stores import JsonlTraceStore

from agent_kernel_otel.audit.files import AuditFileError, ChangedFileError, open_audit_file
from agent_kernel_otel.audit.files.entries import Entry
from agent_kernel_otel.audit.files.parsing import LARGEST
from tests.audit.files.written import (
    KEY,
    action_ids,
    exported,
    ids,
    jsonl,
    old_jsonl,
    old_payloads,
    problems,
    read,
    traces,
)

MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_a_store_is_read_with_the_place_of_each_record_in_its_chain(path: Path) -> None:
    jsonl(path, traces(3))
    records = JsonlTraceStore(path, secret=KEY).list_records()
    entries = read(path)
    assert [entry.payload for entry in entries] == [record.trace for record in records]
    links = [entry.link for entry in entries if entry.link is not None]
    assert [(link.seq, link.prev_hash, link.record_hash) for link in links] == [
        (record.seq, record.prev_hash, record.record_hash) for record in records
    ]
    assert [entry.place for entry in entries] == ["line 1", "line 2", "line 3"]


def test_the_lines_of_an_older_release_are_read(path: Path) -> None:
    assert [entry.payload for entry in read(old_jsonl(path, 3))] == old_payloads(3)


def test_an_export_has_a_record_on_each_line_and_no_chain(path: Path) -> None:
    entries = read(exported(path, traces(3)))
    assert action_ids(entries) == ids(3)
    assert [entry.link for entry in entries] == [None] * 3


def test_both_kinds_of_lines_can_be_in_one_file(path: Path) -> None:
    exported(path, traces(2))
    before = path.read_bytes()
    path.unlink()
    path.write_bytes(before + jsonl(path, traces(1, first=2)).read_bytes() + before)
    assert action_ids(read(path)) == [*ids(3), *ids(2)]


def test_windows_line_ends_blank_lines_a_byte_order_mark_and_no_last_line_end(path: Path) -> None:
    lines = jsonl(path, traces(3)).read_bytes().splitlines()
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n \t\r\n".join(lines))
    entries = read(path)
    assert action_ids(entries) == ids(3)
    assert [entry.place for entry in entries] == ["line 1", "line 4", "line 7"]
    assert not problems(entries)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"action_id": "canary" oops}', "it is not valid JSON (column 24)"),
        (b'{"action_id": "canary-\xff"}', "it is not UTF-8 text"),
        (b'["canary"]', "it is no JSON object"),
        (b'{"canary": 1}', "it is no audit record: it has neither trace nor action_id"),
        (b'{"trace": "canary"}', "it is no audit record: it has neither trace nor action_id"),
        (b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_corrupt_line_is_reported_with_its_place_and_without_its_content(
    path: Path, line: bytes, problem: str
) -> None:
    first, second = jsonl(path, traces(2)).read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, second, b""]))
    entries = read(path)
    assert action_ids(entries) == ids(2)
    assert problems(entries) == [("line 2", problem)]
    assert not any(entry.is_cut_off for entry in entries)


def test_a_number_of_too_many_digits_is_a_corrupt_line_where_python_refuses_it(path: Path) -> None:
    path.write_bytes(
        exported(path, traces(1)).read_bytes() + b'{"action_id": %s}\n' % (b"9" * 9999)
    )
    try:
        int("9" * 9999)
    except ValueError:
        assert problems(read(path)) == [("line 2", "it holds a number of too many digits")]
    else:
        assert not problems(read(path))


def test_a_chained_line_without_its_hashes_is_a_record_without_a_place_in_the_chain(
    path: Path,
) -> None:
    payload = old_payloads(1)[0]
    path.write_text(json.dumps({"seq": "x", "prev_hash": "", "record_hash": "", "trace": payload}))
    (entry,) = read(path)
    assert (entry.payload, entry.link) == (payload, None)


def test_a_line_too_long_is_skipped_in_little_memory(path: Path) -> None:
    first, second = jsonl(path, traces(2)).read_bytes().splitlines()
    with path.open("wb") as file:
        file.write(first + b'\n{"action_id": "')
        for _ in range(96):
            file.write(b"x" * MIB)
        file.write(b'"}\n' + second)
    file_of = open_audit_file(path)
    tracemalloc.start()
    try:
        entries = list(file_of.entries())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert action_ids(entries) == ids(2)
    assert problems(entries) == [("line 2", "it is longer than 16 MiB")]
    assert peak < 3 * LARGEST
    assert read(path, file_of.position()) == []


def test_the_longest_line_there_may_be_is_read(path: Path) -> None:
    line = b'{"action_id": "%s"}\n'
    path.write_bytes(line % (b"x" * (LARGEST - len(line) + 2)))
    assert path.stat().st_size == LARGEST
    assert not problems(read(path))


def test_memory_does_not_grow_with_the_file(path: Path) -> None:
    line = exported(path, traces(1)).read_bytes()
    path.write_bytes(line * 20_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_audit_file(path).entries()) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read_before", [0, 1, 3, 5])
def test_reading_goes_on_after_the_last_record(path: Path, read_before: int) -> None:
    jsonl(path, traces(5))
    file = open_audit_file(path)
    entries = file.entries()
    first = [next(entries) for _ in range(read_before)]
    position = json.loads(json.dumps(file.position()))
    rest = read(path, position)
    assert action_ids([*first, *rest]) == ids(5)
    assert [entry.place for entry in rest] == [f"line {n}" for n in range(read_before + 1, 6)]


def test_what_is_appended_later_is_read_next_time_and_nothing_else(path: Path) -> None:
    jsonl(path, traces(2))
    file = open_audit_file(path)
    list(file.entries())
    jsonl(path, traces(2, first=2))
    assert action_ids(file.entries(file.position())) == ids(2, first=2)
    assert list(file.entries(file.position())) == []


def test_a_file_reads_the_same_from_its_beginning_as_often_as_it_is_asked(path: Path) -> None:
    file = open_audit_file(jsonl(path, traces(3)))
    first = list(file.entries())
    at_the_end = file.position()
    assert list(file.entries()) == first
    assert file.position() == at_the_end
    next(file.entries())
    assert file.position() != at_the_end


def test_reading_stops_where_it_is_told_to(path: Path) -> None:
    file = open_audit_file(jsonl(path, traces(3)))
    list(file.entries())
    end = file.position()
    jsonl(path, traces(2, first=3))
    assert action_ids(file.entries(until=end)) == ids(3)
    assert file.position() == end
    assert list(file.entries(end, until=end)) == []


def test_nothing_is_read_up_to_the_beginning(path: Path) -> None:
    file = open_audit_file(jsonl(path, traces(1)))
    assert list(file.entries(until=open_audit_file(path).position())) == []


@pytest.mark.parametrize("kept", [1, 100, -1])
def test_a_last_line_that_is_cut_off_is_left_for_the_next_time(path: Path, kept: int) -> None:
    whole = jsonl(path, traces(3)).read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    path.write_bytes(first + second + third.rstrip()[:kept])
    file = open_audit_file(path)
    entries = list(file.entries())
    assert action_ids(entries) == ids(2)
    assert entries[-1] == Entry(
        "line 3", None, problem="it is cut off: the file ends in the midst of it", is_cut_off=True
    )
    assert file.done == path.stat().st_size == file.size
    position = file.position()
    path.write_bytes(whole)
    (completed,) = read(path, position)
    assert (completed.place, action_ids([completed])) == ("line 3", ids(1, first=2))


def test_a_last_line_without_an_end_counts_as_one_line_when_its_end_comes(path: Path) -> None:
    whole = jsonl(path, traces(2)).read_bytes()
    path.write_bytes(whole.rstrip())
    file = open_audit_file(path)
    assert action_ids(file.entries()) == ids(2)
    path.write_bytes(whole)
    jsonl(path, traces(1, first=2))
    (entry,) = file.entries(file.position())
    assert (entry.place, action_ids([entry])) == ("line 3", ids(1, first=2))


def test_a_file_that_is_shorter_is_found_out(path: Path) -> None:
    file = open_audit_file(jsonl(path, traces(3)))
    list(file.entries())
    position = file.position()
    path.write_bytes(b"")
    with pytest.raises(ChangedFileError, match=r"audit.jsonl: it is shorter"):
        read(path, position)


@pytest.mark.parametrize("first", [1, 3])
def test_a_file_that_was_rotated_or_rewritten_is_found_out(path: Path, first: int) -> None:
    file = open_audit_file(jsonl(path, traces(3)))
    list(file.entries())
    path.rename(path.with_suffix(".1"))
    jsonl(path, traces(9, first=first))
    with pytest.raises(ChangedFileError, match="no longer holds the record that was last read"):
        read(path, file.position())
    with pytest.raises(ChangedFileError):
        list(open_audit_file(path).entries(until=file.position()))


def test_a_position_of_another_format_is_found_out(path: Path) -> None:
    jsonl(path, traces(1))
    with pytest.raises(ChangedFileError, match="its format is another"):
        read(path, {"seq": 0, "record_hash": "0"})


class TestStreams:
    def test_standard_input_is_read_line_by_line(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jsonl(path, traces(300))
        stdin = io.BufferedReader(io.BytesIO(path.read_bytes()))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        file = open_audit_file(Path("-"))
        assert (file.format, file.size) == ("jsonl", None)
        assert action_ids(file.entries()) == ids(300)
        assert not stdin.closed
        with pytest.raises(AuditFileError, match=r"standard input: .* only once"):
            list(file.entries())

    def test_a_record_is_given_before_the_writer_of_a_pipe_goes_on(self, path: Path) -> None:
        lines = jsonl(path, traces(2)).read_bytes().splitlines(keepends=True)
        pipe = path.with_name("pipe")
        os.mkfifo(pipe)
        writer = os.open(pipe, os.O_RDWR)  # does not wait for a reader
        try:
            os.write(writer, lines[0])
            file = open_audit_file(pipe)
            entries = file.entries()
            assert action_ids([next(entries)]) == ids(1)
            os.write(writer, lines[1])
            assert action_ids([next(entries)]) == ids(1, first=1)
        finally:
            os.close(writer)
        assert list(entries) == []

    def test_one_that_breaks_off_is_said_to(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(io.BytesIO):
            def read1(self, size: int | None = -1, /) -> bytes:
                data = super().read1(size)
                if not data:
                    raise OSError(5, "Input/output error")
                return data

        stdin = Broken(jsonl(path, traces(2)).read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        entries = open_audit_file(Path("-")).entries()
        assert action_ids([next(entries), next(entries)]) == ids(2)
        with pytest.raises(AuditFileError, match="standard input: it cannot be read: Input/output"):
            next(entries)

    def test_nobody_can_go_on_in_a_stream(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jsonl(path, traces(2))
        file = open_audit_file(path)
        next(file.entries())
        with path.open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(AuditFileError, match=r"standard input: .* cannot be gone on with"):
                read(Path("-"), file.position())
