# SPDX-License-Identifier: Apache-2.0
"""What a process tells of itself, and that telling never harms it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent_kernel_otel import KernelInstrumentor
from agent_kernel_otel.distro import report
from agent_kernel_otel.distro.report import (
    REPORT_VARIABLE,
    describe_process,
    write_report_if_asked,
)
from agent_kernel_otel.weaver.switching import patched_targets


def test_it_is_written_where_the_variable_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REPORT_VARIABLE, str(tmp_path / "report"))
    write_report_if_asked()
    (written,) = tmp_path.iterdir()
    assert written.name == f"report.{os.getpid()}"
    assert set(json.loads(written.read_text())) >= {
        *("pid", "telemetry", "configuration", "selection", "patched", "versions")
    }


def test_nothing_is_written_where_nobody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REPORT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    write_report_if_asked()
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REPORT_VARIABLE, str(tmp_path / "nowhere" / "report"))
    write_report_if_asked()


def test_a_part_that_cannot_be_told_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(report, "_telemetry", fail)
    described = describe_process()
    assert described["telemetry"] is None
    assert described["versions"]["opentelemetry-sdk"]


def test_what_is_patched_is_told_while_it_is() -> None:
    import weaver_kernel

    name = f"{weaver_kernel.Kernel.__module__}.Kernel"
    assert name not in patched_targets()
    KernelInstrumentor().instrument()
    try:
        patched = patched_targets()[name]
        assert {"invoke", "grant_capability", "_router"} <= set(patched)
    finally:
        KernelInstrumentor().uninstrument()
    assert name not in patched_targets()
