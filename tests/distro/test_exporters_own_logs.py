# SPDX-License-Identifier: Apache-2.0
"""An app that logs everything does not send what the exporters themselves log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distro.zero_code import KERNEL_APP, environment, run
from tests.support.faulty_collector import FaultyCollector, Protocol


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_export_gives_no_log_records_to_export(protocol: Protocol, tmp_path: Path) -> None:
    with FaultyCollector("healthy", protocol) as collector:
        run(
            str(KERNEL_APP),  # its root logger takes all levels
            env=environment(
                ORDERS_NONCE="of no importance here",
                AGENT_KERNEL_OTEL_REPORT=str(tmp_path / "report"),
                **collector.environment(),
            ),
        )
        (report,) = tmp_path.glob("report.*")
        books = json.loads(report.read_text())["telemetry"]["logs"]
        scopes = {log.scope.partition(".")[0] for log in collector.logs()}
    assert books["ended"] == books["sent"] > 0
    assert scopes == {"agent_kernel_otel", "orders", "weaver_kernel"}
