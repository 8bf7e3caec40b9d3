# SPDX-License-Identifier: Apache-2.0
"""The Weaver kernel, instrumented, and what it emits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.trace import get_current_span

from agent_kernel_otel import KernelInstrumentor
from tests.support.capture import Capture
from tests.support.peer import Peer, listening


@pytest.fixture
def capture() -> Iterator[Capture]:
    """Every kernel instrumented at level info; checked against semconv at the end."""
    captured = Capture()
    KernelInstrumentor().instrument(**captured.providers)
    yield captured
    KernelInstrumentor().uninstrument()
    assert not get_current_span().get_span_context().is_valid
    captured.check()


@pytest.fixture
def debug_capture() -> Iterator[Capture]:
    """The same at level debug."""
    captured = Capture()
    KernelInstrumentor().instrument(**captured.providers, span_level="debug")
    yield captured
    KernelInstrumentor().uninstrument()
    captured.check()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A server that keeps the requests that it gets."""
    with listening() as server:
        yield server
