# SPDX-License-Identifier: Apache-2.0
"""Where a kept checkpoint goes on in files that were rotated, and in some that are damaged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from weaver_kernel.stores import SQLiteTraceStore
from weaver_kernel.stores._trace_codec import decode_trace

from tests.export.harness import (
    KEY,
    Jsonl,
    Receiver,
    Shell,
    action_ids,
    actions,
    record,
    trail,
)

KEPT = ("--checkpoint", "night.json")


def records(*numbers: int) -> Iterable[dict[str, object]]:
    return map(record, range(*numbers))


@pytest.mark.parametrize("way", ["rename", "copy"])
def test_a_file_that_was_rotated_is_gone_on_with_under_its_new_name(
    shell: Shell, receiver: Receiver, way: str
) -> None:
    audit = trail(shell.directory / "r.jsonl", 10)
    assert shell.export("r.jsonl", *KEPT).returncode == 0
    audit.add(*records(10, 14))
    rotated = shell.directory / "r.jsonl.1"
    if way == "rename":
        audit.path.rename(rotated)
    else:
        rotated.write_bytes(audit.path.read_bytes())
        audit.path.write_bytes(b"")
    audit.add(*records(14, 30))

    alone = shell.export("r.jsonl", *KEPT)
    assert alone.returncode == 2
    assert "name the older files too, as in audit.jsonl.1 audit.jsonl; " in alone.stderr
    assert shell.summary("r.jsonl.1", "r.jsonl", *KEPT)["exported"] == 20
    assert shell.summary("r.jsonl.1", "r.jsonl", *KEPT)["read"] == 0
    assert shell.summary("r.jsonl", *KEPT)["read"] == 0
    assert action_ids(receiver.spans()) == actions(range(30))


def test_so_are_files_that_are_rotated_night_after_night(shell: Shell, receiver: Receiver) -> None:
    first, second = shell.directory / "r.jsonl.1", shell.directory / "r.jsonl.2"
    audit = trail(shell.directory / "r.jsonl", 10)
    shell.export("r.jsonl", *KEPT)
    for night in (1, 2, 3):
        if first.exists():
            first.replace(second)
        audit.path.rename(first)
        audit.add(*records(10 * night, 10 * night + 10))
        assert shell.export("r.jsonl.1", "r.jsonl", *KEPT).returncode == 0
    assert action_ids(receiver.spans()) == actions(range(40))

    for start in (40, 50):  # twice in one night
        second.replace(shell.directory / "r.jsonl.3")
        first.replace(second)
        audit.path.rename(first)
        audit.add(*records(start, start + 10))
    files = ("r.jsonl.3", "r.jsonl.2", "r.jsonl.1", "r.jsonl")
    too_few = shell.export(*files[2:], *KEPT)  # 30 to 39 may have gone on
    assert too_few.returncode == 2
    assert "name the older files too, as in audit.jsonl.1 audit.jsonl; " in too_few.stderr
    assert shell.export(*files, *KEPT).returncode == 0
    assert action_ids(receiver.spans()) == actions(range(60))


def test_a_file_that_is_damaged_keeps_no_other_from_being_exported(
    shell: Shell, receiver: Receiver
) -> None:
    with_records = SQLiteTraceStore(shell.directory / "audit.db", secret=KEY)
    for each in records(1000, 1400):
        with_records.record(decode_trace(each))
    with_records.close()
    audit = trail(shell.directory / "audit.jsonl", 2)
    both = ("audit.db", "audit.jsonl", *KEPT)
    assert shell.export(*both).returncode == 0
    whole = (shell.directory / "audit.db").read_bytes()
    damage(shell.directory / "audit.db")
    for number in (2, 3):
        audit.add(record(number))
        done = shell.export(*both)
        assert (done.returncode, len(receiver.spans())) == (1, 401 + number), done.stderr
        assert "audit.db: the database is damaged" in done.stderr
    verified = shell.export(*both, "--verify-chain", WEAVER_KERNEL_SECRET=KEY)
    assert verified.returncode == 2

    (shell.directory / "audit.db").write_bytes(whole)
    assert shell.summary(*both)["exit_code"] == 0
    assert len(receiver.spans()) == 404


def damage(path: Path) -> None:
    """Destroy the second half of a database."""
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + b"\xff" * half)


def test_another_file_at_its_path_with_more_records_is_not_taken_for_it(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "r.jsonl", 3)
    shell.export("r.jsonl", *KEPT)
    (shell.directory / "r.jsonl").unlink()
    Jsonl(shell.directory / "r.jsonl").add(*records(50, 60))
    Jsonl(shell.directory / "r.jsonl.1").add(*records(70, 80))
    assert shell.export("r.jsonl.1", "r.jsonl", *KEPT).returncode == 2
    assert len(receiver.spans()) == 3
