# SPDX-License-Identifier: Apache-2.0
"""What the programs of the stack answer, asked as the helpers of the other tests ask theirs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

from tests.jaeger.running import Jaeger
from tests.prometheus.server import Prometheus
from tests.support.scraped import HANGS_AFTER

INTERVAL = 1.0
"""Seconds between two scrapes, and between two exports."""


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds that programs tell of only when they are asked.

    Raises:
        TimeoutError: It does not.
    """
    deadline = time.monotonic() + HANGS_AFTER
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.2)


def get(address: str) -> str:
    """The text at an address."""
    with urlopen(address, timeout=HANGS_AFTER) as answer:  # nothing but http is asked for
        return str(answer.read().decode())


def get_json(address: str) -> Any:
    """What the JSON at an address says."""
    return json.loads(get(address))


class RunningPrometheus(Prometheus):
    """One that has been started by somebody else."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._port = int(address.rpartition(":")[2])

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something holds; it is asked for again and again."""
        eventually(condition)


class RunningJaeger(Jaeger):
    """One that has been started by somebody else."""

    def __init__(self, address: str) -> None:
        self._ports = {"query": int(address.rpartition(":")[2])}
