# SPDX-License-Identifier: Apache-2.0
"""A receiver with its store, in this process but reached over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent_kernel_otel.console.intake import Intake
from agent_kernel_otel.console.notices import Notices
from agent_kernel_otel.console.receiver import Receiver
from agent_kernel_otel.console.store import Store

MAX_REQUEST_BYTES = 1024 * 1024


@dataclass
class Receiving:
    store: Store
    receiver: Receiver
    notices: list[str]


@pytest.fixture
def receiving() -> Iterator[Receiving]:
    lines: list[str] = []
    store = Store()
    intake = Intake(store, Notices(lines.append), MAX_REQUEST_BYTES)
    receiver = Receiver(intake, "127.0.0.1", 0, 0)
    try:
        yield Receiving(store, receiver, lines)
    finally:
        receiver.stop()
        store.close()
