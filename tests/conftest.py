# SPDX-License-Identifier: Apache-2.0
"""What every test gets: our own faults raised, and nothing of ours left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from agent_kernel_otel.faults import faults
from tests.support import counting


@pytest.fixture(autouse=True)
def _our_faults_are_raised() -> Iterator[None]:
    faults.reraise = True
    yield
    faults.reraise = False


@pytest.fixture(autouse=True)
def _counts_begin_anew() -> None:
    counting.begin_anew()


@pytest.fixture(autouse=True)
def _no_context_is_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    lost = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name == "opentelemetry.context" and record.levelno >= logging.ERROR
    ]
    assert not lost, f"OpenTelemetry failed to detach a context: {lost}"
