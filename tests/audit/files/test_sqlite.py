# SPDX-License-Identifier: Apache-2.0
"""SQLite files: read without a trace, beside a kernel that writes, damaged and gone on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from weaver_kernel.stores import SQLiteRevocationStore, SQLiteTraceStore

from agent_kernel_otel.audit.files import AuditFileError, ChangedFileError, open_audit_file
from agent_kernel_otel.audit.files.sqlite import SqliteFile, _Page
from tests.audit.files.written import (
    KEY,
    action_ids,
    contents,
    ids,
    old_payloads,
    problems,
    read,
    read_to_the_error,
    sqlite,
    traces,
)
from tests.audit.traces import WHEN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


def test_a_store_is_read_with_the_place_of_each_record_in_its_chain(path: Path) -> None:
    sqlite(path, traces(3))
    with closing(SQLiteTraceStore(path, secret=KEY)) as store:
        records = store.list_records()
    entries = read(path)
    assert [entry.payload for entry in entries] == [record.trace for record in records]
    links = [entry.link for entry in entries if entry.link is not None]
    assert [(link.seq, link.prev_hash, link.record_hash) for link in links] == [
        (record.seq, record.prev_hash, record.record_hash) for record in records
    ]
    assert [entry.place for entry in entries] == ["seq 0", "seq 1", "seq 2"]


def test_rows_of_an_older_release_are_read(path: Path) -> None:
    sqlite(path, traces(2))
    payloads = old_payloads(2)
    for seq, payload in enumerate(payloads):
        change(path, "UPDATE traces SET payload = ? WHERE seq = ?", json.dumps(payload), seq)
    assert [entry.payload for entry in read(path)] == payloads


def test_more_rows_than_a_page_has_are_read_in_order(path: Path) -> None:
    sqlite(path, traces(2500))
    file = open_audit_file(path)
    assert file.size == 2500
    assert action_ids(file.entries()) == ids(2500)
    assert file.done == 2500


def test_rows_that_are_large_are_read_in_smaller_pages(path: Path) -> None:
    sqlite(path, traces(5, args={"x": "x" * 3_000_000}))
    assert action_ids(read(path)) == ids(5)


@pytest.mark.parametrize("name", ["a?b.db", "a#b.db", "a b%20c.db", "ü☃.db", "file:x.db"])
def test_any_name_of_a_file_works(tmp_path: Path, name: str) -> None:
    path = sqlite(tmp_path / name, traces(1))
    before = contents(tmp_path)
    assert action_ids(read(path)) == ids(1)
    assert contents(tmp_path) == before


def test_a_name_of_another_place_works(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite(path, traces(1), journal="wal")
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert action_ids(read(link)) == ids(1)
    monkeypatch.chdir(tmp_path)
    assert action_ids(read(Path(path.name))) == ids(1)


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_a_file_that_nobody_writes_is_left_as_it_was_with_nothing_beside_it(
    path: Path, journal: str
) -> None:
    sqlite(path, traces(1500), journal)
    before = contents(path.parent)
    assert action_ids(read(path)) == ids(1500)
    assert contents(path.parent) == before


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_file_that_a_kernel_has_open_is_left_as_it_was(path: Path, journal: str) -> None:
    with closing(SQLiteTraceStore(path, secret=KEY)) as store:
        store._conn.execute(f"PRAGMA journal_mode={journal}")
        for record in traces(10):
            store.record(record)
        before = contents(path.parent)
        assert action_ids(read(path)) == ids(10)
        after = contents(path.parent)
    # The index of a write-ahead log is where its readers tell what they read.
    assert before.pop("audit.db-shm", None) is not None or journal == "delete"
    after.pop("audit.db-shm", None)
    assert after == before


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_no_lock_is_held_while_records_are_looked_at(path: Path, journal: str) -> None:
    sqlite(path, traces(1200), journal)
    entries = open_audit_file(path).entries()
    first = [next(entries) for _ in range(10)]
    with closing(SQLiteTraceStore(path, secret=KEY)) as store:
        store._conn.execute("PRAGMA busy_timeout=0")
        for record in traces(5, first=1200):
            store.record(record)
        assert action_ids([*first, *entries]) == ids(1205)


def test_a_log_that_comes_and_goes_while_a_file_is_read_hides_nothing(path: Path) -> None:
    sqlite(path, traces(1200), "wal")
    entries = open_audit_file(path).entries()
    first = [next(entries) for _ in range(1000)]
    sqlite(path, traces(1500, first=1200), "wal")
    assert action_ids([*first, *entries]) == ids(2700)


def test_what_was_read_while_somebody_wrote_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = open_audit_file(sqlite(path, traces(10), "wal"))
    fetch_once = SqliteFile._fetch_once
    options: list[str] = []

    def written_to(self: SqliteFile, option: str, query: str, values: tuple[int, ...]) -> _Page:
        options.append(option)
        if len(options) > 1:
            return fetch_once(self, option, query, values)
        sqlite(path, traces(10, first=10), "wal")
        return _Page([], sqlite3.DatabaseError("database disk image is malformed"))

    monkeypatch.setattr(SqliteFile, "_fetch_once", written_to)
    assert action_ids(file.entries()) == ids(20)
    assert set(options) == {"immutable=1"}


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_kernel_that_writes_all_the_while_never_meets_a_lock(path: Path, journal: str) -> None:
    command = [sys.executable, "-m", "tests.audit.files.sqlite_writer", str(path), journal]
    found = {0}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begins\n"
        while len(found) < 6:
            assert writer.poll() is None, "a lock stopped it"
            read_now = action_ids(read(path))
            assert read_now == ids(len(read_now))
            assert len(read_now) >= max(found)
            found.add(len(read_now))
        written, _ = writer.communicate()
    assert action_ids(read(path)) == ids(int(written))


def test_a_locked_file_is_waited_for(path: Path) -> None:
    sqlite(path, traces(2))
    locker = sqlite3.connect(path, check_same_thread=False)
    locker.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.2, locker.rollback)
    release.start()
    try:
        assert action_ids(SqliteFile(path, patience=30).entries()) == ids(2)
    finally:
        release.join()
        locker.close()


def test_a_file_that_stays_locked_is_one_clear_error(path: Path) -> None:
    sqlite(path, traces(2))
    with closing(sqlite3.connect(path)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(AuditFileError, match=r"audit.db: another process has had it locked"):
            SqliteFile(path, patience=0.05)


def test_a_write_that_was_interrupted_is_said_to_be_in_the_way(path: Path) -> None:
    sqlite(path, traces(2))
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size=1');"
        "c.executemany('INSERT INTO meta VALUES (?, ?)', [(n, 'x' * 3000) for n in range(3000)]);"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    before = contents(path.parent)
    assert "audit.db-journal" in before
    with pytest.raises(AuditFileError, match="a write to it was interrupted"):
        read(path)
    assert contents(path.parent) == before


def test_a_log_where_nothing_may_be_written_is_to_be_copied_elsewhere() -> None:
    with TemporaryDirectory() as folder:  # tmp_path is root's alone
        path, copy = Path(folder, "audit.db"), Path(folder, "copy", "audit.db")
        with closing(SQLiteTraceStore(path, secret=KEY)) as store:
            store._conn.execute("PRAGMA journal_mode=wal")
            store.record(*traces(1))
            shutil.copytree(folder, copy.parent, ignore=shutil.ignore_patterns("*-shm"))
        Path(folder).chmod(0o755)
        copy.parent.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:  # who may write anywhere
            os.seteuid(65534)
        try:
            with pytest.raises(AuditFileError, match=r": what audit.db-wal holds .*: copy both"):
                read(copy)
        finally:
            if is_root:
                os.seteuid(0)
            copy.parent.chmod(0o755)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ('{"action_id": "canary', "it is not valid JSON (column 15)"),
        ('["canary"]', "it is no JSON object"),
        (b'{"action_id": "canary-\xff"}', "it is not UTF-8 text"),
    ],
)
def test_a_corrupt_payload_is_reported_and_the_rest_is_read(
    path: Path, payload: object, problem: str
) -> None:
    sqlite(path, traces(3))
    change(path, "UPDATE traces SET payload = ? WHERE seq = 1", payload)
    entries = read(path)
    assert action_ids(entries) == [ids(3)[0], ids(3)[2]]
    assert problems(entries) == [("seq 1", problem)]


def test_text_that_is_not_utf_8_is_reported_and_the_rest_is_read(path: Path) -> None:
    sqlite(path, traces(3))
    change(path, "UPDATE traces SET payload = CAST(x'7BFF7D' AS TEXT) WHERE seq = 1")
    change(path, "UPDATE traces SET prev_hash = CAST(x'FF' AS TEXT) WHERE seq = 2")
    assert problems(read(path)) == [("seq 1", "it is not UTF-8 text")]


def overwrite(path: Path, page: int, count: int = 1, byte: bytes = b"\xa5") -> None:
    data = bytearray(path.read_bytes())
    data[page * 4096 : (page + count) * 4096] = byte * (count * 4096)
    path.write_bytes(data)


def first_page_with(path: Path, action_id: str) -> int:
    """The page of the table that begins with this record; that of the index holds more ids."""
    pages = [path.read_bytes()[at : at + 4096] for at in range(0, path.stat().st_size, 4096)]
    return next(
        number
        for number, page in enumerate(pages)
        if action_id.encode() in page and b"Z\\u00fcrich" in page
    )


@pytest.mark.parametrize("byte", [b"\xa5", b"\0"])
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("damaged", [0, 90, 1100])
def test_what_is_on_a_damaged_page_is_reported_row_by_row_and_the_rest_is_read(
    path: Path, damaged: int, journal: str, byte: bytes
) -> None:
    sqlite(path, traces(1200), journal)
    overwrite(path, first_page_with(path, ids(1, first=damaged)[0]), byte=byte)
    file = open_audit_file(path)
    entries = list(file.entries())
    places = [f"seq {seq}" for seq in range(1200)]
    assert [entry.place for entry in entries] == places
    lost = [place for place, _ in problems(entries)]
    assert f"seq {damaged}" in lost
    assert len(lost) < 12
    assert {problem for _, problem in problems(entries)} == {"the database is damaged there"}
    assert (file.size, file.done) == (1200, 1200)


def test_a_row_of_many_pages_with_a_damaged_one_is_reported(path: Path) -> None:
    sqlite(path, [*traces(3), *traces(1, first=3, args={"x": "x" * 100_000}), *traces(3, first=4)])
    pages = path.read_bytes()
    overwrite(path, pages.index(b"x" * 4000) // 4096 + 3)
    entries = read(path)
    assert action_ids(entries) == [*ids(3), *ids(3, first=4)]
    assert problems(entries) == [("seq 3", "the database is damaged there")]


def test_damaged_rows_are_reported_again_where_reading_was_left_amid_them(path: Path) -> None:
    sqlite(path, traces(200))
    overwrite(path, first_page_with(path, ids(1, first=90)[0]))
    entries = (file := open_audit_file(path)).entries()
    before = [next(entries) for _ in range(90)]
    lost = next(entries)
    assert lost.payload is None
    again = read(path, file.position())
    assert [entry.place for entry in again] == [f"seq {seq}" for seq in range(90, 200)]
    assert action_ids(before) == ids(90)


def test_a_pruned_store_that_is_damaged_at_its_beginning_is_read(path: Path) -> None:
    TestPruned.prune(sqlite(path, traces(200)), 91)
    overwrite(path, first_page_with(path, ids(1, first=92)[0]))
    places = [entry.place for entry in read(path)]
    assert places == [f"seq {seq}" for seq in range(91, 200)]


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("damage", ["overwritten", "cut off"])
def test_of_a_file_damaged_at_its_end_everything_before_the_damage_is_read(
    path: Path, damage: str, journal: str
) -> None:
    sqlite(path, traces(2500), journal)
    pages = path.stat().st_size // 4096
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[: pages * 4 // 5 * 4096])
    else:
        overwrite(path, pages - 60, 60)
    entries, error = read_to_the_error(path)
    assert re.search(r"the database is damaged after seq \d+; .*recover", error)
    assert len(entries) > 1000
    assert action_ids(entries) == ids(len(entries))


def test_a_pruned_store_that_says_nothing_sensible_is_read_all_the_same(path: Path) -> None:
    TestPruned.prune(sqlite(path, traces(200)), 91)
    change(path, "UPDATE meta SET value = '?' WHERE key = 'checkpoint_next_seq'")
    overwrite(path, first_page_with(path, ids(1, first=92)[0]))
    assert action_ids(read(path))[-50:] == ids(50, first=150)


def test_the_largest_number_there_is_ends_a_file(path: Path) -> None:
    sqlite(path, traces(2))
    change(path, "UPDATE traces SET seq = ? WHERE seq = 1", 2**63 - 1)
    assert action_ids(read(path)) == ids(2)


@pytest.mark.parametrize("length", [50, 99, 100, 4000])
def test_a_file_cut_off_in_its_first_page_is_damaged(path: Path, length: int) -> None:
    sqlite(path, traces(3))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(AuditFileError, match="the database is damaged"):
        read(path)


def test_of_another_database_nothing_is_repeated(path: Path) -> None:
    SQLiteRevocationStore(path).close()
    change(path, 'CREATE TABLE "canary\n\x1b[31m" (id INTEGER)')
    with pytest.raises(AuditFileError) as caught:
        open_audit_file(path)
    assert str(caught.value) == (
        f"{path}: it is a SQLite file without a table traces as SQLiteTraceStore writes"
    )


@pytest.mark.parametrize(
    "table",
    [
        "traces (seq INTEGER PRIMARY KEY, payload TEXT)",
        "traces (seq INTEGER, prev_hash TEXT, record_hash TEXT, payload TEXT)",
        "traces (seq TEXT PRIMARY KEY, prev_hash TEXT, record_hash TEXT, payload TEXT)",
    ],
)
def test_another_table_of_the_same_name_is_not_taken_for_audit_records(
    path: Path, table: str
) -> None:
    change(path, f"CREATE TABLE {table}")
    with pytest.raises(AuditFileError, match="without a table traces as"):
        open_audit_file(path)


def test_a_store_with_no_records_is_read(path: Path) -> None:
    file = open_audit_file(sqlite(path, []))
    assert (list(file.entries()), file.size, file.first_hash()) == ([], 0, None)
    position = file.position()
    sqlite(path, traces(2))
    assert action_ids(read(path, position)) == ids(2)
    assert list(file.entries(until=position)) == []


@pytest.mark.parametrize("read_before", [1, 1000, 1001, 1500])
def test_reading_goes_on_after_the_last_record(path: Path, read_before: int) -> None:
    sqlite(path, traces(1500))
    entries = (file := open_audit_file(path)).entries()
    first = [next(entries) for _ in range(read_before)]
    rest = read(path, json.loads(json.dumps(file.position())))
    assert action_ids([*first, *rest]) == ids(1500)


def test_a_file_reads_the_same_from_its_beginning_as_often_as_it_is_asked(path: Path) -> None:
    file = open_audit_file(sqlite(path, traces(3)))
    assert list(file.entries()) == list(file.entries())
    assert (file.done, file.position()["seq"]) == (3, 2)


def test_reading_stops_where_it_is_told_to(path: Path) -> None:
    file = open_audit_file(sqlite(path, traces(3)))
    list(file.entries())
    end = file.position()
    sqlite(path, traces(2, first=3))
    assert action_ids(file.entries(until=end)) == ids(3)
    assert list(file.entries(end, until=end)) == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM traces", "no longer holds seq 2"),
        ("UPDATE traces SET record_hash = 'x' WHERE seq = 2", "seq 2, .* is now another record"),
    ],
)
def test_a_file_that_was_made_anew_is_found_out(path: Path, statement: str, problem: str) -> None:
    file = open_audit_file(sqlite(path, traces(3)))
    list(file.entries())
    change(path, statement)
    with pytest.raises(ChangedFileError, match=problem):
        read(path, file.position())


def test_a_position_of_another_format_is_found_out(path: Path) -> None:
    sqlite(path, traces(1))
    with pytest.raises(ChangedFileError, match="its format is another"):
        read(path, {"offset": 1, "line": 1, "length": 1, "hash": "0"})


class TestPruned:
    @staticmethod
    def prune(path: Path, before: int) -> None:
        with closing(SQLiteTraceStore(path, secret=KEY)) as store:
            assert store.prune(WHEN + timedelta(minutes=before))

    def test_its_checkpoint_is_what_its_first_record_goes_on_from(self, path: Path) -> None:
        hashes = [entry.link.record_hash for entry in read(sqlite(path, traces(5))) if entry.link]
        self.prune(path, 2)
        file = open_audit_file(path)
        assert file.first_hash() == hashes[1]
        assert file.size == 3
        assert action_ids(file.entries()) == ids(3, first=2)
        assert file.done == 3

    @pytest.mark.parametrize("pruned", [2, 3])
    def test_reading_goes_on_where_only_what_was_read_was_pruned(
        self, path: Path, pruned: int
    ) -> None:
        file = open_audit_file(sqlite(path, traces(3)))
        list(file.entries())
        self.prune(path, pruned)
        sqlite(path, traces(2, first=3))
        assert action_ids(read(path, file.position())) == ids(2, first=3)

    def test_records_that_were_pruned_before_they_were_read_are_missed(self, path: Path) -> None:
        entries = (file := open_audit_file(sqlite(path, traces(5)))).entries()
        next(entries)
        self.prune(path, 3)
        with pytest.raises(ChangedFileError, match=r"records after seq 0, .* have been pruned"):
            read(path, file.position())
