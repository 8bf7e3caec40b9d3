# SPDX-License-Identifier: Apache-2.0
"""Opens sinks that send to a real receiver, and makes the spans for them."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from contextlib import ExitStack

import pytest
from opentelemetry.sdk.resources import Resource

from agent_kernel_otel import semconv
from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.export.sending import open_otlp_sink
from agent_kernel_otel.export.sink import (
    Delivered,
    DeliveryError,
    Sink,
)
from tests.support.faulty_collector import Protocol

RESOURCE = Resource({"service.name": "agent-kernel-audit"})
GRPC: Protocol = "grpc"
HTTP: Protocol = "http/protobuf"
ANY_TIME = 60.0
SECRET = "s3cr3t-of-the-tenant-4711"

both = pytest.mark.parametrize("protocol", [GRPC, HTTP])


def spans(count: int, start: int = 0) -> list[ReplayedSpan]:
    return [
        ReplayedSpan(
            semconv.INVOKE,
            number.to_bytes(16, "big"),
            number.to_bytes(8, "big"),
            1_700_000_000_000_000_000 + number,
            {semconv.ACTION_ID: f"action-{number}", semconv.REPLAYED: True},
            failed=False,
            live=None,
        )
        for number in range(start + 1, start + count + 1)
    ]


class Opened:
    """Opens sinks, which are closed at the end, and keeps what they tell."""

    def __init__(self, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self._patch = patch
        self._stack = stack
        self.told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(
        self, endpoint: str | None, protocol: Protocol | None = None, patience: float = ANY_TIME
    ) -> Sink:
        if protocol is not None:
            self._patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        sink = open_otlp_sink(
            endpoint=endpoint, resource=RESOURCE, patience=patience, notify=self.told.put
        )
        self._stack.callback(sink.close)
        return sink


def delivered(future: Future[Delivered]) -> Delivered:
    return future.result(ANY_TIME)


def failure(future: Future[Delivered]) -> DeliveryError:
    with pytest.raises(DeliveryError) as failed:
        future.result(ANY_TIME)
    assert "\n" not in str(failed.value)
    return failed.value
