# SPDX-License-Identifier: Apache-2.0
"""``make stack``: it says where to look, and what is said there is true; Ctrl-C ends all of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distro.zero_code import environment
from tests.stack.asking import RunningJaeger, RunningPrometheus, eventually, get
from tests.stack.conftest import QUICK, SERVICE
from tests.stack.stack import ROOT


class Made:
    """A run of it, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.said = ""
        for line in process.stdout:
            self.said += line
            if line.startswith("Ctrl-C"):
                break

    def address(self, what: str) -> str:
        found = re.search(rf"^  {what} +(http://[\d.]+:\d+)/", self.said, re.MULTILINE)
        assert found, self.said
        return found[1]

    @property
    def folder(self) -> Path:
        found = re.search(r"^  files +(\S+)", self.said, re.MULTILINE)
        assert found, self.said
        return Path(found[1])


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stack"],
        cwd=ROOT,
        env=environment(**QUICK, TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.terminate()


@pytest.fixture
def made(started: subprocess.Popen[str]) -> Made:
    return Made(started)


def _processes_of(folder: Path) -> list[str]:
    """Processes that have to do with a folder: all but the demos have it in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
        if str(folder).encode() in told and int(process.name) != os.getpid():
            found.append(process.name)
    return found


@pytest.mark.parametrize("enough", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_what_it_says_is_true_and_nothing_is_left(made: Made, enough: signal.Signals) -> None:
    assert made.said, made.process.communicate()[1]
    jaeger = RunningJaeger(made.address("traces"))
    eventually(lambda: jaeger.services() >= {SERVICE})
    prometheus = RunningPrometheus(made.address("metrics"))
    eventually(lambda: prometheus.value("count(agent_kernel_info)") == 2)
    assert "Alertmanager" in get(re.search(r"(\S+)/#/alerts", made.said)[1])  # type: ignore[index]
    folder = made.folder
    assert len(_processes_of(folder)) >= 6
    made.process.send_signal(enough)
    _, errors = made.process.communicate()
    assert (made.process.returncode, errors) == (0, "")
    assert not folder.exists()
    assert _processes_of(folder) == []


def test_ctrl_c_while_it_starts_leaves_nothing_either(
    started: subprocess.Popen[str], tmp_path: Path
) -> None:
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    eventually(lambda: children.read_text().split())
    started.send_signal(signal.SIGINT)
    said, errors = started.communicate()
    assert (started.returncode, errors) == (0, "")
    assert "running" not in said
    assert list(tmp_path.iterdir()) == []
    assert _processes_of(tmp_path) == []


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "tests.stack"],
            cwd=ROOT,
            env=environment(**{**QUICK, "PROMETHEUS_PORT": port}),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == f"port {port} is taken: choose another one with PROMETHEUS_PORT=...\n"
