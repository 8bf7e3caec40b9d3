# SPDX-License-Identifier: Apache-2.0
"""What the console can be asked to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConsoleOptions:
    """What the console is asked to do.

    Attributes:
        host: Address or name to listen on.
        grpc_port: Port for OTLP over gRPC, 0 for any free one.
        http_port: Port for OTLP over HTTP, 0 for any free one.
        database: File to keep telemetry in, None for memory.
        max_spans: Spans kept, and likewise log records.
        history: Whether to begin with what the database holds.
        json: Whether to write OTLP JSON instead of drawing.
        color: False for none, None to decide by the stream.
        attributes: Whether to show every attribute of every span.
        command: Program and arguments to run; empty to run until stopped.
    """

    host: str
    grpc_port: int
    http_port: int
    database: str | None
    max_spans: int
    history: bool
    json: bool
    color: bool | None
    attributes: bool
    command: tuple[str, ...]
