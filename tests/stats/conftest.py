# SPDX-License-Identifier: Apache-2.0
"""What the tests of counting leave behind: nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from agent_kernel_otel.weaver.switching import switch


@pytest.fixture(autouse=True)
def _originals_return() -> Iterator[None]:
    """A kernel that goes away while it is counted keeps its class patched until the next switch."""
    yield
    gc.collect()
    with switch.lock:
        switch.update()
