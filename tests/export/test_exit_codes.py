# SPDX-License-Identifier: Apache-2.0
"""Exit codes that scripts can rely on, whatever goes wrong, also with where it is written to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent_kernel_otel.audit.replay import Replay
from agent_kernel_otel.cli import main
from agent_kernel_otel.export import options, summary
from tests.export.harness import TIMEOUT, Receiver, Shell, command, trail

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no device that is full")


def typed(shell: Shell, redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What comes of the command with redirections of a POSIX shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *command("audit.jsonl", *arguments)],
        env=shell.environment,
        cwd=shell.directory,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.skipif(os.name != "posix", reason="the redirections are those of a POSIX shell")
@pytest.mark.parametrize(
    "redirections",
    [
        "2>&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        ">&-",
        pytest.param("2>/dev/full", marks=needs_full),
        pytest.param(">/dev/full 2>/dev/full", marks=needs_full),
    ],
)
def test_an_export_that_nobody_listens_to_exports(
    shell: Shell, receiver: Receiver, redirections: str
) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    done = typed(shell, redirections, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(receiver.spans()) == 3
    # And what is opened does not get the numbers that others write to.
    done = typed(shell, redirections, "--output", "spans.jsonl")
    assert done.returncode == 0
    assert (shell.directory / "spans.jsonl").read_text().startswith('{"resourceSpans"')
    assert typed(shell, redirections, "--since", "2026-01-01", "--links", "no").returncode == 2


@needs_full
def test_a_summary_that_does_not_fit_on_stdout_is_told_to_people(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "audit.jsonl", 3).add_text("no record\n")
    done = typed(shell, ">/dev/full", "--json")
    assert done.returncode == 1
    assert "export finished, but some records failed" in done.stderr
    assert "  exported  3  " in done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["nowhere.jsonl", "", "audit.jsonl --endpoint http://", "audit.jsonl --links nowhere"],
)
def test_what_cannot_even_begin_is_told_as_json_too(shell: Shell, arguments: str) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    done = shell.export(*arguments.split(), "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["outcome"], told["exit_code"], told["exported"]) == ("unusable", 2, 0)
    assert done.stderr == f"agent-kernel-otel: {told['problems'][0]}\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_fault_of_its_own_has_a_code_of_its_own_and_repeats_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a secret")

    trail(tmp_path / "audit.jsonl", 3)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Replay, "span_of", broken)
    arguments = [str(tmp_path / "audit.jsonl"), "--output", str(tmp_path / "spans")]
    assert main(["export", *arguments, *["--json"] * as_json]) == 70
    written = capsys.readouterr()
    assert "secret" not in written.out + written.err
    assert "Traceback" not in written.err
    if as_json:
        told = json.loads(written.out)
        assert (told["outcome"], told["exit_code"], told["exported"]) == ("fault", 70, 0)
        (problem,) = told["problems"]
    else:
        headline, *_, problem = written.err.splitlines()
        assert headline == "export stopped by a fault of its own"
    assert problem.startswith("KeyError at loop.py:")


@pytest.mark.parametrize("as_json", [True, False])
def test_so_has_one_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("a secret")

    monkeypatch.setattr(options.ExportOptions, "__init__", broken)
    assert main(["export", "audit.jsonl", *["--json"] * as_json]) == 70
    written = capsys.readouterr()
    assert written.err.startswith("agent-kernel-otel: KeyError at command.py:")
    assert written.err.count("\n") == 1
    assert bool(written.out) == as_json
    assert "secret" not in written.out + written.err


def test_every_exit_code_of_a_summary_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for code in summary._OUTCOMES:
        assert any(line.startswith(f"  {code:<4} ") for line in lines)
