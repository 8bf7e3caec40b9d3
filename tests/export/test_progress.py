# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees while it runs, and that nothing is left of it."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent_kernel_otel.export.progress import Progress
from agent_kernel_otel.export.summary import Counts, Summary, duration, one_line
from tests.export.harness import TIMEOUT, Receiver, Shell, command, trail


class Terminal(io.StringIO):
    """A terminal that can be read: a carriage return goes back, and what is there is written over."""

    def __init__(self, columns: int = 80, encoding: str = "utf-8") -> None:
        super().__init__()
        self.columns = columns
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 99

    def lines(self) -> list[str]:
        """What is to be seen."""
        return seen(self.getvalue())


def seen(written: str) -> list[str]:
    lines = []
    for text in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in text.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((terminal.columns, 24)))
    return terminal


def progress_on(terminal: Terminal, clock: Clock) -> Progress:
    progress = Progress(terminal, is_wanted=True, clock=clock)
    progress.begin("exporting")
    progress.show(0, 0.0)
    return progress


def test_the_line_has_the_share_the_rate_and_the_time_left(
    terminal: Terminal, clock: Clock
) -> None:
    progress = progress_on(terminal, clock)
    clock.now = 10.0
    progress.show(200_000, 0.25)
    (line,) = terminal.lines()
    assert re.fullmatch(r"exporting  25%  █+░+  200,000 records  20,000 records/s  30 s left", line)
    clock.now = 20.0
    progress.show(400_000, 0.5, "waiting for the receiver")
    (line,) = terminal.lines()
    assert line.endswith("  20,000 records/s  waiting for the receiver")


def test_what_an_earlier_run_did_is_not_counted_as_fast(terminal: Terminal, clock: Clock) -> None:
    progress = Progress(terminal, is_wanted=True, clock=clock)
    progress.begin("exporting")
    progress.show(500_000, 0.5)
    clock.now = 10.0
    progress.show(600_000, 0.6)
    assert terminal.lines()[0].endswith("600,000 records  10,000 records/s  40 s left")


def test_where_nobody_knows_how_much_there_is_no_share_is_shown(
    terminal: Terminal, clock: Clock
) -> None:
    progress = progress_on(terminal, clock)
    clock.now = 1.0
    progress.show(9, None)
    assert terminal.lines() == ["exporting  9 records  9 records/s"]


@pytest.mark.parametrize("columns", range(4, 140, 3))
def test_it_is_one_line_however_wide_the_terminal_is(
    terminal: Terminal, clock: Clock, columns: int
) -> None:
    terminal.columns = columns
    progress = progress_on(terminal, clock)
    for clock.now in (10.0, 20.0):
        progress.show(200_000 * int(clock.now), 0.25)
        assert "\n" not in terminal.getvalue()
        assert all(len(part) < columns for part in terminal.getvalue().split("\r"))


def test_notices_stand_above_it(terminal: Terminal, clock: Clock) -> None:
    progress = progress_on(terminal, clock)
    clock.now = 10.0
    progress.show(200_000, 0.25)
    line = terminal.lines()[0]
    progress.notice("audit.jsonl: line 12: is no JSON\x1b[2J")
    assert terminal.lines() == [
        "audit.jsonl: line 12: is no JSON\N{REPLACEMENT CHARACTER}[2J",
        line,
    ]
    progress.end()
    progress.notice("the end")
    progress.show(300_000, 0.5)
    assert terminal.lines()[1:] == ["the end", ""]


def test_it_is_drawn_at_most_ten_times_a_second(terminal: Terminal, clock: Clock) -> None:
    progress = progress_on(terminal, clock)
    before = terminal.getvalue()
    clock.now = 0.05
    progress.show(1_000, 0.1)
    assert terminal.getvalue() == before


def test_a_terminal_without_the_characters_gets_others(terminal: Terminal, clock: Clock) -> None:
    plain = Terminal(encoding="ascii")
    progress = progress_on(plain, clock)
    clock.now = 10.0
    progress.show(200_000, 0.25)
    assert re.match(r"exporting  25%  #+-+  200,000", plain.lines()[0])


def test_what_is_no_terminal_gets_notices_only(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream, is_wanted=True, clock=clock)
    progress.show(1, 0.5)
    progress.notice("a notice")
    progress.end()
    assert stream.getvalue() == "a notice\n"


def test_a_stream_that_nobody_reads_any_more_stops_nothing(clock: Clock) -> None:
    stream = Terminal()
    progress = progress_on(stream, clock)
    stream.close()
    progress.notice("a notice")
    progress.end()


# The real one ------------------------------------------------------------------------------------

pty = pytest.importorskip("pty") if sys.platform != "win32" else None
on_a_terminal = pytest.mark.skipif(pty is None, reason="there are no terminals to be had")


def on_terminal(shell: Shell, *arguments: str, columns: int = 80) -> tuple[int, str]:
    """Runs the command on a terminal, and gives its exit code and what it wrote."""
    import fcntl
    import termios

    assert pty is not None
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command(*arguments),
        env={**shell.environment, "TERM": "xterm"},
        cwd=shell.directory,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            written += part
        return process.wait(TIMEOUT), written.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@on_a_terminal
@pytest.mark.parametrize("columns", [50, 100])
def test_a_terminal_sees_it_grow_and_then_the_summary_only(
    shell: Shell, receiver: Receiver, columns: int
) -> None:
    trail(shell.directory / "audit.jsonl", 10_000).add_text("no record\n")
    code, written = on_terminal(shell, "audit.jsonl", columns=columns)
    assert code == 1
    shares = [int(share) for share in re.findall(r"exporting +(\d+)%", written)]
    assert shares == sorted(shares)
    assert shares
    assert all(len(part) < columns for part in written.split("\r") if "exporting" in part)
    lines = seen(written)
    assert lines[0].startswith("audit.jsonl: line 10001: ")
    assert lines[1].startswith("export finished, but some records failed; ")
    assert not any("exporting" in line for line in lines)


@on_a_terminal
def test_a_terminal_that_does_not_want_it_sees_the_summary_only(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    code, written = on_terminal(shell, "audit.jsonl", "--no-progress")
    assert code == 0
    assert written.startswith("export complete")


def test_a_name_cannot_write_to_the_terminal(shell: Shell) -> None:
    trail(shell.directory / "a\x1b[31m.jsonl", 1).add_text("no record\n")
    done = shell.export("a\x1b[31m.jsonl")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


# The summary -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (3_599.6, "1:00 h"),
        (7_260, "2:01 h"),
    ],
)
def test_a_length_of_time_is_seen_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_a_receiver_says_is_one_short_line() -> None:
    summary = Summary(
        is_dry_run=False,
        exit_code=1,
        counts=Counts(rejected=1, unreadable=2),
        rejection="too\nold\x1b[2J" + "x" * 1_000,
    )
    lines = summary.text().splitlines()
    (told,) = [line for line in lines if "rejected" in line]
    assert told.startswith("  failed    3  2 could not be read, 1 rejected by the receiver: too")
    assert "\x1b" not in told
    assert len(told) < 300


def test_one_line_is_one_line() -> None:
    assert one_line("a\r\nb\tc\x00") == "a\ufffd\ufffdb\ufffdc\ufffd"
    assert one_line("Größe") == "Größe"


def test_the_path_of_an_endless_name_is_told_in_full(tmp_path: Path) -> None:
    assert one_line("x" * 5_000) == "x" * 5_000
