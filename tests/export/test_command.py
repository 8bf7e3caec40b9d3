# SPDX-License-Identifier: Apache-2.0
"""``agent-kernel-otel export`` as people and scripts use it: what it does, says and exits with."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from weaver_kernel.stores import SQLiteTraceStore
from weaver_kernel.stores._trace_codec import decode_trace

from agent_kernel_otel import replayed_context, semconv
from agent_kernel_otel.audit.files import chain
from agent_kernel_otel.cli import main
from agent_kernel_otel.export import run
from agent_kernel_otel.export.problems import TOLD
from tests.export.harness import (
    KEY,
    ROOT,
    Jsonl,
    Receiver,
    Shell,
    action_ids,
    actions,
    record,
    trail,
)
from tests.support.faulty_collector import FaultyCollector
from tests.support.otlp_records import items

# What is exported --------------------------------------------------------------------------------


def test_each_record_becomes_a_span_of_the_audit_service(shell: Shell, receiver: Receiver) -> None:
    audit = trail(shell.directory / "audit.jsonl", 3).path
    before = audit.read_bytes(), audit.stat().st_mtime_ns
    done = shell.export("audit.jsonl")
    assert done.returncode == 0
    spans = receiver.spans()
    assert action_ids(spans) == actions([0, 1, 2])
    for number, span in enumerate(spans):
        context = replayed_context(f"action-{number}")
        assert (span.trace_id, span.span_id) == (
            f"{context.trace_id:032x}",
            f"{context.span_id:016x}",
        )
        assert span.name == semconv.INVOKE
        assert span.scope == semconv.SCOPE_WEAVER
        assert span.attributes[semconv.REPLAYED] is True
        assert int(span.raw["startTimeUnixNano"]) == (1_767_225_600 + number) * 1_000_000_000
        # Nothing that tells of the process or the machine that exports.
        assert span.resource == {"service.name": "agent-kernel-audit"}
    assert (audit.read_bytes(), audit.stat().st_mtime_ns) == before
    assert not shell.checkpoints()
    assert done.stdout == ""


def test_the_summary_is_a_table_with_nothing_before_it(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    headline, *table = shell.export("audit.jsonl").stderr.splitlines()
    assert headline.startswith("export complete; ")
    assert headline.endswith(" records/s")
    assert table == [
        "  read      3",
        f"  exported  3  {receiver.endpoint} (grpc)",
        "  skipped   0",
        "  failed    0",
    ]


def test_json_is_one_object_on_stdout_and_nothing_else(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    done = shell.export("audit.jsonl", "--json")
    summary = json.loads(done.stdout)
    assert done.stderr == ""
    assert summary.pop("seconds") > 0
    assert summary.pop("records_per_second") > 0
    assert summary == {
        "outcome": "complete",
        "exit_code": 0,
        "dry_run": False,
        "read": 3,
        "exported": 3,
        "skipped": 0,
        "failed": 0,
        "unreadable": 0,
        "cut_off": 0,
        "rejected": 0,
        "rejection": None,
        "read_before": 0,
        "destination": f"{receiver.endpoint} (grpc)",
        "checkpoint": None,
        "verified": None,
        "linked": None,
        "problems": [],
        "advice": None,
    }


def test_the_service_is_the_environments_or_the_options(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    shell.export(
        "audit.jsonl",
        OTEL_SERVICE_NAME="shop",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=prod",
        # Whatever else would describe this process is not asked.
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="process,host",
    )
    shell.export("audit.jsonl", "--service-name", "till", OTEL_SERVICE_NAME="shop")
    by_environment, by_option = (span.resource for span in receiver.spans())
    assert by_environment == {"service.name": "shop", "deployment.environment.name": "prod"}
    assert by_option == {"service.name": "till"}


def test_a_sqlite_store_that_a_kernel_writes_is_exported_and_not_touched(
    shell: Shell, receiver: Receiver
) -> None:
    store = SQLiteTraceStore(shell.directory / "audit.db", secret=KEY)
    for number in range(3):
        store.record(decode_trace(record(number)))
    before = {path.name: path.read_bytes() for path in shell.directory.glob("audit*")}
    assert shell.export("audit.db").returncode == 0  # while the kernel has it open
    assert action_ids(receiver.spans()) == actions([0, 1, 2])
    assert {path.name: path.read_bytes() for path in shell.directory.glob("audit*")} == before
    store.close()


def test_several_files_are_exported_in_order(shell: Shell, receiver: Receiver) -> None:
    Jsonl(shell.directory / "b.jsonl").add(record(0))
    Jsonl(shell.directory / "a.jsonl").add(record(1))
    envelope = {
        "schema": "weaver_kernel.action_trace_export",
        "version": "1",
        "traces": [record(2)],
    }
    (shell.directory / "c.json").write_text(json.dumps(envelope))
    assert shell.summary("b.jsonl", "a.jsonl", "c.json")["exported"] == 3
    assert action_ids(receiver.spans()) == actions([0, 1, 2])


def test_standard_input_is_read_where_a_file_is_called_minus(
    shell: Shell, receiver: Receiver
) -> None:
    text = "".join(f"{json.dumps(record(number))}\n" for number in range(3))
    assert shell.export("-", stdin=text.encode()).returncode == 0
    assert action_ids(receiver.spans()) == actions([0, 1, 2])
    assert not shell.checkpoints()


def test_a_file_whose_name_begins_with_a_dash_follows_two_of_them(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "-a.jsonl", 1)
    done = shell.export("--json", "--", "-a.jsonl")
    assert json.loads(done.stdout)["exported"] == 1


def test_a_directory_that_nobody_may_write_to_is_enough(shell: Shell, receiver: Receiver) -> None:
    directory = shell.directory / "audit"
    directory.mkdir()
    trail(directory / "audit.jsonl", 3)
    directory.chmod(0o555)
    try:
        assert shell.export("audit/audit.jsonl").returncode == 0
        assert [path.name for path in directory.iterdir()] == ["audit.jsonl"]
    finally:
        directory.chmod(0o755)


def test_http_is_sent_to_as_the_environment_says(tmp_path: Path) -> None:
    trail(tmp_path / "audit.jsonl", 3)
    with FaultyCollector("healthy", "http/protobuf") as collector:
        shell = Shell(tmp_path, **collector.environment())
        assert shell.export("audit.jsonl").returncode == 0
        assert action_ids(collector.spans()) == actions([0, 1, 2])


def test_an_endpoint_that_is_named_wins_over_the_environment(
    tmp_path: Path, receiver: Receiver
) -> None:
    trail(tmp_path / "audit.jsonl", 1)
    shell = Shell(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert shell.export("audit.jsonl", "--endpoint", receiver.endpoint).returncode == 0
    assert len(receiver.spans()) == 1


def test_a_file_is_written_as_a_collector_writes_one(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 1_500)
    summary = shell.summary("audit.jsonl", "--output", "spans.jsonl")
    assert summary["destination"] == str(shell.directory / "spans.jsonl")
    lines = (shell.directory / "spans.jsonl").read_text().splitlines()
    spans = [span for line in lines for span in items("traces", json.loads(line))]
    assert action_ids(spans) == actions(range(1_500))
    assert spans[7].span_id == f"{replayed_context('action-7').span_id:016x}"
    assert not receiver.spans()


# What is not exported ----------------------------------------------------------------------------


def test_a_dry_run_counts_and_sends_nothing(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 5)
    summary = shell.summary("audit.jsonl", "--dry-run", "--since", "2026-01-01T00:00:02Z")
    assert (summary["to_export"], summary["exported"], summary["skipped"]) == (3, 0, 2)
    text = shell.export("audit.jsonl", "--dry-run", "--output", "spans.jsonl").stderr
    assert text.startswith("dry run: nothing was sent")
    assert "  to export 5" in text
    assert not (shell.directory / "spans.jsonl").exists()
    assert not shell.checkpoints()
    assert not receiver.spans()


def test_what_cannot_be_read_is_told_with_its_place_and_the_rest_is_exported(
    shell: Shell, receiver: Receiver
) -> None:
    audit = Jsonl(shell.directory / "audit.jsonl").add(record(0))
    audit.add_text('{"seq": 1, "trace": \n').add(record(2), record(3, event_type="teleport"))
    audit.add(record(4, invoked_at="yesterday"), record(5)).add_text('{"seq": 6, "tra')
    done = shell.export("audit.jsonl")
    assert done.returncode == 1
    assert action_ids(receiver.spans()) == actions([0, 2, 5])
    notices = [line for line in done.stderr.splitlines() if line.startswith("audit.jsonl: ")]
    places = [notice.split(": ")[1] for notice in notices]
    assert places == ["line 2", "line 4", "line 5", "line 7"]
    assert "a newer agent-kernel-otel may know it" in notices[1]
    assert "export finished, but some records failed; " in done.stderr
    assert "  failed    4  3 could not be read, 1 cut off at the end of a file\n" in done.stderr
    assert not shell.checkpoints()


def damage(path: Path, pages: int) -> None:
    """Makes a SQLite store of 300 records of which so many pages are damaged, from the middle on."""
    store = SQLiteTraceStore(path, secret=KEY)
    for number in range(300):
        store.record(decode_trace(record(number)))
    store.close()
    content = path.read_bytes()
    begin = content.index(b"action-200") // 4096 * 4096
    end = min(begin + pages * 4096, len(content))
    path.write_bytes(content[:begin] + b"\xff" * (end - begin) + content[end:])


def test_of_a_file_with_a_damaged_page_the_rest_is_exported(
    shell: Shell, receiver: Receiver
) -> None:
    damage(shell.directory / "audit.db", 1)
    done = shell.export("audit.db")
    assert done.returncode == 1
    exported = action_ids(receiver.spans())
    assert 280 < len(exported) < 300
    lost = [number for number in range(300) if f"action-{number}" not in exported]
    assert exported == [action for action in actions(range(300)) if action in exported]
    assert done.stderr.splitlines()[: len(lost)] == [
        f"audit.db: seq {number}: the database is damaged there" for number in lost
    ]
    assert not shell.checkpoints()


def test_a_file_that_is_damaged_is_exported_up_to_there_and_the_others_too(
    shell: Shell, receiver: Receiver
) -> None:
    damage(shell.directory / "audit.db", 1_000)
    Jsonl(shell.directory / "more.jsonl").add(record(300))
    done = shell.export("audit.db", "more.jsonl")
    assert done.returncode == 1
    exported = action_ids(receiver.spans())
    assert exported[-1] == "action-300"
    assert 100 < len(exported) < 300
    assert exported[:-1] == actions(range(len(exported) - 1))
    *_, problem, advice = done.stderr.splitlines()
    assert problem.startswith("audit.db: ")
    assert advice.startswith("when all of it can be read, run the same command again")
    assert len(shell.checkpoints()) == 1


def test_the_first_problems_are_told_one_by_one_and_the_rest_are_counted(shell: Shell) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(record(0)).add_text("x\n" * 1_000)
    done = shell.export("audit.jsonl")
    assert done.stderr.count("audit.jsonl: line ") == TOLD
    assert "and 980 more like these\n" in done.stderr
    assert "1,000 could not be read\n" in done.stderr


def test_what_the_receiver_rejects_is_counted_as_failed(tmp_path: Path) -> None:
    trail(tmp_path / "audit.jsonl", 5)
    with FaultyCollector("partial_success", count=2) as collector:
        shell = Shell(tmp_path, **collector.environment())
        done = shell.export("audit.jsonl")
        summary = shell.summary("audit.jsonl")
    assert done.returncode == 1
    assert "  exported  3  " in done.stderr
    assert "  failed    2  2 rejected by the receiver: some were rejected\n" in done.stderr
    assert (summary["rejected"], summary["rejection"]) == (2, "some were rejected")


# The chain ---------------------------------------------------------------------------------------


def test_a_chain_that_holds_is_exported(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    done = shell.export("audit.jsonl", "--verify-chain", WEAVER_KERNEL_SECRET=KEY)
    assert done.returncode == 0
    assert "  verified  3  the hash chain holds\n" in done.stderr
    (shell.directory / "key").write_text(f"{KEY}\n")
    summary = shell.summary("audit.jsonl", "--verify-chain", "--chain-key-file", "key")
    assert (summary["verified"], summary["exported"]) == (3, 3)
    assert len(receiver.spans()) == 6


@pytest.mark.parametrize("change", ["removed", "changed", "key"])
def test_of_a_chain_that_does_not_hold_nothing_is_exported(
    shell: Shell, receiver: Receiver, change: str
) -> None:
    audit = trail(shell.directory / "audit.jsonl", 1_000).path
    lines = audit.read_text().splitlines(keepends=True)
    if change == "removed":
        del lines[900]
    elif change == "changed":
        lines[900] = lines[900].replace("alice", "mallory")
    audit.write_text("".join(lines))
    key = "another" if change == "key" else KEY
    arguments = ("audit.jsonl", "--verify-chain")
    done = shell.export(*arguments, WEAVER_KERNEL_SECRET=key)
    assert done.returncode == 4
    assert done.stderr.startswith("nothing was exported: the hash chain does not hold\n")
    place = "line 1" if change == "key" else "line 901"
    assert f"audit.jsonl: {place}: " in done.stderr
    summary = shell.summary(*arguments, WEAVER_KERNEL_SECRET=key)
    assert (summary["outcome"], summary["exported"]) == ("chain_broken", 0)
    assert not receiver.spans()
    assert not shell.checkpoints()


def test_rotated_files_are_one_chain_in_their_order(shell: Shell, receiver: Receiver) -> None:
    first = trail(shell.directory / "audit.jsonl.1", 2)
    Jsonl(shell.directory / "audit.jsonl", after=first).add(record(2))
    verified = Shell(shell.directory, **shell.environment, WEAVER_KERNEL_SECRET=KEY)
    assert verified.export("audit.jsonl.1", "audit.jsonl", "--verify-chain").returncode == 0
    assert verified.export("audit.jsonl", "audit.jsonl.1", "--verify-chain").returncode == 4
    assert action_ids(receiver.spans()) == actions([0, 1, 2])


def test_what_is_written_after_it_was_verified_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = trail(tmp_path / "audit.jsonl", 3)

    def verify_and_write(*arguments: Any) -> Any:
        results = chain.verify_chains(*arguments)
        audit.add(record(3))
        return results

    monkeypatch.setattr(run, "verify_chains", verify_and_write)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("WEAVER_KERNEL_SECRET", KEY)
    assert main(["export", "./audit.jsonl", "--verify-chain", "--output", "spans.jsonl"]) == 0
    (line,) = (tmp_path / "spans.jsonl").read_text().splitlines()
    assert action_ids(items("traces", json.loads(line))) == actions(range(3))


@pytest.mark.parametrize("option", [("--checkpoint", "c"), ("--verify-chain",)])
def test_a_stream_has_no_checkpoint_and_no_chain(
    shell: Shell, receiver: Receiver, option: tuple[str, ...]
) -> None:
    line = f"{json.dumps(record(0))}\n".encode()
    done = shell.export("-", *option, stdin=line)
    assert done.returncode == 2
    assert f"{option[0]} does not go with a stream" in done.stderr
    assert not receiver.spans()
    assert not (shell.directory / "c").exists()


def test_a_chain_needs_a_key_and_a_format_that_has_one(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    no_key = shell.export("audit.jsonl", "--verify-chain")
    assert no_key.returncode == 2
    assert "WEAVER_KERNEL_SECRET" in no_key.stderr
    (shell.directory / "empty").write_text("\n")
    for file in ("nowhere", "empty"):
        done = shell.export("audit.jsonl", "--verify-chain", "--chain-key-file", file)
        assert done.returncode == 2
        assert f"{file}: " in done.stderr
    envelope = {
        "schema": "weaver_kernel.action_trace_export",
        "version": "1",
        "traces": [record(2)],
    }
    (shell.directory / "c.json").write_text(json.dumps(envelope))
    no_chain = shell.export("c.json", "--verify-chain", WEAVER_KERNEL_SECRET=KEY)
    assert no_chain.returncode == 2
    assert "chain" in no_chain.stderr


# What is wrong -----------------------------------------------------------------------------------


def test_a_packed_file_is_refused_with_the_command_that_unpacks_it(
    shell: Shell, receiver: Receiver
) -> None:
    text = f"{json.dumps(record(0))}\n".encode()
    (shell.directory / "audit.jsonl.gz").write_bytes(gzip.compress(text))
    done = shell.export("audit.jsonl.gz")
    assert done.returncode == 2
    assert "zcat audit.jsonl.gz | agent-kernel-otel export -" in done.stderr
    assert not receiver.spans()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("", "needs a FILE"),
        ("nowhere.jsonl", "nowhere.jsonl: it cannot be "),
        ("audit.jsonl audit.jsonl", "audit.jsonl: is given twice"),
        ("audit.jsonl ./audit.jsonl", "./audit.jsonl: is given twice"),
        ("notes.txt", "notes.txt: it is no audit file"),
        ("audit.jsonl --format sqlite", "its format is jsonl, and not sqlite"),
        ("audit.jsonl --format csv", "invalid choice: 'csv'"),
        ("audit.jsonl --since yesterday", "'yesterday' is no time: 2026-01-31"),
        ("audit.jsonl --since 2026-02-01 --until 2026-01-01", "selects nothing"),
        ("audit.jsonl --event login", "invalid choice: 'login'"),
        ("audit.jsonl --patience soon", "'soon' is no number of seconds"),
        ("audit.jsonl --output o --endpoint http://h:1", "two destinations"),
        ("audit.jsonl --chain-key-file k", "--chain-key-file needs --verify-chain"),
        ("audit.jsonl --output audit.jsonl", "audit.jsonl: is to be written, and is named"),
        ("audit.jsonl --checkpoint audit.jsonl", "audit.jsonl: is to be written, and is named"),
        ("audit.jsonl --output o --checkpoint o", "o: is to be written, and is named"),
        ("audit.jsonl --output notes.txt", "notes.txt exists already"),
        ("audit.jsonl --output no/where", "cannot write"),
        ("audit.jsonl --checkpoint c --until 1h", "--until with an age does not go with"),
        ("audit.jsonl --endpoint http://", "--endpoint is no address"),
        ("audit.jsonl --resume", "unknown: --resume"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    problem: str,
) -> None:
    audit = trail(tmp_path / "audit.jsonl", 1).path
    (tmp_path / "notes.txt").write_text("not an audit file\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    try:
        code: object = main(["export", *arguments.split()])
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    assert code == 2
    assert problem in written.err.splitlines()[-1]
    assert written.out == ""
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert left == before
    assert not [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert audit.exists()


def test_hashes_that_nobody_can_match_are_pointed_out(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    done = shell.export("audit.jsonl", OTEL_AGENT_KERNEL_PRINCIPAL_ID="hash")
    notices = [line for line in done.stderr.splitlines() if "hashes" in line]
    assert len(notices) == 1
    assert "OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY" in notices[0]
    done = shell.export(
        "audit.jsonl",
        OTEL_AGENT_KERNEL_PRINCIPAL_ID="hash",
        OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY="the key of the app",
    )
    assert "hashes" not in done.stderr
    assert b"alice" not in receiver.raw_bytes()


# The command line --------------------------------------------------------------------------------


def test_the_help_has_exit_codes_variables_and_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    text = capsys.readouterr().out.encode("ascii").decode()
    for told in ("Exit codes:", "WEAVER_KERNEL_SECRET", "agent-kernel-otel export audit.jsonl"):
        assert told in text
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "audit files into spans" in capsys.readouterr().out


def test_nothing_heavy_is_imported_before_it_runs() -> None:
    program = (
        "import sys; from agent_kernel_otel.cli import main\n"
        "try: main(['export', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'google.protobuf', 'opentelemetry.sdk', 'sqlite3', 'requests'}\n"
        "print('heavy:', sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
