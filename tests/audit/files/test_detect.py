# SPDX-License-Identifier: Apache-2.0
"""Which format a file has: found by its content, never guessed wrong, refused in clear words."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from weaver_kernel.trace import export_action_trace

from agent_kernel_otel.audit.files import AuditFileError, open_audit_file
from tests.audit.files.written import (
    action_ids,
    envelope,
    exported,
    ids,
    jsonl,
    problems,
    read,
    sqlite,
    traces,
)

WRITERS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda path: jsonl(path, traces(3)),
    "sqlite": lambda path: sqlite(path, traces(3)),
    "envelope": lambda path: envelope(path, traces(3)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def refused(path: Path, format_: str | None = None) -> str:
    with pytest.raises(AuditFileError) as caught:
        open_audit_file(path, format_)
    text = str(caught.value)
    assert "\n" not in text
    assert "canary" not in text.replace(str(path), "")
    return text


@pytest.mark.parametrize("format_", WRITERS)
def test_a_format_is_found_by_content_or_given(path: Path, format_: str) -> None:
    WRITERS[format_](path)
    assert open_audit_file(path).format == format_
    assert action_ids(open_audit_file(path, format_).entries()) == ids(3)


@pytest.mark.parametrize("found", WRITERS)
@pytest.mark.parametrize("given", WRITERS)
def test_another_format_than_the_one_it_has_is_refused(path: Path, found: str, given: str) -> None:
    WRITERS[found](path)
    if given != found:
        assert refused(path, given) == f"{path}: its format is {found}, and not {given}"


def test_a_format_that_there_is_not_is_a_mistake_of_the_caller(path: Path) -> None:
    with pytest.raises(ValueError, match="format is one of jsonl, sqlite, envelope"):
        open_audit_file(jsonl(path, traces(1)), "csv")


@pytest.mark.parametrize("content", [b"", b"\n\n  \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_one_with_no_records(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    file = open_audit_file(path)
    assert (file.format, list(file.entries())) == ("jsonl", [])


def test_lines_are_known_by_a_later_one_where_the_first_are_corrupt(path: Path) -> None:
    path.write_bytes(b"garbage\n{oops\n" + jsonl(path, traces(2)).read_bytes())
    assert action_ids(read(path)) == ids(2)
    assert [place for place, _ in problems(read(path))] == ["line 1", "line 2"]


def test_lines_that_are_all_corrupt_are_no_audit_file_unless_the_user_says_so(path: Path) -> None:
    path.write_bytes(b'{"canary": 1}\n{oops\n' * 10_000)
    assert "expected JSON lines or SQLite as the kernel's trace stores write" in refused(path)
    assert len(problems(open_audit_file(path, "jsonl").entries())) == 20_000
    assert "expected" in refused(path, "sqlite")
    assert "expected" in refused(path, "envelope")


def test_where_a_corrupt_line_comes_before_a_long_one_the_option_is_named(
    path: Path,
) -> None:
    lines = exported(path, traces(2, args={"x": "x" * 100_000})).read_bytes()
    path.write_bytes(b"garbage\n" + lines)
    assert refused(path).endswith(
        "; if its first lines are damaged ones of JSON lines: --format jsonl"
    )
    assert action_ids(open_audit_file(path, "jsonl").entries()) == ids(2)


def test_a_first_line_longer_than_the_head_is_read_to_its_end(path: Path) -> None:
    exported(path, traces(2, args={"x": "x" * 1_000_000}))
    assert action_ids(read(path)) == ids(2)


@pytest.mark.parametrize("kept", [12, 200])
def test_a_first_record_that_is_cut_off_makes_it_no_other_file(path: Path, kept: int) -> None:
    path.write_bytes(jsonl(path, traces(1)).read_bytes()[:kept])
    (entry,) = read(path)
    assert entry.is_cut_off


def test_a_record_with_members_of_an_envelope_is_a_line(path: Path) -> None:
    payload = export_action_trace(traces(1)[0])
    path.write_text(json.dumps({"schema": "x", "traces": [], **payload}) + "\n")
    assert open_audit_file(path).format == "jsonl"


def test_an_envelope_with_a_record_on_each_line_is_no_file_of_lines(path: Path) -> None:
    records = ",\n".join(json.dumps(export_action_trace(each)) for each in traces(3))
    path.write_text(
        '{"schema": "weaver_kernel.action_trace_export", "version": "1", "traces": [\n'
        f"{records}\n]}}\n"
    )
    assert open_audit_file(path).format == "envelope"
    assert action_ids(read(path)) == ids(3)


@pytest.mark.parametrize(
    ("pack", "command"),
    [
        (gzip.compress, "zcat"),
        (bz2.compress, "bzcat"),
        (lzma.compress, "xzcat"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "zstdcat"),
        (lambda data: b"PK\x03\x04" + data, "unzip -p"),
    ],
)
def test_a_packed_file_is_refused_with_the_command_that_unpacks_it(
    tmp_path: Path, pack: Callable[[bytes], bytes], command: str
) -> None:
    path = tmp_path / "audit log"
    path.write_bytes(pack(jsonl(path, traces(1)).read_bytes()))
    assert refused(path).endswith(f": {command} '{path}' | agent-kernel-otel export -")
    assert command in refused(path, "jsonl")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE")],
)
def test_utf_16_is_refused_with_the_command_that_converts_it(
    path: Path, encoding: str, name: str
) -> None:
    path.write_bytes(jsonl(path, traces(1)).read_text().encode(encoding))
    assert f"iconv -f {name} -t UTF-8 {path} | agent-kernel-otel export -" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"canary",
        b"canary,canary\n1,2\n",
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
        b'{"resourceSpans": [{"canary": 1}]}\n',
        b'{"canary": {"traces": [{"action_id": "x"}]}}',
        bytes(100_000),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refused(path) == (
        f"{path}: it is no audit file; expected JSON lines or SQLite as the kernel's trace stores "
        "write, or its JSON export"
    )


def test_the_kernel_s_own_listing_is_refused_with_the_command_that_exports(path: Path) -> None:
    path.write_text(json.dumps([export_action_trace(each) for each in traces(2)], indent=2))
    assert refused(path).endswith("make it with `weaver-kernel audit export`")


def test_a_file_that_is_not_there(path: Path) -> None:
    assert refused(path) == f"{path}: it cannot be read: No such file or directory"


def test_a_directory(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: it is a directory; name the files in it"


def test_a_file_that_may_not_be_read(path: Path) -> None:
    jsonl(path, traces(1)).chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # who may read anything
        os.seteuid(65534)
    try:
        assert refused(path) == f"{path}: it cannot be read: Permission denied"
    finally:
        if is_root:
            os.seteuid(0)


class TestStandardInput:
    @staticmethod
    def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
        monkeypatch.setattr(sys, "stdin", stdin)

    @pytest.mark.parametrize("format_", ["jsonl", "envelope"])
    def test_text_is_read_from_it(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
    ) -> None:
        self.give(monkeypatch, WRITERS[format_](path).read_bytes())
        file = open_audit_file(Path("-"))
        assert file.format == format_
        assert action_ids(file.entries()) == ids(3)

    @pytest.mark.parametrize(
        ("write", "said"),
        [
            (WRITERS["sqlite"], "SQLite cannot be read from a stream; write it to a file"),
            (lambda path: path, "it is packed by gzip: zcat FILE | agent-kernel-otel export -"),
        ],
    )
    def test_what_cannot_be_read_from_it_is_refused(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        write: Callable[[Path], Path],
        said: str,
    ) -> None:
        path.write_bytes(gzip.compress(b"{}")) if "gzip" in said else None
        self.give(monkeypatch, write(path).read_bytes())
        assert refused(Path("-")).startswith(f"standard input: {said}")

    def test_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        assert refused(Path("-")) == "standard input: it is closed"

    def test_empty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.give(monkeypatch, b"")
        assert read(Path("-")) == []
