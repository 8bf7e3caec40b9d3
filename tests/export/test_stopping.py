# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end an export at once where there is nothing to wait for."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.export.harness import TIMEOUT, Shell, trail
from tests.export.scripted_collector import ScriptedCollector
from tests.export.sinks import HTTP
from tests.support.ports import free_port

both_signals = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
GO_ON = "stopped; run the same command again: it goes on where this run stopped"


def stop_while_it_waits(process: subprocess.Popen[bytes], number: int) -> list[str]:
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"waiting for ")
    process.send_signal(number)
    _, rest = process.communicate(timeout=TIMEOUT)
    return rest.decode().splitlines()


@both_signals
def test_a_receiver_that_is_away_is_not_waited_for_any_more(
    tmp_path: Path, number: int, code: int
) -> None:
    trail(tmp_path / "audit.jsonl", 5_000)
    shell = Shell(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    with shell.exporting("audit.jsonl", "--patience", "600") as process:
        lines = stop_while_it_waits(process, number)
    assert process.returncode == code
    assert lines[-1] == GO_ON
    assert not any("could not be delivered" in line for line in lines)


@both_signals
def test_a_wait_that_the_receiver_demands_is_ended(tmp_path: Path, number: int, code: int) -> None:
    trail(tmp_path / "audit.jsonl", 5_000)
    answer: dict[str, Any] = {"status": 429, "headers": {"Retry-After": "500"}}
    with ScriptedCollector(tmp_path, answer, protocol=HTTP) as collector:
        shell = Shell(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=HTTP,
        )
        with shell.exporting("audit.jsonl") as process:
            lines = stop_while_it_waits(process, number)
        assert process.returncode == code
        assert lines[-1] == GO_ON
        assert shell.export("audit.jsonl").returncode == 0
        assert len({span.span_id for span in collector.spans()}) == 5_000


def test_it_is_told_once_what_is_waited_for(tmp_path: Path) -> None:
    trail(tmp_path / "audit.jsonl", 10_000)
    with ScriptedCollector(tmp_path, *[{"delay": 1.0}] * 4) as collector:
        shell = Shell(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
        with shell.exporting("audit.jsonl") as process:
            collector.wait_for(lambda r: r.sizes(), TIMEOUT)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 130
        assert len(collector.sizes()) > 1
    assert told.count(b"stopping as soon as") == 1
