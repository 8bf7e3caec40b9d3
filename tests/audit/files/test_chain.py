# SPDX-License-Identifier: Apache-2.0
"""Hash chains: the same verdict as the kernel's own, over one file and over several."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from weaver_kernel.stores import (
    ChainVerificationResult,
    JsonlTraceStore,
    SQLiteTraceStore,
    build_record,
)

from agent_kernel_otel.audit.files import AuditFileError, open_audit_file
from agent_kernel_otel.audit.files.chain import ChainResult, verify_chains
from tests.audit.files.written import (
    KEY,
    action_ids,
    envelope,
    exported,
    ids,
    jsonl,
    old_jsonl,
    sqlite,
    traces,
)
from tests.audit.traces import WHEN

Lines = list[dict[str, Any]]
Change = Callable[[Lines], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def verify(*paths: Path, key: str = KEY) -> list[ChainResult]:
    return verify_chains([open_audit_file(path) for path in paths], key)


def by_kernel(path: Path, key: str = KEY) -> ChainVerificationResult:
    if path.suffix == ".jsonl":
        return JsonlTraceStore(path, secret=key).verify_chain()
    with closing(SQLiteTraceStore(path, secret=key)) as store:
        return store.verify_chain()


def rewrite(path: Path, change: Change) -> None:
    """Change the records of a file, whichever it is."""
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        change(lines)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return
    columns = "seq, prev_hash, record_hash, payload"
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f"SELECT {columns} FROM traces ORDER BY seq").fetchall()
        lines = [
            {"seq": row[0], "prev_hash": row[1], "record_hash": row[2], "trace": json.loads(row[3])}
            for row in rows
        ]
        change(lines)
        connection.execute("DELETE FROM traces")
        for at, line in enumerate(lines):
            values = (
                line["seq"],
                line["prev_hash"],
                line["record_hash"],
                json.dumps(line["trace"]),
            )
            connection.execute(
                f"INSERT INTO traces ({columns}, action_id, invoked_at) VALUES (?, ?, ?, ?, ?, '')",
                (*values, at),
            )
        connection.commit()


def set_payload(lines: Lines) -> None:
    lines[3]["trace"]["capability_id"] = "canary"


def add_to_payload(lines: Lines) -> None:
    lines[3]["trace"]["more"] = 1


def swap_content(lines: Lines) -> None:
    lines[2]["trace"], lines[3]["trace"] = lines[3]["trace"], lines[2]["trace"]


def move(lines: Lines) -> None:
    """Two records change places, and their numbers too, as a table keeps its rows in order."""
    lines[2], lines[3] = lines[3], lines[2]
    lines[2]["seq"], lines[3]["seq"] = lines[3]["seq"], lines[2]["seq"]


def insert(lines: Lines) -> None:
    added = json.loads(json.dumps(lines[2]))
    lines.insert(3, added)
    for seq, line in enumerate(lines):
        line["seq"] = seq


CHANGES: list[Change] = [
    set_payload,
    add_to_payload,
    swap_content,
    move,
    insert,
    lambda lines: lines.pop(3),
    lambda lines: lines.pop(0),
    lambda lines: lines[0].update(prev_hash="1" * 64),
    lambda lines: lines[3].update(record_hash="1" * 64),
    lambda lines: lines[3].update(seq=77),
    lambda lines: lines[5].update(prev_hash=""),
]


@pytest.fixture(params=["audit.jsonl", "audit.db"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path: Path = tmp_path / request.param
    return jsonl(path, traces(6)) if path.suffix == ".jsonl" else sqlite(path, traces(6))


def test_an_untouched_store_holds(store: Path) -> None:
    (result,) = verify(store)
    assert (result.ok, result.records, result.place, result.continues) == (True, 6, None, False)
    assert result.detail == "6 records checked"
    assert by_kernel(store).ok


def test_what_an_older_release_wrote_holds(path: Path) -> None:
    (result,) = verify(old_jsonl(path, 6))
    assert (result.ok, result.records) == (True, 6)


@pytest.mark.parametrize(
    "args",
    [
        {"b": 1.0, "a": [1e300, -0.0, 0.1], "é": "\u2028☃\ud800"},
        {"nan": float("nan"), "inf": float("-inf")},
        {"big": 10**40, "deep": {"z": {"y": {"x": None}}}, "true": True},
    ],
)
def test_the_canonical_form_of_any_content_is_the_kernel_s(path: Path, args: Any) -> None:
    jsonl(path, traces(2, args=args))
    assert by_kernel(path).ok
    assert verify(path)[0].ok


def test_another_key_is_found_out(store: Path) -> None:
    (result,) = verify(store, key="other")
    assert (result.ok, result.records) == (False, 0)
    assert result.place in {"line 1", "seq 0"}
    assert result.detail == "its hash does not fit: the key is another, or it was changed"
    assert not by_kernel(store, "other").ok


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_where_the_kernel_finds_it(store: Path, change: Change) -> None:
    rewrite(store, change)
    kernel = by_kernel(store)
    (result,) = verify(store)
    assert (kernel.ok, result.ok) == (False, False)
    assert result.records == kernel.records_checked - 1
    if result.place is not None and result.place.startswith("seq"):
        assert result.place == f"seq {kernel.first_bad_seq}"
    assert "canary" not in result.detail


def test_two_writers_that_forked_a_chain_are_found_out(path: Path) -> None:
    jsonl(path, traces(2))
    one, other = JsonlTraceStore(path, secret=KEY), JsonlTraceStore(path, secret=KEY)
    for record in traces(1, first=2):
        one.record(record)
    for record in traces(2, first=3):
        other.record(record)
    assert (verify(path)[0].place, by_kernel(path).first_bad_seq) == ("line 4", 2)
    # Without the one that has the same number as another, all numbers and all hashes fit.
    rewrite(path, lambda lines: lines.pop(3))
    assert (verify(path)[0].place, by_kernel(path).first_bad_seq) == ("line 4", 3)


def test_numbers_that_skip_are_found_out_though_all_is_signed(path: Path) -> None:
    jsonl(path, traces(1))
    first = JsonlTraceStore(path, secret=KEY).list_records()[0]
    later = build_record(5, first.record_hash, first.trace, secret=KEY)
    with path.open("a") as file:
        file.write(json.dumps(asdict(later)) + "\n")
    assert (verify(path)[0].place, by_kernel(path).first_bad_seq) == ("line 2", 5)


def test_a_tail_that_is_missing_cannot_be_told(store: Path) -> None:
    rewrite(store, lambda lines: lines.pop())
    assert by_kernel(store).ok
    assert verify(store)[0].ok


def test_a_corrupt_record_breaks_the_chain(path: Path) -> None:
    lines = jsonl(path, traces(3)).read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[1][:-9], lines[2], b""]))
    (result,) = verify(path)
    assert (result.ok, result.records, result.place) == (False, 1, "line 2")
    assert result.detail.startswith("it cannot be read: it is not valid JSON")


def test_a_record_without_a_chain_among_others_is_one_that_was_added(path: Path) -> None:
    first, second = jsonl(path, traces(2)).read_text().splitlines()
    path.write_text("\n".join([first, json.dumps(json.loads(first)["trace"]), second, ""]))
    (result,) = verify(path)
    assert (result.place, result.detail) == ("line 2", "it is not chained, and was added later")


def test_a_last_line_that_is_being_written_is_not_checked(path: Path) -> None:
    whole = jsonl(path, traces(3)).read_bytes()
    path.write_bytes(whole[:-50])
    (result,) = verify(path)
    assert result.ok
    assert result.detail == "2 records checked, and not the last one, which is cut off"
    path.write_bytes(whole)
    assert action_ids(open_audit_file(path).entries(until=result.end)) == ids(2)


def test_what_is_appended_after_the_check_is_beyond_its_end(store: Path) -> None:
    file = open_audit_file(store)
    (result,) = verify_chains([file], KEY)
    write = jsonl if store.suffix == ".jsonl" else sqlite
    write(store, traces(2, first=6))
    assert action_ids(file.entries(until=result.end)) == ids(6)


@pytest.mark.parametrize("write", [exported, envelope])
def test_a_format_without_a_chain_is_one_clear_error(
    path: Path, write: Callable[..., Path]
) -> None:
    write(path, traces(2))
    with pytest.raises(AuditFileError, match=r"audit.jsonl: its records are not chained"):
        verify(path)


def test_files_with_no_records_hold(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    sqlite(tmp_path / "a.db", [])
    results = verify(tmp_path / "a.jsonl", tmp_path / "a.db")
    assert [(each.ok, each.detail) for each in results] == [(True, "0 records checked")] * 2


def test_an_empty_key_is_a_mistake_of_the_caller(path: Path) -> None:
    with pytest.raises(ValueError, match="the key is empty"):
        verify(jsonl(path, traces(1)), key="")


def test_it_can_be_seen_how_far_it_is(path: Path) -> None:
    file = open_audit_file(jsonl(path, traces(2100)))
    seen: list[int] = []
    verify_chains([file], KEY, lambda: seen.append(file.done))
    assert len(seen) == 3
    assert seen == sorted(seen)
    assert seen[-1] == file.size


def test_memory_does_not_grow_with_the_chain(path: Path) -> None:
    jsonl(path, traces(4000))
    tracemalloc.start()
    try:
        assert verify(path)[0].records == 4000
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


class TestPruned:
    @pytest.fixture
    def pruned(self, tmp_path: Path) -> Path:
        path = sqlite(tmp_path / "audit.db", traces(6))
        with closing(SQLiteTraceStore(path, secret=KEY)) as store:
            assert store.prune(WHEN + timedelta(minutes=2)) == 2
        return path

    def test_what_is_left_holds(self, pruned: Path) -> None:
        (result,) = verify(pruned)
        assert (result.ok, result.records) == (True, 4)
        assert by_kernel(pruned).ok

    def test_what_was_written_after_everything_was_pruned_holds(self, pruned: Path) -> None:
        with closing(SQLiteTraceStore(pruned, secret=KEY)) as store:
            assert store.prune(WHEN + timedelta(days=1)) == 4
        sqlite(pruned, traces(2, first=6))
        assert by_kernel(pruned).ok
        assert verify(pruned)[0].ok

    @pytest.mark.parametrize("change", CHANGES)
    def test_a_change_is_found_where_the_kernel_finds_it(
        self, tmp_path: Path, change: Change
    ) -> None:
        path = sqlite(tmp_path / "audit.db", traces(8))
        with closing(SQLiteTraceStore(path, secret=KEY)) as store:
            store.prune(WHEN + timedelta(minutes=2))
        rewrite(path, change)
        kernel = by_kernel(path)
        (result,) = verify(path)
        assert (kernel.ok, result.ok) == (False, False)
        assert result.place == f"seq {kernel.first_bad_seq}"

    def test_a_checkpoint_that_was_changed_is_found_out(self, pruned: Path) -> None:
        with closing(sqlite3.connect(pruned)) as connection:
            connection.execute("UPDATE meta SET value = 'x' WHERE key = 'checkpoint_hash'")
            connection.commit()
        (result,) = verify(pruned)
        assert (result.ok, result.place) == (False, "seq 2")
        assert "where the store says it was pruned" in result.detail
        assert not by_kernel(pruned).ok

    def test_a_store_that_is_pruned_meanwhile_is_no_broken_chain(self, tmp_path: Path) -> None:
        path = sqlite(tmp_path / "audit.db", traces(2100))

        def prune() -> None:
            with closing(SQLiteTraceStore(path, secret=KEY)) as store:
                store.prune(WHEN + timedelta(minutes=2050))

        (result,) = verify_chains([open_audit_file(path)], KEY, prune)
        assert not result.ok
        assert result.detail == "the store was pruned while it was checked; check it again"
        assert verify(path)[0].ok


class TestRotated:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> list[Path]:
        """One chain in three files."""
        lines = jsonl(tmp_path / "all.jsonl", traces(9)).read_bytes().splitlines(keepends=True)
        parts = [tmp_path / f"{name}.jsonl" for name in "abc"]
        for at, part in enumerate(parts):
            part.write_bytes(b"".join(lines[at * 3 : at * 3 + 3]))
        return parts

    def test_files_in_order_are_one_chain(self, parts: list[Path]) -> None:
        results = verify(*parts)
        assert [(each.ok, each.records, each.continues) for each in results] == [
            (True, 3, False),
            (True, 3, True),
            (True, 3, True),
        ]

    def test_an_empty_file_between_them_is_no_matter(self, parts: list[Path]) -> None:
        empty = parts[0].with_name("empty.jsonl")
        empty.write_bytes(b"")
        assert all(each.ok for each in verify(parts[0], empty, parts[1]))

    def test_a_first_file_that_begins_in_the_middle_asks_for_the_one_before_it(
        self, parts: list[Path]
    ) -> None:
        first, second = verify(*parts[1:])
        assert (first.ok, first.place) == (False, "line 1")
        assert "give the file before it first" in first.detail
        assert (second.ok, second.detail) == (
            False,
            "it is no beginning, and the file before it does not hold",
        )

    def test_a_file_that_is_missing_between_two_is_found_out(self, parts: list[Path]) -> None:
        first, second = verify(parts[0], parts[2])
        assert (first.ok, second.ok, second.place) == (True, False, "line 1")
        assert "it does not go on from seq 2, where the file before it ends" in second.detail

    def test_a_record_that_is_missing_at_a_border_is_found_out(self, parts: list[Path]) -> None:
        rewrite(parts[0], lambda lines: lines.pop())
        assert [each.ok for each in verify(*parts)] == [True, False, False]

    def test_chains_that_have_nothing_to_do_with_each_other_each_hold(
        self, parts: list[Path], tmp_path: Path
    ) -> None:
        other = jsonl(tmp_path / "other.jsonl", traces(2, first=50))
        store = sqlite(tmp_path / "store.db", traces(2, first=70))
        results = verify(parts[0], parts[1], other, store)
        assert [(each.ok, each.continues) for each in results] == [
            (True, False),
            (True, True),
            (True, False),
            (True, False),
        ]

    def test_a_chain_of_its_own_is_checked_after_one_that_does_not_hold(
        self, parts: list[Path], tmp_path: Path
    ) -> None:
        other = jsonl(tmp_path / "other.jsonl", traces(2, first=50))
        assert [each.ok for each in verify(parts[1], other)] == [False, True]
