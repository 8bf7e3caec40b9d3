# SPDX-License-Identifier: Apache-2.0
"""An OTLP/gRPC receiver for tests, in a process of its own, that takes everything."""

from __future__ import annotations

from tests.support.faulty_collector import FaultyCollector
from tests.support.otlp_records import Item

__all__ = ["Item", "OtlpSink"]


class OtlpSink(FaultyCollector):
    """Starts the receiver, and reads what it received; a context manager."""

    def __init__(self) -> None:
        super().__init__("healthy")
