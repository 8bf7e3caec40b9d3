# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that is kept: each run exports what is new, and nothing is mistaken for it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from weaver_kernel.stores import SQLiteTraceStore
from weaver_kernel.stores._trace_codec import decode_trace

from agent_kernel_otel.export.checkpoint import Checkpoint, CheckpointError, automatic_path
from agent_kernel_otel.export.claim import Claim
from agent_kernel_otel.export.settings import settings_of
from agent_kernel_otel.export.summary import Counts
from tests.export.harness import (
    KEY,
    Jsonl,
    Receiver,
    Shell,
    action_ids,
    actions,
    failure,
    record,
    trail,
)

KEPT = ("--checkpoint", "night.json")


def test_each_run_exports_what_is_new_since_the_last_one(shell: Shell, receiver: Receiver) -> None:
    audit = trail(shell.directory / "audit.jsonl", 3)
    assert shell.summary("audit.jsonl", *KEPT)["exported"] == 3
    again = shell.summary("audit.jsonl", *KEPT)
    assert (again["read"], again["exit_code"], again["read_before"]) == (0, 0, 0)
    assert again["checkpoint"] == str(shell.directory / "night.json")
    audit.add(record(3), record(4))
    assert shell.summary("audit.jsonl", *KEPT)["exported"] == 2
    assert action_ids(receiver.spans()) == actions(range(5))
    assert not shell.checkpoints()


def test_two_runs_at_once_do_not_both_send_what_is_new(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    first = Claim(shell.directory / "night.json")
    assert first.take()
    second = shell.export("audit.jsonl", *KEPT)
    assert second.returncode == 2
    assert "another export uses it at this moment" in second.stderr
    assert not receiver.spans()

    first.release()
    assert shell.summary("audit.jsonl", *KEPT)["exported"] == 3
    assert sorted(path.name for path in shell.directory.glob("night*")) == ["night.json"]


def test_of_a_sqlite_store_too(shell: Shell, receiver: Receiver) -> None:
    store = SQLiteTraceStore(shell.directory / "audit.db", secret=KEY)
    for number in range(3):
        store.record(decode_trace(record(number)))
        assert shell.summary("audit.db", *KEPT)["exported"] == 1
    store.close()
    assert action_ids(receiver.spans()) == actions(range(3))


def test_a_file_that_is_new_is_read_from_its_beginning(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "a.jsonl", 1)
    shell.export("a.jsonl", *KEPT)
    Jsonl(shell.directory / "b.jsonl").add(record(1))
    shell.export("b.jsonl", *KEPT)
    assert shell.summary("a.jsonl", "b.jsonl", *KEPT)["read"] == 0
    assert action_ids(receiver.spans()) == actions(range(2))


def test_a_last_line_that_is_cut_off_is_left_until_it_is_whole(
    shell: Shell, receiver: Receiver
) -> None:
    audit = trail(shell.directory / "audit.jsonl", 2)
    line = audit.line(record(2))
    audit.add_text(line[:100])
    done = shell.export("audit.jsonl", *KEPT)
    assert done.returncode == 0
    assert "audit.jsonl: line 3: " in done.stderr
    assert "it is left for the next run" in done.stderr
    audit.add_text(line[100:] + "\n").add(record(3))
    summary = shell.summary("audit.jsonl", *KEPT)
    assert (summary["exported"], summary["failed"]) == (2, 0)
    assert action_ids(receiver.spans()) == actions(range(4))


def test_what_could_not_be_read_is_told_of_once(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1).add_text("no record\n")
    assert shell.export("audit.jsonl", *KEPT).returncode == 1
    assert shell.export("audit.jsonl", *KEPT).returncode == 0


def test_the_chain_is_verified_from_its_beginning_each_time(
    shell: Shell, receiver: Receiver
) -> None:
    audit = trail(shell.directory / "audit.jsonl", 3)
    arguments = ("audit.jsonl", "--verify-chain", *KEPT)
    key = {"WEAVER_KERNEL_SECRET": KEY}
    assert shell.summary(*arguments, **key)["exported"] == 3
    audit.add(record(3))
    summary = shell.summary(*arguments, **key)
    assert (summary["verified"], summary["exported"]) == (4, 1)
    assert action_ids(receiver.spans()) == actions(range(4))


@pytest.mark.parametrize("change", ["shorter", "another"])
def test_a_file_that_is_not_the_one_any_more_is_an_error(
    shell: Shell, receiver: Receiver, change: str
) -> None:
    audit = trail(shell.directory / "audit.jsonl", 3)
    shell.export("audit.jsonl", *KEPT)
    kept = (shell.directory / "night.json").read_bytes()
    audit.path.unlink()
    number = 1 if change == "shorter" else 9
    Jsonl(audit.path).add(*(failure(n) for n in range(number)))
    done = shell.export("audit.jsonl", *KEPT)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("agent-kernel-otel: audit.jsonl: ")
    assert done.stderr.endswith("begin anew with --restart\n")
    assert (shell.directory / "night.json").read_bytes() == kept
    assert len(receiver.spans()) == 3
    assert shell.summary("audit.jsonl", *KEPT, "--restart")["exported"] == number
    assert shell.summary("audit.jsonl", *KEPT)["read"] == 0


def test_other_filters_and_another_destination_are_errors_that_say_what_differs(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    shell.export("audit.jsonl", *KEPT, "--event", "invoke", "--failed")
    others = shell.export("audit.jsonl", *KEPT, "--since", "7d")
    assert others.returncode == 2
    assert "--event invoke --failed, and this one has --since 7d; " in others.stderr
    assert "--restart" in others.stderr
    none = shell.export("audit.jsonl", *KEPT)
    assert "and this one has no filters; " in none.stderr
    elsewhere = shell.export(
        "audit.jsonl", *KEPT, "--event", "invoke", "--failed", "--output", "spans.jsonl"
    )
    assert elsewhere.returncode == 2
    assert f"{receiver.endpoint} (grpc), and this one goes to " in elsewhere.stderr
    assert not (shell.directory / "spans.jsonl").exists()


HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


@pytest.mark.parametrize(
    ("name", "before", "after", "differs"),
    [
        (HEADERS, "X-Scope-OrgID=tenant-a", "X-Scope-OrgID=tenant-b", "headers"),
        (HEADERS, "authorization=secret-a", "api-key=secret-a", "headers"),
        (HEADERS, "Authorization=secret-a,a=1", "a=1, authorization=secret-b", None),
        (HEADERS, "x-honeycomb-team=secret-a", "x-honeycomb-team=secret-b", None),
        ("OTEL_SERVICE_NAME", "tenant-a", "tenant-b", "resource"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=tenant-a", "team=tenant-b", "resource"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.version=1", "service.version=2", None),
        ("OTEL_AGENT_KERNEL_PRINCIPAL_ID", "raw", "off", "principal_id, "),
        ("OTEL_AGENT_KERNEL_SPAN_NAMING", "agent_kernel", "gen_ai", "principal_id, "),
    ],
)
def test_an_export_does_not_go_on_with_other_settings(
    shell: Shell, receiver: Receiver, name: str, before: str, after: str, differs: str | None
) -> None:
    audit = trail(shell.directory / "audit.jsonl", 1)
    shell.environment[name] = before
    assert shell.export("audit.jsonl", *KEPT).returncode == 0
    kept = (shell.directory / "night.json").read_text()
    assert "tenant-" not in kept
    assert "secret-" not in kept
    audit.add(record(1))
    shell.environment[name] = after
    done = shell.export("audit.jsonl", *KEPT)
    assert done.returncode == (2 if differs else 0)
    assert len(receiver.spans()) == (1 if differs else 2)
    if differs:
        assert "the settings differ from those of the run that has left it: " in done.stderr
        assert f": {differs}" in done.stderr
        assert "tenant-" not in done.stderr
        assert "secret-" not in done.stderr


def test_nor_with_another_key_of_hashes(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    shell.environment["OTEL_AGENT_KERNEL_PRINCIPAL_ID"] = "hash"
    codes = []
    for key in ("one", "one", "other"):
        shell.environment["OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY"] = key
        codes.append(shell.export("audit.jsonl", *KEPT).returncode)
    assert codes == [0, 0, 2]


def test_parts_of_the_address_that_are_not_shown_are_compared_and_those_that_are_not() -> None:
    def address(endpoint: str | None, **environ: str) -> str:
        return settings_of(Resource({}), endpoint, environ, is_sent=True)["address"]

    one = "https://h/7f2a91c4d5e6f7081920/v1/traces"
    other = one.replace("7f", "8f")
    assert len({address(one), address(other), address(f"{one}?team=a"), address(None)}) == 4
    assert address(None, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=one) == address(one)
    assert address("http://h:4317") == address("http://h:4317/") == address(None)


def test_nobody_is_named_whom_another_run_has_asked_for(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    shell.export("audit.jsonl", *KEPT, "--principal", "bob")
    done = shell.export("audit.jsonl", *KEPT, "--principal", "carol")
    assert done.returncode == 2
    assert "other filters: --principal, and this one has --principal; " in done.stderr


def test_what_is_written_to_a_file_is_added_to_by_the_next_run(shell: Shell) -> None:
    audit = trail(shell.directory / "audit.jsonl", 2)
    arguments = ("audit.jsonl", *KEPT, "--output", "spans.jsonl")
    shell.export(*arguments)
    audit.add(record(2))
    assert shell.export(*arguments).returncode == 0
    output = shell.directory / "spans.jsonl"
    assert len(output.read_text().splitlines()) == 2
    audit.add(record(3))
    output.write_text("mine")
    assert shell.export(*arguments).returncode == 2
    assert output.read_text() == "mine"
    output.unlink()  # taken away, with all that was in it
    assert shell.export(*arguments).returncode == 0
    assert len(output.read_text().splitlines()) == 1


def test_a_dry_run_tells_what_is_new_and_leaves_the_checkpoint(shell: Shell) -> None:
    audit = trail(shell.directory / "audit.jsonl", 2)
    shell.export("audit.jsonl", *KEPT)
    kept = (shell.directory / "night.json").read_bytes()
    audit.add(record(2))
    assert shell.summary("audit.jsonl", *KEPT, "--dry-run")["to_export"] == 1
    assert (shell.directory / "night.json").read_bytes() == kept


@pytest.mark.parametrize("option", [(), ("--restart",)])
@pytest.mark.parametrize("content", ["notes\n", "{}", "[" * 9999, '{"kind": "another"}'])
def test_a_file_that_is_no_checkpoint_is_never_overwritten(
    shell: Shell, receiver: Receiver, content: str, option: tuple[str, ...]
) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    (shell.directory / "night.json").write_text(content)
    done = shell.export("audit.jsonl", *KEPT, *option)
    assert done.returncode == 2
    assert "night.json: is no checkpoint of this command" in done.stderr
    assert (shell.directory / "night.json").read_text() == content
    assert not receiver.spans()


def test_no_file_that_is_named_like_a_helper_of_it_is_lost(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    notes = shell.directory / "notes"
    notes.write_text("mine")
    (shell.directory / "night.json.tmp").symlink_to(notes)
    (shell.directory / ".night.json.tmp").write_text("mine")
    assert shell.export("audit.jsonl", *KEPT).returncode == 0
    assert notes.read_text() == (shell.directory / ".night.json.tmp").read_text() == "mine"
    assert (shell.directory / "night.json.tmp").is_symlink()


@pytest.mark.parametrize("kind", ["content", "symlink", "directory"])
def test_a_file_in_the_place_of_its_lock_is_told_of_and_left(
    shell: Shell, receiver: Receiver, kind: str
) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    lock = shell.directory / "night.json.lock"
    if kind == "content":
        lock.write_text("mine")
    elif kind == "symlink":
        lock.symlink_to(shell.directory / "elsewhere")
    else:
        lock.mkdir()
    done = shell.export("audit.jsonl", *KEPT)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "night.json.lock: is in the way" in done.stderr
    assert lock.is_symlink() or lock.is_dir() or lock.read_text() == "mine"
    assert not (shell.directory / "elsewhere").exists()
    assert not receiver.spans()


def test_a_lock_that_is_written_to_meanwhile_is_left(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "c")
    assert claim.take()
    (tmp_path / "c.lock").write_text("mine")
    claim.release()
    assert (tmp_path / "c.lock").read_text() == "mine"


def test_an_audit_file_is_never_its_lock(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    (shell.directory / "night.json.lock").touch()
    done = shell.export("audit.jsonl", "night.json.lock", *KEPT)
    assert done.returncode == 2
    assert "night.json.lock: is to be written, and is named as another file too" in done.stderr
    assert (shell.directory / "night.json.lock").exists()


@pytest.mark.parametrize("place", ["no/where.json", ".", "/dev/null"])
def test_a_place_that_cannot_be_written_is_an_error_before_anything_is_sent(
    shell: Shell, receiver: Receiver, place: str
) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    done = shell.export("audit.jsonl", "--checkpoint", place)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "checkpoint" in done.stderr
    assert not receiver.spans()


def test_a_state_directory_that_cannot_be_made_is_one_too(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    shell.state.write_text("a file")
    done = shell.export("audit.jsonl", "--output", "spans.jsonl")
    assert done.returncode == 2
    assert "set XDG_STATE_HOME, or --checkpoint FILE" in done.stderr
    assert not (shell.directory / "spans.jsonl").exists()


# The checkpoint itself ---------------------------------------------------------------------------


def checkpoint(path: Path, **changes: object) -> Checkpoint:
    fields = {
        "is_kept": False,
        "is_written": True,
        "destination": "http://h:4317 (grpc)",
        "filters": {"--since": "7d"},
        "settings": {},
        "now": 5,
        **changes,
    }
    return Checkpoint(path, **fields)  # type: ignore[arg-type]


def test_an_export_that_goes_on_counts_ages_from_when_it_began(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    first = checkpoint(path, counts=Counts(exported=2, skipped=1), positions={"/a": {"offset": 9}})
    first.save()
    second = checkpoint(path, now=1_000)
    second.load(restart=False)
    assert second.goes_on
    assert (second.now, second.counts.read, second.positions) == (5, 3, {"/a": {"offset": 9}})


def test_one_that_was_finished_begins_to_count_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    first = checkpoint(path, is_kept=True, counts=Counts(exported=2), positions={"/a": {"line": 2}})
    first.finish()
    second = checkpoint(path, is_kept=True, now=1_000)
    second.load(restart=False)
    assert second.is_resumed
    assert not second.goes_on
    assert (second.now, second.counts.read, second.positions) == (1_000, 0, {"/a": {"line": 2}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, None) for key in ("destination", "filters", "positions", "counts", "version")),
        ("salt", None),
        ("settings", []),
        ("output", {"size": "1", "hash": "x"}),
        ("output", {"size": 1}),
        ("now", 10**400),
        ("is_finished", 0),
        ("counts", {"exported": "x", "skipped": 0, "unreadable": 0, "rejected": 0}),
        ("counts", {"exported": 1}),
        ("positions", {"/a": 5}),
        ("positions", {"/a": {"offset": 10**30}}),
        ("positions", {"/a": {"offset": 2**62, "length": 2**62}}),
        ("positions", {"/a": {"offset": [1]}}),
    ],
)
def test_a_damaged_one_is_not_used(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "c.json"
    checkpoint(path, positions={"/a": {"offset": 9}}).save()
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))
    with pytest.raises(CheckpointError, match=r"c\.json: .*; begin anew with --restart"):
        checkpoint(path).load(restart=False)
    checkpoint(path).load(restart=True)


@pytest.mark.parametrize("cut", [-1, 200, 0])
def test_what_a_power_cut_has_left_of_one_can_be_begun_anew(
    shell: Shell, receiver: Receiver, cut: int
) -> None:
    trail(shell.directory / "audit.jsonl", 2)
    shell.export("audit.jsonl", *KEPT)
    path = shell.directory / "night.json"
    path.write_bytes(path.read_bytes()[:cut] or b"\0" * 100)
    done = shell.export("audit.jsonl", *KEPT)
    assert done.returncode == 2
    assert "night.json: is damaged; begin anew with --restart" in done.stderr
    assert shell.summary("audit.jsonl", *KEPT, "--restart")["exported"] == 2
    assert len(receiver.spans()) == 4


def test_it_is_written_all_or_nothing_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    checkpoint(path).save()
    before = path.read_bytes()
    unwritable = checkpoint(path, positions={"/a": {"offset": object()}})
    with pytest.raises(TypeError):
        unwritable.save()
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_takes_the_place_of_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    path.write_text("last")
    synced: list[tuple[int, str]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint(path).save()
    assert synced == [(path.stat().st_size, "last")]


def test_each_export_has_one_of_its_own(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    paths = {
        automatic_path(paths, destination, filters, environ)
        for paths in (["/a"], ["/b"], ["/a", "/b"], ["/b", "/a"])
        for destination in ("here", "there")
        for filters in ({}, {"--failed": True})
    }
    assert len(paths) == 16
    assert {path.parent for path in paths} == {tmp_path / "agent-kernel-otel" / "export"}


def test_it_is_in_the_home_directory_where_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    for environ in ({}, {"XDG_STATE_HOME": "relative"}):
        path = automatic_path(["/a"], "here", {}, environ)
        assert path.parent == Path("/home/alice/.local/state/agent-kernel-otel/export")
