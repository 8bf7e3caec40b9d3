# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot be read: nothing leaves that they might have kept back."""

from __future__ import annotations

import pytest

from agent_kernel_otel.config_file import PLACE
from tests.export.harness import KEY, Receiver, Shell, record, trail

FILE = """\
file_format: '1.0'
instrumentation/development:
  python:
    weaver_kernel:
      principal_id: {}
"""


def refusal(shell: Shell, receiver: Receiver, variables: dict[str, str]) -> str:
    """The one line of an export that ends before anything is sent."""
    trail(shell.directory / "audit.jsonl", 1)
    done = shell.export("audit.jsonl", **variables)  # type: ignore[arg-type] # variables only
    assert (done.returncode, done.stdout) == (2, "")
    assert receiver.spans() == []
    (line,) = done.stderr.splitlines()
    return line.removeprefix("agent-kernel-otel: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, " cannot be used: there is no such file"),
        (FILE.format("[off"), " cannot be used: line 6, column 1: expected"),
        (FILE.format("loud"), f": {PLACE}.principal_id='loud' cannot be read: expected one of"),
    ],
)
def test_a_bad_configuration_file_is_one_clear_line(
    shell: Shell, receiver: Receiver, text: str | None, problem: str
) -> None:
    if text is not None:
        (shell.directory / "otel.yaml").write_text(text)
    line = refusal(shell, receiver, {"OTEL_CONFIG_FILE": "otel.yaml"})
    assert line.removeprefix("OTEL_CONFIG_FILE=").startswith(f"otel.yaml{problem}")


def test_a_configuration_file_without_the_extra_is_one_clear_line(
    shell: Shell, receiver: Receiver
) -> None:
    (shell.directory / "jsonschema.py").write_text("raise ImportError('not installed')\n")
    (shell.directory / "otel.yaml").write_text(FILE.format("'off'"))
    path = f"{shell.directory}:{shell.environment['PYTHONPATH']}"
    line = refusal(shell, receiver, {"OTEL_CONFIG_FILE": "otel.yaml", "PYTHONPATH": path})
    assert line.endswith("not installed: pip install 'agent-kernel-otel[config]'")


@pytest.mark.parametrize("name", ["PRINCIPAL_ID", "SPAN_NAMING", "CAPTURE_CONTENT"])
def test_a_variable_that_cannot_be_read_is_one_clear_line(
    shell: Shell, receiver: Receiver, name: str
) -> None:
    line = refusal(shell, receiver, {f"OTEL_AGENT_KERNEL_{name}": "of"})
    assert line.startswith(f"OTEL_AGENT_KERNEL_{name}='of' cannot be read: expected ")


def test_the_principals_of_a_good_file_are_kept_back(shell: Shell, receiver: Receiver) -> None:
    (shell.directory / "otel.yaml").write_text(FILE.format("off"))
    trail(shell.directory / "audit.jsonl", 1)
    done = shell.export("audit.jsonl", OTEL_CONFIG_FILE="otel.yaml")
    assert done.returncode == 0
    assert len(receiver.spans()) == 1
    assert str(record(0)["principal_id"]).encode() not in receiver.raw_bytes()


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_the_chain_s_key(
    shell: Shell, receiver: Receiver, ending: str
) -> None:
    trail(shell.directory / "audit.jsonl", 2)
    (shell.directory / "key").write_bytes(f"\ufeff{KEY}{ending}".encode())
    done = shell.export("audit.jsonl", "--verify-chain", "--chain-key-file", "key")
    assert done.returncode == 0, done.stderr


def test_a_misspelt_setting_is_one_clear_line(shell: Shell, receiver: Receiver) -> None:
    line = refusal(shell, receiver, {"OTEL_AGENT_KERNEL_PRINCIPLE_ID": "off"})
    assert line == (
        "variable OTEL_AGENT_KERNEL_PRINCIPLE_ID is unknown; "
        "did you mean 'OTEL_AGENT_KERNEL_PRINCIPAL_ID'?"
    )
    file = shell.directory / "otel.yaml"
    file.write_text(FILE.format("'off'").replace("principal_id", "principal"))
    line = refusal(shell, receiver, {"OTEL_CONFIG_FILE": "otel.yaml"})
    assert f"{PLACE}.principal is unknown; did you mean 'principal_id'?" in line
