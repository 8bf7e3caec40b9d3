# SPDX-License-Identifier: Apache-2.0
"""What holds for every command: ``agent-kernel-otel COMMAND``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent_kernel_otel.cli import COMMANDS, main

ARGUMENTS = {
    "console": ("--", sys.executable, "-c", ""),
    "dashboards": (),
    "doctor": ("--offline",),
    "export": ("audit.jsonl",),
}
PACKAGES = {
    "opentelemetry": (
        "opentelemetry-api, opentelemetry-sdk, opentelemetry-exporter-otlp-proto-grpc, "
        "opentelemetry-instrumentation"
    ),
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-grpc",
}
WITHOUT = """
import sys
from agent_kernel_otel.cli import main

class Absent:
    def find_spec(self, name, path=None, target=None):
        if f"{name}.".startswith(("google.", f"{absent}.")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = sys.argv.pop(1)
for name in [name for name in sys.modules if f"{name}.".startswith(f"{absent}.")]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
sys.exit(main())
"""


@pytest.mark.parametrize("absent", PACKAGES)
@pytest.mark.parametrize("command", COMMANDS)
def test_where_opentelemetry_is_missing_one_line_says_what_to_install(
    command: str, absent: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, absent, command, *ARGUMENTS[command]],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if command == "dashboards":  # which needs nothing
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 2
    assert done.stderr == (
        f"agent-kernel-otel: {command} needs {PACKAGES[absent]}: pip install agent-kernel-otel\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["console", "app.py"], "unknown: app.py (a program to run goes after --)"),
        (["doctor", "app.py"], "unknown: app.py (a program to run goes after --)"),
        (["dashboards", "out"], "unknown: out (where to write goes after --output)"),
        (["export", "audit.jsonl", "--bogus"], "unknown: --bogus"),
    ],
)
def test_what_a_command_does_not_know_is_told_with_what_may_have_been_meant(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {told}\n")
