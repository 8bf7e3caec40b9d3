# SPDX-License-Identifier: Apache-2.0
"""A collector that is not there, or never answers: the app does and says what it does without us."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.distro.zero_code import KERNEL_APP, environment, run


@pytest.fixture(params=["refuses", "never answers"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a collector should be."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if request.param == "never answers":
            taken.listen()  # the kernel accepts; nobody ever reads
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_the_apps_output_and_exit_code_are_those_without_us(endpoint: str) -> None:
    nonce = "the same in both runs"
    bare = run(str(KERNEL_APP), env=environment(ORDERS_NONCE=nonce), instrumented=False)
    traced = run(
        str(KERNEL_APP),
        env=environment(
            ORDERS_NONCE=nonce,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        ),
    )
    assert bare.stdout
    assert _without_complaints(traced.stdout) == bare.stdout
    assert traced.returncode == bare.returncode
    assert "Traceback" not in traced.stderr


def _without_complaints(output: str) -> str:
    """What the app printed, less the exporter's own log records: the app prints all loggers'."""
    lines = output.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("opentelemetry."))
