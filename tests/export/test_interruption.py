# SPDX-License-Identifier: Apache-2.0
"""Whatever breaks an export off, the same command does the rest: nothing is lost or doubled."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.harness import (
    TIMEOUT,
    Jsonl,
    Receiver,
    Shell,
    action_ids,
    actions,
    record,
    trail,
)
from tests.support.otlp_records import items

MANY = 20_000
IN_FLIGHT = 2
LARGEST_BATCH = 2_048
"""More spans than any batch has."""


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver that the test starts and stops."""
    receiver = Receiver(tmp_path)
    yield receiver
    receiver.stop()


def shell_for(receiver: Receiver, directory: Path) -> Shell:
    return Shell(directory, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)


def check_complete(receiver: Receiver, number: int, *, doubled: int = 0) -> None:
    """Every record is there, once by its ids, and hardly any was sent twice."""
    spans = receiver.spans()
    assert set(action_ids(spans)) == set(actions(range(number)))
    assert len({(span.trace_id, span.span_id) for span in spans}) == number
    assert len(spans) <= number + doubled


def checkpoint_of(shell: Shell) -> dict[str, int]:
    (path,) = shell.checkpoints()
    counts: dict[str, int] = json.loads(path.read_text())["counts"]
    return counts


def test_an_export_that_is_killed_goes_on_where_it_was(tmp_path: Path, mortal: Receiver) -> None:
    trail(tmp_path / "audit.jsonl", MANY)
    mortal.start(takes=10)
    shell = shell_for(mortal, tmp_path)
    with shell.exporting("audit.jsonl") as process:
        mortal.wait_for(lambda r: len(r.spans()) >= 10 * 512, TIMEOUT)
        process.send_signal(signal.SIGKILL)
        assert process.wait(TIMEOUT) == -signal.SIGKILL
    confirmed = checkpoint_of(shell)["exported"]
    sent = len(mortal.spans())
    assert 0 <= sent - confirmed <= IN_FLIGHT * LARGEST_BATCH
    mortal.stop()
    mortal.start()
    summary = shell.summary("audit.jsonl")
    assert (summary["exit_code"], summary["exported"]) == (0, MANY)
    assert summary["read_before"] == confirmed
    check_complete(mortal, MANY, doubled=sent - confirmed)
    assert not shell.checkpoints()


def test_a_killed_export_to_a_file_goes_on_too(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", MANY)
    output = shell.directory / "spans.jsonl"
    for _ in range(3):  # however often
        with shell.exporting("audit.jsonl", "--output", output) as process:
            wait_for_growth(output, process)
            process.kill()
            assert process.wait(TIMEOUT) == -signal.SIGKILL
    with output.open("ab") as file:
        file.write(b'{"resourceSpans": [{"sco')  # what a kill in the middle of a line leaves
    summary = shell.summary("audit.jsonl", "--output", output)
    assert summary["exported"] == MANY
    lines = output.read_text().splitlines()
    spans = [span for line in lines for span in items("traces", json.loads(line))]
    assert action_ids(spans) == actions(range(MANY))


@pytest.mark.parametrize("change", ["gone", "another"])
def test_one_to_a_file_does_not_go_on_without_what_it_has_written(
    shell: Shell, change: str
) -> None:
    trail(shell.directory / "audit.jsonl", MANY)
    output = shell.directory / "spans.jsonl"
    with shell.exporting("audit.jsonl", "--output", output) as process:
        while not any(checkpoint_of(shell)["exported"] for _ in shell.checkpoints()):
            assert process.poll() is None, "it has ended"
            time.sleep(0.01)
        process.kill()
        process.wait(TIMEOUT)
    output.unlink()
    if change == "another":
        output.write_text("mine")
    done = shell.export("audit.jsonl", "--output", output)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(output) in done.stderr
    assert "begin anew with --restart" in done.stderr
    if change == "another":
        assert output.read_text() == "mine"
        output.unlink()
    assert shell.summary("audit.jsonl", "--output", output, "--restart")["exported"] == MANY
    lines = output.read_text().splitlines()
    assert sum(len(list(items("traces", json.loads(line)))) for line in lines) == MANY


def test_nobody_there_and_then_somebody_is(tmp_path: Path, mortal: Receiver) -> None:
    trail(tmp_path / "audit.jsonl", 3_000)
    mortal.start()
    mortal.stop()
    shell = shell_for(mortal, tmp_path)
    done = shell.export("audit.jsonl", "--patience", "0.2")
    assert done.returncode == 3
    assert done.stderr.startswith("export stopped: the spans could not be delivered")
    assert f"nothing listens at 127.0.0.1:{mortal.port}" in done.stderr
    assert done.stderr.endswith("run the same command again: it goes on where this run stopped\n")
    mortal.start()
    again = shell.export("audit.jsonl", "--patience", "0.2")
    assert again.returncode == 0
    check_complete(mortal, 3_000)


def test_a_receiver_that_dies_in_the_middle_and_comes_back(
    tmp_path: Path, mortal: Receiver
) -> None:
    trail(tmp_path / "audit.jsonl", 10_000)
    mortal.start(takes=7, then="die")
    shell = shell_for(mortal, tmp_path)
    summary = shell.summary("audit.jsonl", "--patience", "0.2")
    assert (summary["outcome"], summary["exit_code"]) == ("undelivered", 3)
    assert summary["exported"] == len(mortal.spans())
    assert Path(summary["checkpoint"]).exists()
    mortal.stop()
    mortal.start()
    again = shell.export("audit.jsonl")
    assert "goes on where an earlier run stopped, which had read " in again.stderr
    assert f"{summary['exported']:,} of them by the interrupted run before" in again.stderr
    check_complete(mortal, 10_000)


def test_a_receiver_that_comes_back_in_time_is_waited_for(tmp_path: Path, mortal: Receiver) -> None:
    trail(tmp_path / "audit.jsonl", 10_000)
    mortal.start(takes=7, then="die")
    shell = shell_for(mortal, tmp_path)
    with shell.exporting("audit.jsonl") as process:
        mortal.wait_for_end()
        mortal.start()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    check_complete(mortal, 10_000)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_what_is_on_its_way_and_a_second_one_does_not(
    tmp_path: Path, mortal: Receiver, number: int, code: int
) -> None:
    trail(tmp_path / "audit.jsonl", 10_000)
    mortal.start(takes=5)
    shell = shell_for(mortal, tmp_path)
    with shell.exporting("audit.jsonl") as process:
        mortal.wait_for(lambda r: len(r.spans()) >= 5 * 512, TIMEOUT)
        process.send_signal(number)
        assert process.stderr is not None
        told = process.stderr.readline().decode()
        assert told.startswith("stopping as soon as the receiver has confirmed what is on its way")
        assert process.poll() is None
        process.send_signal(number)
        _, rest = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    lines = rest.decode().splitlines()
    assert lines[0].startswith("export interrupted; ")
    assert f"  exported  {len(mortal.spans()):,}  {mortal.endpoint} (grpc)" in lines
    assert lines[-1] == "stopped; run the same command again: it goes on where this run stopped"
    mortal.stop()
    mortal.start()
    assert shell.export("audit.jsonl").returncode == 0
    check_complete(mortal, 10_000, doubled=IN_FLIGHT * LARGEST_BATCH)


def test_a_signal_loses_and_doubles_nothing_if_the_receiver_answers(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "audit.jsonl", MANY)
    with shell.exporting("audit.jsonl", "--json") as process:
        receiver.wait_for(lambda r: r.spans(), TIMEOUT)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT)
    summary = json.loads(output)
    assert (summary["outcome"], summary["exit_code"]) == ("interrupted", 130)
    assert 0 < summary["exported"] == len(receiver.spans()) < MANY
    assert shell.summary("audit.jsonl")["exported"] == MANY
    check_complete(receiver, MANY)


def test_what_was_taken_from_standard_input_is_sent_before_a_signal_ends_it(
    shell: Shell, receiver: Receiver
) -> None:
    with shell.exporting("-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number in range(1_100):  # a batch, and some more
            process.stdin.write(f"{json.dumps(record(number))}\n".encode())
        process.stdin.flush()
        receiver.wait_for(lambda r: r.spans(), TIMEOUT)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        assert process.stderr is not None
        last = process.stderr.read().decode().splitlines()[-1]
    exported = action_ids(receiver.spans())
    assert len(exported) > 1_024
    assert exported == actions(range(len(exported)))
    assert last.startswith("stopped; run it again from the beginning: spans have the same ids")


def test_several_files_go_on_in_the_one_that_was_broken_off(
    tmp_path: Path, mortal: Receiver
) -> None:
    Jsonl(tmp_path / "a.jsonl").add(*map(record, range(2_000))).add_text('{"cut off')
    Jsonl(tmp_path / "b.jsonl").add(*map(record, range(2_000, 6_000)))
    mortal.start(takes=4, then="die")
    shell = shell_for(mortal, tmp_path)
    assert shell.export("a.jsonl", "b.jsonl", "--patience", "0.2").returncode == 3
    mortal.stop()
    mortal.start()
    summary = shell.summary("a.jsonl", "b.jsonl")
    assert (summary["exported"], summary["cut_off"], summary["exit_code"]) == (6_000, 1, 1)
    check_complete(mortal, 6_000)


def test_a_file_that_is_cut_while_it_is_read_is_told_of(tmp_path: Path, mortal: Receiver) -> None:
    trail(tmp_path / "audit.jsonl", 10_000)
    (tmp_path / "audit.jsonl.1").write_bytes((tmp_path / "audit.jsonl").read_bytes())
    mortal.start(takes=2, then="die")
    shell = shell_for(mortal, tmp_path)
    kept = ("--checkpoint", "night.json")
    with shell.exporting("audit.jsonl", *kept) as process:
        mortal.wait_for_end()
        (tmp_path / "audit.jsonl").write_bytes(b"")
        mortal.start()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "audit.jsonl: it was cut while it was read; " in errors.decode()
    assert shell.export("audit.jsonl.1", "audit.jsonl", *kept).returncode == 0
    check_complete(mortal, 10_000)


def test_a_checkpoint_that_cannot_be_written_any_more_is_not_nothing_done(
    tmp_path: Path, mortal: Receiver
) -> None:
    trail(tmp_path / "audit.jsonl", 10_000)
    place = tmp_path / "state"
    place.mkdir()
    mortal.start(takes=5, then="die")
    shell = shell_for(mortal, tmp_path)
    with shell.exporting("audit.jsonl", "--checkpoint", "state/night.json") as process:
        mortal.wait_for_end()
        place.rename(tmp_path / "elsewhere")
        mortal.start()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 3
    lines = errors.decode().splitlines()
    assert "export stopped: how far it has come could not be kept; " in lines[-7]
    assert f"{place / 'night.json'}: the checkpoint cannot be written: " in lines[-2]
    assert lines[-1].endswith(": it goes on where this run stopped")
    place.mkdir()
    (tmp_path / "elsewhere" / "night.json").rename(place / "night.json")
    assert shell.export("audit.jsonl", "--checkpoint", "state/night.json").returncode == 0
    check_complete(mortal, 10_000, doubled=4 * LARGEST_BATCH)


def test_beginning_anew_sends_everything_again_with_the_same_ids(
    tmp_path: Path, mortal: Receiver
) -> None:
    trail(tmp_path / "audit.jsonl", 3_000)
    mortal.start(takes=2, then="die")
    shell = shell_for(mortal, tmp_path)
    assert shell.export("audit.jsonl", "--patience", "0.2").returncode == 3
    sent = len(mortal.spans())
    mortal.stop()
    mortal.start()
    summary = shell.summary("audit.jsonl", "--restart")
    assert (summary["exported"], summary["read_before"]) == (3_000, 0)
    twice = [n for n in Counter(span.span_id for span in mortal.spans()).values() if n == 2]
    assert len(twice) == sent > 0


def test_another_command_knows_nothing_of_it(tmp_path: Path, mortal: Receiver) -> None:
    trail(tmp_path / "audit.jsonl", 3_000)
    mortal.start(takes=2, then="die")
    shell = shell_for(mortal, tmp_path)
    assert shell.export("audit.jsonl", "--patience", "0.2").returncode == 3
    summary = shell.summary("audit.jsonl", "--dry-run", "--failed")
    assert (summary["read"], summary["read_before"]) == (3_000, 0)
    # And what would be done is told without its being done.
    dry = shell.summary("audit.jsonl", "--dry-run")
    assert (dry["to_export"], dry["read_before"] > 0) == (3_000, True)
    assert len(shell.checkpoints()) == 1


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for_growth(path: Path, process: subprocess.Popen[bytes]) -> None:
    before = size(path)
    deadline = time.monotonic() + TIMEOUT
    while size(path) < before + 500_000:
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)
