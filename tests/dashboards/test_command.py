# SPDX-License-Identifier: Apache-2.0
"""``agent-kernel-otel dashboards`` writes what is shipped, with nothing but the package installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.dashboards.packaged import FILES

BUILDERS = "grafana_foundation_sdk"
BARE = f"import sys; sys.modules[{BUILDERS!r}] = None; from agent_kernel_otel.cli import main; sys.exit(main())"


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process that cannot import what builds dashboards."""
    return subprocess.run(
        [sys.executable, "-c", BARE, "dashboards", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def written(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


@pytest.mark.parametrize("folder", ["dashboards", "new/folder"])
def test_it_writes_each_dashboard_and_says_where(folder: str, tmp_path: Path) -> None:
    options = [] if folder == "dashboards" else ["--output", folder]
    done = command(*options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert written(tmp_path / folder) == FILES
    assert done.stdout.splitlines() == [str(Path(folder) / name) for name in FILES]


def test_it_overwrites_its_own_files_and_leaves_others(tmp_path: Path) -> None:
    name = next(iter(FILES))
    (tmp_path / name).write_text("old")
    (tmp_path / "mine.json").write_text("mine")
    assert command("--output", ".", cwd=tmp_path).returncode == 0
    assert written(tmp_path) == {**FILES, "mine.json": "mine"}


def test_a_place_that_it_cannot_write_to_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("--output", "file/below", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "agent-kernel-otel: cannot write to file/below: Not a directory; choose another --output\n"
    )


def test_it_runs_no_program(tmp_path: Path) -> None:
    done = command("--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "agent-kernel-otel: dashboards runs no command\n"
    assert not list(tmp_path.iterdir())
